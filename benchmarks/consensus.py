"""Consensus of several raters: ours against crowd-kit, on simulated raters of known skill and on real ratings.

    python benchmarks/consensus.py [--vader FOLDER] [--seeds 5] [--output experiments/results/consensus.json]

Needs crowd-kit (pip install crowd-kit), which the project itself does not. FOLDER holds the *_anonDataRatings.txt files of the
source package of vaderSentiment 3.3.2 (inside hutto_ICWSM_2014.tar.gz). Real ratings have no truth: there the mean of all raters of a text
stands for it, and a few raters drawn for each text have to find it.
"""

from __future__ import annotations

import argparse
import ast
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from crowdkit.aggregation import DawidSkene, MajorityVote, OneCoinDawidSkene

from labelwright.bench.provenance import provenance
from labelwright.consensus import Ratings

Case = tuple[pd.DataFrame, np.ndarray, np.ndarray | None]
"""Columns task, worker, label; the true label of each task; the skill of each worker, where known."""


def simulated(skills: np.ndarray, n: int, k: int, each: int, *, sharp: bool, rng: np.random.Generator) -> Case:
    """Raters of these skills. sharp: wrong answers are always the next class (confusions), else any."""
    true = rng.integers(k, size=n)
    who = np.stack([rng.permutation(len(skills))[:each] for _ in range(n)])
    right = rng.random(who.shape) < skills[who]
    other = (true[:, None] + (1 if sharp else rng.integers(1, k, who.shape))) % k
    label = np.where(right, true[:, None], other)
    frame = pd.DataFrame({"task": np.repeat(np.arange(n), each), "worker": who.ravel(), "label": label.ravel()})
    return frame, true, skills


def cases(seed: int) -> dict[str, Case]:
    """Simulated settings, easy to hard."""
    rng = np.random.default_rng(seed)
    return {
        "20 raters 0.5 to 0.95, 5 a row, K 4": simulated(rng.uniform(0.5, 0.95, 20), 2000, 4, 5, sharp=False, rng=rng),
        "20 raters, wrong to the next class": simulated(rng.uniform(0.5, 0.95, 20), 2000, 4, 5, sharp=True, rng=rng),
        "half spammers, 7 a row, K 3": simulated(np.repeat([1 / 3, 0.85], 10), 1500, 3, 7, sharp=False, rng=rng),
        "200 raters with few answers, 3 a row, K 5": simulated(
            rng.uniform(0.4, 0.95, 200), 1500, 5, 3, sharp=False, rng=rng
        ),
        "two classes, 3 a row": simulated(rng.uniform(0.55, 0.95, 30), 2000, 2, 3, sharp=False, rng=rng),
        "100 classes, 5 a row": simulated(rng.uniform(0.4, 0.9, 40), 3000, 100, 5, sharp=False, rng=rng),
    }


def vader(folder: Path, seed: int, each: int = 5) -> Case:
    """Real ratings as three classes (negative, neither, positive); ``each`` raters a text, told apart by their places."""
    rng, rows, truth = np.random.default_rng(seed), [], []
    for path in sorted(folder.glob("*_anonDataRatings.txt")):
        for line in path.read_text(encoding="utf-8-sig").splitlines():
            mean, values = float(line.split("\t")[1]), ast.literal_eval(line.split("\t")[3])
            for place in rng.permutation(len(values))[:each]:
                value = values[place]
                rows.append((len(truth), f"{path.stem[:5]}-{place}", int(value > 0) - int(value < 0) + 1))
            truth.append(int(mean > 0.5) - int(mean < -0.5) + 1)
    return pd.DataFrame(rows, columns=["task", "worker", "label"]), np.array(truth), None


def ours(model: str) -> Callable[[pd.DataFrame, int], tuple[np.ndarray, np.ndarray | None]]:
    """(proba (n, K), skills by worker) by this project."""

    def run(frame: pd.DataFrame, k: int) -> tuple[np.ndarray, np.ndarray | None]:
        ratings = Ratings.of(*(frame[c].tolist() for c in ("task", "worker", "label")), classes=range(k))
        found = ratings.consensus(model)
        return found.proba, found.skill

    return run


def theirs(make: Callable[[], Any]) -> Callable[[pd.DataFrame, int], tuple[np.ndarray, np.ndarray | None]]:
    """The same by crowd-kit."""

    def run(frame: pd.DataFrame, k: int) -> tuple[np.ndarray, np.ndarray | None]:
        proba = make().fit_predict_proba(frame)
        return proba.reindex(columns=range(k), fill_value=0.0).sort_index().to_numpy(), None

    return run


METHODS = {
    "majority (crowd-kit)": theirs(MajorityVote),
    "one-coin (crowd-kit)": theirs(lambda: OneCoinDawidSkene(n_iter=100)),
    "Dawid-Skene (crowd-kit)": theirs(lambda: DawidSkene(n_iter=100)),
    "one-coin (ours)": ours("one-coin"),
    "Dawid-Skene (ours)": ours("dawid-skene"),
}


def measured(case: Case) -> dict[str, dict[str, float]]:
    """Accuracy in percent, log-loss in nats and seconds of each method; error of our skills where they are known."""
    frame, true, skills = case
    k, out = int(true.max()) + 1, {}
    for name, method in METHODS.items():
        start = time.perf_counter()
        proba, found = method(frame, k)
        row = {
            "seconds": time.perf_counter() - start,
            "accuracy": 100 * float((proba.argmax(axis=1) == true).mean()),
            "log_loss": float(-np.log(np.clip(proba[np.arange(len(true)), true], 1e-4, None)).mean()),
        }
        if skills is not None and found is not None:
            row["skill_error"] = float(np.abs(found - skills[np.sort(frame.worker.unique())]).mean())
        out[name] = row
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vader", type=Path, help="folder of the real ratings")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("experiments/results/consensus.json"))
    given = parser.parse_args()
    runs: dict[str, list[dict[str, dict[str, float]]]] = {}
    for seed in range(given.seeds):
        settings = cases(seed) | ({"vaderSentiment, 5 a text": vader(given.vader, seed)} if given.vader else {})
        for name, case in settings.items():
            runs.setdefault(name, []).append(measured(case))
    result: dict[str, Any] = {"experiment": "consensus", "seeds": given.seeds, "cases": {}}
    for name, found in runs.items():
        result["cases"][name] = {
            method: {
                value: round(float(np.mean([run[method][value] for run in found])), 4) for value in found[0][method]
            }
            for method in METHODS
        }
        print(f"\n{name}")
        for method, row in result["cases"][name].items():
            print(f"  {method:26s}" + "".join(f"  {value} {number:8.3f}" for value, number in row.items()))
    result["provenance"] = provenance("python benchmarks/consensus.py --vader FOLDER")
    given.output.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
