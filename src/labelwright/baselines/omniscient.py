"""The two selectors that hold the truth: upper bounds, for comparison only (paper, sections III and VI)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from labelwright.learners import Learners
from labelwright.selection import NoSelection
from labelwright.truth import Truth
from labelwright.types import Batch, Split, Verdict


class OptSel(NoSelection):
    """Drops exactly the wrong labels.

    >>> from sklearn.naive_bayes import GaussianNB
    >>> from labelwright.learners import as_learner
    >>> nb = as_learner(GaussianNB(), classes=2)
    >>> batch = Batch.of(0, np.zeros((2, 1)), np.array([0, 0]))
    >>> OptSel(Learners(nb, nb), Truth({0: np.array([0, 1])})).split(batch).verdict.tolist()
    [0, 4]
    """

    deciders = {Verdict.TRUSTED: "truth", Verdict.REJECTED: "truth"}

    def __init__(self, learners: Learners, truth: Truth, **options: Any):
        super().__init__(learners, **options)
        self.truth = truth

    def split(self, batch: Batch) -> Split:
        """Trusted where the given label is true, rejected elsewhere."""
        split = super().split(batch)
        wrong = np.flatnonzero(self.truth.of(split.rows.keys) != split.given)
        return split.marked(wrong, Verdict.REJECTED)


class FullClean(NoSelection):
    """Repairs exactly the wrong labels."""

    deciders = {Verdict.TRUSTED: "truth", Verdict.CORRECTED: "truth"}

    def __init__(self, learners: Learners, truth: Truth, **options: Any):
        super().__init__(learners, **options)
        self.truth = truth

    def split(self, batch: Batch) -> Split:
        """Trusted where the given label is true, corrected elsewhere."""
        split = super().split(batch)
        label = self.truth.of(split.rows.keys)
        return replace(split.marked(np.flatnonzero(label != split.given), Verdict.CORRECTED), label=label)
