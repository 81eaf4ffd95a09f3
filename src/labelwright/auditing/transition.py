"""How labels go wrong, from counts of (true, given) pairs, for any number of classes.

Counts are kept as the pairs that occur, so 10,000 classes need no 10,000 x 10,000 matrix. Rates are shrunk by
empirical Bayes: the error rate of a class towards that of all classes, and its wrong labels towards "every wrong label
alike"; how strongly is read off the counts themselves (beta-binomial and Dirichlet-multinomial likelihoods).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import gammaln

from labelwright.types import Floats, Ints

_STRENGTHS = np.geomspace(0.5, 3000.0, 14)
_FEW_CELLS = 65_536
_TINY = 1e-12


@dataclass(frozen=True)
class Pairs:
    """Weighted counts of (true, given) pairs, sorted by ``code = true * classes + given``.

    >>> pairs = Pairs.of(np.array([0, 0, 1]), np.array([0, 1, 1]), 2)
    >>> pairs.dense().tolist()
    [[1.0, 1.0], [0.0, 1.0]]
    """

    code: Ints
    count: Floats
    classes: int

    @staticmethod
    def of(true: Ints, given: Ints, classes: int, weight: Floats | None = None) -> Pairs:
        """Counts of pairs (n,), each of weight 1 or ``weight`` (n,)."""
        code = np.asarray(true, np.int64) * classes + given
        if classes * classes <= max(_FEW_CELLS, 4 * len(code)):
            count = np.bincount(code, weight, minlength=classes * classes).astype(float)
            kept = np.flatnonzero(count)
            return Pairs(kept, count[kept], classes)
        kept, place = np.unique(code, return_inverse=True)
        return Pairs(kept, np.bincount(place, weight, minlength=len(kept)).astype(float), classes)

    @staticmethod
    def from_dense(counts: Floats) -> Pairs:
        """From a (K, K) matrix ``counts[true, given]``."""
        kept = np.flatnonzero(counts)
        return Pairs(kept, counts.ravel()[kept].astype(float), len(counts))

    @property
    def true(self) -> Ints:
        """True class of each pair."""
        return self.code // self.classes

    @property
    def given(self) -> Ints:
        """Given class of each pair."""
        return self.code % self.classes

    def plus(self, other: Pairs) -> Pairs:
        """The sum of both counts."""
        true, given = np.concatenate([self.true, other.true]), np.concatenate([self.given, other.given])
        return Pairs.of(true, given, self.classes, np.concatenate([self.count, other.count]))

    def dense(self) -> Floats:
        """(K, K) ``counts[true, given]``."""
        out = np.zeros(self.classes * self.classes)
        out[self.code] = self.count
        return out.reshape(self.classes, self.classes)


@dataclass(frozen=True)
class Transition:
    """P(given | true), shrunk.

    wrong: (K,) probability that a row of each true class is labelled wrong. strength: how many rows the belief
    "every wrong label alike" weighs, pull: the belief "every class alike wrong". seen: (K,) wrong labels counted per true
    class. pairs: the off-diagonal counts.

    >>> counts = np.array([[90.0, 10.0, 0.0], [0.0, 100.0, 0.0], [0.0, 0.0, 100.0]])
    >>> t = Transition.fitted(Pairs.from_dense(counts))
    >>> bool(t.dense()[0, 1] > 5 * t.dense()[0, 2]), t.dense().sum(axis=1).round(6).tolist()
    (True, [1.0, 1.0, 1.0])
    """

    wrong: Floats
    strength: float
    seen: Floats
    pairs: Pairs
    pull: float = 1.0

    @property
    def classes(self) -> int:
        """K."""
        return len(self.wrong)

    @staticmethod
    def fitted(pairs: Pairs, like: Transition | None = None) -> Transition:
        """Rates from counts, by empirical Bayes. like: take over its strengths of shrinkage instead of reading them off."""
        k, true = pairs.classes, pairs.true
        off = true != pairs.given
        errors: Floats = np.bincount(true[off], pairs.count[off], minlength=k).astype(float)
        rows: Floats = np.bincount(true, pairs.count, minlength=k).astype(float)
        rate = min(max(float(errors.sum()), 0.5) / max(float(rows.sum()), 1.0), 0.99)
        pull = _rate_strength(errors, rows, rate) if like is None else like.pull
        wrong = (errors + pull * rate) / (rows + pull)
        apart = Pairs(pairs.code[off], pairs.count[off], k)
        if like is not None:
            return Transition(wrong, like.strength, errors, apart, pull)
        return Transition(wrong, _spread_strength(apart, errors) if k > 2 else 1.0, errors, apart, pull)

    @property
    def any_other(self) -> float:
        """P(given | another true class), whichever: the mean over classes."""
        return float(self.wrong.mean()) / max(self.classes - 1, 1)

    def of(self, true: Ints, given: Ints) -> Floats:
        """``P(given | true)`` for arrays of the same shape (or broadcast); float64. A true class of NO_LABEL stands for
        any other than the given one: the mean over classes."""
        true, given = np.broadcast_arrays(true, given)
        k = self.classes
        out = np.where(true == given, 1.0 - self.wrong[true], self.any_other)
        apart = np.nonzero((true != given) & (true >= 0))
        row, label = true[apart].astype(np.int64), given[apart]
        count = np.zeros(len(row))
        if len(self.pairs.code) and len(row):
            code = row * k + label
            at = np.minimum(np.searchsorted(self.pairs.code, code), len(self.pairs.code) - 1)
            count = np.where(self.pairs.code[at] == code, self.pairs.count[at], 0.0)
        alike = self.strength / max(k - 1, 1)
        out[apart] = self.wrong[row] * (count + alike) / (self.seen[row] + self.strength)
        return out

    def dense(self) -> Floats:
        """(K, K) ``transition[true, given]``, rows sum to one."""
        grid = np.arange(self.classes)
        return self.of(grid[:, None], grid[None, :])

    @cached_property
    def log_given(self) -> Floats:
        """(K, K) float32 ``log P(given | true)`` indexed ``[given, true]``, ready to be taken by given label."""
        return np.ascontiguousarray(np.log(np.maximum(self.dense().T, _TINY)), np.float32)

    def state(self) -> dict[str, Any]:
        """JSON values that :meth:`restored` needs."""
        return {
            "wrong": self.wrong.tolist(),
            "strength": self.strength,
            "pull": self.pull,
            "seen": self.seen.tolist(),
            "code": self.pairs.code.tolist(),
            "count": self.pairs.count.tolist(),
        }

    @staticmethod
    def restored(state: Mapping[str, Any]) -> Transition:
        """As it was when :meth:`state` was called."""
        wrong = np.array(state["wrong"], float)
        pairs = Pairs(np.array(state["code"], np.int64), np.array(state["count"], float), len(wrong))
        return Transition(wrong, float(state["strength"]), np.array(state["seen"], float), pairs, float(state["pull"]))


def _rate_strength(errors: Floats, rows: Floats, rate: float) -> float:
    """How many rows the common error rate weighs in each class: beta-binomial likelihood over a grid."""
    s = _STRENGTHS[:, None]
    a, b = s * rate, s * (1 - rate)
    score = gammaln(errors + a) + gammaln(rows - errors + b) - gammaln(rows + s) - gammaln(a) - gammaln(b) + gammaln(s)
    return float(_STRENGTHS[score.sum(axis=1).argmax()])


def _spread_strength(pairs: Pairs, errors: Floats) -> float:
    """How many wrong labels "all alike" weighs: Dirichlet-multinomial likelihood; pairs never seen add nothing to it."""
    s = _STRENGTHS[:, None]
    alike = s / (pairs.classes - 1)
    score = (gammaln(pairs.count + alike) - gammaln(alike)).sum(axis=1)
    score = score + (gammaln(s) - gammaln(errors + s)).sum(axis=1)
    return float(_STRENGTHS[score.argmax()])
