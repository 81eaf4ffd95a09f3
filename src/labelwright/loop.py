"""The main path. Every system of the paper is a configuration of :func:`step`, never a copy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from labelwright.experts import Expert, NoExpert
from labelwright.imitation import Imitator, NoImitator
from labelwright.learners import Fetch, Learners
from labelwright.queries import Budget, FixedBudget, queries_at
from labelwright.selection import Selector
from labelwright.types import Answer, Answers, Batch, Corrections, Floats, Ints, Queries, Rows, Split, Verdict


class Part(Protocol):
    """A part of the loop with a state of its own."""

    def state(self) -> dict[str, Any]:
        """What it needs to go on after a crash."""


Parts = Mapping[str, Part]


class Ledger(Protocol):
    """What the loop needs of a ledger: :class:`Forgetful`, or :class:`labelwright.ledger.SqlLedger`."""

    def record(self, batch: Batch, split: Split, queries: Queries) -> Queries:
        """Write verdicts and questions down. Returns the questions that are new: after a crash, none are."""

    def outstanding(self) -> Queries:
        """Questions put in earlier steps that have no answer yet."""

    def unmerged(self) -> Answers:
        """Answers written down in a step that was cut short before its commit."""

    def note(self, answer: Answer) -> None:
        """Write one answer down, as it comes."""

    def commit(self, batch: Batch, split: Split, answers: Answers, fixed: Corrections, parts: Parts) -> None:
        """Write final labels, the parts' states and the position in the stream down, in one transaction."""

    def settle(self, answers: Answers, parts: Parts) -> None:
        """Write late answers' labels and the parts' states down, in one transaction; the position stays."""


def step(
    batch: Batch,
    *,
    selector: Selector,
    budget: Budget,
    expert: Expert,
    imitator: Imitator,
    learners: Learners,
    ledger: Ledger,
) -> Split:
    """One batch through the loop; returns its split, with the questions marked."""
    split = selector.split(batch)
    queries = budget.choose(split).ordered()
    split = split.marked(positions(split, queries.rows.keys), Verdict.ASKED)
    fresh = ledger.record(batch, split, queries)  # nothing is asked or learned before it is written down
    answers = heard(expert, fresh, ledger)  # late answers to older batches arrive here too
    fixed = imitator.correct(split, answers)  # what the expert would have said, where sure
    learners.partial_fit(training_rows(split, answers, fixed))
    budget.update(queries, split)
    selector.update(split, answers, fixed)
    imitator.update(split, answers)
    parts: Parts = {"learners": learners, "selector": selector, "budget": budget, "imitator": imitator}
    ledger.commit(batch, split, answers, fixed, parts)  # labels, models and position in one transaction
    return split


def heard(expert: Expert, fresh: Queries, ledger: Ledger) -> Answers:
    """All answers there are now: those to new questions, late ones, and those of a step that was cut short."""
    late = ledger.outstanding()
    late = late.take(~np.isin(late.rows.keys, fresh.rows.keys))
    known = ledger.unmerged()
    answers: list[Answer] = []
    for source in (expert.collect(late), expert.ask(fresh)):
        for answer in source:
            ledger.note(answer)
            answers.append(answer)
    rows = late.rows.plus(fresh.rows)
    new = answers_about(rows, answers)
    return known.plus(new)


def answers_about(rows: Rows, answers: list[Answer]) -> Answers:
    """Answers joined with the rows they are about."""
    if not answers:
        return Answers.none(rows.X.shape[1])
    at = {int(key): i for i, key in enumerate(rows.keys)}
    index = np.array([at[a.key] for a in answers])
    label = np.array([a.label for a in answers], np.int64)
    return Answers(rows.take(index), label, tuple(a.expert for a in answers), np.array([a.cost for a in answers]))


def training_rows(split: Split, answers: Answers, fixed: Corrections) -> Rows:
    """The rows the models learn from: kept ones with their label, answered ones with the expert's, corrected ones, and
    hints: doubtful ones with a share of each class.

    >>> from labelwright.posterior import NoiseModel
    >>> rows = Rows(np.zeros((2, 1)), np.array([0, 1]), np.array([5, 6]))
    >>> half = np.full((2, 2), 0.5)
    >>> split = Split(rows, np.array([0, 4]), rows.y, np.zeros(2, bool), half, half, NoiseModel.start(2))
    >>> training_rows(split, Answers.none(1), Corrections.none(1)).keys.tolist()
    [5]
    """
    elsewhere = np.concatenate([answers.rows.keys, fixed.hints.keys])
    kept = split.kept & ~np.isin(split.rows.keys, elsewhere)
    rows = Rows(split.rows.X[kept], split.label[kept], split.rows.keys[kept])
    return rows.plus(answers.usable).plus(fixed.rows).plus(fixed.hints)


def positions(split: Split, keys: Ints) -> Ints:
    """Where the rows with these keys stand in a split."""
    return np.flatnonzero(np.isin(split.rows.keys, keys))


class Forgetful:
    """A ledger that remembers only open questions: for experiments and estimators.

    >>> Forgetful().outstanding().rows.keys.tolist()
    []
    """

    def __init__(self) -> None:
        self._open = Queries.none()

    def record(self, batch: Batch, split: Split, queries: Queries) -> Queries:
        """All questions are new."""
        if len(queries):
            rows = self._open.rows.plus(queries.rows)
            self._open = Queries(
                rows,
                np.concatenate([self._open.value, queries.value]),
                np.concatenate([self._open.suggestion, queries.suggestion]),
                np.concatenate([self._open.confidence, queries.confidence]),
            )
        return queries

    def outstanding(self) -> Queries:
        """Questions without an answer."""
        return self._open

    def unmerged(self) -> Answers:
        """None: nothing outlives a crash here."""
        return Answers.none()

    def note(self, answer: Answer) -> None:
        """The question is closed."""
        self._open = self._open.take(self._open.rows.keys != answer.key)

    def commit(self, batch: Batch, split: Split, answers: Answers, fixed: Corrections, parts: Parts) -> None:
        """Nothing is kept."""

    def settle(self, answers: Answers, parts: Parts) -> None:
        """Nothing is kept."""


@dataclass
class System:
    """The parts of one loop, put together: a configuration. See :mod:`labelwright.recipes` for the paper's.

    Defaults: nobody is asked, nothing is corrected, nothing is written down.
    """

    selector: Selector
    learners: Learners
    budget: Budget = field(default_factory=lambda: FixedBudget(0))
    expert: Expert = field(default_factory=NoExpert)
    imitator: Imitator = field(default_factory=NoImitator)
    ledger: Ledger = field(default_factory=Forgetful)

    def step(self, batch: Batch) -> Split:
        """One batch through the loop."""
        return step(
            batch,
            selector=self.selector,
            budget=self.budget,
            expert=self.expert,
            imitator=self.imitator,
            learners=self.learners,
            ledger=self.ledger,
        )

    def run(self, batches: Iterator[Batch]) -> Iterator[Split]:
        """Batch after batch, as they come."""
        for batch in batches:
            yield self.step(batch)

    def settle(self) -> Answers:
        """Take in the answers that have come since the last batch, when no batch is left to bring them along."""
        answers = heard(self.expert, Queries.none(), self.ledger)
        if len(answers):
            self.learners.partial_fit(answers.usable)
            self.selector.hear(answers)
            self.imitator.hear(answers)
            self.ledger.settle(answers, self.parts)
        return answers

    def revalued(self) -> Queries:
        """The questions that wait, with the value, suggestion and confidence that the models give them now."""
        rows = self.ledger.outstanding().rows
        if not len(rows):
            return Queries.none()
        decision, proba = self.learners.quality.judge(rows.X)
        asked = np.full(len(rows), int(Verdict.ASKED))
        split = Split(rows, asked, rows.y, np.zeros(len(rows), bool), decision, proba, self.selector.noise)
        return queries_at(split, np.arange(len(rows)), self.budget.value(split), "")

    @property
    def parts(self) -> Parts:
        """What a ledger keeps the states of."""
        return {
            "learners": self.learners,
            "selector": self.selector,
            "budget": self.budget,
            "imitator": self.imitator,
        }

    def predict(self, X: Floats) -> Ints:
        """(n,) class by the classifier."""
        return self.learners.classifier.predict(X)

    def restore(self, state: Mapping[str, Any], fetch: Fetch) -> None:
        """Go on from a state that the ledger kept."""
        self.learners.restore(state["learners"], fetch)
        self.selector.restore(state["selector"], fetch)
        self.budget.restore(state["budget"])
        self.imitator.restore(state.get("imitator", {}))  # older ledgers know of none
