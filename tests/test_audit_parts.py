"""The parts of the audit, against hand-computed values and brute force."""

from __future__ import annotations

import json

import numpy as np
import pytest
from audit_data import made
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import betabinom, binomtest, dirichlet_multinomial

import labelwright
from labelwright.auditing.evidence import content_order, exact_content, row_content, wide
from labelwright.auditing.hypotheses import Hypothesis, _likeliest, expected_pairs, settle
from labelwright.auditing.judge import (
    Curve,
    Judge,
    Line,
    _best_count,
    _fitted_curve,
    _logistic,
    _whole_ties,
    rare_lift,
)
from labelwright.auditing.second_look import SecondLook, place, resolution
from labelwright.auditing.transition import Pairs, Transition
from labelwright.errors import BudgetError, SettingsError
from labelwright.posterior import wilson
from labelwright.types import NO_LABEL, Floats, Ints

COUNTS = np.array([[90.0, 8.0, 2.0], [5.0, 45.0, 0.0], [0.0, 0.0, 20.0]])
GRID = np.geomspace(0.5, 3000.0, 14)  # the strengths that are tried


def held(pull: float, strength: float, k: int = 3) -> Transition:
    """A transition whose strengths of shrinkage ``Transition.fitted(..., like)`` takes over."""
    return Transition(np.zeros(k), strength, np.zeros(k), Pairs.from_dense(np.zeros((k, k))), pull)


def random_pairs(seed: int, k: int, size: int) -> tuple[Floats, Pairs]:
    rng = np.random.default_rng(seed)
    true = rng.integers(k, size=size)
    label = np.where(rng.random(size) < 0.7, true, rng.integers(k, size=size))
    weight = rng.random(size)
    counts = np.zeros((k, k))
    np.add.at(counts, (true, label), weight)
    return counts, Pairs.of(true, label, k, weight)


# ---------------------------------------------------------------- pairs and transition


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 9999), st.sampled_from([2, 5, 40, 300]), st.integers(1, 500))
def test_pairs_count_as_a_matrix_does(seed: int, k: int, size: int) -> None:
    """300 classes and few rows are counted without a 300 x 300 matrix."""
    counts, pairs = random_pairs(seed, k, size)
    np.testing.assert_allclose(pairs.dense(), counts)
    assert (np.diff(pairs.code) > 0).all() and len(pairs.code) <= size
    other_counts, other = random_pairs(seed + 1, k, 50)
    np.testing.assert_allclose(pairs.plus(other).dense(), counts + other_counts)
    np.testing.assert_allclose(Pairs.from_dense(counts).dense(), counts)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 9999), st.sampled_from([2, 3, 12, 300]), st.integers(0, 400))
def test_transition_looked_up_equals_dense_and_the_formula(seed: int, k: int, size: int) -> None:
    counts, pairs = random_pairs(seed, k, size)
    t = Transition.fitted(pairs)
    dense = t.dense()
    np.testing.assert_allclose(dense.sum(axis=1), 1.0)
    errors = counts.sum(axis=1) - counts.diagonal()
    rate = max(errors.sum(), 0.5) / max(counts.sum(), 1.0)
    wrong = (errors + t.pull * min(rate, 0.99)) / (counts.sum(axis=1) + t.pull)
    by_hand = wrong[:, None] * (counts + t.strength / (k - 1)) / (errors[:, None] + t.strength)
    by_hand[np.diag_indices(k)] = 1 - wrong
    np.testing.assert_allclose(dense, by_hand, rtol=1e-9)
    rng = np.random.default_rng(seed)
    true, label = rng.integers(k, size=(2, 100))
    np.testing.assert_array_equal(t.of(true, label), dense[true, label])
    np.testing.assert_allclose(t.log_given, np.log(np.maximum(dense.T, 1e-12)), rtol=1e-5)


@pytest.mark.parametrize("strength", [0.5, 10.0, 3000.0])
def test_rates_are_drawn_to_the_common_one(strength: float) -> None:
    """15 of 170 rows are wrong: (errors + s rate) / (rows + s)."""
    t = Transition.fitted(Pairs.from_dense(COUNTS), held(strength, 10.0))
    rate = 15 / 170
    expected = [(e + strength * rate) / (n + strength) for e, n in ((10, 100), (5, 50), (0, 20))]
    np.testing.assert_allclose(t.wrong, expected)
    assert t.wrong[2] == pytest.approx(strength * rate / (20 + strength))


def test_wrong_labels_are_drawn_to_all_alike() -> None:
    weak = Transition.fitted(Pairs.from_dense(COUNTS), held(1.0, 2.0)).dense()
    # of class 0: 8 and 2 of 10 wrong labels, and 2 rows of belief in halves: 9 / 12 and 3 / 12
    assert weak[0, 1] / (weak[0, 1] + weak[0, 2]) == pytest.approx(9 / 12)
    strong = Transition.fitted(Pairs.from_dense(COUNTS), held(1.0, 1e9)).dense()
    np.testing.assert_allclose(strong[0, 1:], strong[0, 1:].mean(), rtol=1e-6)
    np.testing.assert_allclose(strong[1, [0, 2]], strong[1, [0, 2]].mean(), rtol=1e-6)


def test_strengths_are_the_likeliest_of_the_grid() -> None:
    """Against scipy's beta-binomial and Dirichlet-multinomial distributions."""
    counts = np.array([[80, 18, 1, 1], [2, 90, 6, 2], [3, 3, 60, 4], [0, 0, 1, 120]])
    errors = counts.sum(axis=1) - counts.diagonal()
    rows, rate = counts.sum(axis=1), errors.sum() / counts.sum()
    pull = [betabinom.logpmf(errors, rows, s * rate, s * (1 - rate)).sum() for s in GRID]
    off = [np.delete(row, i) for i, row in enumerate(counts)]
    spread = [sum(dirichlet_multinomial.logpmf(o, np.full(3, s / 3), o.sum()) for o in off) for s in GRID]
    t = Transition.fitted(Pairs.from_dense(counts.astype(float)))
    assert t.pull == pytest.approx(GRID[int(np.argmax(pull))])
    assert t.strength == pytest.approx(GRID[int(np.argmax(spread))])
    assert Transition.fitted(Pairs.from_dense(np.diag([50.0, 20.0]))).dense()[0, 1] < 0.02


def test_a_class_without_a_name_is_the_mean() -> None:
    t = Transition.fitted(Pairs.from_dense(COUNTS), held(10.0, 10.0))
    assert t.of(np.array([NO_LABEL]), np.array([1]))[0] == pytest.approx(t.wrong.mean() / 2)


def test_transition_comes_back_from_json() -> None:
    t = Transition.fitted(random_pairs(0, 7, 300)[1])
    again = Transition.restored(json.loads(json.dumps(t.state())))
    np.testing.assert_array_equal(again.dense(), t.dense())


@pytest.mark.parametrize(("share", "rows", "low", "high"), [(0.5, 10, 0.2366, 0.7634), (0.0, 10, 0.0, 0.2775)])
def test_wilson_by_hand(share: float, rows: int, low: float, high: float) -> None:
    # z^2 = 3.8415: centre (p + z^2 / 2n) / (1 + z^2 / n), half z / (1 + z^2 / n) sqrt(p (1 - p) / n + z^2 / 4n^2)
    assert wilson(share, rows) == pytest.approx((low, high), abs=1e-4)
    expected = binomtest(round(share * rows), rows).proportion_ci(0.95, method="wilson")
    assert wilson(share, rows) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_wilson_without_rows_knows_nothing() -> None:
    low, high = wilson(np.array([0.0, 1.0]), np.array([0.0, 0.0]))
    np.testing.assert_allclose(low, 0.0, atol=1e-9)
    np.testing.assert_allclose(high, 1.0)


# ---------------------------------------------------------------- second look


def kernel(a: Floats, b: Floats, width: float) -> Floats:
    return np.exp(-np.sqrt(((a[:, None].astype(float) - b[None].astype(float)) ** 2).sum(axis=2) / width))


@pytest.mark.parametrize("k", [2, 4])
def test_left_out_predictions_are_those_of_a_ridge_without_the_row(k: int) -> None:
    """Each row is left out in turn and the ridge solved again: same landmarks, width, penalty and base rates."""
    data = made(80, k, 0.2, 1, sharp=0.5)
    look, left_out = SecondLook.fitted(data.proba, data.given)
    where = place(data.proba, look.floor)
    between = kernel(look.landmarks, look.landmarks, look.width)
    between += 1e-5 * len(between) * np.eye(len(between))  # the jitter
    phi = kernel(where, look.landmarks, look.width)
    base = np.bincount(data.given, minlength=k) / 80
    target = np.eye(k)[data.given] - base

    def solved(kept: Floats, penalty: float) -> Floats:
        return np.linalg.solve(phi[kept].T @ phi[kept] + 80 * penalty * between, phi[kept].T @ target[kept])

    errors, expected, whole = [], [], []
    for penalty in (1e-5, 1e-4, 1e-3):
        rows = [phi[i] @ solved(np.arange(80) != i, penalty) + base for i in range(80)]
        expected.append(np.array(rows))
        errors.append(((expected[-1] - base - target) ** 2).mean())
        whole.append(phi @ solved(np.ones(80, bool), penalty) + base)
    best = int(np.argmin(errors))
    np.testing.assert_allclose(left_out, expected[best], atol=1e-5)
    np.testing.assert_allclose(look(data.proba), whole[best], atol=2e-3)
    assert np.abs(left_out - whole[best]).max() > 0.02  # leaving out makes a difference that the test would see
    again = SecondLook.restored(json.loads(json.dumps(look.state())))
    np.testing.assert_array_equal(again(data.proba), look(data.proba))


def test_second_look_learns_what_a_model_gets_wrong() -> None:
    """A model that calls half of class 1 "2" with 0.6: the labels nearby say 1."""
    proba = np.tile([[0.9, 0.05, 0.05], [0.05, 0.35, 0.6], [0.02, 0.08, 0.9]], (100, 1)).astype(np.float32)
    look, left_out = SecondLook.fitted(proba, np.tile([0, 1, 2], 100))
    assert left_out[1::3].argmax(axis=1).tolist() == [1] * 100
    assert look(np.array([[0.05, 0.35, 0.6]], np.float32))[0, 1] > 0.95


def test_floor_of_the_second_look_follows_the_resolution_of_the_model() -> None:
    rng = np.random.default_rng(0)
    votes = rng.multinomial(100, [0.8, 0.15, 0.04, 0.01], size=500) / np.float32(100)
    assert (votes == 0).any() and resolution(votes) == 1e-4
    sure = np.exp(rng.normal(0, 6, (500, 4))).astype(np.float32)
    sure /= sure.sum(axis=1, keepdims=True)
    assert resolution(sure) == 1e-5
    assert resolution(sure) == resolution(sure[:, ::-1])
    assert resolution(np.zeros((0, 3), np.float32)) == 1e-4
    low = np.array([[1 - 2e-5, 2e-5], [1 - 4e-5, 4e-5]], np.float32)
    assert np.ptp(place(low, 1e-4)[:, 1]) < 1e-4 and np.ptp(place(low, 1e-5)[:, 1]) > 0.3
    data = made(200, 3, 0.2, 0)
    look, _ = SecondLook.fitted(data.proba, data.given)
    old = {name: value for name, value in look.state().items() if name != "floor"}  # as written before there was one
    assert SecondLook.restored(look.state()).floor == look.floor and SecondLook.restored(old).floor == 1e-4


def test_equal_rows_are_levelled() -> None:
    proba = np.array([[0.5, 0.5], [0.5, 0.5], [0.9, 0.1], [0.5, 0.5]], np.float32)
    second = np.array([[0.2, 0.8], [0.5, 0.5], [0.7, 0.3], [0.4, 0.6]], np.float32)
    seen = wide(proba, np.array([0, 1, 0, 0]), np.zeros(2, np.float32), second)
    level = seen.levelled(1e-4).second
    assert level is not None
    np.testing.assert_allclose(level[[0, 1, 3]], np.tile(np.log(second[[0, 1, 3]]).mean(axis=0), (3, 1)), rtol=1e-6)
    np.testing.assert_allclose(level[2], np.log([0.7, 0.3]), rtol=1e-6)


def ordered(proba: Floats, given: Ints, known: Ints | None = None, seed: int = 0) -> Ints:
    known = np.full(len(given), NO_LABEL) if known is None else known
    return content_order(row_content(proba, given, known), exact_content(proba, given, known), seed)


def test_order_is_of_the_content() -> None:
    data = made(500, 5, 0.2, 0)
    order = ordered(data.proba, data.given)
    np.testing.assert_array_equal(np.sort(order), np.arange(500))
    turned = np.arange(500)[::-1]
    np.testing.assert_array_equal(turned[ordered(data.proba[turned], data.given[turned])], order)
    renamed = np.argsort([3, 0, 4, 1, 2])[data.given]
    np.testing.assert_array_equal(ordered(data.proba[:, [3, 0, 4, 1, 2]], renamed), order)
    assert (ordered(data.proba, data.given, seed=1) != order).mean() > 0.9


def test_order_tells_classes_apart_that_are_alike_in_sum() -> None:
    """Classes 0 and 1 are predicted three times and given three times each, but 1 is mistaken for 2 and 0 is not."""
    predicted, label = np.array([0, 0, 0, 1, 1, 1, 2, 2]), np.array([0, 0, 0, 1, 1, 2, 2, 1])
    proba = np.eye(3, dtype=np.float32)[predicted]
    none, renamed = np.full(8, NO_LABEL), [2, 0, 1]
    found = row_content(proba, label, none)
    assert len(np.unique(found)) == 5
    np.testing.assert_array_equal(row_content(proba[:, renamed], np.argsort(renamed)[label], none), found)
    one = np.where(np.arange(8) == 0, 1, NO_LABEL)  # of one of three equal rows the expert said something
    told = row_content(proba, label, one)
    assert len(np.unique(told)) == 6
    moved = np.where(one == NO_LABEL, NO_LABEL, np.argsort(renamed)[one])
    np.testing.assert_array_equal(row_content(proba[:, renamed], np.argsort(renamed)[label], moved), told)


@pytest.mark.parametrize("answered", [False, True])
def test_order_of_rows_of_equal_content_is_none_of_their_place(answered: bool) -> None:
    """Two classes that nothing but their names tells apart; equal rows of which an expert has answered some."""
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1], 20)
    proba = np.eye(2, dtype=np.float32)[label]
    known = np.where(rng.random(40) < 0.5, label, NO_LABEL) if answered else np.full(40, NO_LABEL)
    order = ordered(proba, label, known)
    for seed in range(20):
        turned = np.random.default_rng(seed).permutation(40)
        again = turned[ordered(proba[turned], label[turned], known[turned])]
        np.testing.assert_array_equal(label[again], label[order])
        np.testing.assert_array_equal(known[again], known[order])


# ---------------------------------------------------------------- readings


def test_posterior_by_hand() -> None:
    """Powers 1 and 2, label 1: T[:, 1] = (0.1, 0.9, 0.15)."""
    t = Transition(np.array([0.2, 0.1, 0.3]), 1e12, np.zeros(3), Pairs.from_dense(np.zeros((3, 3))))
    np.testing.assert_allclose(t.dense(), [[0.8, 0.1, 0.1], [0.05, 0.9, 0.05], [0.15, 0.15, 0.7]])
    p, q = np.array([[0.6, 0.3, 0.1]], np.float32), np.array([[0.5, 0.25, 0.25]], np.float32)
    seen = wide(p, np.array([1]), np.zeros(3, np.float32), q)
    # 0.6 * 0.25 * 0.1 = 0.015, 0.3 * 0.0625 * 0.9 = 0.016875, 0.1 * 0.0625 * 0.15 = 0.0009375
    np.testing.assert_allclose(
        Hypothesis((1.0, 2.0), t).posterior(seen), [np.array([0.015, 0.016875, 0.0009375]) / 0.0328125], rtol=1e-5
    )
    lifted = wide(p, np.array([1]), np.log([1.0, 1.0, 4.0]).astype(np.float32), None)
    # 0.6 * 0.1, 0.3 * 0.9, 4 * 0.1 * 0.15
    np.testing.assert_allclose(Hypothesis((1.0, 0.0), t).posterior(lifted), [[0.06 / 0.39, 0.27 / 0.39, 0.06 / 0.39]])


def test_posterior_sums_to_one_where_nothing_is_likely() -> None:
    """200 classes alike, at the greatest powers: each factor is about 1e-23."""
    k = 200
    p = np.full((2, k), 1 / k, np.float32)
    t = Transition.fitted(Pairs.from_dense(np.eye(k)))
    found = Hypothesis((4.0, 6.0), t).posterior(wide(p, np.array([0, 7]), np.zeros(k, np.float32), p))
    np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=1e-5)
    assert found[1].argmax() == 7


def test_expected_pairs_and_settled_rows() -> None:
    seen = wide(np.full((3, 2), 0.5, np.float32), np.array([0, 0, 1]), np.zeros(2, np.float32), None)
    share = np.array([[0.75, 0.25], [0.5, 0.5], [0.1, 0.9]], np.float32)
    np.testing.assert_allclose(expected_pairs(share, seen, 2).dense(), [[1.25, 0.1], [0.75, 0.9]], rtol=1e-6)
    known = np.array([NO_LABEL, 1, NO_LABEL])
    np.testing.assert_allclose(settle(share, seen, known)[1], [0, 1])
    np.testing.assert_allclose(share[1], [0.5, 0.5])  # not changed in place


def test_rare_classes_are_lifted_the_more_the_fewer_their_rows() -> None:
    """Own probability 0.1 against 0.8 elsewhere: the gap log(mean / 0.1), at most 3, times 30 / (30 + rows)."""
    given = np.repeat([0, 1, 2], [1000, 10, 400])
    certainty = np.repeat([0.8, 0.1, 0.4], [1000, 10, 400]).astype(np.float32)
    lift = rare_lift(certainty, given, np.array([1000, 10, 400]))
    overall = (800 + 1 + 160) / 1410
    np.testing.assert_allclose(lift, [0, np.log(overall / 0.1) * 30 / 40, 0], rtol=1e-4)


@pytest.mark.parametrize("answers", [0, 40])
def test_judge_comes_back_from_json(answers: int) -> None:
    data = made(400, 5, 0.2, 0)
    known = np.where(np.arange(400) < answers, data.true, NO_LABEL)
    judge, _ = Judge.fitted(data.proba, data.given, known, np.bincount(data.given))
    again = Judge.restored(json.loads(json.dumps(judge.state())))
    fresh = made(100, 5, 0.2, 1)
    np.testing.assert_allclose(
        again.judged(again.evidence(fresh.proba, fresh.given)).score,
        judge.judged(judge.evidence(fresh.proba, fresh.given)).score,
        atol=1e-5,
    )
    score = np.linspace(-9, 9, 50)
    np.testing.assert_array_equal(again.line(score), judge.line(score))
    with pytest.raises(SettingsError, match="format 99, expected 1"):
        Judge.restored({**judge.state(), "format": 99})
    with pytest.raises(SettingsError, match="no state of an audit"):
        Judge.restored({"format": 1})


def test_even_classes_share_a_row() -> None:
    scaled = np.array([[0.0, -1e-6, -1.0], [-1.0, 0.0, -0.01], [0.5, 0.5, 0.5]], np.float32)
    np.testing.assert_allclose(_likeliest(scaled), [[0.5, 0.5, 0], [0, 1, 0], [1 / 3, 1 / 3, 1 / 3]], rtol=1e-6)


# ---------------------------------------------------------------- the line


def test_logistic_regression_of_far_scores() -> None:
    """Coarse scores, and a tenth of the answers against them: Newton's whole steps would leap between two points for ever."""
    score = np.repeat([-14.0, -2.0, 7.0, 18.0], [22, 13, 100, 65])
    right = np.repeat([0.0, 1.0, 0.0, 1.0, 0.0, 1.0], [19, 3, 11, 2, 1, 164])
    design, centre = np.stack([np.ones(200), score], axis=1), np.array([0.22, 1.34])
    precision = np.diag([1 / 1.5**2, 4.0])

    def loss(x: Floats) -> float:
        at = design @ x
        return float((np.logaddexp(0, at) - right * at).sum() + 0.5 * (x - centre) @ precision @ (x - centre))

    x, covariance = _logistic(design, right, centre, precision)
    best = minimize(loss, np.array([0.0, 0.5]), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12})
    np.testing.assert_allclose(x, best.x, atol=1e-5)
    chance = 1 / (1 + np.exp(-design @ x))
    np.testing.assert_allclose(
        np.linalg.inv(covariance), (design.T * (chance * (1 - chance))) @ design + precision, rtol=1e-6
    )


def test_ties_are_doubted_together() -> None:
    ranked = np.array([-3.0, -3.0 + 1e-6, -2.0, 1.0, 1.0, 1.0, 4.0])
    assert _whole_ties(ranked).tolist() == [0, 2, 3, 6, 7]
    assert _whole_ties(np.full(5, 0.3)).tolist() == [0, 5]
    assert _whole_ties(np.empty(0)).tolist() == [0]


def test_a_curve_without_answers_is_the_line() -> None:
    line = Line(0.5, 1.25, np.eye(2))
    curve = _fitted_curve(np.empty(0), np.empty(0, bool), line)
    score = np.linspace(-6, 5, 23)
    np.testing.assert_allclose(curve(score), line(score), rtol=0.06)  # straight between the knots
    assert curve(np.array([-100.0, 100.0])) == pytest.approx([1 / (1 + np.exp(-8)), 1 / (1 + np.exp(8))])


def test_an_answer_tells_of_rows_like_it() -> None:
    """Twenty rows that seemed surely wrong are right: that much is learned of their like, little where doubt ends."""
    line = Line(0.0, 1.0, np.eye(2))
    curve = _fitted_curve(np.full(20, -7.0), np.ones(20, bool), line)
    assert curve(np.array([-7.0]))[0] < 0.3
    assert curve(np.array([2.0]))[0] == pytest.approx(line(np.array([2.0]))[0], abs=0.1)
    spread = np.sqrt(np.diag(curve.covariance))
    assert spread[1] < 0.75 * spread[8] and spread[8] == pytest.approx(2.0, rel=0.05)


def test_the_line_moves_beyond_chance_only() -> None:
    """30 scores at -2 and 70 at 2, all 100 or only 30 usually doubted."""
    ranked = np.repeat([-2.0, 2.0], [30, 70])
    whole = _whole_ties(ranked)
    sure = Curve(np.array([-2.0, 2.0]), np.array([-2.0, 2.0]), np.eye(2) * 0.1)
    unsure = Curve(np.array([-2.0, 2.0]), np.array([-0.2, 0.0]), np.eye(2) * 4.0)
    assert _best_count(ranked, whole, 100, sure) == 30
    assert _best_count(ranked, whole, 30, unsure) == 30 and _best_count(ranked, whole, 100, unsure) == 100
    assert _best_count(ranked, whole, 30, Curve(np.array([-2.0, 2.0]), np.array([4.0, 6.0]), np.eye(2))) == 0


# ---------------------------------------------------------------- running posterior


def test_what_answers_change_equals_a_recomputation() -> None:
    """After 40 answers: the joint is prior x P(given | class) of the counts as they stand, the sums are its sums, the odds of
    the readings are the product of what each foresaw, and the counts have lost what was believed and gained what is."""
    data = made(200, 4, 0.3, 5)
    found = labelwright.audit(data.given, data.proba)
    running = found.running()
    counts = [c.dense() for c in found.whole.counts]
    odds, asked = np.log(found.judge.weight / (1 - found.judge.weight)), []
    for _ in range(40):
        row = running.ask()
        label, given_label = int(data.true[row]), int(data.given[row])
        shares = [joint[row] / joint[row].sum() for joint in running._joint]
        odds += np.log(max(shares[0][label], 0.01) / max(shares[1][label], 0.01))
        for matrix, share in zip(counts, shares, strict=True):
            matrix[:, given_label] = np.maximum(matrix[:, given_label] - share, 0)
            matrix[label, given_label] += 1
        running.tell(row, label)
        asked.append(row)
        for reading, counted, matrix in zip(found.judge.readings, running._transitions, counts, strict=True):
            like = reading.transition
            errors = matrix[label].sum() - matrix[label, label]
            wrong = (errors + like.pull * counted._rate) / (matrix[label].sum() + like.pull)
            expected = wrong * (matrix[label] + like.strength / 3) / (errors + like.strength)
            expected[label] = 1 - wrong
            np.testing.assert_allclose(counted.rows[label], expected, rtol=1e-4)
    assert running._odds == pytest.approx(odds, abs=1e-4)
    for reading, counted, joint, others in zip(
        found.judge.readings, running._transitions, running._joint, running._others, strict=True
    ):
        prior = np.exp(running.seen.weighed(reading.sharpness))
        prior /= prior.sum(axis=1, keepdims=True)
        again = prior * counted.rows.T[data.given]
        np.testing.assert_allclose(joint, again, rtol=1e-3, atol=1e-7)
        np.testing.assert_allclose(others, again.sum(axis=1) - again[np.arange(200), data.given], rtol=2e-3, atol=1e-5)
    assert len(set(asked)) == 40 and not running.open[asked].any() and running.open.sum() == 160


def test_running_asks_no_row_twice_and_ends() -> None:
    data = made(30, 3, 0.3, 0)
    running = labelwright.audit(data.given, data.proba, answers={0: 1, 5: 2}).running()
    asked = []
    for _ in range(28):
        asked.append(running.ask())
        running.tell(asked[-1], int(data.true[asked[-1]]))
    assert sorted({0, 5, *asked}) == list(range(30))
    with pytest.raises(BudgetError, match="all 30 rows have been answered"):
        running.ask()


def test_running_needs_labels_and_few_classes() -> None:
    data = made(400, 300, 0.1, 0, sharp=0.02)
    with pytest.raises(SettingsError, match="300 classes use questions"):
        labelwright.audit(data.given, data.proba).running()
    few = made(100, 3, 0.1, 0)
    with pytest.raises(SettingsError, match="needs a label in every row"):
        labelwright.audit([None, *few.given[1:].tolist()], few.proba).running()
