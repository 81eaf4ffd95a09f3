"""The whole framework on one stream (methods section 8): each strategy added to the one before, and what it gains.

No-Sel, then the filter (RAD Duo), the filter and an expert (fixed and dynamic budget, margin and CENT), all of them and an
imitator (the posterior of section 5, or CopyNet's Expert, which learns from the answers), and Full-Clean; under constant,
bursty and changing noise.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from labelwright import queries
from labelwright.bench.deep import DeepStream, Record, WatchedLearners, control, draw, networks, run_stream, start_state
from labelwright.bench.deep_figures import framework_figure
from labelwright.bench.pieces import (
    USUAL,
    How,
    Job,
    Tick,
    averaged,
    cells,
    mean_and_interval,
    percent,
    run_all,
    written,
)
from labelwright.bench.profiles import Profile, find_profile
from labelwright.bench.provenance import provenance
from labelwright.bench.table2 import SURE
from labelwright.experts import NoExpert, Oracle
from labelwright.imitation import CopyImitator, Imitator, NoImitator, PosteriorImitator, SoftImitator
from labelwright.learners import Learners, Refit
from labelwright.loop import System
from labelwright.noise.schedules import Schedule, bursts, constant, linear
from labelwright.queries import DynamicBudget, FixedBudget
from labelwright.selection import RadDuo

NOISES = ("constant", "bursty", "changing")
STRATEGIES = (
    "no-sel",
    "filter",
    "filter+expert fixed margin",
    "filter+expert fixed cent",
    "filter+expert dynamic margin",
    "filter+expert dynamic cent",
    "filter+expert+imitator",
    "filter+expert+copynet",
    "full-clean",
)
ASKED_SHARE = 0.05
"""Questions a batch, of its rows."""
PENDIGITS = (150, 18, 50, 5)
"""D0, batches, rows and questions a batch, as in methods section 3."""


def schedule(noise: str, batches: int, seed: int) -> Schedule:
    """Share of wrong labels in each batch: 30 % always; 10 % with bursts of 70 %; from 10 % evenly to 50 %."""
    rng = np.random.default_rng([seed, 9])
    kinds: dict[str, Callable[[], Schedule]] = {
        "constant": lambda: constant(0.3),
        "bursty": lambda: bursts(0.1, 0.7, chance=1 / 3, rng=rng),
        "changing": lambda: linear(0.1, 0.5, batches=batches),
    }
    return kinds[noise]()


def system(strategy: str, learners: Learners, stream: Any, *, batches: int, per_batch: int, soft: bool) -> System:
    """A strategy as a configuration of the loop. soft: the learners take soft labels."""
    known = control(strategy, learners, stream.truth)
    if known is not None:
        return known
    measure = queries.cent if "cent" in strategy else queries.margin
    total = per_batch * batches
    budget: FixedBudget = FixedBudget(0)
    if "expert" in strategy:
        dynamic = "fixed" not in strategy
        budget = (
            DynamicBudget(total, batches=batches, measure=measure)
            if dynamic
            else FixedBudget(per_batch, total=total, measure=measure)
        )
    imitator: Imitator = NoImitator()
    if strategy.endswith("+copynet"):
        imitator = CopyImitator(SURE, soft=soft)
    elif strategy.endswith("+imitator"):
        imitator = SoftImitator(SURE) if soft else PosteriorImitator(SURE)
    imitating = not isinstance(imitator, NoImitator)
    selector = RadDuo(learners, both=imitating)
    return System(selector, learners, budget, Oracle(stream.truth) if "expert" in strategy else NoExpert(), imitator)


def run_framework(
    dataset: str,
    how: How = USUAL,
    *,
    noises: Sequence[str] = NOISES,
) -> dict[str, Any]:
    """Every strategy under every kind of noise on the same streams; finished pieces are not run again.

    dataset: pendigits (support vector machines, methods section 3), or a set of pictures with a profile (networks).
    Writes ``framework-<dataset>-<profile>.json`` and ``.png`` into ``output``.
    """
    setting = None if dataset == "pendigits" else find_profile(dataset, how.profile)
    seeds = how.range(setting.seeds if setting else 10)
    jobs = [Job(s, noise, strategy) for s in seeds for noise in noises for strategy in STRATEGIES]
    starts = how.pieces(f"table2-{dataset}")
    piece = partial(_piece, setting=setting, starts=starts, device=how.device, data_dir=how.data_dir)
    found = run_all(
        jobs,
        piece,
        folder=how.pieces(f"framework-{dataset}"),
        steps=setting.batches if setting else PENDIGITS[1],
        settings=f"{_questions(setting)} questions a batch, {setting.settings if setting else PENDIGITS}",
        more=len(seeds) if setting else 0,
        workers=how.workers,
        progress=how.progress,
    )
    command = how.command("framework", dataset, len(seeds))
    result = {
        "experiment": "framework",
        "dataset": dataset,
        "profile": how.profile,
        "seeds": len(seeds),
        "questions_a_batch": _questions(setting),
        "noise": {noise: gains({m: runs for (g, m), runs in found.items() if g == noise}) for noise in noises},
        "provenance": provenance(command, how.device if setting else None),
    }
    written(result, how.file(f"framework-{dataset}"), framework_figure)
    return result


def _questions(setting: Profile | None) -> int:
    return PENDIGITS[3] if setting is None else max(1, round(ASKED_SHARE * setting.rows))


def _piece(
    job: Job, path: Path, tick: Tick, *, setting: Profile | None, starts: Path, device: str, data_dir: str | None
) -> dict[str, Any]:
    if setting is None:
        return _regular(job, path, data_dir, tick)
    d0 = job.folder(starts) / "d0.state"
    stream = draw(setting, job.seed, data_dir, rates=schedule(job.group, setting.batches, job.seed))
    start = start_state(setting, stream, job.seed, d0, device=device, tick=tick)
    both = networks(setting, setting.improved, stream, job.seed, device=device)
    parts = system(job.method, both, stream, batches=setting.batches, per_batch=_questions(setting), soft=True)
    return run_stream(parts, stream, start=start, path=path, tick=tick)


def _regular(job: Job, path: Path, data_dir: str | None, tick: Tick) -> dict[str, Any]:
    """pendigits: a linear one-vs-rest support vector machine as L, an RBF one as C; rows accumulate."""
    from labelwright.learners.kernel import OneVsRestSVC
    from labelwright.tables import write_bytes

    stream = _rows(job.group, job.seed, data_dir)
    quality, classifier = (
        Refit(OneVsRestSVC(kernel), classes=stream.classes, max_rows=10**6) for kernel in ("linear", "rbf")
    )
    learners = WatchedLearners(quality, classifier)
    parts = system(job.method, learners, stream, batches=PENDIGITS[1], per_batch=_questions(None), soft=False)
    record = Record()
    parts.step(stream.batches[0])
    for batch in stream.batches[1:]:
        learners.seconds, start = 0.0, time.perf_counter()
        split = parts.step(batch)
        judging = time.perf_counter() - start - learners.seconds
        record.add(batch, split, learners.last, stream.truth, training=learners.seconds, judging=judging)
        record.curve.append(100 * float((parts.predict(stream.X_test) == stream.y_test).mean()))
        record.asked = int(parts.budget.spent)
        tick(path.stem)
    both = 100 * float((learners.proba(stream.X_test).argmax(axis=1) == stream.y_test).mean())
    out = {**record.told(), "c": record.curve[-1], "mean": both}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(json.dumps(out, indent=1).encode(), path)
    return out


def _rows(noise: str, seed: int, data_dir: str | None) -> DeepStream:
    """pendigits as a stream: 150 clean rows, 18 batches of 50, up to 2,000 test rows."""
    from labelwright.bench.qal import rows_of
    from labelwright.noise import symmetric

    X, y = rows_of("pendigits", data_dir)
    clean, count, size, _ = PENDIGITS
    rng = np.random.default_rng([seed, 5])
    need = clean + count * size
    rows = rng.permutation(len(y))[: need + 2000]
    X, y = np.asarray(X[rows], float), y[rows]
    given, rates, classes = y.copy(), schedule(noise, count, seed), int(y.max()) + 1
    for number in range(count):
        part = slice(clean + number * size, clean + (number + 1) * size)
        given[part] = symmetric(rates(number), classes=classes)(y[part], None, rng)
    sizes = [clean, *[size] * count]
    return DeepStream(X[:need], y[:need], given[:need], sizes, X[need:], y[need:], (1, 1, X.shape[1]), classes)


BEFORE = {
    "filter": "no-sel",
    "filter+expert+imitator": "filter+expert dynamic margin",
    "filter+expert+copynet": "filter+expert+imitator",
}


def gains(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Accuracy of each strategy, and what C gained over the one that it adds to, seed by seed."""
    out: dict[str, Any] = {}
    for name, found in runs.items():
        out[name] = averaged(found)
        base = BEFORE.get(name, "filter" if "expert" in name else None)
        if base is not None and base in runs:
            gain = [run["c"] - other["c"] for run, other in zip(found, runs[base], strict=True)]
            out[name]["gain"] = {"over": base, **mean_and_interval(gain)}
    return out


def table(result: Mapping[str, Any]) -> list[list[str]]:
    """Head and rows for people."""
    rows = [["noise", "strategy", "C alone", "±", "L and C", "gain of C", "over", "answers", "noise left", "seconds"]]
    for noise, found in result["noise"].items():
        for name, row in found.items():
            gain = row.get("gain")
            seconds = row["training_s"] + row["judging_s"]
            rows.append(
                [
                    noise,
                    name,
                    *cells(row["c"]),
                    f"{row['mean']['mean']:.2f}",
                    f"{gain['mean']:+.2f}" if gain else "",
                    gain["over"] if gain else "",
                    f"{row['asked']:.0f}",
                    percent(row.get("noise_left_mean")),
                    f"{seconds:.0f}",
                ]
            )
    return rows
