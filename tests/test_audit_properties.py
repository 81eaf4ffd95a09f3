"""What must not matter to an audit: the order of rows and classes, the type of the numbers, blocks and threads."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from audit_data import KINDS, Made, made
from hypothesis import example, given, settings
from hypothesis import strategies as st

import labelwright
from labelwright.auditing import Audit
from labelwright.auditing.passes import judge_all
from labelwright.types import NO_LABEL, Floats, Ints

pytestmark = pytest.mark.filterwarnings("ignore:the probabilities:UserWarning")
SEEDS = st.integers(0, 10_000)
NOISES = st.sampled_from([0.0, 0.1, 0.25, 0.4])
CLASSES = st.integers(2, 12)


def audited(labels: Ints, proba: Floats, answers: Ints | None = None) -> Audit:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the probabilities")
        return labelwright.audit(labels, proba, answers=answers)


def assert_alike(a: Audit, b: Audit, at: Ints | slice = slice(None), *, atol: float = 2e-3) -> None:
    """b judges as a does at ``at``: scores alike, the same flags but for rows that stand on the line itself."""
    np.testing.assert_allclose(b.label_score, a.label_score[at], atol=atol)
    clear = np.abs(a.label_score[at] - 0.5) > 2 * atol
    np.testing.assert_array_equal(b.flagged[clear], a.flagged[at][clear])
    assert float(b.noise_rate) == pytest.approx(float(a.noise_rate), abs=2e-3)


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.sampled_from([30, 90, 400, 3000]), CLASSES, NOISES)
def test_rows_may_come_in_any_order(seed: int, n: int, k: int, noise: float) -> None:
    data = made(n, k, noise, seed)
    shuffled = np.random.default_rng(seed).permutation(n)
    a, b = audited(data.given, data.proba), audited(data.given[shuffled], data.proba[shuffled])
    np.testing.assert_allclose(b.whole.score, a.whole.score[shuffled], rtol=1e-3, atol=1e-3)
    clear = np.abs(a.whole.score[shuffled]) > 1e-3
    np.testing.assert_array_equal(b.flagged[clear], a.flagged[shuffled][clear])
    np.testing.assert_array_equal(b.whole.predicted[clear], a.whole.predicted[shuffled][clear])


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.sampled_from([400, 1500]), CLASSES, NOISES, st.sampled_from(KINDS[1:]))
@example(629, 400, 12, 0.0, "saturated")  # two classes with as many predictions and as many labels each
def test_tied_rows_may_come_in_any_order(seed: int, n: int, k: int, noise: float, kind: str) -> None:
    data = made(n, k, noise, seed, kind=kind)
    shuffled = np.random.default_rng(seed).permutation(n)
    a, b = audited(data.given, data.proba), audited(data.given[shuffled], data.proba[shuffled])
    assert np.isfinite(a.whole.score).all()
    assert_alike(a, b, shuffled, atol=5e-3)


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.sampled_from([30, 400, 3000]), CLASSES, NOISES, st.sampled_from(KINDS), st.sampled_from([0.0, 0.1]))
@example(629, 400, 12, 0.0, "saturated", 0.0)
@example(3810, 400, 12, 0.4, "saturated", 0.1)
@example(9166, 3000, 5, 0.25, "rounded", 0.1)  # equal rows, of which an expert has answered some
def test_what_is_fitted_does_not_know_the_order(
    seed: int, n: int, k: int, noise: float, kind: str, share: float
) -> None:
    data = made(n, k, noise, seed, kind=kind)
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(n)
    answers = np.where(rng.random(n) < share, data.true, NO_LABEL)
    a = audited(data.given, data.proba, answers)
    b = audited(data.given[shuffled], data.proba[shuffled], answers[shuffled])
    assert a.judge.second is not None and b.judge.second is not None
    np.testing.assert_array_equal(b.judge.second.landmarks, a.judge.second.landmarks)
    for mine, theirs in zip(b.judge.readings, a.judge.readings, strict=True):
        np.testing.assert_allclose(mine.sharpness, theirs.sharpness, rtol=1e-6)
        np.testing.assert_allclose(mine.transition.wrong, theirs.transition.wrong, rtol=1e-6)
    assert (b.judge.cut, b.judge.weight) == pytest.approx((a.judge.cut, a.judge.weight), rel=1e-6)
    assert float(b.noise_rate) == pytest.approx(float(a.noise_rate), abs=1e-6)  # a share, from sums of float32


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.sampled_from([30, 400, 1500]), CLASSES, NOISES, st.sampled_from(KINDS))
@example(629, 400, 12, 0.0, "saturated")
@example(4475, 30, 11, 0.25, "plain")  # rows for which two classes are equally likely, but for rounding
@example(1813, 30, 12, 0.0, "half saturated")
def test_classes_may_come_in_any_order(seed: int, n: int, k: int, noise: float, kind: str) -> None:
    data = made(n, k, noise, seed, kind=kind)
    renamed = np.random.default_rng(seed).permutation(k)  # column j of the new data is column renamed[j] of the old
    a, b = audited(data.given, data.proba), audited(np.argsort(renamed)[data.given], data.proba[:, renamed])
    assert_alike(a, b, atol=2e-2)
    clear = (a.whole.probability > 0.55) & (np.abs(a.label_score - 0.5) > 0.04)
    np.testing.assert_array_equal(renamed[b.whole.predicted][clear], a.whole.predicted[clear])


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.sampled_from([30, 400]), CLASSES, NOISES, st.sampled_from(KINDS))
@example(3110, 30, 2, 0.4, "rounded")
def test_classes_may_come_in_any_order_with_answers(seed: int, n: int, k: int, noise: float, kind: str) -> None:
    data = made(n, k, noise, seed, kind=kind)
    renamed = np.random.default_rng(seed).permutation(k)
    answers = np.where(np.random.default_rng(seed).random(n) < 0.1, data.true, NO_LABEL)
    told = np.where(answers == NO_LABEL, NO_LABEL, np.argsort(renamed)[answers])
    a = audited(data.given, data.proba, answers)
    b = audited(np.argsort(renamed)[data.given], data.proba[:, renamed], told)
    assert_alike(a, b, atol=2e-2)
    assert float(b.noise_rate) == pytest.approx(float(a.noise_rate), abs=1e-3)


@pytest.mark.parametrize(
    ("seed", "k", "share"), [(5967, 6, 0.05), (5967, 6, 0.1), (7461, 10, 0.1), (5840, 11, 0.1), (3068, 3, 0.1)]
)
def test_answered_classes_may_come_in_any_order(seed: int, k: int, share: float) -> None:
    """A model that tells nothing: rows of a label are tied but for rounding, and are doubted together or not at all."""
    data = made(400, k, 0.25, seed, kind="constant")
    renamed = np.random.default_rng(seed).permutation(k)
    name = np.argsort(renamed)
    answers = np.where(np.random.default_rng(seed).random(400) < share, data.true, NO_LABEL)
    told = np.where(answers == NO_LABEL, NO_LABEL, name[answers])
    a = audited(data.given, data.proba, answers)
    b = audited(name[data.given], data.proba[:, renamed], told)
    assert_alike(a, b)
    np.testing.assert_array_equal(b.flagged, a.flagged)
    still = answers == NO_LABEL
    for label in range(k):
        assert len(set(a.flagged[still & (data.given == label)].tolist())) < 2


@settings(max_examples=15, deadline=None)
@given(SEEDS, CLASSES, NOISES, st.sampled_from(KINDS))
def test_float32_and_float64_agree(seed: int, k: int, noise: float, kind: str) -> None:
    data = made(300, k, noise, seed, kind=kind)
    a, b = audited(data.given, data.proba), audited(data.given, data.proba.astype(np.float64))
    np.testing.assert_array_equal(b.whole.score, a.whole.score)


@settings(max_examples=20, deadline=None)
@given(SEEDS, CLASSES, NOISES, st.sampled_from(KINDS), st.integers(1, 700), st.integers(1, 3))
def test_blocks_and_threads_do_not_matter(seed: int, k: int, noise: float, kind: str, block: int, threads: int) -> None:
    data = made(600, k, noise, seed, kind=kind)
    labels = data.given.copy()
    labels[seed % 7 :: 50] = -1  # some rows without a label
    a = audited(np.where(labels < 0, np.nan, labels), data.proba)
    whole = judge_all(a.judge, a.proba, a.labels.codes, a.known, fitted=a.fit, block=block, threads=threads)
    missing = labels < 0
    assert np.isnan(whole.score[missing]).all() and not np.isnan(whole.score[~missing]).any()
    np.testing.assert_allclose(np.tanh(whole.score / 2), np.tanh(a.whole.score / 2), atol=1e-4)
    clear = ~(np.abs(a.whole.score) < 1e-3)
    np.testing.assert_array_equal((whole.score < 0)[clear], a.flagged[clear])
    for mine, theirs in zip(whole.counts, a.whole.counts, strict=True):
        np.testing.assert_allclose(mine.dense(), theirs.dense(), rtol=1e-3, atol=1e-2)


def test_many_classes_in_blocks_and_on_threads() -> None:
    """More than 256 classes: only the given class and the likeliest other are weighed."""
    data = made(1500, 300, 0.2, 0, sharp=0.02)
    labels = data.given.astype(float)
    labels[::100] = np.nan
    a = audited(labels, data.proba)
    for block, threads in ((7, 2), (1500, 1)):
        whole = judge_all(a.judge, a.proba, a.labels.codes, a.known, block=block, threads=threads)
        np.testing.assert_allclose(whole.score, a.whole.score, atol=1e-3)
        np.testing.assert_array_equal(whole.predicted, a.whole.predicted)
    shuffled = np.random.default_rng(1).permutation(1500)
    a, b = audited(data.given, data.proba), audited(data.given[shuffled], data.proba[shuffled])
    assert_alike(a, b, shuffled)


@pytest.mark.parametrize("kind", ["saturated", "repeated"])
def test_equal_rows_with_equal_labels_get_equal_scores(kind: str) -> None:
    data = made(1000, 4, 0.2, 3, kind=kind)
    scores = audited(data.given, data.proba).label_score
    rows = np.c_[data.proba, data.given]
    _, group = np.unique(rows, axis=0, return_inverse=True)
    for g in range(group.max() + 1):
        assert np.ptp(scores[group == g]) < 1e-3


@pytest.mark.parametrize(("k", "sharp"), [(2, 0.3), (10, 0.1)])
def test_certain_models_are_believed_no_further_than_they_agree(k: int, sharp: float) -> None:
    """A model that says 0 or 1 only (a full tree, one neighbour): of the rows it agrees with, none is doubted.

    Leaving a row's label out of the second look makes equal rows of that label stand out; taken for a sign of noise, that
    once flagged every row.
    """
    data: Made = made(2000, k, 0.2, 0, kind="saturated", sharp=sharp)
    found = audited(data.given, data.proba)
    agrees = data.proba.argmax(axis=1) == data.given
    assert 0.3 < agrees.mean() < 0.95 and not found.flagged[agrees].any()
    assert found.noise_rate.high < 1.2 * (1 - agrees.mean())
