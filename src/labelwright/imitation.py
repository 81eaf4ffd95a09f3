"""Imitators: what the expert would have said, where sure."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from labelwright.errors import SettingsError
from labelwright.types import Answers, Corrections, Rows, Split


class Imitator(Protocol):
    """What the loop needs of an imitator."""

    def correct(self, split: Split, answers: Answers) -> Corrections:
        """New labels for suspicious rows, where sure. Pure."""


class NoImitator:
    """Corrects nothing."""

    def correct(self, split: Split, answers: Answers) -> Corrections:
        """No corrections."""
        return Corrections.none(split.rows.X.shape[1])


class PosteriorImitator:
    """Corrects a suspicious row when the posterior is sure of another label (methods section 5).

    threshold: the least probability of the new label, above 0.5. Rows the expert is asked about are left alone.

    >>> PosteriorImitator(0.3)
    Traceback (most recent call last):
        ...
    labelwright.errors.SettingsError: a correction threshold of 0.3 is no certainty; expected above 0.5, at most 1
    """

    def __init__(self, threshold: float = 0.95):
        if not 0.5 < threshold <= 1:
            raise SettingsError(f"a correction threshold of {threshold} is no certainty; expected above 0.5, at most 1")
        self.threshold = threshold

    def correct(self, split: Split, answers: Answers) -> Corrections:
        """See :class:`Imitator`."""
        believed = split.posterior
        label = believed.argmax(axis=1)
        sure = believed[np.arange(len(split)), label] >= self.threshold
        at = np.flatnonzero(
            split.suspicious & sure & (label != split.given) & ~np.isin(split.rows.keys, answers.rows.keys)
        )
        rows = Rows(split.rows.X[at], label[at], split.rows.keys[at])
        return Corrections(rows, believed[at, label[at]], "posterior")
