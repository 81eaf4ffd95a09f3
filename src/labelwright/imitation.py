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


class SoftImitator(PosteriorImitator):
    """Corrects where sure, and lets every other row teach by its posterior: no row is wasted.

    threshold: as of :class:`PosteriorImitator`. Suspicious rows given as hints are in no clean data set, but the models
    learn from them, each class weighing as much as it is believed (methods sections 2 and 5). Rows that are kept stay in
    the clean data set as they are given, and teach by their posterior too. For learners that take soft labels; others
    learn the likeliest class.

    >>> from labelwright.posterior import NoiseModel
    >>> rows = Rows(np.zeros((1, 1)), np.array([0]), np.array([5]))
    >>> split = Split(rows, np.array([4]), rows.y, np.zeros(1, bool), np.array([[0.4, 0.6]]), np.array([[0.4, 0.6]]),
    ...     NoiseModel.start(2))
    >>> SoftImitator(0.95).correct(split, Answers.none(1)).hints.share.astype(float).round(2).tolist()
    [[0.73, 0.27]]
    """

    def correct(self, split: Split, answers: Answers) -> Corrections:
        """See :class:`Imitator`."""
        fixed = super().correct(split, answers)
        settled = np.concatenate([fixed.rows.keys, answers.rows.keys])
        teaching = split.suspicious | (split.kept & ~split.clean)
        at = np.flatnonzero(teaching & ~np.isin(split.rows.keys, settled))
        share = split.posterior[at].astype(np.float32)
        hints = Rows(split.rows.X[at], share.argmax(axis=1), split.rows.keys[at], share)
        return Corrections(fixed.rows, fixed.probability, fixed.by, hints)
