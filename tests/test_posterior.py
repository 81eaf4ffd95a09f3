"""The noise model: Bayes by hand, EM on simulated data with a known answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from labelwright.posterior import NoiseModel, normalised, tempered
from labelwright.types import NO_LABEL, Floats, Ints

T = np.array([[0.7, 0.3, 0.0], [0.1, 0.8, 0.1], [0.0, 0.2, 0.8]])


def known_noise(temperature: float = 1.0) -> NoiseModel:
    """transition = [[0.8, 0.2], [0.1, 0.9]] exactly: without a prior."""
    counts = np.array([[8.0, 2.0], [1.0, 9.0]])
    return replace(NoiseModel.start(2, strength=0.0), counts=counts, temperature=temperature)


def calibrated(n: int, rng: np.random.Generator, transition: Floats = T) -> tuple[Floats, Ints, Ints]:
    """Probabilities that mean what they say, true labels drawn from them, given labels drawn from the matrix."""
    proba = rng.dirichlet([0.2] * len(transition), n)
    true = (rng.random((n, 1)) > proba.cumsum(axis=1)).sum(axis=1).clip(0, len(transition) - 1)
    given = (rng.random((n, 1)) > transition[true].cumsum(axis=1)).sum(axis=1).clip(0, len(transition) - 1)
    return proba, true, given


def test_posterior_is_bayes_by_hand() -> None:
    proba = np.array([[0.6, 0.4], [0.6, 0.4]])
    # given 1: 0.6 * 0.2 = 0.12 against 0.4 * 0.9 = 0.36; given 0: 0.6 * 0.8 = 0.48 against 0.4 * 0.1 = 0.04
    np.testing.assert_allclose(known_noise().posterior(proba, np.array([1, 0])), [[0.25, 0.75], [12 / 13, 1 / 13]])


def test_temperature_is_a_power_of_the_probability() -> None:
    # 0.36 * 0.2 = 0.072 against 0.16 * 0.9 = 0.144
    got = known_noise(2.0).posterior(np.array([[0.6, 0.4]]), np.array([1]))
    np.testing.assert_allclose(got, [[1 / 3, 2 / 3]])
    np.testing.assert_allclose(tempered(np.array([[0.6, 0.4]]), 2.0), [[0.36 / 0.52, 0.16 / 0.52]])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=3, max_size=3), st.integers(0, 2), st.floats(0.25, 8))
def test_posterior_is_a_distribution_whatever_comes(p: list[float], label: int, temperature: float) -> None:
    noise = replace(NoiseModel.start(3), temperature=temperature)
    out = noise.posterior(np.array([p]), np.array([label]))
    assert np.isfinite(out).all() and out.min() >= 0 and abs(out.sum() - 1) < 1e-9


def test_normalised_row_of_zeros_is_uniform() -> None:
    np.testing.assert_allclose(normalised(np.array([[0.0, 0.0], [1.0, 3.0]])), [[0.5, 0.5], [0.25, 0.75]])


def test_prior_weighs_strength_rows_a_class() -> None:
    noise = NoiseModel.start(3, strength=10, prior_rate=0.2)
    assert noise.rate == 0.2 and noise.interval() == (0.0, 1.0)
    seen = replace(noise, counts=np.diag([90.0, 0.0, 0.0]))
    # (90 + 8) / 100, 1 / 100, 1 / 100
    np.testing.assert_allclose(seen.transition[0], [0.98, 0.01, 0.01])
    np.testing.assert_allclose(seen.transition[1], [0.1, 0.8, 0.1])
    np.testing.assert_allclose(NoiseModel.start(1).transition, [[1.0]])


def test_interval_is_wilsons() -> None:
    noise = replace(NoiseModel.start(2), counts=np.array([[50.0, 12.0], [8.0, 30.0]]))
    assert noise.rate == pytest.approx(0.2)
    expected = binomtest(20, 100).proportion_ci(0.95, method="wilson")
    assert noise.interval() == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("size", [20_000, 1000])
def test_em_recovers_matrix_and_rate(size: int) -> None:
    """20,000 calibrated rows, at once and in 20 batches: each entry within 0.04, the rate within 0.02."""
    proba, true, given_ = calibrated(20_000, np.random.default_rng(0))
    noise = NoiseModel.start(3)
    for start in range(0, len(true), size):
        part = slice(start, start + size)
        noise = noise.updated(proba[part], given_[part])
    np.testing.assert_allclose(noise.transition, T, atol=0.04)
    assert noise.rate == pytest.approx((true != given_).mean(), abs=0.02)
    assert 0.8 < noise.temperature < 1.25  # the probabilities are right as they are
    assert noise.counts.sum() == pytest.approx(20_000)


def test_temperature_is_found_when_the_models_are_too_modest() -> None:
    """Calibrated probabilities flattened by the power 1/2 need the temperature 2."""
    proba, _, given_ = calibrated(4000, np.random.default_rng(1))
    found = NoiseModel.start(3).updated(tempered(proba, 0.5), given_).temperature
    assert found == pytest.approx(2.0, rel=0.25)


def test_known_answers_clamp() -> None:
    proba, true, given_ = calibrated(300, np.random.default_rng(2))
    noise = NoiseModel.start(3).updated(1 - proba, given_, true)  # the models are wrong, the experts are not
    confusion = np.zeros((3, 3))
    np.add.at(confusion, (true, given_), 1)
    np.testing.assert_allclose(noise.counts, confusion)
    np.testing.assert_allclose(noise.answered, confusion)
    assert noise.rate == pytest.approx((true != given_).mean())
    half = np.where(np.arange(300) % 2, true, NO_LABEL)
    believed = noise.believed(proba, given_, half)
    np.testing.assert_array_equal(believed[1::2], np.eye(3)[true[1::2]])
    np.testing.assert_allclose(believed[::2], noise.posterior(proba[::2], given_[::2]))


def test_settled_answers_replace_what_was_believed() -> None:
    start = replace(NoiseModel.start(2), counts=np.array([[3.0, 1.0], [1.0, 3.0]]))
    believed = np.array([[0.25, 0.75]])  # of a row given as 1; it is truly 0
    after = start.settled(np.array([1]), np.array([0]), believed)
    np.testing.assert_allclose(after.counts, [[3.0, 1.75], [1.0, 2.25]])
    np.testing.assert_allclose(after.answered, [[0, 1], [0, 0]])
    np.testing.assert_allclose(start.settled(np.array([1]), np.array([0])).counts, [[3, 2], [1, 3]])
    np.testing.assert_allclose(start.counts, [[3, 1], [1, 3]])  # nothing was changed in place


def test_memory_is_k_by_k_and_the_state_comes_back() -> None:
    rng = np.random.default_rng(3)
    noise = NoiseModel.start(3)
    for n in (5, 50, 500):
        proba, true, given_ = calibrated(n, rng)
        noise = noise.updated(proba, given_, np.where(rng.random(n) < 0.1, true, NO_LABEL))
        assert sum(np.asarray(v).size for v in noise.state().values()) == 2 * 3 * 3 + 1
    assert noise.updated(np.empty((0, 3)), np.empty(0, int)) is noise
    again = NoiseModel.start(3).restored(noise.state())
    np.testing.assert_array_equal(again.posterior(proba, given_), noise.posterior(proba, given_))
    np.testing.assert_array_equal(again.answered, noise.answered)
