"""Several fallible experts: which label is right, how sure is that, and how good is each of them?

Expectation-maximisation on answers alone; no truth is needed. Memory grows with answers, rows * K and experts * K * K.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from labelwright.errors import DataError, SettingsError
from labelwright.posterior import normalised, wilson
from labelwright.types import Floats, Ints

_TINY = 1e-12
_SETTLED = 1e-4
MODELS = ("dawid-skene", "one-coin", "majority")


@dataclass(frozen=True)
class Ratings:
    """Who said what of which row. row, rater, label: (m,) codes into ``rows``, ``raters``, ``classes``.

    >>> ratings = Ratings.of(["a", "a", "b"], ["ann", "bob", "ann"], ["cat", "dog", "dog"])
    >>> ratings.classes, len(ratings.rows)
    (('cat', 'dog'), 2)
    """

    row: Ints
    rater: Ints
    label: Ints
    rows: tuple[Any, ...]
    raters: tuple[Any, ...]
    classes: tuple[Any, ...]

    @staticmethod
    def of(row: Sequence[Any], rater: Sequence[Any], label: Sequence[Any], *, classes: Any = None) -> Ratings:
        """From three columns (m,). A label that is None or NaN ("I cannot say") is left out.

        classes: all labels there are; those that were given when None. Raises DataError when the columns differ in length,
        hold nothing, name a label that is no class, or let one rater say two things of a row.
        """
        columns = [np.asarray(column, object) for column in (row, rater, label)]
        if len({len(column) for column in columns}) != 1:
            raise DataError(
                f"rows, raters and labels have lengths {[len(c) for c in columns]}; expected one of each a rating"
            )
        said = np.array([one is not None and one == one for one in columns[2]], bool)
        if not said.any():
            raise DataError("nobody has said anything: no rating has a label")
        nameless = sum(one is None or one != one for column in columns[:2] for one in column[said])
        if nameless:
            raise DataError(f"{nameless} answers name no row or no rater; fill these in, or leave the answers out")
        names = [_names(column[said]) for column in columns]
        if classes is not None:
            unknown = set(names[2]) - set(classes)
            if unknown:
                raise DataError(f"{min(map(repr, unknown))} is no class; expected one of {list(classes)[:10]}")
            names[2] = tuple(classes)
        codes = [_codes(column[said], known) for column, known in zip(columns, names, strict=True)]
        _, counts = np.unique(codes[0] * len(names[1]) + codes[1], return_counts=True)
        if (counts > 1).any():
            raise DataError(
                f"{int((counts > 1).sum())} times one rater said two things of one row; keep the last answer of each"
            )
        return Ratings(codes[0], codes[1], codes[2], names[0], names[1], names[2])

    @property
    def shape(self) -> tuple[int, int, int]:
        """(rows, raters, K)."""
        return len(self.rows), len(self.raters), len(self.classes)

    def votes(self) -> Floats:
        """(rows, K) how many said so."""
        n, _, k = self.shape
        return np.bincount(self.row * k + self.label, minlength=n * k).reshape(n, k).astype(float)

    def consensus(self, model: str = "dawid-skene", *, prior: float = 10.0, rounds: int = 200) -> Consensus:
        """What they mean together.

        model: "dawid-skene" learns how each rater confuses each class (Dawid and Skene 1979); "one-coin" how often each is
        right, whatever the class; "majority" counts. prior: as how many answers of a class weighs what is expected
        of a rater: to be right as all raters together are, by the first few answers, then as the rater is; to err as all do.
        0 is maximum likelihood. rounds: at most.
        Raises SettingsError for an unknown model or a negative prior.
        """
        if model not in MODELS:
            raise SettingsError(f"model={model!r} is unknown; expected one of {', '.join(MODELS)}")
        if prior < 0:
            raise SettingsError(f"prior={prior} is negative; expected 0 or more")
        fit = _Fit(self, prior, coin=model == "one-coin")
        proba = normalised(self.votes())
        if model == "majority":
            return fit.result(proba, fit.maximised(proba), 0)
        done, moved = 0, 1.0
        while moved >= _SETTLED and done < rounds:
            new = fit.expected(*fit.maximised(proba))
            done, moved, proba = done + 1, float(np.abs(new - proba).max()), new
        return fit.result(proba, fit.maximised(proba), done)


@dataclass(frozen=True)
class Consensus:
    """proba: (rows, K) of each class to be the true one. confusion: (raters, K, K) ``confusion[rater, true, said]``.
    prevalence: (K,) share of each class. rounds: of expectation-maximisation."""

    ratings: Ratings
    proba: Floats
    confusion: Floats
    prevalence: Floats
    rounds: int
    _cache: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def label(self) -> Any:
        """(rows,) the likeliest class."""
        return np.array(self.ratings.classes, object)[self.proba.argmax(axis=1)]

    @property
    def probability(self) -> Floats:
        """(rows,) of the likeliest class."""
        return np.asarray(self.proba.max(axis=1))

    @property
    def skill(self) -> Floats:
        """(raters,) how often each is right, over the classes as common as they are."""
        return np.asarray(np.einsum("k,rkk->r", self.prevalence, self.confusion))

    @property
    def answers(self) -> Ints:
        """(raters,) how many each gave."""
        return np.bincount(self.ratings.rater, minlength=len(self.ratings.raters))

    def skill_interval(self, level: float = 0.95) -> tuple[Floats, Floats]:
        """(raters,) two bounds of :attr:`skill`, by Wilson's interval on each one's answers."""
        low, high = wilson(self.skill, self.answers, level)
        return np.asarray(low), np.asarray(high)

    @property
    def agreement(self) -> Floats:
        """(rows,) share of a row's raters who said its likeliest class."""
        r = self.ratings
        same = r.label == self.proba.argmax(axis=1)[r.row]
        return np.bincount(r.row, same, len(r.rows)) / np.bincount(r.row, minlength=len(r.rows))

    def disputed(self, count: int) -> Ints:
        """Positions of the ``count`` rows that are least settled: for a lead to look at."""
        return np.argsort(self.probability, kind="stable")[:count]


class _Fit:
    """The two steps of expectation-maximisation."""

    def __init__(self, ratings: Ratings, prior: float, *, coin: bool):
        self.ratings, self.prior, self.coin = ratings, prior, coin

    def maximised(self, proba: Floats) -> tuple[Floats, Floats]:
        """(confusion (raters, K, K), prevalence (K,)) for probabilities (rows, K)."""
        r, (_, raters, k) = self.ratings, self.ratings.shape
        place = r.rater * k + r.label
        columns = [np.bincount(place, proba[r.row, true], raters * k).reshape(raters, k) for true in range(k)]
        counts = np.stack(columns, 1).astype(np.float64)
        prevalence = (proba.sum(axis=0) + 1.0) / (len(proba) + k)
        return (self._coins(counts) if self.coin else self._shrunk(counts)), prevalence

    def _shrunk(self, counts: Floats) -> Floats:
        """Rows of each rater's confusion, pulled towards what is expected of them: right as often as their own skill says,
        wrong as all raters together are."""
        k = counts.shape[1]
        wrong = counts.sum(axis=0) * (1 - np.eye(k)) + _TINY
        wrong = normalised(wrong * (1 - np.eye(k)))
        coins = self._coins(counts)
        expected = np.where(np.eye(k, dtype=bool), coins, (1 - coins[:, :1, :1]) * wrong)
        return np.asarray(normalised3(counts + self.prior * expected + _TINY))

    def _coins(self, counts: Floats) -> Floats:
        """One number a rater: the share that is right, wrong ones spread evenly."""
        k = counts.shape[1]
        right, total = np.einsum("rkk->r", counts), counts.sum(axis=(1, 2))
        mean = right.sum() / max(total.sum(), _TINY)
        skill = np.clip((right + self.prior * mean) / np.maximum(total + self.prior, _TINY), 1e-6, 1 - 1e-6)
        out = np.repeat(((1 - skill) / max(k - 1, 1))[:, None, None], k, 1).repeat(k, 2)
        out[:, np.arange(k), np.arange(k)] = skill[:, None]
        return np.asarray(out)

    def expected(self, confusion: Floats, prevalence: Floats) -> Floats:
        """(rows, K) posterior of the true class."""
        r, (n, _, k) = self.ratings, self.ratings.shape
        logs = np.log(np.maximum(confusion, _TINY))
        scores = np.stack([np.bincount(r.row, logs[r.rater, true, r.label], n) for true in range(k)], 1)
        scores += np.log(np.maximum(prevalence, _TINY))
        return normalised(np.exp(scores - scores.max(axis=1, keepdims=True)))

    def result(self, proba: Floats, fitted: tuple[Floats, Floats], rounds: int) -> Consensus:
        return Consensus(self.ratings, proba, *fitted, rounds)


def normalised3(x: Floats) -> Floats:
    """(r, K, K) scaled so that the last axis sums to one."""
    return np.asarray(x / x.sum(axis=2, keepdims=True))


def _names(values: Any) -> tuple[Any, ...]:
    found = list(dict.fromkeys(values.tolist()))
    try:
        return tuple(sorted(found))
    except TypeError:  # of several kinds
        return tuple(sorted(found, key=str))


def _codes(values: Any, names: Sequence[Any]) -> Ints:
    at = {name: code for code, name in enumerate(names)}
    return np.array([at[value] for value in values.tolist()], np.int64)
