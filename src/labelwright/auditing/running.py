"""A running posterior: whom to ask next, and what each answer changes at once."""

from __future__ import annotations

import numpy as np

from labelwright.auditing.evidence import Evidence
from labelwright.auditing.hypotheses import Hypothesis, softmax
from labelwright.auditing.judge import Judge
from labelwright.types import Bools, Floats, Ints

_STRENGTH = 20.0
_LEAST, _MOST = 1e-9, 1 - 1e-6


class Running:
    """Asks about the row whose label is least probable, hears the answer, and updates the posterior of every row.

    judge, seen: as of an audit of few classes. An answer changes how often its true class is believed to be given each
    label (a Dirichlet count on top of what was fitted), and the weight of the two readings (Bayes' rule). Both are closed
    forms: an answer costs one column of the posterior, however many came before.

    judge and evidence come from :meth:`labelwright.auditing.Audit.running`.
    """

    def __init__(self, judge: Judge, seen: Evidence):
        self.seen = seen
        self._priors = [softmax(seen.weighed(reading.sharpness)) for reading in judge.readings]
        self._transitions = [_Counted(reading) for reading in judge.readings]
        self._joint = [prior * t.of_given(seen.given) for prior, t in zip(self._priors, self._transitions, strict=True)]
        self._total = [joint.sum(axis=1, dtype=float) for joint in self._joint]
        self._odds = float(np.log(judge.weight / (1 - judge.weight)))
        plain = np.clip(seen.certainty.astype(float), _LEAST, _MOST)
        self._plain = np.log(plain / (1 - plain)) + judge.offset[seen.given]
        self.open: Bools = np.ones(len(seen), bool)

    @property
    def score(self) -> Floats:
        """(n,) log-odds that each label is right, up to a constant; lower is worse."""
        w = 1 / (1 + np.exp(-np.clip(self._odds, -4, 4)))
        own = [self.seen.at_own(j).astype(float) / t for j, t in zip(self._joint, self._total, strict=True)]
        right = np.clip(w * own[0] + (1 - w) * own[1], _LEAST, _MOST)
        return (2 * np.log(right / (1 - right)) + self._plain) / 3

    def ask(self) -> int:
        """The open row whose label is least probable."""
        return int(np.where(self.open, self.score, np.inf).argmin())

    def tell(self, row: int, label: int) -> None:
        """An expert says that ``row`` is of class ``label``."""
        given = int(self.seen.given[row])
        chance = [max(float(j[row, label] / t[row]), 0.01) for j, t in zip(self._joint, self._total, strict=True)]
        self._odds += float(np.log(chance[0] / chance[1]))
        self.open[row] = False
        for prior, counted, joint, total in zip(self._priors, self._transitions, self._joint, self._total, strict=True):
            counted.add(label, given)
            column = prior[:, label] * counted.rows[label].astype(np.float32)[self.seen.given]
            total += column - joint[:, label]
            joint[:, label] = column


class _Counted:
    """A transition matrix that answers add to: what was fitted weighs as :data:`_STRENGTH` rows a class."""

    def __init__(self, reading: Hypothesis):
        self.rows = reading.transition.dense()
        self._counts = _STRENGTH * self.rows

    def of_given(self, given: Ints) -> Floats:
        """(n, K) P(given | class)."""
        return np.ascontiguousarray(self.rows.T, np.float32)[given]

    def add(self, true: int, given: int) -> None:
        """One more pair."""
        self._counts[true, given] += 1.0
        self.rows[true] = self._counts[true] / self._counts[true].sum()
