"""Learners: memory, refitting, replay, states that come back the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, Perceptron, SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from labelwright.errors import SettingsError
from labelwright.learners import Incremental, Learner, Learners, Refit, RowMemory, as_learner
from labelwright.learners.scoring import softmax
from labelwright.safe import load_model
from labelwright.types import Floats, Ints, Rows

DIGITS, LABELS = load_digits(return_X_y=True)


def numbered(keys: list[int] | Ints, label: int = 0) -> Rows:
    keys = np.asarray(keys, np.int64)
    return Rows(keys[:, None].astype(float), np.full(len(keys), label), keys)


def digits(start: int, stop: int) -> Rows:
    return Rows(DIGITS[start:stop], LABELS[start:stop], np.arange(start, stop))


def fetch(keys: Ints) -> tuple[Ints, Floats]:
    """Everything can still be had, in an order of its own."""
    return keys[::-1], DIGITS[keys[::-1]]


# ---------------------------------------------------------------- memory


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=0, max_size=60, unique=True), st.integers(0, 20), st.data())
def test_memory_holds_the_same_rows_whatever_the_batch_sizes(keys: list[int], size: int, data: st.DataObject) -> None:
    whole, parts = RowMemory(size, seed=3), RowMemory(size, seed=3)
    whole.add(numbered(keys))
    start = 0
    while start < len(keys):
        step = data.draw(st.integers(1, 9))
        parts.add(numbered(keys[start : start + step]))
        assert len(parts.rows) <= size
        start += step
    assert sorted(parts.rows.keys) == sorted(whole.rows.keys) and len(whole.rows) == min(size, len(keys))
    assert (whole.rows.X[:, 0] == whole.rows.keys).all() if len(whole.rows) else True


def test_memory_is_a_uniform_sample() -> None:
    """10 of 50 rows, 500 seeds: each row about 100 times, sd = sqrt(500 * 0.2 * 0.8) = 8.9; so for pairs."""
    hits, together = np.zeros(50), 0
    for seed in range(500):
        memory = RowMemory(10, seed=seed)
        for start in range(0, 50, 7):
            memory.add(numbered(np.arange(start, min(start + 7, 50))))
        hits[memory.rows.keys] += 1
        together += {0, 1} <= set(memory.rows.keys.tolist())
    assert hits.sum() == 5000 and np.abs(hits - 100).max() < 4 * 8.9
    assert 5 <= together <= 35  # 500 * (10 * 9) / (50 * 49) = 18.4, sd 4.2
    # the usual sum over squares: 49 degrees of freedom
    assert ((hits - 100) ** 2 / 80).sum() < 85.4  # the 99.9 % point


def test_newest_label_wins_and_rows_can_be_forgotten() -> None:
    memory = RowMemory(10)
    memory.add(numbered([1, 2, 3]))
    memory.add(numbered([2, 4], label=1))
    assert dict(zip(memory.rows.keys.tolist(), memory.rows.y.tolist())) == {1: 0, 2: 1, 3: 0, 4: 1}
    memory.forget(np.array([1, 4]))
    assert sorted(memory.rows.keys.tolist()) == [2, 3]


def test_restored_memory_lacks_only_what_was_erased() -> None:
    memory = RowMemory(10)
    memory.add(numbered([5, 1, 9], label=2))
    again = RowMemory(10)
    again.restore(memory.state(), lambda keys: (np.array([9, 5]), np.array([[9.0], [5.0]])))
    assert (
        again.rows.keys.tolist() == [5, 9] and again.rows.X[:, 0].tolist() == [5, 9] and again.rows.y.tolist() == [2, 2]
    )
    again.restore(memory.state(), lambda keys: (np.empty(0, np.int64), np.empty((0, 1))))
    assert len(again.rows) == 0


def test_sample_is_without_replacement() -> None:
    memory = RowMemory(30)
    memory.add(numbered(np.arange(30)))
    taken = memory.sample(12, np.random.default_rng(0))
    assert len(set(taken.keys.tolist())) == 12 and len(memory.sample(99, np.random.default_rng(0))) == 30


# ---------------------------------------------------------------- judging


def test_softmax_by_hand() -> None:
    np.testing.assert_allclose(softmax(np.array([[np.log(1), np.log(3)], [1000, 1000]])), [[0.25, 0.75], [0.5, 0.5]])


def test_judgement_is_scikit_learns() -> None:
    learner, direct = Refit(LogisticRegression(max_iter=200), classes=10), LogisticRegression(max_iter=200)
    learner.partial_fit(digits(0, 300))
    direct.fit(DIGITS[:300], LABELS[:300])
    decision, proba = learner.judge(DIGITS[300:])
    np.testing.assert_array_equal(proba, direct.predict_proba(DIGITS[300:]))
    np.testing.assert_array_equal(decision, proba)
    assert learner.predict(DIGITS[300:]).tolist() == direct.predict(DIGITS[300:]).tolist()


def test_absent_classes_stand_at_the_bottom() -> None:
    learner = Refit(SVC(kernel="linear", decision_function_shape="ovr"), classes=12)
    learner.partial_fit(digits(0, 200))
    decision, proba = learner.judge(DIGITS[200:260])
    direct = SVC(kernel="linear", decision_function_shape="ovr").fit(DIGITS[:200], LABELS[:200])
    np.testing.assert_array_equal(decision[:, :10], direct.decision_function(DIGITS[200:260]))
    assert (decision[:, 10:] == decision[:, :10].min() - 1).all()
    np.testing.assert_allclose(proba, softmax(decision))


def test_two_classes_without_probabilities() -> None:
    rows = digits(0, 200)
    two = rows.take(np.isin(rows.y, (1, 4)))
    learner = Refit(LinearSVC(random_state=0), classes=5)
    learner.partial_fit(two)
    score = learner.estimator.decision_function(DIGITS[:9])
    decision, _ = learner.judge(DIGITS[:9])
    np.testing.assert_allclose(decision[:, 1], -score)
    np.testing.assert_allclose(decision[:, 4], score)
    assert set(learner.predict(two.X).tolist()) == {1, 4}


def test_one_class_only_is_no_error() -> None:
    learner = Refit(SVC(), classes=3)
    learner.partial_fit(numbered([1, 2], label=2))
    assert learner.fitted and learner.predict(np.zeros((4, 1))).tolist() == [2] * 4
    np.testing.assert_allclose(learner.proba(np.zeros((1, 1))), [[0.001 / 1.002, 0.001 / 1.002, 1 / 1.002]])
    learner.partial_fit(numbered([30], label=0))
    assert learner.predict(np.array([[0.0], [30.0]])).tolist() == [2, 0]


def test_nothing_learned_from_nothing() -> None:
    learners = Learners(Refit(GaussianNB(), classes=2), Incremental(GaussianNB(), classes=2))
    learners.partial_fit(Rows.none(1))
    assert not learners.fitted
    with pytest.raises(SettingsError, match="not a classifier"):
        Refit(object(), classes=2)
    with pytest.raises(TypeError, match="as_learner"):
        Learner(GaussianNB(), classes=2).partial_fit(Rows.none(1))


# ---------------------------------------------------------------- learning


def test_refit_equals_one_fit_on_all_rows_with_the_newest_labels() -> None:
    learner = Refit(DecisionTreeClassifier(random_state=0), classes=10)
    wrong = Rows(DIGITS[:50], (LABELS[:50] + 1) % 10, np.arange(50))
    learner.partial_fit(wrong)
    learner.partial_fit(digits(50, 150))
    learner.partial_fit(digits(0, 50))  # the answers to the first batch
    order = learner.memory.rows.keys
    direct = DecisionTreeClassifier(random_state=0).fit(DIGITS[order], LABELS[order])
    assert sorted(order) == list(range(150))
    np.testing.assert_array_equal(learner.proba(DIGITS), direct.predict_proba(DIGITS))


def test_incremental_is_epochs_of_partial_fit_over_batch_and_replay() -> None:
    learner = Incremental(Perceptron(random_state=0), classes=10, epochs=3, replay=20, memory=40, seed=7)
    direct, memory = Perceptron(random_state=0), RowMemory(40, seed=7)
    for step, (start, stop) in enumerate([(0, 50), (50, 90)]):
        learner.partial_fit(digits(start, stop))
        rng = np.random.default_rng([7, step])
        rows = digits(start, stop).plus(memory.sample(20, rng))
        for _ in range(3):
            order = rng.permutation(len(rows))
            direct.partial_fit(rows.X[order], rows.y[order], classes=np.arange(10))
        memory.add(digits(start, stop))
    np.testing.assert_array_equal(learner.estimator.coef_, direct.coef_)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Refit(DecisionTreeClassifier(random_state=0), classes=10, max_rows=120),
        lambda: Refit(SVC(), classes=10),
        lambda: Incremental(SGDClassifier(random_state=0), classes=10, memory=60),
        lambda: Incremental(GaussianNB(), classes=10, replay=0, epochs=1),
    ],
    ids=["refit tree", "refit svm", "incremental sgd", "incremental bayes"],
)
def test_state_round_trip_goes_on_identically(make: type) -> None:
    one, two = make(), make()
    one.partial_fit(digits(0, 100))
    one.partial_fit(digits(100, 200))
    two.restore(one.state(), fetch)
    np.testing.assert_array_equal(two.judge(DIGITS)[0], one.judge(DIGITS)[0])
    for learner in (one, two):
        learner.partial_fit(digits(200, 300))
    np.testing.assert_array_equal(two.judge(DIGITS)[0], one.judge(DIGITS)[0])


def test_state_of_learners_that_never_learned() -> None:
    one, two = (Learners(Refit(SVC(), classes=2), Incremental(GaussianNB(), classes=2)) for _ in range(2))
    two.restore(one.state(), fetch)
    assert not two.fitted and list(one.state()) == ["learner-0", "learner-1"]


def test_as_learner_chooses_by_partial_fit() -> None:
    assert isinstance(as_learner(GaussianNB(), classes=2), Incremental)
    assert isinstance(as_learner(SVC(), classes=2), Refit)
    assert isinstance(as_learner(make_pipeline(StandardScaler(), SGDClassifier()), classes=2), Refit)


def test_models_load_without_pickle_and_strangers_are_refused() -> None:
    from fractions import Fraction

    from skops.io import dumps

    fitted = GaussianNB().fit(DIGITS, LABELS)
    np.testing.assert_array_equal(load_model(dumps(fitted)).predict_proba(DIGITS), fitted.predict_proba(DIGITS))
    with pytest.raises(SettingsError, match="fractions"):
        load_model(dumps({"a": Fraction(1, 2)}))
    with pytest.raises(SettingsError, match="cannot be read"):
        load_model(b"no model")
