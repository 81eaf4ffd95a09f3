"""Fitting the judge and passing over all rows, block by block, on threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np
from threadpoolctl import ThreadpoolController

from labelwright.auditing.evidence import DENSE, Evidence, Narrow
from labelwright.auditing.hypotheses import expected_pairs, settle
from labelwright.auditing.judge import FIT_ROWS, Judge
from labelwright.auditing.one_read import WORTH_CELLS, compiled
from labelwright.auditing.reading import SLACK, Probabilities
from labelwright.auditing.transition import Pairs
from labelwright.scale import cores
from labelwright.types import NO_LABEL, Bools, Floats, Ints

_BLOCK_CELLS = 131_072
_THIN = 2_000_000
_SMALL = 4096
_DENSE_SUM = 500
_NARROW_CELLS = 4_194_304
_NARROW_ROWS = 65_536

T = TypeVar("T")
P = TypeVar("P")


@cache
def _pools() -> ThreadpoolController:
    """Found once: looking for the linear algebra libraries takes longer than judging a few rows."""
    return ThreadpoolController()


def one_thread() -> AbstractContextManager[object]:
    """Linear algebra on one thread: its own threads are slower on small blocks, and ours are many already."""
    return _pools().limit(limits=1)


@dataclass
class Whole:
    """All rows, judged, in the order they came: see :class:`~labelwright.auditing.judge.Judged`.

    counts: expected (true, given) pairs by each reading. rows: labelled rows.
    """

    score: Floats
    wrong: Floats
    predicted: Ints
    probability: Floats
    counts: tuple[Pairs, Pairs]
    rows: int

    @staticmethod
    def blank(n: int, classes: int) -> Whole:
        """Nothing judged yet."""
        nothing = Pairs.of(np.empty(0, int), np.empty(0, int), classes)
        nan, zero = np.full(n, np.nan, np.float32), np.zeros(n, np.float32)
        return Whole(nan, nan.copy(), np.zeros(n, np.int32), zero, (nothing, nothing), 0)

    def put(self, at: Ints | slice, judge: Judge, seen: Evidence, known: Ints) -> tuple[Pairs, Pairs]:
        """Judge rows with labels and write them down; returns their expected pairs."""
        told = judge.judged(seen)
        self.score[at], self.wrong[at] = told.score, told.wrong
        self.predicted[at], self.probability[at] = told.predicted, told.probability
        settled = known != NO_LABEL
        if settled.any():  # an expert's word stands above the judge's
            rows = np.arange(len(self.score))[at][settled]
            right = known[settled] == seen.given[settled]
            self.score[rows] = np.where(right, np.inf, -np.inf)
            self.wrong[rows] = np.where(right, 0.0, 1.0)
            self.predicted[rows], self.probability[rows] = known[settled], 1.0
        first, second = (expected_pairs(settle(s, seen, known), seen, judge.classes) for s in told.shares)
        return first, second


@dataclass(frozen=True)
class Fit:
    """A judge, with what the final pass reuses. rows: those it was fitted on. left_out: the second look at them
    without their own labels. narrow: all rows' two classes, for many classes. certainty: (m,) probability of the given
    label of the fitted rows."""

    judge: Judge
    rows: Ints
    left_out: Floats | None
    narrow: Narrow | None
    certainty: Floats


def fit(proba: Probabilities, given: Ints, known: Ints, *, seed: int, threads: int | None = None) -> Fit:
    """Fit the judge on all labelled rows, or on a random sample of 16,384 and every answered row."""
    counts = np.bincount(given[given != NO_LABEL], minlength=proba.classes)
    narrow = narrowed(proba, given, threads=threads) if proba.classes > DENSE else None
    rows = _fit_rows(given, known, seed)
    if narrow is not None:
        some = narrow.take(rows)
        return Fit(Judge.fitted_narrow(some, given[rows], known[rows], counts, seed=seed), rows, None, narrow, some.own)
    sample = proba.rows(rows)
    with one_thread():  # measured on two cores: 0.24 s for 16,384 rows, against 0.27 to 0.33 s on two threads
        judge, left_out = Judge.fitted(sample, given[rows], known[rows], counts, seed=seed)
    return Fit(judge, rows, left_out, None, sample[np.arange(len(rows)), given[rows]])


def _fit_rows(given: Ints, known: Ints, seed: int) -> Ints:
    rows = np.flatnonzero(given != NO_LABEL)
    if len(rows) <= FIT_ROWS:
        return rows
    if len(rows) > _THIN:
        rows = rows[np.linspace(0, len(rows) - 1, _THIN).astype(np.int64)]
    chosen = np.random.default_rng(seed).choice(len(rows), FIT_ROWS, replace=False)
    sample = np.union1d(rows[chosen], np.flatnonzero(known != NO_LABEL))
    return sample[given[sample] != NO_LABEL]


def narrowed(proba: Probabilities, given: Ints, *, block: int | None = None, threads: int | None = None) -> Narrow:
    """The given class and the likeliest other of every row; the likeliest of all stands in for a missing label."""
    n = len(given)
    out = Narrow(np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.int32))
    once = compiled() if n * proba.classes >= WORTH_CELLS else None

    def work(part: slice) -> None:
        label = given[part]
        if once is not None and label.min() >= 0:
            rows = proba.unchecked(part)
            into = (out.own[part], out.other[part], out.rival[part])
            if not once(rows, rows.view(np.uint32), label, *into, np.float32(SLACK)):
                return  # else the slower way, which says what is wrong
        rows = proba.rows(part)
        if (label == NO_LABEL).any():
            label = np.where(label == NO_LABEL, rows.argmax(axis=1), label)
        found = Narrow.of(rows, label)
        out.own[part], out.other[part], out.rival[part] = found.own, found.other, found.rival

    # Large blocks: small ones stay in the cache, but then the threads wait for each other's turn in the interpreter.
    parts = _parts(n, block or max(64, _NARROW_CELLS // proba.classes))
    with one_thread():
        for _ in _mapped(work, parts, threads):
            pass
    return out


def judge_all(
    judge: Judge,
    proba: Probabilities,
    given: Ints,
    known: Ints,
    *,
    fitted: Fit | None = None,
    block: int | None = None,
    threads: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Whole:
    """Judge every row that has a label; the others get their likeliest class and a score of NaN.

    fitted: how the judge came about, when it was fitted on these rows. block: rows at a time; the result does not
    depend on it. progress: told the rows done so far.
    """
    n = len(given)
    out, gathered = Whole.blank(n, judge.classes), _Gathered(judge.classes)
    narrow = fitted.narrow if fitted is not None else None

    def work(part: slice) -> tuple[Pairs, Pairs]:
        label = given[part]
        if (label == NO_LABEL).any():
            return with_missing(part)
        if narrow is not None:
            return out.put(part, judge, narrow.take(part).evidence(label, judge.offset), known[part])
        rows = proba.rows(part)
        seen = evidence_of(judge, rows, label, np.arange(part.start, part.stop), fitted)
        return out.put(part, judge, seen, known[part])

    def with_missing(part: slice) -> tuple[Pairs, Pairs]:
        at, rows = np.arange(part.start, part.stop), proba.rows(part)
        out.predicted[part], out.probability[part] = rows.argmax(axis=1), rows.max(axis=1)
        here = given[part] != NO_LABEL
        told = at[~here & (known[part] != NO_LABEL)]  # an expert named the class of a row that came without a label
        out.predicted[told], out.probability[told] = known[told], 1.0
        at, rows = at[here], rows[here]
        seen = evidence_of(judge, rows, given[at], at, fitted)
        return out.put(at, judge, seen, known[at])

    done = 0
    usual = max(_SMALL if n <= _SMALL else 64, _BLOCK_CELLS // max(judge.classes, 128))
    parts = _parts(n, block or (_NARROW_ROWS if narrow is not None else usual))
    with one_thread():
        for pairs in _mapped(work, parts, threads):
            gathered.add(*pairs)
            done = min(done + parts[0].stop, n)
            if progress is not None:
                progress(done)
    out.counts, out.rows = gathered.both(), int((given != NO_LABEL).sum())
    if narrow is not None:
        _name_rivals(out, proba, given)
    return out


def _name_rivals(out: Whole, proba: Probabilities, given: Ints) -> None:
    """Where "all the rest" won, say which class of it."""
    for at in np.array_split(nameless := np.flatnonzero(out.predicted == NO_LABEL), max(1, len(nameless) // 1000)):
        if len(at):
            rows = proba.rows(at)
            rows[np.arange(len(at)), given[at]] = -1.0
            out.predicted[at] = rows.argmax(axis=1)


def _parts(n: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def _mapped(work: Callable[[P], T], parts: list[P], threads: int | None) -> Iterator[T]:
    """``map`` on threads, with few blocks on their way at a time."""
    threads = min(threads or cores(), len(parts))
    if threads == 1:
        yield from map(work, parts)
        return
    with ThreadPoolExecutor(threads) as pool:
        for group in range(0, len(parts), 64 * threads):
            yield from pool.map(work, parts[group : group + 64 * threads])


def evidence_of(judge: Judge, rows: Floats, given: Ints, at: Ints, fitted: Fit | None) -> Evidence:
    """What is known of the rows at ascending positions ``at``: those that the judge was fitted on are seen without their
    own labels."""
    if judge.second is None or fitted is None or fitted.left_out is None or not len(at):
        return judge.evidence(rows, given)
    low, high = np.searchsorted(fitted.rows, (at[0], at[-1] + 1))
    places, left_out = fitted.rows[low:high], fitted.left_out[low:high]
    if np.array_equal(places, at):
        return judge.evidence(rows, given, left_out)
    out = judge.second(rows)
    mine = np.searchsorted(at, places)
    here: Bools = at[np.minimum(mine, len(at) - 1)] == places
    out[mine[here]] = left_out[here]
    return judge.evidence(rows, given, out)


class _Gathered:
    """Pairs of many blocks: added up at once where K x K is small, put together at the end otherwise."""

    def __init__(self, classes: int):
        self.classes = classes
        self.small = classes <= _DENSE_SUM
        size = classes * classes if self.small else 0
        self.sums = (np.zeros(size), np.zeros(size))
        self.parts: tuple[list[Pairs], list[Pairs]] = ([], [])

    def add(self, first: Pairs, second: Pairs) -> None:
        for place, pairs in enumerate((first, second)):
            if self.small:
                self.sums[place][pairs.code] += pairs.count
            else:
                self.parts[place].append(pairs)

    def both(self) -> tuple[Pairs, Pairs]:
        return self._one(0), self._one(1)

    def _one(self, place: int) -> Pairs:
        if self.small:
            kept = np.flatnonzero(self.sums[place])
            return Pairs(kept, self.sums[place][kept], self.classes)
        parts = self.parts[place]
        if len(parts) == 1:
            return parts[0]
        code = np.concatenate([p.code for p in parts]) if parts else np.empty(0, np.int64)
        count = np.concatenate([p.count for p in parts]) if parts else np.empty(0)
        kept, where = np.unique(code, return_inverse=True)
        return Pairs(kept, np.bincount(where, count, minlength=len(kept)).astype(float), self.classes)
