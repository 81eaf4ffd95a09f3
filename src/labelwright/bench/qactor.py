"""Deep QAL in the setting of QActor, the paper's deep successor (methods sections 3 and 8).

One network in both roles filters each batch and asks an expert about the rows it doubts most; queries by margin and CENT,
fixed and dynamic budgets of the same total, beside No-Sel, the filter alone and a perfect filter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from labelwright import queries
from labelwright.bench.deep import DeepStream, control, draw, networks, run_stream, start_state
from labelwright.bench.deep_figures import qactor_figure
from labelwright.bench.pieces import USUAL, How, Job, Tick, averaged, cells, percent, run_all, written
from labelwright.bench.profiles import Profile, Way, find_profile
from labelwright.bench.provenance import provenance
from labelwright.bench.table2 import SURE
from labelwright.experts import Oracle
from labelwright.imitation import NoImitator, SoftImitator
from labelwright.loop import System
from labelwright.queries import DynamicBudget, FixedBudget
from labelwright.selection import QualityOnly

METHODS = (
    "no-sel",
    "q-only",
    "fixed margin",
    "fixed cent",
    "dynamic margin",
    "dynamic cent",
    "dynamic margin+imitator",
    "opt-sel",
    "full-clean",
)
NOISES = ("30 %", "60 %")
QUERIES = 0.1
"""Questions a batch, of its rows: about 100 of QActor's 980."""
PUBLISHED: Mapping[tuple[str, str], Mapping[str, float]] = {
    ("cifar10", "30 %"): {"no-sel": 68.11, "q-only": 78.74, "fixed cent": 86.24, "dynamic cent": 86.31, "opt-sel": 88.52},
    ("cifar10", "60 %"): {"no-sel": 64.86, "q-only": 75.04, "fixed cent": 76.94, "dynamic cent": 77.83, "opt-sel": 85.19},
    ("cifar100", "30 %"): {"no-sel": 50.50, "q-only": 36.52, "fixed cent": 54.28, "dynamic cent": 54.74, "opt-sel": 59.29},
    ("cifar100", "60 %"): {"no-sel": 33.71, "q-only": 35.75, "fixed cent": 47.63, "dynamic cent": 48.40, "opt-sel": 52.67},
}  # fmt: skip


def setting_of(dataset: str, profile: str) -> Profile:
    """QActor's stream: 1,000 clean rows (5,000 with 100 classes), 50 batches of 980 (30) with 10 epochs each; compact: 20
    batches of 1,000, 4 epochs with replay."""
    found = find_profile(dataset, profile)
    clean = 5000 if dataset == "cifar100" else min(1000, found.clean)
    if profile == "compact":
        rows = min(1000, found.rows)
        count = min(20, found.batches * found.rows // rows)
        return replace(found, clean=clean, batches=count, rows=rows, first_epochs=40)
    batches, epochs = (30, 100) if dataset == "cifar100" else (50, 40)
    whole = found.clean + found.batches * found.rows
    rows = (whole - clean) // batches
    return replace(
        found, clean=clean, batches=batches, rows=rows, first_epochs=epochs, improved=Way(10, 4000, memory=50_000)
    )


def system(method: str, setting: Profile, stream: DeepStream, seed: int, *, device: str) -> System:
    """A method as a configuration of the loop; one network in both roles."""
    one = networks(setting, setting.improved, stream, seed, device=device, one=True)
    known = control(method, one, stream.truth)
    if known is not None:
        return known
    selector = QualityOnly(one, seed=seed)
    if method == "q-only":
        return System(selector, one)
    a_batch = round(QUERIES * setting.rows)
    total, measure = a_batch * setting.batches, queries.cent if "cent" in method else queries.margin
    budget = FixedBudget(a_batch, total=total, measure=measure)
    if "dynamic" in method:
        budget = DynamicBudget(total, batches=setting.batches, measure=measure)
    imitator = SoftImitator(SURE) if "imitator" in method else NoImitator()
    return System(selector, one, budget, Oracle(stream.truth), imitator)


def run_qactor(dataset: str = "cifar10", how: How = USUAL) -> dict[str, Any]:
    """Every method at 30 and 60 % noise on the same streams; finished pieces are not run again.

    Writes ``qactor-<dataset>-<profile>.json`` and ``.png`` into ``output``, pieces into ``output/pieces``.
    """
    setting = setting_of(dataset, how.profile)
    seeds = how.range(setting.seeds)
    folder = how.pieces(f"qactor-{dataset}")
    jobs = [Job(s, noise, method) for s in seeds for noise in NOISES for method in METHODS]
    piece = partial(_piece, setting=setting, folder=folder, device=how.device, data_dir=how.data_dir)
    found = run_all(
        jobs,
        piece,
        folder=folder,
        steps=setting.batches,
        settings=f"{QUERIES} {setting.settings}",
        more=len(seeds),
        workers=how.workers,
        progress=how.progress,
    )
    command = how.command("qactor", dataset, len(seeds))
    result: dict[str, Any] = {
        "experiment": "qactor",
        "dataset": dataset,
        "profile": how.profile,
        "seeds": len(seeds),
        "questions_a_batch": round(QUERIES * setting.rows),
        "noise": {noise: {m: averaged(found[noise, m]) for m in METHODS} for noise in NOISES},
        "provenance": provenance(command, how.device),
    }
    for noise, rows in result["noise"].items():
        for method, figure in PUBLISHED.get((dataset, noise), {}).items():
            rows[method] |= {"published": figure, "deviation": round(rows[method]["c"]["mean"] - figure, 2)}
    written(result, how.file(f"qactor-{dataset}"), qactor_figure)
    return result


def _piece(
    job: Job, path: Path, tick: Tick, *, setting: Profile, folder: Path, device: str, data_dir: str | None
) -> dict[str, Any]:
    rate = float(job.group.removesuffix(" %")) / 100
    stream = draw(setting, job.seed, data_dir, rates=lambda number: rate)
    d0 = job.folder(folder) / "d0.state"
    start = start_state(setting, stream, job.seed, d0, device=device, tick=tick, one=True)
    parts = system(job.method, setting, stream, job.seed, device=device)
    return run_stream(parts, stream, start=start, path=path, tick=tick)


def table(result: Mapping[str, Any]) -> list[list[str]]:
    """Head and rows for people."""
    rows = [["noise", "method", "accuracy", "±", "answers", "kept P", "kept R", "noise left", "QActor", "deviation"]]
    for noise, found in result["noise"].items():
        for name, row in found.items():
            rows.append(
                [
                    noise,
                    name,
                    *cells(row["c"]),
                    f"{row['asked']:.0f}",
                    percent(row.get("kept_precision")),
                    percent(row.get("kept_recall")),
                    percent(row.get("noise_left_mean")),
                    f"{row['published']:.2f}" if "published" in row else "",
                    f"{row['deviation']:+.2f}" if "deviation" in row else "",
                ]
            )
    return rows
