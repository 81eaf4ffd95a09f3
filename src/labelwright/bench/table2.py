"""Table II of the paper: No-Sel, RAD Duo and Full-Clean with networks, by the paper's way of training and an improved one.

Every comparison is within one way: No-Sel and Full-Clean train by the same replay, averaging and epochs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from labelwright.baselines.omniscient import FullClean
from labelwright.bench.deep import DeepStream, Tick, draw, final_accuracies, networks, run_stream, start_state
from labelwright.bench.profiles import Profile, find_profile
from labelwright.bench.provenance import provenance
from labelwright.imitation import NoImitator, PosteriorImitator, SoftImitator
from labelwright.loop import System
from labelwright.selection import NoSelection, RadDuo, Slim

RECIPES = ("paper", "improved")
METHODS: Mapping[str, tuple[str, ...]] = {
    "paper": ("no-sel", "rad-duo", "full-clean"),
    "improved": ("no-sel", "rad-duo", "rad-duo+correct", "rad-duo+soft", "full-clean"),
}
ABLATIONS = ("rad-duo+buffer", "slim", "slim+soft")
BEST = "rad-duo+soft"
"""The improved variant that headlines quote, named beforehand."""
BUFFER = 1000
SURE = 0.9


def system(
    method: str, profile: Profile, recipe: str, stream: DeepStream, seed: int, *, device: str = "auto"
) -> System:
    """A method as a configuration of the loop."""
    slim = method.startswith("slim")
    both = networks(profile, profile.way(recipe), stream, seed, device=device, one=slim)
    if method == "no-sel":
        return System(NoSelection(both, estimate_noise=False), both)
    if method == "full-clean":
        return System(FullClean(both, stream.truth, estimate_noise=False), both)
    buffer = BUFFER if "buffer" in method else 0
    soft = "soft" in method
    selector = (Slim if slim else RadDuo)(both, buffer=buffer, both=soft, seed=seed)
    imitators = {"soft": SoftImitator(SURE), "correct": PosteriorImitator(SURE)}
    return System(selector, both, imitator=imitators.get(method.partition("+")[2], NoImitator()))


def run_table2(
    dataset: str,
    *,
    profile: str = "compact",
    seeds: int | None = None,
    seed: int = 0,
    device: str = "auto",
    data_dir: str | None = None,
    output: Path = Path("experiments/results"),
    recipes: Sequence[str] = RECIPES,
    ablations: bool = False,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> dict[str, Any]:
    """Every method of both ways on the same rows, networks and seeds; finished pieces are not run again.

    Writes ``table2-<dataset>-<profile>.json`` and ``.png`` into ``output``, pieces into ``output/pieces``.
    """
    setting = find_profile(dataset, profile)
    count = setting.seeds if seeds is None else seeds
    jobs = [
        (s, recipe, method)
        for s in range(seed, seed + count)
        for recipe in recipes
        for method in (*METHODS[recipe], *(ABLATIONS if ablations and recipe == "improved" else ()))
    ]
    total, done = len(jobs) * setting.batches + count, 0

    def tick(what: str) -> None:
        nonlocal done
        done += 1
        progress(what, done, total)

    found: dict[str, list[dict[str, Any]]] = {}
    for s, recipe, method in jobs:
        folder = output / "pieces" / f"table2-{dataset}-{profile}" / f"seed-{s}"
        record = run_piece(setting, s, recipe, method, folder, device=device, data_dir=data_dir, tick=tick)
        found.setdefault(f"{recipe}/{method}", []).append(record)
    for s in range(seed, seed + count):
        folder = output / "pieces" / f"table2-{dataset}-{profile}" / f"seed-{s}"
        found.setdefault("d0-only", []).append(json.loads((folder / "d0.json").read_text()))
    command = f"labelwright bench table2 --dataset {dataset} --profile {profile} --seeds {count}"
    result = assembled(setting, found, provenance(command))
    output.mkdir(parents=True, exist_ok=True)
    (output / f"table2-{dataset}-{profile}.json").write_text(json.dumps(result, indent=1))
    from labelwright.bench.deep_figures import table2_figure

    table2_figure(result, output / f"table2-{dataset}-{profile}.png")
    return result


def run_piece(
    setting: Profile,
    seed: int,
    recipe: str,
    method: str,
    folder: Path,
    *,
    device: str,
    data_dir: str | None,
    tick: Tick,
) -> dict[str, Any]:
    """One method by one way on one seed; read back when it ran before."""
    path, d0 = folder / f"{recipe}-{method}.json", folder / "d0.json"
    if path.exists() and d0.exists():
        for _ in range(setting.batches):
            tick(path.stem)
        return dict(json.loads(path.read_text()))
    stream = draw(setting, seed, data_dir)
    start = start_state(setting, stream, seed, folder / "d0.state", device=device, tick=tick)
    if not d0.exists():
        alone = networks(setting, setting.paper, stream, seed, device=device)
        alone.restore(start["learners"], stream.fetch)
        d0.write_text(json.dumps({**final_accuracies(alone, stream), "training_s": float(start["seconds"])}))
    begun: Mapping[str, Any] = start
    if method.startswith("slim"):  # the classifier alone
        begun = {"learners": {"learner-0": start["learners"]["learner-1"]}}
    parts = system(method, setting, recipe, stream, seed, device=device)
    return run_stream(parts, stream, start=begun, path=path, tick=tick)


def assembled(
    setting: Profile, found: Mapping[str, Sequence[Mapping[str, Any]]], origin: Mapping[str, Any]
) -> dict[str, Any]:
    """Means, intervals, what was recovered between No-Sel and Full-Clean of the same way, and the paper's figures."""
    methods = {name: _averaged(runs) for name, runs in found.items()}
    for name, row in methods.items():
        recipe, _, method = name.partition("/")
        low, high = methods.get(f"{recipe}/no-sel"), methods.get(f"{recipe}/full-clean")
        if method and low and high:
            row["recovered"] = {
                who: _share(row[who]["mean"], low[who]["mean"], high[who]["mean"]) for who in ("c", "mean")
            }
        published = (setting.published or {}).get(method)
        if published is not None and recipe == "paper":
            row["published"] = published
            row["deviation"] = round(row["c"]["mean"] - published, 2)
    return {
        "experiment": "table2",
        "dataset": setting.dataset,
        "profile": setting.name,
        "noise": setting.noise,
        "seeds": len(found["d0-only"]),
        "best": BEST,
        "methods": methods,
        "provenance": dict(origin),
    }


def _share(value: float, low: float, high: float) -> float | None:
    """Of the way from ``low`` to ``high``; None where there is no way."""
    return round((value - low) / (high - low), 4) if high - low > 1e-9 else None


def _averaged(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {
        who: mean_and_interval([run[who] for run in runs]) for who in ("c", "l", "mean") if who in runs[0]
    }
    for name in ("kept_precision", "kept_recall", "noise_left_mean", "noise_estimate", "transition_error", "asked"):
        values = [run[name] for run in runs if run.get(name) is not None]
        if values:
            out[name] = round(float(np.mean(values)), 4)
    for name in ("judging_s", "training_s"):
        if name in runs[0]:
            out[name] = round(float(np.mean([run[name] for run in runs])), 1)
    for name in ("curve", "epochs", "noise_left"):
        if runs[0].get(name):
            out[name] = np.mean([run[name] for run in runs], axis=0).round(4).tolist()
    return out


def mean_and_interval(values: Sequence[float]) -> dict[str, Any]:
    """Mean, half-width of the 95 % interval by Student's t (None for one value), and the values.

    >>> mean_and_interval([1.0, 3.0])["mean"]
    2.0
    """
    from scipy.stats import t

    n, half = len(values), None
    if n > 1:
        half = round(float(t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n)), 3)
    return {"mean": round(float(np.mean(values)), 3), "ci95": half, "values": [round(float(v), 3) for v in values]}


def table(result: Mapping[str, Any]) -> list[list[str]]:
    """Head and rows for people: accuracies in percent."""
    rows = [["way", "method", "C alone", "±", "L and C", "±", "recovered C / both", "kept P / R", "noise left", "η est.",
             "judging s", "training s", "paper", "deviation"]]  # fmt: skip
    for name, row in result["methods"].items():
        recipe, _, method = name.partition("/")
        share = row.get("recovered", {})
        told = [_percent(share.get(who)) for who in ("c", "mean")] if share else ["", ""]
        kept = [_percent(row.get(which)) for which in ("kept_precision", "kept_recall")]
        rows.append(
            [
                recipe if method else "",
                method or name,
                *(cell for who in ("c", "mean") for cell in _cells(row.get(who))),
                " / ".join(told) if share else "",
                " / ".join(kept) if any(kept) else "",
                _percent(row.get("noise_left_mean")),
                _percent(row.get("noise_estimate")) if method.startswith(("rad", "slim")) else "",
                f"{row['judging_s']:.0f}" if "judging_s" in row else "",
                f"{row['training_s']:.0f}" if "training_s" in row else "",
                f"{row['published']:.2f}" if "published" in row else "",
                f"{row['deviation']:+.2f}" if "deviation" in row else "",
            ]
        )
    return rows


def _cells(value: Mapping[str, Any] | None) -> list[str]:
    if value is None:
        return ["", ""]
    return [f"{value['mean']:.2f}", "" if value["ci95"] is None else f"{value['ci95']:.2f}"]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"
