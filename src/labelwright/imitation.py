"""Imitators: what the expert would have said, where sure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from labelwright.errors import SettingsError
from labelwright.posterior import NoiseModel, normalised
from labelwright.types import NO_LABEL, Answers, Corrections, Floats, Ints, Rows, Split, Verdict


class Imitator(Protocol):
    """What the loop needs of an imitator."""

    def correct(self, split: Split, answers: Answers) -> Corrections:
        """New labels for suspicious rows, where sure. Pure."""

    def update(self, split: Split, answers: Answers) -> None:
        """Learn from the answers."""

    def hear(self, answers: Answers) -> None:
        """Learn from answers to older batches' questions, when no new batch brings them along."""

    def state(self) -> dict[str, Any]:
        """What :meth:`restore` needs."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """As it was when :meth:`state` was called; as new for an empty state."""


class _Unlearning:
    """An imitator that learns nothing from answers: the noise matrix, which does, is the selector's."""

    def update(self, split: Split, answers: Answers) -> None:
        """Nothing."""

    def hear(self, answers: Answers) -> None:
        """Nothing."""

    def state(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing."""


class NoImitator(_Unlearning):
    """Corrects nothing."""

    def correct(self, split: Split, answers: Answers) -> Corrections:
        """No corrections."""
        return Corrections.none(split.rows.X.shape[1])


class PosteriorImitator(_Unlearning):
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
        believed = self.believed(split)
        label = believed.argmax(axis=1)
        sure = believed[np.arange(len(split)), label] >= self.threshold
        at = np.flatnonzero(
            split.suspicious & sure & (label != split.given) & ~np.isin(split.rows.keys, answers.rows.keys)
        )
        rows = Rows(split.rows.X[at], label[at], split.rows.keys[at])
        return Corrections(rows, believed[at, label[at]], "posterior")

    def believed(self, split: Split) -> Floats:
        """(n, K) probability of each class to be the true one."""
        return split.posterior


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
        share = self.believed(split)[at].astype(np.float32)
        hints = Rows(split.rows.X[at], share.argmax(axis=1), split.rows.keys[at], share)
        return Corrections(fixed.rows, fixed.probability, fixed.by, hints)


class CopyImitator(SoftImitator):
    """CopyNet's Expert in the loop: it learns from the answers how the true label follows from the models' probabilities and
    the given label (methods section 4), and corrects and teaches as :class:`SoftImitator` does with what it learned.

    The Expert is the "fusing" one of :class:`~labelwright.copynet.CopyNet`: heat * log p + table[:, given], fitted by maximum
    likelihood of the answers, pulled towards the posterior's temperature and noise matrix. Without answers it is the
    posterior. threshold, soft: correct above it; let the other rows teach softly, for learners that take soft labels.
    memory: the most answered rows it remembers. pull: weight of the posterior's numbers, as of so many answers.

    >>> CopyImitator(0.9).state()["true"].tolist()
    []
    """

    def __init__(self, threshold: float = 0.95, *, soft: bool = True, memory: int = 5000, pull: float = 1.0):
        super().__init__(threshold)
        if not 0 < pull < np.inf:
            raise SettingsError(f"pull={pull} is out of range; expected a number above 0")
        if memory < 1:
            raise SettingsError(f"memory={memory} is out of range; expected 1 row or more")
        self.soft, self.memory, self.pull = soft, memory, pull
        self._given, self._true, self._asked, self._asked_given = (np.empty(0, np.int64) for _ in range(4))
        self._proba, self._asked_proba = np.empty((0, 0)), np.empty((0, 0))

    def correct(self, split: Split, answers: Answers) -> Corrections:
        """See :class:`Imitator`."""
        return super().correct(split, answers) if self.soft else PosteriorImitator.correct(self, split, answers)

    def believed(self, split: Split) -> Floats:
        """(n, K) by the Expert; one-hot where the owner vouches."""
        if not len(self._true):
            return split.posterior
        heat, table = self._fitted(split.noise)
        out = fused(split.proba, split.given, heat, table)
        out[split.clean] = split.posterior[split.clean]
        return out

    def update(self, split: Split, answers: Answers) -> None:
        """Remember what the models thought of the rows that the expert was asked about, and of which of them the answer is here."""
        asked = (split.verdict == Verdict.ASKED) | np.isin(split.rows.keys, answers.rows.keys)
        known = self._asked_proba.reshape(-1, split.proba.shape[1])
        self._asked = np.concatenate([self._asked, split.rows.keys[asked]])[-self.memory :]
        self._asked_given = np.concatenate([self._asked_given, split.given[asked]])[-self.memory :]
        self._asked_proba = np.concatenate([known, split.proba[asked]])[-self.memory :]
        self.hear(answers)

    def hear(self, answers: Answers) -> None:
        """See :class:`Imitator`."""
        true = dict(zip(answers.rows.keys.tolist(), answers.label.tolist(), strict=True))
        label = np.array([true.get(key, NO_LABEL) for key in self._asked.tolist()], np.int64)
        told, waits = label != NO_LABEL, ~np.isin(self._asked, answers.rows.keys)
        known = self._proba.reshape(-1, *self._asked_proba.shape[1:])
        self._proba = np.concatenate([known, self._asked_proba[told]])[-self.memory :]
        self._given = np.concatenate([self._given, self._asked_given[told]])[-self.memory :]
        self._true = np.concatenate([self._true, label[told]])[-self.memory :]
        self._asked, self._asked_given = self._asked[waits], self._asked_given[waits]
        self._asked_proba = self._asked_proba[waits]

    def _fitted(self, noise: NoiseModel) -> tuple[float, Floats]:
        """(heat, table (K, K) of true by given)."""
        from scipy.optimize import minimize

        proba, k = self._proba, noise.classes
        logp = np.log(np.clip(proba, _LEAST, None))
        centre = np.concatenate([[np.log(noise.temperature)], np.log(np.clip(noise.transition, _LEAST, None)).ravel()])
        true = np.eye(k)[self._true]

        def loss(at: Floats) -> tuple[float, Floats]:
            heat, table = np.exp(at[0]), at[1:].reshape(k, k)
            believed = fused(proba, self._given, heat, table)
            off = believed - true
            slope = np.zeros((k, k))
            np.add.at(slope.T, self._given, off)
            away = at - centre
            value = -np.log(np.clip(believed[true > 0], _LEAST, None)).sum() + 0.5 * self.pull * (away @ away)
            return float(value), np.concatenate([[heat * (off * logp).sum()], slope.ravel()]) + self.pull * away

        found = minimize(loss, centre, jac=True, method="L-BFGS-B", options={"maxiter": 100}).x
        return float(np.exp(found[0])), found[1:].reshape(k, k)

    def state(self) -> dict[str, Any]:
        """The probabilities, given and true classes of the answered rows, and of those that wait for an answer."""
        return {
            "proba": self._proba, "given": self._given, "true": self._true,
            "asked": self._asked, "asked_given": self._asked_given, "asked_proba": self._asked_proba,
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        """See :class:`Imitator`. A state of before answers could come late holds no rows that wait."""
        no_rows, no_classes = np.empty((0, 0)), np.empty(0, np.int64)
        self._proba = np.asarray(state.get("proba", no_rows), float)
        self._asked_proba = np.asarray(state.get("asked_proba", no_rows), float)
        self._given = np.asarray(state.get("given", no_classes), np.int64)
        self._true = np.asarray(state.get("true", no_classes), np.int64)
        self._asked = np.asarray(state.get("asked", no_classes), np.int64)
        self._asked_given = np.asarray(state.get("asked_given", no_classes), np.int64)


_LEAST = 1e-6


def fused(proba: Floats, given: Ints, heat: float, table: Floats) -> Floats:
    """(n, K) softmax of ``heat * log(proba) + table[:, given]``.

    >>> fused(np.array([[0.5, 0.5]]), np.array([1]), 1.0, np.log([[0.8, 0.2], [0.2, 0.8]])).round(2).tolist()
    [[0.2, 0.8]]
    """
    scores = heat * np.log(np.clip(proba, _LEAST, None)) + table.T[given]
    return normalised(np.exp(scores - scores.max(axis=1, keepdims=True)))
