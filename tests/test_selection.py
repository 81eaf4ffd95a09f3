"""Verdicts with stub learners whose judgements are given; the buffer; what experts teach the noise model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.naive_bayes import GaussianNB

from labelwright.errors import TooFewRowsError
from labelwright.learners import Learners, Refit, as_learner
from labelwright.posterior import NoiseModel
from labelwright.selection import JudgingSelector, NoSelection, QualityOnly, RadDuo, Slim
from labelwright.types import NO_LABEL, Answers, Batch, Corrections, Floats, Ints, Rows, Split, Verdict

TRUSTED, RESCUED, ASKED, CORRECTED, REJECTED, BUFFERED, _ = (int(v) for v in Verdict)


class Says:
    """A learner of 3 classes that reads its judgement from a column of X: 0.6 for that class, 0.2 for the others."""

    classes, fitted = 3, True

    def __init__(self, column: int):
        self.column = column
        self.heard: list[Floats] = []

    def judge(self, X: Floats) -> tuple[Floats, Floats]:
        self.heard.append(X)
        proba = np.full((len(X), 3), 0.2)
        proba[np.arange(len(X)), X[:, self.column].astype(int)] = 0.6
        return np.log(proba), proba


def duo() -> Any:
    return Learners(Says(0), Says(1))  # type: ignore[arg-type]


#                    L agrees | C rescues | both say 1 | L and C differ
X = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [1.0, 2.0]])
GIVEN = np.zeros(4, np.int64)


def doubts(number: int, *wrong: int) -> Batch:
    """Rows given as 0 that both models take for 1 (or, where told, for their own label)."""
    return Batch.of(number, np.array([[w, w] for w in wrong], float).reshape(-1, 2), np.zeros(len(wrong), int))


def done(selector: JudgingSelector, split: Split) -> None:
    selector.update(split, Answers.none(2), Corrections.none(2))


# ---------------------------------------------------------------- verdicts


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (RadDuo, [TRUSTED, RESCUED, REJECTED, REJECTED]),
        (QualityOnly, [TRUSTED, REJECTED, REJECTED, REJECTED]),
        (NoSelection, [TRUSTED] * 4),
    ],
)
def test_verdicts(kind: type[JudgingSelector], expected: list[int]) -> None:
    split = kind(duo()).split(Batch.of(1, X, GIVEN))
    assert split.verdict.tolist() == expected and split.label.tolist() == [0] * 4
    assert all(verdict in split.deciders for verdict in set(expected))


def test_clean_rows_are_trusted_whatever_the_models_say() -> None:
    split = RadDuo(duo()).split(Batch.of(1, X, GIVEN, clean=np.array([False, False, False, True])))
    assert split.verdict.tolist() == [TRUSTED, RESCUED, REJECTED, TRUSTED]
    whole = RadDuo(duo())
    assert whole.split(Batch.of(0, X, GIVEN, clean=True)).verdict.tolist() == [TRUSTED] * 4
    assert whole.learners.quality.heard == []  # type: ignore[union-attr]  # nothing to judge


def test_the_classifier_is_asked_only_about_rows_that_the_quality_model_doubts() -> None:
    learners = duo()
    split = RadDuo(learners, estimate_noise=False).split(Batch.of(1, X, GIVEN))
    assert len(learners.quality.heard) == 1 and learners.quality.heard[0].tolist() == X.tolist()
    assert len(learners.classifier.heard) == 1 and learners.classifier.heard[0].tolist() == X[1:].tolist()
    # both opinions count where both were heard
    np.testing.assert_allclose(split.proba, [[0.6, 0.2, 0.2], [0.4, 0.4, 0.2], [0.2, 0.6, 0.2], [0.2, 0.4, 0.4]])
    np.testing.assert_allclose(np.exp(split.decision), [[0.6, 0.2, 0.2]] + [[0.2, 0.6, 0.2]] * 3)
    RadDuo(learners).split(doubts(2, 0, 0))
    assert len(learners.classifier.heard) == 1  # L doubts nothing: C is not called at all


class Leans(Says):
    """Two classes; the probability of class 0 stands in the column."""

    classes = 2

    def judge(self, X: Floats) -> tuple[Floats, Floats]:
        p = X[:, self.column]
        proba = np.stack([p, 1 - p], axis=1)
        return proba, proba


def test_slim_rescues_by_the_posterior_with_the_classifier_alone() -> None:
    both = Learners(Says(0), Leans(0))  # type: ignore[arg-type]
    selector = Slim(both, estimate_noise=False, noise=NoiseModel.start(2))  # transition 0.8 / 0.2
    split = selector.split(Batch.of(1, np.array([[0.7], [0.45], [0.1]]), np.zeros(3, int)))
    # 0.45 * 0.8 = 0.36 beats 0.55 * 0.2 = 0.11; 0.1 * 0.8 = 0.08 loses to 0.9 * 0.2 = 0.18
    assert split.verdict.tolist() == [TRUSTED, RESCUED, REJECTED]
    np.testing.assert_allclose(split.label_score[1:], [0.36 / 0.47, 0.08 / 0.26])
    assert both.quality.heard == []  # type: ignore[union-attr]


def test_slim_buffers_only_rows_that_were_not_rescued() -> None:
    both = Learners(Leans(0), Leans(0))  # type: ignore[arg-type]
    selector = Slim(both, buffer=1, estimate_noise=False, noise=NoiseModel.start(2))
    split = selector.split(Batch.of(1, np.array([[0.45], [0.19], [0.1]]), np.zeros(3, int)))
    # one place, for the row that the posterior is surest of: 0.18 / 0.26 = 0.69 against 0.162 / 0.314 = 0.52
    assert split.verdict.tolist() == [RESCUED, REJECTED, BUFFERED]


# ---------------------------------------------------------------- the buffer


def test_buffer_is_bounded_and_rows_come_back() -> None:
    selector = RadDuo(duo(), buffer=2)
    first = selector.split(doubts(1, 1, 1, 1, 0))
    assert sorted(first.verdict.tolist()) == [TRUSTED, REJECTED, BUFFERED, BUFFERED]
    done(selector, first)
    waiting = first.rows.keys[first.verdict == BUFFERED]
    assert selector.buffer.rows.keys.tolist() == waiting.tolist()
    for says in (selector.learners.quality, selector.learners.classifier):  # the models have learned: they now agree
        says.judge = lambda X: (np.eye(3)[np.zeros(len(X), int)],) * 2  # type: ignore[method-assign]
    second = selector.split(doubts(2, 0))
    assert second.rows.keys.tolist() == [2 * 2**32, *waiting]  # the batch's own first
    assert second.verdict.tolist() == [TRUSTED] * 3
    done(selector, second)
    assert len(selector.buffer.rows) == 0 and selector.waited == {}


def test_rows_age_out_after_patience() -> None:
    selector = RadDuo(duo(), buffer=5, patience=2)
    verdicts = []
    for number in range(1, 5):
        split = selector.split(doubts(number, *([1] if number == 1 else [0])))
        at = np.flatnonzero(split.rows.keys == 2**32)
        verdicts.append(split.verdict[at].tolist())
        done(selector, split)
    # judged when it came and twice again, then gone
    assert verdicts == [[BUFFERED], [BUFFERED], [REJECTED], []]


def test_rows_that_waited_least_wait_on() -> None:
    selector = RadDuo(duo(), buffer=2, patience=9)
    done(selector, selector.split(doubts(1, 1, 1)))
    split = selector.split(doubts(2, 1))
    assert split.verdict[0] == BUFFERED and sorted(split.verdict[1:].tolist()) == [REJECTED, BUFFERED]


def test_splitting_is_pure_and_the_state_comes_back() -> None:
    selector = RadDuo(duo(), buffer=3)
    done(selector, selector.split(doubts(1, 1, 1, 0)))
    once, twice = (selector.split(doubts(2, 1, 0)) for _ in range(2))
    assert once.verdict.tolist() == twice.verdict.tolist()
    np.testing.assert_array_equal(once.posterior, twice.posterior)
    kept = selector.buffer.rows

    def fetch(keys: Ints) -> tuple[Ints, Floats]:
        return kept.keys[::-1], kept.X[::-1]

    again = RadDuo(duo(), buffer=3)
    again.restore(selector.state(), fetch)
    assert again.waited == selector.waited
    np.testing.assert_array_equal(again.split(doubts(2, 1, 0)).posterior, once.posterior)


def test_answered_and_corrected_rows_leave_the_buffer() -> None:
    selector = RadDuo(duo(), buffer=5)
    split = selector.split(doubts(1, 1, 1, 1))
    rows = split.rows
    cannot = Answers(rows.take(np.array([1])), np.array([NO_LABEL]), ("ann",), np.ones(1))
    fixed = Corrections(Rows(rows.X[2:], np.array([1]), rows.keys[2:]), np.ones(1))
    selector.update(split, cannot, fixed)
    assert selector.buffer.rows.keys.tolist() == [rows.keys[0]]


# ---------------------------------------------------------------- what is learned about the noise


def test_answers_teach_the_noise_model() -> None:
    selector = QualityOnly(duo(), estimate_noise=False)
    split = selector.split(doubts(3, 1, 1))
    late = Rows(np.zeros((1, 2)), np.array([2]), np.array([7]))  # of a batch long ago
    answered = split.rows.plus(late)
    selector.update(split, Answers(answered, np.array([1, NO_LABEL, 0]), ("ann",) * 3, np.ones(3)), Corrections.none(2))
    expected = np.zeros((3, 3))
    expected[1, 0] = expected[0, 2] = 1  # [true, given]
    np.testing.assert_allclose(selector.noise.counts, expected)
    np.testing.assert_allclose(selector.noise.answered, expected)


def test_an_answer_replaces_what_em_believed_of_its_row() -> None:
    selector = QualityOnly(duo())
    split = selector.split(doubts(1, 1, 1, 0))
    one = Answers(split.rows.take(np.array([1])), np.array([2]), ("ann",), np.ones(1))
    selector.update(split, one, Corrections.none(2))
    expected = np.zeros((3, 3))
    expected[:, 0] = split.posterior[[0, 2]].sum(axis=0)
    expected[2, 0] += 1
    # EM stops when no entry of the matrix moves by 0.001: so near are its counts to the split's posterior
    np.testing.assert_allclose(selector.noise.counts, expected, atol=2e-3)
    assert selector.noise.counts.sum() == pytest.approx(3)


def test_buffered_rows_are_counted_once() -> None:
    selector = RadDuo(duo(), buffer=5)
    for number in range(1, 4):
        done(selector, selector.split(doubts(number, 1, 0)))
    assert len(selector.buffer.rows) > 2 and selector.noise.counts.sum() == pytest.approx(6)


# ---------------------------------------------------------------- a first batch without clean rows


def fresh_learners() -> Learners:
    learner = Refit(GaussianNB(), classes=2)
    return Learners(learner, learner)


def two_heaps() -> Batch:
    features = np.concatenate([np.linspace(0, 1, 20), np.linspace(10, 11, 20)])[:, None]
    given = np.repeat([0, 1], 20)
    given[[3, 30]] = [1, 0]
    return Batch.of(0, features, given)


def test_first_batch_is_judged_by_cross_validation() -> None:
    split = RadDuo(fresh_learners()).split(two_heaps())
    assert np.flatnonzero(split.verdict == REJECTED).tolist() == [3, 30]
    assert split.deciders[Verdict.TRUSTED] == "cross-validation" and "5-fold cross-validation" in split.note
    low, high = split.noise.interval()
    assert low < split.noise.rate < high and f"{100 * low:.1f} to {100 * high:.1f} %" in split.note


def test_models_that_tell_little_say_so_of_the_noise() -> None:
    assert "rough guess" not in RadDuo(fresh_learners()).split(two_heaps()).note
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 60)
    blurred = Batch.of(0, y[:, None] * 0.3 + rng.normal(size=(180, 1)), y)
    naive = as_learner(GaussianNB(), classes=3)
    note = RadDuo(Learners(naive, naive)).split(blurred).note
    assert "but the models themselves seem right on" in note and "take that as a rough guess" in note


def test_first_batch_may_be_kept_or_be_too_small() -> None:
    assert NoSelection(fresh_learners()).split(two_heaps()).verdict.tolist() == [TRUSTED] * 40
    with pytest.raises(TooFewRowsError, match="only 3 rows"):
        RadDuo(fresh_learners()).split(Batch.of(0, np.arange(13.0)[:, None], np.repeat([0, 1], [10, 3])))
