"""RAD Duo, Slim and the buffer with classical models, on one stream (methods sections 2 and 9, MNIST's layout)."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from labelwright.baselines.omniscient import FullClean
from labelwright.bench.provenance import provenance
from labelwright.bench.qal import summary
from labelwright.datasets import load
from labelwright.errors import SettingsError
from labelwright.imitation import NoImitator, PosteriorImitator
from labelwright.learners import Incremental, Learners, Refit
from labelwright.loop import System
from labelwright.noise import symmetric
from labelwright.selection import NoSelection, RadDuo, Slim
from labelwright.truth import Truth
from labelwright.types import Batch, Floats, Ints, Split

ROWS, CLEAN, BATCHES = 10_000, 1_000, 18
METHODS = (
    "d0-only",
    "no-sel",
    "rad-duo",
    "rad-duo+buffer",
    "rad-duo+buffer+correct",
    "slim",
    "slim+buffer",
    "full-clean",
)


@dataclass
class Stream:
    """One seed's rows: D0, batches and test."""

    batches: list[Batch]
    truth: Truth
    X_test: Floats
    y_test: Ints
    classes: int


def draw(dataset: str, noise: float, seed: int, data_dir: str | None) -> Stream:
    """10,000 rows (or four fifths of a smaller set): a tenth clean, then 18 batches with exactly floor(noise * n) wrong."""
    data = load(dataset, data_dir)
    rng = np.random.default_rng(seed)
    scale = float(np.abs(data.X).max())
    order = rng.permutation(len(data.y))
    n = min(ROWS, len(order) * 4 // 5) if data.X_test is None else min(ROWS, len(order))
    X, y = data.X[order[:n]] / scale, data.y[order[:n]]
    if data.X_test is not None and data.y_test is not None:
        X_test, y_test = data.X_test / scale, data.y_test
    else:
        X_test, y_test = data.X[order[n:]] / scale, data.y[order[n:]]
    classes = int(data.y.max()) + 1
    sizes = [n // 10, *[len(part) for part in np.array_split(np.arange(n - n // 10), BATCHES)]]
    flip, truth, batches, start = symmetric(noise, classes=classes), Truth(), [], 0
    for number, size in enumerate(sizes):
        part = slice(start, start + size)
        given = y[part] if number == 0 else flip(y[part], X[part], rng)
        truth.add(number, y[part])
        batches.append(Batch.of(number, X[part], given, clean=number == 0))
        start += size
    return Stream(batches, truth, X_test, y_test, classes)


def models(kind: str, classes: int, seed: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Makers of the quality model and the classifier. The quality model learns by partial_fit with replay; the
    classifier is refitted on the kept rows."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression, SGDClassifier

    def quality() -> Any:
        estimator = SGDClassifier(loss="log_loss", alpha=1e-4, average=True, random_state=seed)
        return Incremental(estimator, classes=classes, epochs=5, replay=1000, memory=5000, seed=seed)

    def linear() -> Any:
        return Refit(LogisticRegression(C=0.1, max_iter=100, tol=1e-3), classes=classes, seed=seed)

    def boosted() -> Any:
        trees = HistGradientBoostingClassifier(
            max_iter=25, max_leaf_nodes=15, max_features=0.1, learning_rate=0.2, early_stopping=False, random_state=seed
        )
        return Refit(trees, classes=classes, seed=seed)

    if kind not in ("linear", "boosted"):
        raise SettingsError(f"the classifier {kind!r} is unknown here; expected linear or boosted")
    return quality, linear if kind == "linear" else boosted


def system(method: str, stream: Stream, kind: str, seed: int) -> System:
    """A method as a configuration of the loop."""
    make_quality, make_classifier = models(kind, stream.classes, seed)
    classifier = make_classifier()
    buffer = 1000 if "buffer" in method else 0
    if method in ("d0-only", "no-sel", "full-clean"):
        alone = Learners(classifier, classifier)
        if method == "full-clean":
            return System(FullClean(alone, stream.truth, estimate_noise=False), alone)
        return System(NoSelection(alone, estimate_noise=False), alone)
    if method.startswith("slim"):
        alone = Learners(classifier, classifier)
        return System(Slim(alone, buffer=buffer, seed=seed), alone)
    both = Learners(make_quality(), classifier)
    imitator = PosteriorImitator(0.95) if "correct" in method else NoImitator()
    return System(RadDuo(both, buffer=buffer, seed=seed), both, imitator=imitator)


def run_method(method: str, stream: Stream, kind: str, seed: int, tick: Callable[[], None]) -> dict[str, Any]:
    """One method over the stream: last accuracy in percent, curve, precision and recall of "kept", seconds."""
    parts = system(method, stream, kind, seed)
    judging, total, curve = _Clock(parts.selector), 0.0, []
    right = kept = correct = fixed = good = 0
    for batch in stream.batches:
        if method == "d0-only" and batch.number > 0:
            break
        start = time.perf_counter()
        split = parts.step(batch)
        total += time.perf_counter() - start
        curve.append(100.0 * float((parts.predict(stream.X_test) == stream.y_test).mean()))
        if batch.number > 0:
            labels, count = _trained(parts, split, stream.truth)
            right, kept, fixed = right + labels, kept + count, fixed + _corrected(parts, split)
            correct += int((batch.given == stream.truth.of(batch.keys)).sum())
            good += _good(split, stream.truth)
        tick()
    return {
        "accuracy": curve[-1],
        "curve": curve,
        "kept_precision": right / kept if kept else float("nan"),
        "kept_recall": good / correct if correct else float("nan"),
        "noise_left": 1 - right / kept if kept else 0.0,
        "corrected": fixed,
        "judging_s": judging.seconds,
        "training_s": total - judging.seconds,
    }


class _Clock:
    """Counts the seconds that a selector spends judging."""

    def __init__(self, selector: Any):
        self.seconds = 0.0
        judge = selector.split

        def timed(batch: Batch) -> Split:
            start = time.perf_counter()
            split: Split = judge(batch)
            self.seconds += time.perf_counter() - start
            return split

        selector.split = timed


def _trained(parts: System, split: Split, truth: Truth) -> tuple[int, int]:
    """(rows whose training label is true, rows trained on) of one step, corrections included."""
    from labelwright.loop import training_rows
    from labelwright.types import Answers

    none = Answers.none(split.rows.X.shape[1])
    rows = training_rows(split, none, parts.imitator.correct(split, none))
    return int((rows.y == truth.of(rows.keys)).sum()), len(rows)


def _corrected(parts: System, split: Split) -> int:
    from labelwright.types import Answers

    return len(parts.imitator.correct(split, Answers.none(split.rows.X.shape[1])))


def _good(split: Split, truth: Truth) -> int:
    """Rows kept whose given label is true (buffered rows count when they come back)."""
    kept = split.kept & (split.label == split.given)
    return int((truth.of(split.rows.keys[kept]) == split.given[kept]).sum())


def run_radduo(
    dataset: str,
    *,
    noise: float = 0.3,
    classifier: str = "linear",
    seeds: int = 1,
    seed: int = 0,
    data_dir: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Every method of :data:`METHODS` on the same rows, models and seeds."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in METHODS}
    done, total = 0, seeds * len(METHODS) * (BATCHES + 1)
    for s in range(seed, seed + seeds):
        stream = draw(dataset, noise, s, data_dir)
        for name in METHODS:

            def tick() -> None:
                nonlocal done
                done += 1
                progress(done, total)

            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="lbfgs failed to converge")
                runs[name].append(run_method(name, stream, classifier, s, tick))
    command = (
        f"labelwright bench radduo --dataset {dataset} --noise {noise:g} --classifier {classifier} --seeds {seeds}"
    )
    return {
        "title": f"{dataset}, {100 * noise:.0f} % symmetric noise, quality model: linear, classifier: {classifier}, {seeds} seed(s)",
        "methods": {name: _averaged(found) for name, found in runs.items()},
        "provenance": provenance(command),
    }


def _averaged(found: list[dict[str, Any]]) -> dict[str, Any]:
    curves = summary([run["curve"] for run in found])
    names = ("kept_precision", "kept_recall", "noise_left", "corrected", "judging_s", "training_s")
    mean = {name: float(np.mean([run[name] for run in found])) for name in names}
    half = curves["ci95"]
    percent = {n.replace("_", " "): f"{100 * mean[n]:.1f}" for n in ("kept_precision", "kept_recall", "noise_left")}
    shown = {"accuracy %": f"{curves['mean']:.2f}", "± 95 %": "" if half is None else f"{half:.2f}", **percent}
    shown |= {"judging s": f"{mean['judging_s']:.1f}", "training s": f"{mean['training_s']:.1f}"}
    return {**curves, **mean, "shown": shown}


__all__ = ["METHODS", "draw", "run_method", "run_radduo"]
