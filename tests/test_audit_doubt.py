"""The doubt itself: is it right as often as it says, and what do answers change?"""

from __future__ import annotations

import numpy as np
import pytest
from audit_data import Made, blobs, made
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

import labelwright
from labelwright.auditing import Audit
from labelwright.types import Bools, Floats, Ints


def answers_of(data: Made, rows: Ints) -> dict[int, int]:
    return {int(row): int(data.true[row]) for row in rows}


def test_noise_and_flags_where_classes_lie_apart() -> None:
    """20 % of the labels moved to any other class, logistic regression: the interval of the rate holds the truth in at least 7
    of 8 seeds, and of the flags nine in ten are right, of the wrong labels nine in ten flagged, in each."""
    held = 0
    for seed in range(8):
        X, true, given_ = blobs(1500, 5, 0.2, seed, apart=5.0, width=8)
        proba = cross_val_predict(LogisticRegression(), X, given_, cv=5, method="predict_proba")
        found, bad = labelwright.audit(given_, proba), true != given_
        held += found.noise_rate.low <= bad.mean() <= found.noise_rate.high
        assert bad[found.flagged].mean() > 0.9 and found.flagged[bad].mean() > 0.9
        assert (found.whole.predicted[found.flagged & bad] == true[found.flagged & bad]).mean() > 0.95
        assert found.noise_rate.high - found.noise_rate.low < 0.1
    assert held >= 7


def test_clean_labels_are_left_alone() -> None:
    """Where the model disagrees with right labels, on 1 to 9 rows in 100, most are seen to be hard rows."""
    for seed in range(3):
        X, true, given_ = blobs(1000, 4, 0.0, seed, apart=4.0, width=8)
        proba = cross_val_predict(LogisticRegression(), X, given_, cv=5, method="predict_proba")
        found = labelwright.audit(given_, proba)
        assert found.flagged.mean() < 0.6 * (proba.argmax(axis=1) != true).mean()
        assert found.noise_rate.low < 0.005


def test_intervals_of_precision_and_recall_after_answers() -> None:
    """100 random answers on 400 rows: nominally 95 in 100 intervals hold what they estimate; of 40 at least 34 must (fewer
    would come about once in 600 tries), and they are narrow enough to be of use."""
    held, widths = np.zeros(3), []
    for seed in range(40):
        data = made(400, 4, 0.2, 500 + seed, sharp=0.2)
        rows = np.random.default_rng(seed).choice(400, 100, replace=False)
        found = labelwright.audit(data.given, data.proba, answers=answers_of(data, rows))
        truth = data.bad[found.flagged].mean(), found.flagged[data.bad].mean(), data.bad.mean()
        told = found.precision, found.recall, found.noise_rate
        held += [e.low <= t <= e.high for e, t in zip(told, truth, strict=True)]
        widths.append([e.high - e.low for e in told])
    assert (held >= 34).all(), held
    assert (np.mean(widths, axis=0) < [0.3, 0.3, 0.12]).all()


def test_answers_narrow_the_intervals() -> None:
    data = made(400, 4, 0.2, 0, sharp=0.2)
    order = np.random.default_rng(0).permutation(400)
    widths = []
    for count in (0, 50, 200, 400):
        found = labelwright.audit(data.given, data.proba, answers=answers_of(data, order[:count]))
        widths.append([e.high - e.low for e in (found.precision, found.recall)])
    assert (np.diff(widths, axis=0) < 0).all()
    np.testing.assert_allclose(widths[-1], 0, atol=1e-9)
    np.testing.assert_array_equal(found.flagged, data.bad)
    assert float(found.noise_rate) == pytest.approx(data.bad.mean(), abs=1e-9)


def f1(flagged: Bools, bad: Bools) -> float:
    return float(2 * (flagged & bad).sum() / (flagged.sum() + bad.sum()))


@pytest.mark.parametrize("neighbours", [3, 5])
@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("share", [0.05, 0.2])
def test_answers_do_not_turn_the_line_about(share: float, pairs: bool, neighbours: int) -> None:
    """The votes of few neighbours are coarse and too sure of themselves: some of the rows that they are surest to be wrong are
    right. Answers that say so must not make the other rows doubtful, whether they are about rows at random or the most doubtful."""
    X, true = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    step = 1 if pairs else rng.integers(1, 10, size=len(true))
    given_ = np.where(rng.random(len(true)) < share, (true + step) % 10, true)
    proba = cross_val_predict(KNeighborsClassifier(neighbours), X, given_, cv=5, method="predict_proba")
    found, bad = labelwright.audit(given_, proba), true != given_
    for count in (20, 100):
        asked = (
            rng.choice(len(true), count, replace=False),
            found.questions(count).position.to_numpy(),
            found.questions(count, purpose="measure").position.to_numpy(),
        )
        for rows in asked:
            told = found.answered({int(row): int(true[row]) for row in rows})
            assert f1(told.flagged, bad) > f1(found.flagged, bad) - 0.02
            assert float(told.noise_rate) == pytest.approx(bad.mean(), abs=0.1)


def assert_settled(found: Audit, told: dict[int, int], data: Made) -> None:
    """Each answered row is as the expert said, whatever else was learned."""
    rows, labels = np.array(list(told)), np.array(list(told.values()))
    wrong = labels != data.given[rows]
    np.testing.assert_array_equal(found.known[rows], labels)
    assert (found.known != -1).sum() == len(rows)
    np.testing.assert_array_equal(found.flagged[rows], wrong)
    np.testing.assert_array_equal(found.label_score[rows], 1.0 - wrong)
    issues = found.issues.iloc[rows]
    np.testing.assert_array_equal(issues.predicted_label, labels)
    assert (issues.probability == 1).all()
    assert set(found.ranking[: wrong.sum()]) == set(rows[wrong])
    assert not set(found.questions(20).position) & set(rows)
    assert found.summary()["answers"] == len(rows)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 9999), st.integers(2, 8), st.sampled_from([25, 120, 600]))
def test_answers_settle_their_rows_for_good(seed: int, k: int, n: int) -> None:
    data = made(n, k, 0.3, seed)
    rng = np.random.default_rng(seed)
    found, told = labelwright.audit(data.given, data.proba), {}
    for _ in range(3):
        rows = rng.choice(n, size=max(1, n // 20), replace=False)
        told |= answers_of(data, rows)
        found = found.answered(answers_of(data, rows))
        assert_settled(found, told, data)
    at_once = labelwright.audit(data.given, data.proba, answers=told)
    np.testing.assert_array_equal(at_once.whole.score, found.whole.score)


def test_an_expert_may_change_their_mind() -> None:
    data = made(200, 3, 0.2, 0)
    found = labelwright.audit(data.given, data.proba, answers={7: 0}).answered({7: 2})
    assert found.known[7] == 2 and found.issues.predicted_label[7] == 2


def test_answers_are_settled_among_many_classes() -> None:
    data = made(1200, 300, 0.2, 0, sharp=0.02)
    told = answers_of(data, np.arange(0, 1200, 40))
    assert_settled(labelwright.audit(data.given, data.proba, answers=told), told, data)


def test_answers_are_settled_in_a_sample() -> None:
    """20,000 rows: the judge is fitted on 16,384 and every answered row."""
    data = made(20_000, 3, 0.2, 0)
    told = answers_of(data, np.random.default_rng(0).choice(20_000, 50, replace=False))
    found = labelwright.audit(data.given, data.proba, answers=told)
    assert_settled(found, told, data)
    assert found.fit is not None and set(told) <= set(found.fit.rows.tolist()) and len(found.fit.rows) < 16_500


def test_answers_find_more_wrong_labels_than_chance() -> None:
    """A hundred questions about the least probable labels, one after another: most of them are about wrong ones."""
    data = made(1000, 5, 0.2, 3)
    running = labelwright.audit(data.given, data.proba).running()
    hits = 0
    for _ in range(100):
        row = running.ask()
        hits += int(data.bad[row])
        running.tell(row, int(data.true[row]))
    assert hits > 85


def assert_calibrated(doubt: Floats, bad: Bools) -> None:
    """Of rows by tenths of the doubt, as many labels are wrong as it says, within 0.12."""
    for low in np.arange(0, 1, 0.1):
        here = (doubt >= low) & (doubt < low + 0.1)
        if here.sum() > 200:
            assert bad[here].mean() == pytest.approx(doubt[here].mean(), abs=0.12), low


def test_chances_mean_what_they_say() -> None:
    """Where the model's probabilities are right, the reading "hard rows" is: its doubts come true. The mean of both readings
    doubts too much there, until 300 answers have told which reading holds."""
    data = made(20_000, 4, 0.2, 1, sharp=0.4)
    found = labelwright.audit(data.given, data.proba)
    told = found.judge.judged(found.judge.evidence(data.proba, data.given))
    assert_calibrated(told.wrong_by[0], data.bad)
    assert told.wrong_by[0].mean() == pytest.approx(data.bad.mean(), abs=0.03)
    assert found.whole.wrong.mean() > data.bad.mean() + 0.03
    rows = np.random.default_rng(0).choice(20_000, 300, replace=False)
    asked = found.answered(answers_of(data, rows))
    assert asked.judge.weight > 0.95
    assert_calibrated(asked.whole.wrong, data.bad)
    assert asked.noise_rate.low <= data.bad.mean() <= asked.noise_rate.high


def test_transition_is_found() -> None:
    """Three in ten of class 0 called 1, nothing else: found with its interval; rows sum to one."""
    data = made(4000, 3, 0.0, 0, sharp=0.05)
    rng = np.random.default_rng(1)
    moved = (data.true == 0) & (rng.random(4000) < 0.3)
    found = labelwright.audit(np.where(moved, 1, data.true), data.proba)
    t, low, high = found.transition, found.transition_low, found.transition_high
    np.testing.assert_allclose(t.sum(axis=1), 1.0)
    share = moved[data.true == 0].mean()
    assert t.loc[0, 1] == pytest.approx(share, abs=0.04) and low.loc[0, 1] <= share <= high.loc[0, 1]
    others = t.to_numpy()[[0, 1, 1, 2, 2], [2, 0, 2, 0, 1]]
    assert others.max() < 0.03 and (low.to_numpy() <= t).all(axis=None) and (t <= high.to_numpy()).all(axis=None)
    worst = found.classes.iloc[0]
    assert worst.name == 1 and worst.most_confused_with == 0
    assert worst.confused_share == pytest.approx(moved.sum() / worst["rows"], abs=0.05)
