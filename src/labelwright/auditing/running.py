"""A running posterior: whom to ask next, and what each answer changes at once."""

from __future__ import annotations

import numpy as np

from labelwright.auditing.evidence import Evidence
from labelwright.auditing.hypotheses import Hypothesis, softmax
from labelwright.auditing.judge import Judge, raw_score
from labelwright.auditing.transition import Pairs
from labelwright.errors import BudgetError, DataError
from labelwright.types import Bools, Floats, Ints


class Running:
    """Asks about the row whose label is least probable, hears the answer, and updates the posterior of every row.

    judge, seen, counts: as of an audit of few classes, see :meth:`labelwright.auditing.Audit.running`. An answer replaces what
    was believed of its row in the expected (true, given) pairs, which changes how often its true class is given each label,
    and shifts the weight of the two readings (Bayes' rule). Both are closed forms: an answer costs one column of the
    posterior, however many came before.
    """

    def __init__(self, judge: Judge, seen: Evidence, counts: tuple[Pairs, Pairs]):
        self.seen = seen
        self._priors = [softmax(seen.weighed(reading.sharpness)) for reading in judge.readings]
        self._transitions = [_Counted(r, c) for r, c in zip(judge.readings, counts, strict=True)]
        self._joint = [prior * t.of_given(seen.given) for prior, t in zip(self._priors, self._transitions, strict=True)]
        self._others = [seen.others(joint) for joint in self._joint]
        self._odds = float(np.log(judge.weight / (1 - judge.weight)))
        self._offset = judge.offset
        self.open: Bools = np.ones(len(seen), bool)

    @property
    def score(self) -> Floats:
        """(n,) log-odds that each label is right, up to a constant; lower is worse."""
        w = 1 / (1 + np.exp(-np.clip(self._odds, -4, 4)))
        part = [self.seen.at_own(j) / (self.seen.at_own(j) + o) for j, o in zip(self._joint, self._others, strict=True)]
        rest = [o / (self.seen.at_own(j) + o) for j, o in zip(self._joint, self._others, strict=True)]
        right, wrong = w * part[0] + (1 - w) * part[1], w * rest[0] + (1 - w) * rest[1]
        return raw_score(right, wrong, self.seen, self._offset)

    def ask(self) -> int:
        """The open row whose label is least probable. Raises BudgetError when every row has been answered."""
        if not self.open.any():
            raise BudgetError(f"all {len(self.open)} rows have been answered; there is none left to ask about")
        return int(np.where(self.open, self.score, np.inf).argmin())

    def tell(self, row: int, label: int) -> None:
        """An expert says that ``row`` is of class ``label``, both by number. Raises DataError for one that does not exist."""
        for what, value, count in (("row", row, len(self.seen)), ("class", label, self._priors[0].shape[1])):
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value < count:
                raise DataError(f"there is no {what} {value!r}; expected a number from 0 to {count - 1}")
        given = int(self.seen.given[row])
        shares = [j[row] / (j[row, given] + o[row]) for j, o in zip(self._joint, self._others, strict=True)]
        self._odds += float(np.log(max(shares[0][label], 0.01) / max(shares[1][label], 0.01)))
        self.open[row] = False
        other = self.seen.given != label
        parts = zip(self._priors, self._transitions, self._joint, self._others, shares, strict=True)
        for prior, counted, joint, others, share in parts:
            column = prior[:, label] * counted.settle(share, label, given)[self.seen.given]
            others += np.where(other, column - joint[:, label], 0.0)
            np.maximum(others, 0.0, out=others)
            joint[:, label] = column


class _Counted:
    """A transition matrix kept up to date: expected pairs of all rows, an answered row's replaced by what it is."""

    def __init__(self, reading: Hypothesis, counts: Pairs):
        self._like = reading.transition
        self._counts = counts.dense()
        self._rate = float(np.clip(1 - np.trace(self._counts) / max(self._counts.sum(), 1.0), 1e-4, 0.99))
        self.rows = reading.transition.dense()

    def of_given(self, given: Ints) -> Floats:
        """(n, K) P(given | class)."""
        return np.ascontiguousarray(self.rows.T, np.float32)[given]

    def settle(self, share: Floats, true: int, given: int) -> Floats:
        """A row that was believed to be distributed as ``share`` (K,) is of class ``true``. Returns P(given | true)."""
        self._counts[:, given] = np.maximum(self._counts[:, given] - share, 0.0)
        self._counts[true, given] += 1.0
        row = self._counts[true]
        errors, like = row.sum() - row[true], self._like
        wrong = (errors + like.pull * self._rate) / (row.sum() + like.pull)
        new = wrong * (row + like.strength / max(len(row) - 1, 1)) / (errors + like.strength)
        new[true] = 1.0 - wrong
        self.rows[true] = new
        return np.asarray(new, np.float32)
