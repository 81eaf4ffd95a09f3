"""Selectors: a batch in, a :class:`~labelwright.types.Split` out. Asking is pure; ``update`` moves the state on.

The quality model L judges every label; the classifier C gives a second opinion on those that L doubts (RAD Duo,
paper section III-A). Rejected rows may wait in a bounded buffer and are judged again with later batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from labelwright.bootstrap import cross_validated
from labelwright.learners import Fetch, Learners, RowMemory
from labelwright.posterior import NoiseModel
from labelwright.types import NO_LABEL, Answers, Batch, Bools, Corrections, Floats, Ints, Rows, Split, Verdict

WEAK = 0.8
"""Share of a first batch that cross-validated models must seem right on for what they say of the noise to be taken at its word."""


class Selector(Protocol):
    """What the loop needs of a selector."""

    @property
    def noise(self) -> NoiseModel:
        """What it has learned of how labels go wrong."""

    def split(self, batch: Batch) -> Split:
        """A verdict for each row of the batch, and of the buffered rows that rejoin it. Pure."""

    def update(self, split: Split, answers: Answers, fixed: Corrections) -> None:
        """Move on: remember what the noise looks like and which rows wait."""

    def hear(self, answers: Answers) -> None:
        """Learn from answers to older batches' questions, when no new batch brings them along."""

    def state(self) -> dict[str, Any]:
        """What :meth:`restore` needs."""

    def restore(self, state: Mapping[str, Any], fetch: Fetch) -> None:
        """As it was when :meth:`state` was called."""


class JudgingSelector:
    """What all selectors share: judging rows by L and C, the noise model, the buffer, the first batch.

    learners: L and C. buffer: how many rejected rows may wait (0: none). patience: how often a row may be judged
    again. estimate_noise: learn the noise matrix from every batch (EM); off, only experts' answers teach it.
    folds: of the cross-validation that judges a first batch without clean rows. both: C judges every row, not only those
    that L doubts, and the posterior rests on the mean of both: dearer, and surer.
    """

    def __init__(
        self,
        learners: Learners,
        *,
        buffer: int = 0,
        patience: int = 3,
        estimate_noise: bool = True,
        noise: NoiseModel | None = None,
        folds: int = 5,
        both: bool = False,
        seed: int = 0,
    ):
        self.learners, self.patience, self.folds, self.seed, self.both = learners, patience, folds, seed, both
        self.estimate_noise = estimate_noise
        self.noise = noise or NoiseModel.start(learners.quality.classes)
        self.buffer = RowMemory(buffer, seed=seed)
        self.waited: dict[int, int] = {}

    deciders: Mapping[int, str] = {}

    def opinion(self, given: Ints, quality: Floats, second: Floats) -> Ints:
        """(n,) verdicts of rows from L's decision and the second opinion, both (n, K). Subclasses decide."""
        raise TypeError(f"{type(self).__name__} must say how it decides")

    def split(self, batch: Batch) -> Split:
        """See :class:`Selector`."""
        rows = batch.rows.plus(self.buffer.rows)
        clean = np.concatenate([batch.clean, np.zeros(len(self.buffer.rows), bool)])
        if clean.all():
            return self._vouched(rows, clean)
        if not self.learners.fitted:
            return self._first(rows, clean)
        decision, proba = self.learners.quality.judge(rows.X)
        second, mixed = self._second_opinion(rows, decision, proba)
        verdict = self.opinion(rows.y, decision, second)
        noise = self._learned(rows, clean, mixed if self.both else proba)
        return self._finished(rows, clean, verdict, decision, mixed, noise=noise)

    def looked_at(self, rows: Rows) -> Split:
        """Verdicts by the models and the noise model as they are: nothing is learned, and no row is buffered or rejoins. A row's
        verdict does not depend on the others."""
        decision, proba = self.learners.quality.judge(rows.X)
        second, mixed = self._second_opinion(rows, decision, proba)
        verdict, nobody = self.opinion(rows.y, decision, second), np.zeros(len(rows), bool)
        return self._reconsidered(Split(rows, verdict, rows.y, nobody, decision, mixed, self.noise, self.deciders))

    def _second_opinion(self, rows: Rows, decision: Floats, proba: Floats) -> tuple[Floats, Floats]:
        """C is asked about the rows that L doubts, and about no others (it may be the dearer model); with ``both``, about
        all."""
        learners = self.learners
        if learners.classifier is learners.quality:
            return decision, proba
        if self.both:
            second, other = learners.classifier.judge(rows.X)
            return second, 0.5 * (proba + other)
        doubted = np.flatnonzero(decision.argmax(axis=1) != rows.y)
        second, mixed = decision.copy(), proba.copy()
        if len(doubted):
            second[doubted], other = learners.classifier.judge(rows.X[doubted])
            mixed[doubted] = 0.5 * (proba[doubted] + other)
        return second, mixed

    def _learned(self, rows: Rows, clean: Bools, proba: Floats) -> NoiseModel:
        """The noise model after the batch's own rows (the buffered ones were counted when they came).

        proba: L's alone, or the mean of both for all rows. Mixing C in only where L doubts the label would let the given
        labels shape the probabilities, and the noise would seem smaller than it is.
        """
        if not self.estimate_noise:
            return self.noise
        fresh = np.arange(len(rows)) < len(rows) - len(self.buffer.rows)
        return self.noise.updated(proba[fresh], rows.y[fresh], np.where(clean, rows.y, NO_LABEL)[fresh])

    def _vouched(self, rows: Rows, clean: Bools) -> Split:
        """Every label is vouched for by its owner: nothing to judge."""
        k = self.noise.classes
        sure = np.full((len(rows), k), 1e-3)
        sure[np.arange(len(rows)), rows.y] = 1.0
        trusted = np.full(len(rows), int(Verdict.TRUSTED))
        proba = sure / sure.sum(axis=1, keepdims=True)
        return Split(rows, trusted, rows.y, clean, sure, proba, self.noise, {Verdict.TRUSTED: "owner"})

    def _first(self, rows: Rows, clean: Bools) -> Split:
        """No model yet: judge the rows by cross-validated probabilities and the posterior (methods section 5)."""
        model, k = self.learners.classifier, self.noise.classes
        proba = cross_validated(
            model.estimator, rows, k, folds=self.folds, seed=self.seed, mapper=getattr(model, "mapper", None)
        )
        noise = self.noise.updated(proba, rows.y, np.where(clean, rows.y, NO_LABEL))
        believed, picked = noise.posterior(proba, rows.y), proba.argmax(axis=1)
        agrees, skill = believed.argmax(axis=1) == rows.y, float(believed[np.arange(len(rows)), picked].mean())
        verdict = np.where(agrees, int(Verdict.TRUSTED), int(Verdict.REJECTED))
        low, high = noise.interval()
        note = (
            f"no model yet: the first {len(rows)} rows ({int(clean.sum())} of them clean) were judged by "
            f"{self.folds}-fold cross-validation; {100 * noise.rate:.1f} % of the labels look wrong "
            f"(95 % interval {100 * low:.1f} to {100 * high:.1f} %)"
        )
        if skill < WEAK:
            note += f"; but the models themselves seem right on {100 * skill:.0f} % of them only: take that as a rough guess"
        split = self._finished(rows, clean, verdict, proba, proba, noise=noise)
        return replace(split, note=note, deciders={**self.deciders, Verdict.TRUSTED: "cross-validation"})

    def _finished(
        self,
        rows: Rows,
        clean: Bools,
        verdict: Ints,
        decision: Floats,
        proba: Floats,
        *,
        noise: NoiseModel,
    ) -> Split:
        verdict = np.where(clean, int(Verdict.TRUSTED), verdict)
        split = self._reconsidered(Split(rows, verdict, rows.y, clean, decision, proba, noise, self.deciders))
        return self._buffered(split) if self.buffer.size else split

    def _reconsidered(self, split: Split) -> Split:
        """A last look at the rejected rows, before some of them are buffered."""
        return split

    def _buffered(self, split: Split) -> Split:
        """Of the rejected rows, those that have waited least wait on, up to the size of the buffer."""
        rejected = np.flatnonzero(split.verdict == Verdict.REJECTED)
        waited = np.array([self.waited.get(int(key), 0) for key in split.rows.keys[rejected]], dtype=int)
        rejected, waited = rejected[waited < self.patience], waited[waited < self.patience]
        order = np.lexsort((-split.posterior[rejected].max(axis=1), waited))
        return split.marked(rejected[order[: self.buffer.size]], Verdict.BUFFERED)

    def update(self, split: Split, answers: Answers, fixed: Corrections) -> None:
        """See :class:`Selector`."""
        self.noise = split.noise
        said = answers.usable
        if len(said):
            here = np.isin(said.keys, split.rows.keys)
            at = _positions(split.rows.keys, said.keys[here])
            given = answers.rows.y[answers.label != NO_LABEL]
            believed = split.posterior[at] if self.estimate_noise else None
            self.noise = self.noise.settled(given[here], said.y[here], believed)
            self.noise = self.noise.settled(given[~here], said.y[~here])
        waiting = split.rows.take(split.verdict == Verdict.BUFFERED)
        gone = np.concatenate([answers.rows.keys, fixed.rows.keys])
        waiting = waiting.take(~np.isin(waiting.keys, gone))
        self.buffer.rows = waiting
        self.waited = {int(key): self.waited.get(int(key), 0) + 1 for key in waiting.keys}

    def hear(self, answers: Answers) -> None:
        """See :class:`Selector`."""
        self.noise = self.noise.settled(answers.rows.y[answers.label != NO_LABEL], answers.usable.y)

    def state(self) -> dict[str, Any]:
        """See :class:`Selector`."""
        waited = [self.waited[int(key)] for key in self.buffer.rows.keys]
        return {"noise": self.noise.state(), "buffer": self.buffer.state(), "waited": waited}

    def restore(self, state: Mapping[str, Any], fetch: Fetch) -> None:
        """See :class:`Selector`."""
        self.noise = self.noise.restored(state["noise"])
        self.buffer.restore(state["buffer"], fetch)
        keys = np.asarray(state["buffer"]["keys"])
        self.waited = {int(key): int(n) for key, n in zip(keys, state["waited"], strict=True)}


class NoSelection(JudgingSelector):
    """Keep everything as given (the baseline No-Sel; with queries among all rows, AL-only).

    >>> from sklearn.naive_bayes import GaussianNB
    >>> from labelwright.learners import as_learner
    >>> nb = as_learner(GaussianNB(), classes=2)
    >>> batch = Batch.of(0, np.zeros((2, 1)), np.array([0, 1]), clean=True)
    >>> NoSelection(Learners(nb, nb)).split(batch).verdict.tolist()
    [0, 0]
    """

    deciders = {Verdict.TRUSTED: "no selection"}

    def opinion(self, given: Ints, quality: Floats, second: Floats) -> Ints:
        """Everything is trusted."""
        return np.full(len(given), int(Verdict.TRUSTED))

    def _first(self, rows: Rows, clean: Bools) -> Split:
        """Even a first batch is kept as it is."""
        k = self.noise.classes
        flat = np.full((len(rows), k), 1.0 / k)
        return self._finished(rows, clean, self.opinion(rows.y, flat, flat), flat, flat, noise=self.noise)


class QualityOnly(JudgingSelector):
    """Keep the rows where the quality model agrees with the given label (the paper's Q-only, and QAL's filter)."""

    deciders = {
        Verdict.TRUSTED: "quality model",
        Verdict.REJECTED: "quality model",
        Verdict.BUFFERED: "quality model",
    }

    def opinion(self, given: Ints, quality: Floats, second: Floats) -> Ints:
        """Trusted where L agrees."""
        agrees = quality.argmax(axis=1) == given
        return np.where(agrees, int(Verdict.TRUSTED), int(Verdict.REJECTED))


class RadDuo(JudgingSelector):
    """Keep the rows where the quality model agrees, and of the rest those where the classifier does (paper, III-A)."""

    deciders = {
        Verdict.TRUSTED: "quality model",
        Verdict.RESCUED: "classifier",
        Verdict.REJECTED: "quality model and classifier",
        Verdict.BUFFERED: "quality model and classifier",
    }

    def opinion(self, given: Ints, quality: Floats, second: Floats) -> Ints:
        """Trusted where L agrees, rescued where only C does."""
        trusted = quality.argmax(axis=1) == given
        rescued = ~trusted & (second.argmax(axis=1) == given)
        out = np.full(len(given), int(Verdict.REJECTED))
        out[rescued] = Verdict.RESCUED
        out[trusted] = Verdict.TRUSTED
        return out


class Slim(QualityOnly):
    """RAD Duo at half the cost: one model in both roles, so the quality model is the classifier as the last batch
    left it, L(t) = C(t-1); the posterior gives the second opinion (methods section 2, future work (a))."""

    deciders = {
        Verdict.TRUSTED: "classifier of the last batch",
        Verdict.RESCUED: "posterior",
        Verdict.REJECTED: "classifier of the last batch and posterior",
        Verdict.BUFFERED: "classifier of the last batch and posterior",
    }

    def __init__(self, learners: Learners, **options: Any):
        super().__init__(Learners(learners.classifier, learners.classifier), **options)

    def _reconsidered(self, split: Split) -> Split:
        rescued = split.suspicious & (split.posterior.argmax(axis=1) == split.given)
        return split.marked(np.flatnonzero(rescued), Verdict.RESCUED)


def _positions(keys: Ints, wanted: Ints) -> Ints:
    """Where each of ``wanted`` stands in ``keys``; all must be there."""
    order = np.argsort(keys, kind="stable")
    return order[np.searchsorted(keys[order], wanted)]
