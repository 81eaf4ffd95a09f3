"""CopyNet's Expert in the loop: what it learns from answers, against Bayes' rule and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from labelwright.errors import SettingsError
from labelwright.imitation import CopyImitator, PosteriorImitator, SoftImitator, fused
from labelwright.posterior import NoiseModel
from labelwright.types import NO_LABEL, Answers, Rows, Split, Verdict

K = 3
T = np.array([[0.7, 0.3, 0.0], [0.0, 0.7, 0.3], [0.3, 0.0, 0.7]])


def judged(n: int, *, seed: int = 0, noise: NoiseModel | None = None) -> tuple[Split, np.ndarray]:
    """A batch that a well-calibrated model has judged, all of it suspicious; and the truth."""
    rng = np.random.default_rng(seed)
    proba = rng.dirichlet(np.full(K, 0.4), n)
    true = np.array([rng.choice(K, p=p) for p in proba])
    given = np.array([rng.choice(K, p=T[label]) for label in true])
    rows = Rows(np.zeros((n, 1)), given, 1000 * seed + np.arange(n))
    noise = NoiseModel.start(K) if noise is None else noise
    flags = np.zeros(n, bool)
    return Split(rows, np.full(n, int(Verdict.REJECTED)), given, flags, proba, proba, noise), true


def answered(split: Split, true: np.ndarray, rows: np.ndarray) -> Answers:
    return Answers(split.rows.take(rows), true[rows], ("ann",) * len(rows), np.ones(len(rows)))


def log_loss(believed: np.ndarray, true: np.ndarray) -> float:
    return float(-np.log(np.maximum(believed[np.arange(len(true)), true], 1e-9)).mean())


def test_without_answers_it_is_the_posterior() -> None:
    split, _ = judged(200)
    none = Answers.none(1)
    np.testing.assert_array_equal(CopyImitator(0.9).believed(split), split.posterior)
    for soft, other in ((True, SoftImitator(0.9)), (False, PosteriorImitator(0.9))):
        mine, theirs = CopyImitator(0.9, soft=soft).correct(split, none), other.correct(split, none)
        np.testing.assert_array_equal(mine.rows.keys, theirs.rows.keys)
        assert len(mine.hints) == len(theirs.hints)


def test_answers_teach_it_the_noise_matrix_that_the_posterior_has_wrong() -> None:
    split, true = judged(400)
    imitator = CopyImitator(0.9)
    imitator.update(split, answered(split, true, np.arange(300)))
    test, truth = judged(2000, seed=1)
    best = test.proba * T[:, test.given].T
    best /= best.sum(axis=1, keepdims=True)
    before, after, least = (log_loss(b, truth) for b in (test.posterior, imitator.believed(test), best))
    assert after < least + 0.05 < before


def test_it_finds_the_same_weights_as_another_implementation() -> None:
    split, true = judged(1500)
    imitator = CopyImitator(0.9, pull=1e-6)
    imitator.update(split, answered(split, true, np.arange(1500)))
    test, _ = judged(500, seed=1)
    # The model with a free weight for every pair of class and log-probability, on data where p is calibrated: the extra
    # freedom hardly moves it.
    features = [np.hstack([np.log(np.clip(s.proba, 1e-6, None)), np.eye(K)[s.given]]) for s in (split, test)]
    other = LogisticRegression(C=1e6, max_iter=5000).fit(features[0], true).predict_proba(features[1])
    assert np.abs(imitator.believed(test) - other).mean() < 0.02


def test_few_answers_move_it_little_and_a_strong_pull_not_at_all() -> None:
    split, true = judged(100)
    few, held = CopyImitator(0.9), CopyImitator(0.9, pull=1e9)
    for imitator in (few, held):
        imitator.update(split, answered(split, true, np.arange(2)))
    wanted = fused(split.proba, split.given, split.noise.temperature, np.log(split.noise.transition))
    np.testing.assert_allclose(held.believed(split), wanted, atol=1e-3)
    assert 0 < np.abs(few.believed(split) - wanted).mean() < 0.05


def test_answers_that_say_nothing_or_are_about_other_batches_teach_nothing() -> None:
    split, true = judged(50)
    other, _ = judged(50, seed=3)
    imitator = CopyImitator(0.9)
    imitator.update(other, answered(split, true, np.arange(5)))
    unsure = Answers(split.rows.take(np.arange(5)), np.full(5, NO_LABEL), ("ann",) * 5, np.ones(5))
    imitator.update(split, unsure)
    assert len(imitator.state()["true"]) == 0


def test_its_memory_is_bounded_and_comes_back() -> None:
    split, true = judged(50)
    imitator = CopyImitator(0.9, memory=30)
    imitator.update(split, answered(split, true, np.arange(40)))
    np.testing.assert_array_equal(imitator.state()["true"], true[10:40])
    again = CopyImitator(0.9)
    again.restore(imitator.state())
    np.testing.assert_array_equal(again.believed(split), imitator.believed(split))
    with pytest.raises(SettingsError, match="pull"):
        CopyImitator(0.9, pull=0.0)
