"""The main path: the order of things, late answers, nothing asked twice, systems as configurations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sklearn.naive_bayes import GaussianNB

from labelwright.errors import SettingsError
from labelwright.experts import NoExpert, Oracle
from labelwright.imitation import CopyImitator, NoImitator, PosteriorImitator
from labelwright.learners import Learners, Refit
from labelwright.loop import Forgetful, System, answers_about, training_rows
from labelwright.posterior import NoiseModel
from labelwright.queries import FixedBudget
from labelwright.recipes import al_only, no_selection, qal, rad_duo
from labelwright.selection import NoSelection, QualityOnly, RadDuo
from labelwright.truth import Truth
from labelwright.types import NO_LABEL, Answer, Answers, Batch, Corrections, Floats, Queries, Rows, Split, Verdict

TRUE = [np.arange(40) % 2, np.arange(30) % 2, np.arange(30) % 2]
TRUTH = Truth(dict(enumerate(TRUE)))


def stream() -> Iterator[Batch]:
    """Two heaps; D0 is clean, in the others every third label is wrong."""
    for number, true in enumerate(TRUE):
        n = len(true)
        X = true[:, None] * 10.0 + np.linspace(0, 1, n)[:, None]
        given = np.where((np.arange(n) % 3 == 0) & (number > 0), 1 - true, true)
        yield Batch.of(number, X, given, clean=number == 0)


def learner() -> Refit:
    return Refit(GaussianNB(), classes=2)


class Diary(Forgetful):
    """A ledger that notes what happens when. ``owed``: answers of a step that was cut short."""

    def __init__(self, events: list[str], owed: Answers | None = None):
        super().__init__()
        self.events, self.owed = events, owed
        self.committed: list[Any] = []

    def record(self, batch: Batch, split: Split, queries: Queries) -> Queries:
        self.events.append(f"record {len(queries)}")
        assert (split.verdict == Verdict.ASKED).sum() == len(queries)
        return super().record(batch, split, queries)

    def unmerged(self) -> Answers:
        owed, self.owed = self.owed, None
        return owed or super().unmerged()

    def note(self, answer: Answer) -> None:
        self.events.append("note")
        super().note(answer)

    def commit(self, batch: Batch, split: Split, answers: Answers, fixed: Corrections, parts: Any) -> None:
        self.events.append("commit")
        self.committed.append((batch.number, answers, fixed, {name: part.state() for name, part in parts.items()}))


class Slow(NoExpert):
    """Answers when the questions come up again; remembers every time it was asked."""

    def __init__(self, events: list[str]):
        self.events = events
        self.put: list[int] = []

    def ask(self, queries: Queries) -> Iterator[Answer]:
        self.events.append("ask")
        self.put += queries.rows.keys.tolist()
        return iter(())

    def collect(self, outstanding: Queries) -> Iterator[Answer]:
        for key, label in zip(outstanding.rows.keys, TRUTH.of(outstanding.rows.keys)):
            yield Answer(int(key), int(label), "slow")


class Watched(Learners):
    """Learners that note when they learn, and keep what they learned from."""

    events: list[str]

    def partial_fit(self, rows: Rows) -> None:
        self.events.append("learn")
        super().partial_fit(rows)


def watched(expert: Any, events: list[str], owed: Answers | None = None) -> tuple[System, Diary]:
    one, diary = learner(), Diary(events, owed)
    both = Watched(one, one)
    both.events = events
    return System(QualityOnly(both), both, FixedBudget(4), expert, ledger=diary), diary


# ---------------------------------------------------------------- the order of things


def test_recorded_before_asked_before_learned_before_committed() -> None:
    events: list[str] = []

    class Heard(Oracle):
        def ask(self, queries: Queries) -> Iterator[Answer]:
            events.append(f"ask {len(queries)}")
            yield from super().ask(queries)

    system, _ = watched(Heard(TRUTH), events)
    list(system.run(stream()))
    one = ["record 4", "ask 0", "ask 4", "note", "note", "note", "note", "learn", "commit"]
    assert events == ["record 0", "ask 0", "ask 0", "learn", "commit", *one, *one]


def test_a_ledger_that_fails_stops_asking_and_learning() -> None:
    events: list[str] = []
    system, diary = watched(Slow(events), events)
    batches = list(stream())
    system.step(batches[0])
    before = system.learners.quality.memory.rows
    events.clear()
    diary.record = lambda *args: (_ for _ in ()).throw(OSError("disk full"))  # type: ignore[method-assign, assignment]
    with pytest.raises(OSError, match="disk full"):
        system.step(batches[1])
    assert events == [] and system.learners.quality.memory.rows is before and system.budget.spent == 0


# ---------------------------------------------------------------- answers


def test_late_answers_are_merged_once_and_nothing_is_asked_twice() -> None:
    events: list[str] = []
    expert = Slow(events)
    system, diary = watched(expert, events)
    list(system.run(stream()))
    assert len(expert.put) == len(set(expert.put)) == system.budget.spent == 8
    first = [key for key in expert.put if key >> 32 == 1]
    assert [len(answers) for _, answers, _, _ in diary.committed] == [0, 0, 4]
    late = diary.committed[2][1]
    assert sorted(late.rows.keys) == sorted(first)
    assert (late.label == TRUTH.of(late.rows.keys)).all() and (late.rows.y != late.label).all()
    memory = system.learners.quality.memory.rows
    at = np.isin(memory.keys, late.rows.keys)
    assert at.sum() == 4 and (memory.y[at] == TRUTH.of(memory.keys[at])).all()
    # the questions of the last batch are open, no others
    assert sorted(diary.outstanding().rows.keys) == sorted(set(expert.put) - set(first))


def test_late_answers_teach_the_imitator_too() -> None:
    events: list[str] = []
    expert = Slow(events)
    system, _ = watched(expert, events)
    system.imitator = CopyImitator(0.9)
    list(system.run(stream()))
    assert len(system.imitator.state()["true"]) == 4 and len(system.imitator.state()["asked"]) == 4
    again = CopyImitator(0.9)
    again.restore(system.imitator.state())
    system.imitator = again
    system.settle()
    state = again.state()
    assert len(state["asked"]) == 0 and state["true"].tolist() == TRUTH.of(np.sort(expert.put)).tolist()
    again.restore({})
    assert not len(again.state()["true"])


def test_answers_of_a_step_that_was_cut_short_are_learned() -> None:
    events: list[str] = []
    rows = Rows(np.array([[3.0]]), np.array([1]), np.array([99 << 32]))
    owed = Answers(rows, np.array([0]), ("ann",), np.ones(1))
    system, diary = watched(NoExpert(), events, owed)
    list(system.run(stream()))
    assert [len(answers) for _, answers, _, _ in diary.committed] == [1, 0, 0]
    memory = system.learners.quality.memory.rows
    assert memory.y[memory.keys == 99 << 32].tolist() == [0]
    assert "note" not in events  # it was noted before the crash


def test_questions_that_the_ledger_knows_are_collected_not_asked() -> None:
    """After a crash between asking and answering: record says that none are new."""
    events: list[str] = []
    expert = Slow(events)
    system, diary = watched(expert, events)
    batches = list(stream())
    system.step(batches[0])
    known = FixedBudget(4).choose(system.selector.split(batches[1]))
    Forgetful.record(diary, batches[1], system.selector.split(batches[1]), known)
    diary.record = lambda batch, split, queries: queries.take(np.zeros(len(queries), bool))  # type: ignore[method-assign]
    system.step(batches[1])
    assert expert.put == [] and system.budget.spent == 4
    assert diary.committed[-1][1].rows.keys.tolist() == known.rows.keys.tolist()


def test_answers_find_their_rows() -> None:
    rows = Rows(np.array([[1.0], [2.0], [3.0]]), np.array([0, 1, 0]), np.array([10, 11, 12]))
    got = answers_about(rows, [Answer(12, 1, "ann", 2.0), Answer(10, NO_LABEL, "bob")])
    assert got.rows.X[:, 0].tolist() == [3, 1] and got.label.tolist() == [1, NO_LABEL]
    assert got.experts == ("ann", "bob") and got.cost.tolist() == [2, 1]
    assert len(answers_about(rows, [])) == 0


# ---------------------------------------------------------------- what is learned


def split_of(verdict: list[int], proba: Floats | None = None) -> Split:
    n = len(verdict)
    rows = Rows(np.arange(n)[:, None].astype(float), np.zeros(n, np.int64), np.arange(n))
    p = np.full((n, 2), 0.5) if proba is None else proba
    return Split(rows, np.array(verdict), rows.y, np.zeros(n, bool), p, p, NoiseModel.start(2))


def test_training_rows_are_kept_answered_and_corrected_ones() -> None:
    split = split_of([int(v) for v in Verdict])  # trusted, rescued, asked, corrected, rejected, buffered, quarantined
    answers = Answers(split.rows.take(np.array([1, 2])), np.array([NO_LABEL, 1]), ("ann", "ann"), np.ones(2))
    fixed = Corrections(Rows(np.array([[4.0]]), np.array([1]), np.array([4])), np.ones(1))
    rows = training_rows(split, answers, fixed)
    # 1 was kept, but the expert cannot say: it is left out
    assert rows.keys.tolist() == [0, 3, 2, 4] and rows.y.tolist() == [0, 0, 1, 1]


def test_posterior_imitator_corrects_only_sure_unasked_suspects() -> None:
    p = np.array([[0.01, 0.99], [0.01, 0.99], [0.2, 0.8], [0.01, 0.99], [0.99, 0.01], [0.005, 0.995]])
    split = split_of([4, 0, 4, 4, 4, 2], p)
    # posterior of class 1, given 0: 0.99 * 0.2 / (0.99 * 0.2 + 0.01 * 0.8) = 0.9612; row 2: 0.16 / 0.32 = 0.5
    asked = Answers(split.rows.take(np.array([3])), np.array([NO_LABEL]), ("ann",), np.ones(1))
    fixed = PosteriorImitator(0.96).correct(split, asked)
    assert fixed.rows.keys.tolist() == [0] and fixed.rows.y.tolist() == [1]
    assert fixed.probability == pytest.approx([0.198 / 0.206])
    assert len(PosteriorImitator(0.97).correct(split, asked)) == len(NoImitator().correct(split, asked)) == 0
    with pytest.raises(SettingsError):
        PosteriorImitator(1.01)


# ---------------------------------------------------------------- systems


def test_no_selection_learns_everything_as_given() -> None:
    system = no_selection(learner())
    splits = list(system.run(stream()))
    batches = list(stream())
    X, y = np.concatenate([b.X for b in batches]), np.concatenate([b.given for b in batches])
    np.testing.assert_allclose(system.learners.quality.proba(X), GaussianNB().fit(X, y).predict_proba(X))
    assert all((split.verdict == Verdict.TRUSTED).all() for split in splits)


def test_qal_learns_the_truth_where_it_asked() -> None:
    system = qal(learner(), FixedBudget(5, total=10), Oracle(TRUTH))
    list(system.run(stream()))
    memory = system.learners.quality.memory.rows
    assert (memory.y == TRUTH.of(memory.keys)).all() and system.budget.spent == 10
    assert len(memory) == 40 + 2 * (20 + 5)  # D0, and of each batch the 20 right labels and 5 answers


def test_al_only_asks_anywhere_and_keeps_the_rest() -> None:
    system = al_only(learner(), FixedBudget(5, among="all"), Oracle(TRUTH))
    splits = list(system.run(stream()))
    assert [int((s.verdict == Verdict.ASKED).sum()) for s in splits] == [0, 5, 5]
    assert len(system.learners.quality.memory.rows) == 100


def test_every_recipe_is_a_configuration() -> None:
    assert isinstance(no_selection(learner()).selector, NoSelection)
    system = rad_duo(learner(), learner(), buffer=7, budget=FixedBudget(3), expert=Oracle(TRUTH))
    assert isinstance(system.selector, RadDuo) and system.selector.buffer.size == 7
    assert isinstance(system.imitator, NoImitator) and isinstance(system.expert, Oracle)
    list(system.run(stream()))
    assert system.budget.spent == 6
    memory = system.learners.classifier.memory.rows
    assert (memory.y == TRUTH.of(memory.keys)).all()


@pytest.mark.parametrize("imitator", [NoImitator, lambda: CopyImitator(0.8, soft=False)])
def test_a_restored_system_goes_on_identically(imitator) -> None:
    def make(diary: Diary) -> System:
        system = rad_duo(
            learner(), learner(), buffer=9, budget=FixedBudget(2, total=3), expert=Oracle(TRUTH), imitator=imitator()
        )
        system.ledger = diary
        return system

    batches = list(stream())
    X = {int(key): row for batch in batches for key, row in zip(batch.keys, batch.X)}
    diary = Diary([])
    whole = make(diary)
    for batch in batches:
        whole.step(batch)
    again = make(Diary([]))
    again.restore(diary.committed[1][3], lambda keys: (keys, np.array([X[int(k)] for k in keys])))
    split = again.step(batches[2])
    assert again.budget.spent == whole.budget.spent == 3
    assert again.selector.state()["waited"] == whole.selector.state()["waited"]
    assert bool(whole.selector.state()["waited"]) == isinstance(
        whole.imitator, NoImitator
    )  # the other corrects them all
    probe = np.linspace(-1, 12, 50)[:, None]
    np.testing.assert_array_equal(again.learners.classifier.proba(probe), whole.learners.classifier.proba(probe))
    assert (split.verdict == Verdict.ASKED).sum() == 1
    for name, value in whole.imitator.state().items():
        np.testing.assert_array_equal(again.imitator.state()[name], value)
        assert len(value) == (0 if name.startswith("asked") else 3)  # answers; none waits for one
    older = {name: part for name, part in diary.committed[1][3].items() if name != "imitator"}
    make(Diary([])).restore(older, lambda keys: (keys, np.array([X[int(k)] for k in keys])))
