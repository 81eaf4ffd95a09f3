"""Does honest noise raise an attack alarm? And do attacks, on the same rows?  Streams of features, many seeds.

pendigits: 300 vouched rows, then 12 batches of 250, judged by 15 nearest neighbours, each row labelled by one of ten
sources at random. Honest: no noise; 30 % symmetric, asymmetric, instance-dependent; 20 % with a burst to 60 % in two batches. Attacks:
5 % of all rows.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from labelwright import noise
from labelwright.bench.pieces import USUAL, How, Job, Tick, percent, run_all, written
from labelwright.bench.provenance import provenance
from labelwright.datasets import load
from labelwright.learners import Learners, as_learner
from labelwright.loop import System
from labelwright.poison import Guarded, Watch
from labelwright.posterior import wilson
from labelwright.selection import QualityOnly
from labelwright.types import Batch, Floats, Ints

CLEAN, BATCHES, ROWS, SOURCES = 300, 12, 250, 10
HONEST = ("none", "symmetric", "asymmetric", "instance-dependent", "burst")
ATTACKS = ("far-first", "pair", "source", "slow")
SOURCE, TARGET, LIAR = 7, 1, "source 3"


def run(kind: str, seed: int, data_dir: str | None = None, dataset: str = "pendigits") -> dict[str, Any]:
    """One stream. Returns the kinds of attack alarms raised, the batch of the first, and how many labels were wrong."""
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.preprocessing import StandardScaler

    data, rng = load(dataset, data_dir), np.random.default_rng([seed, 8])
    at = rng.permutation(len(data.y))[: CLEAN + BATCHES * ROWS]
    X, y, classes = StandardScaler().fit_transform(data.X[at]).astype(np.float32), data.y[at], len(data.classes)
    sources = np.array([f"source {code}" for code in rng.integers(SOURCES, size=len(y))], object)
    given = y.copy()
    given[CLEAN:] = wrong_labels(kind, y[CLEAN:], X[CLEAN:], sources[CLEAN:], classes, rng)
    judge = as_learner(KNeighborsClassifier(15), classes=classes, seed=seed)
    learners = Learners(judge, judge)
    system = System(guard := Guarded(QualityOnly(learners), Watch(classes)), learners)
    for number, start in enumerate([0, *range(CLEAN, len(y), ROWS)]):
        part = slice(start, CLEAN if number == 0 else start + ROWS)
        n = len(y[part])
        system.step(Batch(f"b{number}", number, X[part], given[part], np.full(n, number == 0), sources=sources[part]))
    raised = [alarm for alarm in guard.watch.alarms if alarm.attack]
    return {
        "kind": kind,
        "seed": seed,
        "wrong": float((given != y)[CLEAN:].mean()),
        "alarms": [
            {
                "kind": a.kind,
                "true": a.true,
                "given": a.given,
                "source": a.source,
                "batch": a.batch,
                "rows": len(a.keys),
            }
            for a in raised
        ],
    }


def wrong_labels(kind: str, y: Ints, X: Floats, sources: Any, classes: int, rng: np.random.Generator) -> Ints:
    """(n,) given labels of one honest or dishonest stream."""
    from sklearn.linear_model import LogisticRegression

    def half(rate: float) -> noise.Corruption:
        return noise.symmetric(rate, classes=classes)

    if kind == "far-first":
        surrogate = LogisticRegression(max_iter=200).fit(X, y)
        return noise.far_first(0.05, surrogate.decision_function, classes=classes)(y, X, rng)
    if kind in ("burst", "slow"):
        mean = 0.05 * len(y) / max(int((y == SOURCE).sum()), 1)
        rates = {
            "burst": lambda number: 0.6 if number in (6, 7) else 0.2,
            "slow": lambda number: min(1.0, mean * 2 * (number + 0.5) / BATCHES),
        }[kind]
        model = half if kind == "burst" else lambda rate: noise.targeted(rate, SOURCE, TARGET)
        return noise.corrupt(y, None, model, rates, sizes=ROWS, rng=rng)
    share = min(1.0, 0.05 * len(y) / max(int((y == SOURCE).sum()), 1))
    liar = min(1.0, 0.05 * SOURCES)
    models: Mapping[str, Any] = {
        "none": half(0.0),
        "symmetric": half(0.3),
        "asymmetric": noise.asymmetric(0.3, noise.MNIST_PAIRS),
        "instance-dependent": noise.instance_dependent(0.3, classes),
        "pair": noise.targeted(share, SOURCE, TARGET),
        "source": noise.poisoned_source(half(liar), sources, LIAR),
    }
    return models[kind](y, X, rng)  # type: ignore[no-any-return]


def run_honest(dataset: str = "pendigits", how: How = USUAL) -> dict[str, Any]:
    """Every kind of noise on every seed (100 by default; attacks on a fifth of them). Writes ``poison-honest-<dataset>-<profile>.json``
    and ``.png`` into ``output``. device is not used."""
    seeds = how.range(100)
    jobs = [Job(one, kind, "watch") for kind in HONEST for one in seeds]
    jobs += [Job(one, kind, "watch") for kind in ATTACKS for one in seeds[: max(1, len(seeds) // 5)]]
    held = run_all(
        jobs,
        partial(_piece, data_dir=how.data_dir, dataset=dataset),
        folder=how.pieces(f"poison-honest-{dataset}"),
        steps=1,
        settings=f"{dataset} {CLEAN} {BATCHES} {ROWS} {SOURCES}",
        workers=how.workers,
        progress=how.progress,
    )
    told = {kind: _told(kind, records) for (kind, _), records in held.items()}
    result = {
        "experiment": "poison-honest",
        "dataset": dataset,
        "profile": how.profile,
        "seeds": len(seeds),
        "kinds": told,
        "provenance": provenance(how.command("poison-honest", dataset, len(seeds))),
    }
    written(result, how.file(f"poison-honest-{dataset}"), figure)
    return result


def _piece(job: Job, path: Path, tick: Tick, *, data_dir: str | None, dataset: str) -> dict[str, Any]:
    record = run(job.group, job.seed, data_dir, dataset)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))
    tick(path.stem)
    return record


def _told(kind: str, records: list[dict[str, Any]]) -> dict[str, Any]:
    quiet = sum(not record["alarms"] for record in records)
    right: Mapping[str, Callable[[Mapping[str, Any]], bool]] = {
        "pair": lambda a: a["kind"] == "pair" and (a["true"], a["given"]) == (SOURCE, TARGET),
        "source": lambda a: a["kind"] == "source" and a["source"] == LIAR,
        "far-first": lambda a: a["kind"] == "deep",
    }
    named = right.get("pair" if kind == "slow" else kind, _nothing)
    first = [min(a["batch"] for a in record["alarms"]) for record in records if record["alarms"]]
    return {
        "streams": len(records),
        "without_alarm": quiet,
        "interval": [round(float(end), 4) for end in wilson(quiet / len(records), len(records))],
        "named_rightly": sum(any(named(a) for a in record["alarms"]) for record in records),
        "wrong_labels": round(float(np.mean([record["wrong"] for record in records])), 4),
        "first_alarm_batch": None if not first else round(float(np.mean(first)), 2),
        "kinds": dict(Counter(a["kind"] for record in records for a in record["alarms"])),
    }


def _nothing(alarm: Mapping[str, Any]) -> bool:
    return False


def figure(result: Mapping[str, Any], path: Path) -> None:
    """Share of streams with an attack alarm, honest noise beside attacks."""
    from matplotlib.figure import Figure

    kinds = list(result["kinds"])
    shares = [100 - 100 * k["without_alarm"] / k["streams"] for k in result["kinds"].values()]
    drawn = Figure(figsize=(7, 3.2), layout="constrained")
    axis = drawn.subplots()
    colours = ["#bd4630" if kind in ATTACKS else "#2f6aa8" for kind in kinds]
    bars = axis.barh(kinds, shares, color=colours)
    axis.bar_label(bars, fmt="%.0f %%", padding=3, fontsize=8)
    axis.axvline(5, color="#8a929d", lw=1, ls=":")
    axis.set(xlabel="streams with an attack alarm, % (dotted: 5 %)", xlim=(0, 112))
    axis.invert_yaxis()
    axis.spines[["top", "right"]].set_visible(False)
    drawn.savefig(path, dpi=140)


def table(result: Mapping[str, Any]) -> list[list[str]]:
    """Head and rows."""
    rows = [["noise", "wrong labels", "streams", "without an alarm", "named rightly", "first alarm in batch"]]
    for kind, told in result["kinds"].items():
        attack = kind in ATTACKS
        rows.append([kind, percent(told["wrong_labels"]), str(told["streams"]), str(told["without_alarm"]),
                     str(told["named_rightly"]) if attack else "", str(told["first_alarm_batch"] or "")])  # fmt: skip
    return rows
