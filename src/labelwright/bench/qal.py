"""Figs 4 and 5 of the paper: QAL and its baselines on pendigits, usps and optdigits (methods section 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np

from labelwright import queries
from labelwright.baselines.omniscient import FullClean, OptSel
from labelwright.datasets import load
from labelwright.errors import SettingsError
from labelwright.experts import Oracle
from labelwright.learners import Learners, Refit
from labelwright.learners.kernel import Gram, OneVsRestSVC
from labelwright.loop import System
from labelwright.noise import symmetric
from labelwright.queries import DynamicBudget, FixedBudget
from labelwright.recipes import al_only, no_selection, qal
from labelwright.scale import Mapper, opened
from labelwright.truth import Truth
from labelwright.types import Batch, Floats, Ints

DATASETS = ("pendigits", "usps", "optdigits")
NOISES = (0.6, 0.8)
CLEAN, BATCH, BATCHES, TEST = 150, 50, 18, 2000
QUERIES = 5
METHODS = ("no-sel", "q-only", "al-only", "qal", "qal-margin", "qal-dynamic", "opt-sel")
EXTRA = ("qal-margin-2", "full-clean")


@dataclass(frozen=True)
class Trial:
    """One repeat: a Gram matrix, row numbers into it, and a noisy stream."""

    X: Floats
    gram: Gram
    y: Ints
    given: Ints
    classes: int

    @property
    def batches(self) -> Iterator[Batch]:
        """D0, then the dirty batches; features are row numbers into the Gram matrix."""
        start = 0
        for number, size in enumerate([CLEAN] + [BATCH] * BATCHES):
            rows = np.arange(start, start + size)
            yield Batch.of(number, rows[:, None].astype(float), self.given[rows], clean=number == 0)
            start += size

    @property
    def truth(self) -> Truth:
        """The true labels, by batch."""
        sizes = [CLEAN] + [BATCH] * BATCHES
        ends = np.cumsum(sizes)
        return Truth({i: self.y[end - size : end] for i, (size, end) in enumerate(zip(sizes, ends, strict=True))})

    @property
    def test(self) -> Ints:
        """Row numbers of the test rows."""
        return np.arange(CLEAN + BATCH * BATCHES, len(self.y))


@lru_cache(maxsize=4)
def rows_of(dataset: str, data_dir: str | None) -> tuple[Floats, Ints]:
    """All rows of a data set (train and test files pooled), features scaled to [0, 1] by their common maximum."""
    data = load(dataset, data_dir)
    X, y = data.X, data.y
    if data.X_test is not None and data.y_test is not None:
        X, y = np.concatenate([X, data.X_test]), np.concatenate([y, data.y_test])
    return X / float(np.abs(X).max()), y


def draw(X: Floats, y: Ints, noise: float, repeat: int, *, seed: int = 0) -> Trial:
    """The rows, the order and the noise of one repeat; exactly floor(noise * 50) labels of each batch are flipped.

    X: (n, d), y: (n,). Symmetric noise, clean first 150 rows, up to 2,000 test rows among the rest.
    """
    classes = int(y.max()) + 1
    rng = np.random.default_rng([seed, repeat])
    need = CLEAN + BATCH * BATCHES
    rows = rng.permutation(len(y))[: need + TEST]
    X, y = np.asarray(X[rows], float), y[rows]
    given = y.copy()
    flip = symmetric(noise, classes=classes)
    for start in range(CLEAN, need, BATCH):
        part = slice(start, start + BATCH)
        given[part] = flip(y[part], X[part], rng)
    return Trial(X, Gram(X, train=need), y, given, classes)


def systems(trial: Trial, kernel: str, count: int = QUERIES) -> dict[str, Callable[[], System]]:
    """Every method as a configuration of the one loop."""
    truth = trial.truth
    expert = Oracle(truth)

    def svm() -> Refit:
        return Refit(OneVsRestSVC(kernel, gram=trial.gram), classes=trial.classes, max_rows=10**6)

    def omniscient(kind: type[OptSel] | type[FullClean]) -> System:
        learner = svm()
        both = Learners(learner, learner)
        return System(kind(both, truth, estimate_noise=False), both)

    def fixed(measure: queries.Measure, per_batch: int, among: str = "suspicious") -> FixedBudget:
        return FixedBudget(per_batch, total=per_batch * BATCHES, measure=measure, among=among)

    near, margin = queries.least_distance, queries.margin
    return {
        "no-sel": lambda: no_selection(svm()),
        "q-only": lambda: qal(svm(), FixedBudget(0), expert),
        "al-only": lambda: al_only(svm(), fixed(near, count, "all"), expert),
        "qal": lambda: qal(svm(), fixed(near, count), expert),
        "qal-margin": lambda: qal(svm(), fixed(margin, count), expert),
        "qal-dynamic": lambda: qal(svm(), DynamicBudget(count * BATCHES, batches=BATCHES, measure=margin), expert),
        "opt-sel": lambda: omniscient(OptSel),
        "qal-margin-2": lambda: qal(svm(), fixed(margin, 2), expert),
        "full-clean": lambda: omniscient(FullClean),
    }


def run_trial(
    dataset: str,
    noise: float,
    repeat: int,
    *,
    kernel: str,
    count: int,
    seed: int,
    methods: tuple[str, ...],
    data_dir: str | None,
) -> dict[str, Any]:
    """All methods on one repeat: accuracy in percent after D0 and after each batch, and the questions used."""
    trial = draw(*rows_of(dataset, data_dir), noise, repeat, seed=seed)
    test, truth = trial.test[:, None].astype(float), trial.y[trial.test]
    makers = systems(trial, kernel, count)
    curves, used = {}, {}
    for name in methods:
        system = makers[name]()
        curve = []
        for batch in trial.batches:
            system.step(batch)
            curve.append(100.0 * float((system.predict(test) == truth).mean()))
        curves[name], used[name] = curve, system.budget.spent
    return {"repeat": repeat, "curves": curves, "used": used}


def run_cell(
    dataset: str,
    noise: float,
    *,
    repeats: int = 100,
    kernel: str = "rbf",
    count: int = QUERIES,
    seed: int = 0,
    workers: int | Mapper = 1,
    methods: tuple[str, ...] = METHODS + EXTRA,
    data_dir: str | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """One cell of Figs 4 and 5: mean accuracy over the stream's last state, 95 % interval and curve of each method.

    Repeats are independent and seeded by their number: any number of workers gives the same figures.
    """
    if kernel not in ("rbf", "linear"):
        raise SettingsError(f"kernel {kernel!r} is unknown; expected rbf or linear")
    rows_of(dataset, data_dir)  # fail early, with a plain sentence
    one = partial(run_trial, dataset, noise, kernel=kernel, count=count, seed=seed, methods=methods, data_dir=data_dir)
    trials = []
    with opened(workers) as mapper:
        for trial in mapper.map(_trial, [_Repeat(repeat) for repeat in range(repeats)], shared=one):
            trials.append(trial)
            progress(len(trials))
    return {
        "dataset": dataset,
        "noise": noise,
        "repeats": repeats,
        "kernel": kernel,
        "methods": {name: summary([t["curves"][name] for t in trials]) for name in methods},
        "queries_per_batch": count,
        "queries_used": {name: max(t["used"][name] for t in trials) for name in methods},
    }


def summary(curves: list[list[float]]) -> dict[str, Any]:
    """Mean of the last points, half-width of its 95 % interval (Student's t), and the mean curve, in percent."""
    from scipy.stats import t

    points = np.array(curves)
    last, n = points[:, -1], len(points)
    half = float(t.ppf(0.975, n - 1) * last.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    return {
        "mean": round(float(last.mean()), 3),
        "ci95": round(half, 3) if n > 1 else None,
        "curve": [round(float(v), 3) for v in points.mean(axis=0)],
    }


@dataclass(frozen=True)
class _Repeat:
    number: int

    @property
    def name(self) -> str:
        return f"repeat {self.number}"


def _trial(one: Callable[[int], dict[str, Any]], repeat: _Repeat) -> dict[str, Any]:
    return one(repeat.number)
