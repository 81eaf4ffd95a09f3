"""Judging rows by a classifier that is fitted: what of a learner can be sent to a worker."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from labelwright.scale import Mapper
from labelwright.types import Floats, Ints

BLOCK = 20_000
"""Rows that are judged at once. Larger batches are cut: always at the same rows, since products of matrices of other sizes
differ in the last digit."""


def softmax(scores: Floats) -> Floats:
    """(n, K) scores as probabilities.

    >>> softmax(np.array([[0.0, 0.0]])).tolist()
    [[0.5, 0.5]]
    """
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class Scorer:
    """A learner as far as judging goes: its classifier, without the rows that it remembers.

    estimator: fitted. classes: K. only: the class, where it has seen one class only.

    >>> from sklearn.naive_bayes import GaussianNB
    >>> Scorer(GaussianNB().fit([[0.0], [1.0], [0.1], [0.9]], [0, 2, 0, 2]), classes=3).predict(np.array([[1.0]])).tolist()
    [2]
    """

    estimator: Any
    classes: int
    only: int | None = None

    @property
    def fitted(self) -> bool:
        """Always: only a fitted learner has one."""
        return True

    def judge(self, X: Floats) -> tuple[Floats, Floats]:
        """(decision, proba), each (n, K): scores on any scale, and probabilities."""
        if self.only is not None:
            proba = np.full((len(X), self.classes), 1e-3)
            proba[:, self.only] = 1.0
            return proba, proba / proba.sum(axis=1, keepdims=True)
        if hasattr(self.estimator, "predict_proba"):
            proba = self._spread(self.estimator.predict_proba(X), 0.0)
            return proba, proba
        decision = np.asarray(self.estimator.decision_function(X))
        if decision.ndim == 1:
            decision = np.stack([-decision, decision], axis=1)
        decision = self._spread(decision, float(decision.min(initial=0.0)) - 1.0)
        return decision, softmax(decision)

    def proba(self, X: Floats) -> Floats:
        """(n, K) probabilities."""
        return self.judge(X)[1]

    def predict(self, X: Floats) -> Ints:
        """(n,) the likeliest class."""
        return self.judge(X)[0].argmax(axis=1)

    def _spread(self, columns: Floats, missing: float) -> Floats:
        """(n, K) from the columns of the classes that the estimator has seen."""
        seen = np.asarray(self.estimator.classes_, np.int64)
        if len(seen) == self.classes:
            return np.asarray(columns)
        out = np.full((len(columns), self.classes), missing)
        out[:, seen] = columns
        return out


@dataclass(frozen=True)
class _Block:
    name: str
    X: Floats


def judge_many(scorer: Scorer, X: Floats, mapper: Mapper) -> tuple[Floats, Floats]:
    """:meth:`Scorer.judge` of any number of rows, in blocks, by a mapper. Networks share each block out over the cores, so
    they stay in this process."""
    if len(X) <= BLOCK or getattr(scorer.estimator, "uses_all_cores", False):
        return scorer.judge(X)
    ends = [*range(0, len(X), BLOCK), len(X)]
    blocks = (_Block(f"rows {a:,} to {b:,} of the batch", X[a:b]) for a, b in pairwise(ends))
    found = list(mapper.map(_judged, blocks, shared=scorer))
    return np.concatenate([decision for decision, _ in found]), np.concatenate([proba for _, proba in found])


def _judged(scorer: Scorer, block: _Block) -> tuple[Floats, Floats]:
    return scorer.judge(block.X)
