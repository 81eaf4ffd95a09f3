"""Noise models checked against counts and distributions worked out by hand."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given as given_by
from hypothesis import strategies as st
from scipy.stats import chisquare

from labelwright import noise
from labelwright.errors import DataError, SettingsError, SourceError

rng_of = np.random.default_rng


@given_by(st.integers(0, 200), st.integers(0, 100), st.integers(2, 7), st.integers(0, 2**32))
def test_symmetric_flips_exactly_the_floor_and_never_to_itself(n: int, percent: int, classes: int, seed: int) -> None:
    y = rng_of(seed).integers(0, classes, n)
    before = y.copy()
    given = noise.symmetric(percent / 100, classes=classes)(y, None, rng_of(seed))
    assert int((given != y).sum()) == n * percent // 100
    assert ((given >= 0) & (given < classes)).all()
    assert (y == before).all() and given is not y


def test_symmetric_targets_are_uniform_over_the_other_labels() -> None:
    y = np.full(9000, 2)
    given = noise.symmetric(1.0, classes=4)(y, None, rng_of(0))
    counts = np.bincount(given, minlength=4)
    assert counts[2] == 0
    assert chisquare(counts[[0, 1, 3]]).pvalue > 0.001


def test_symmetric_chooses_rows_uniformly() -> None:
    hits = np.zeros(20)
    rng = rng_of(1)
    for _ in range(2000):
        hits += noise.symmetric(0.25, classes=3)(np.zeros(20, int), None, rng) != 0
    assert hits.sum() == 2000 * 5
    assert chisquare(hits).pvalue > 0.001


def test_asymmetric_follows_the_mapping_only_and_counts_per_class() -> None:
    y = np.repeat(np.arange(10), 11)
    given = noise.asymmetric(0.3, noise.MNIST_PAIRS)(y, None, rng_of(0))
    for label in range(10):
        said = given[y == label]
        flips = said[said != label]
        if label in noise.MNIST_PAIRS:
            assert len(flips) == 3 and set(flips) == {noise.MNIST_PAIRS[label]}
        else:
            assert len(flips) == 0


def test_named_pairs_are_those_of_the_paper() -> None:
    assert dict(noise.MNIST_PAIRS) == {7: 1, 2: 7, 3: 8, 5: 6, 6: 5}
    assert dict(noise.CIFAR10_PAIRS) == {9: 1, 2: 0, 3: 5, 5: 3, 4: 7}


def test_swapped_pair_is_flipped_from_the_true_label_not_twice() -> None:
    y = np.array([5] * 10 + [6] * 10)
    given = noise.asymmetric(0.5, noise.MNIST_PAIRS)(y, None, rng_of(3))
    assert (given[:10] == 6).sum() == 5 and (given[10:] == 5).sum() == 5


def test_cifar100_groups_hold_five_classes_each_and_stay_inside() -> None:
    groups = np.array(noise.CIFAR100_GROUPS)
    assert np.bincount(groups).tolist() == [5] * 20
    # published order: apple 0, mushroom 51, orange 53, pear 57, sweet pepper 83 are "fruit and vegetables" (4)
    assert np.flatnonzero(groups == 4).tolist() == [0, 51, 53, 57, 83]
    y = rng_of(0).integers(0, 100, 1000)
    given = noise.superclass(0.4)(y, None, rng_of(0))
    assert (given != y).sum() == 400 and (groups[given] == groups[y]).all()


def test_sparse_pairs_flips_exactly_and_along_few_pairs() -> None:
    y = np.arange(5000) % 10
    given = noise.sparse_pairs(0.2, 10, share=0.4)(y, None, rng_of(0))
    flips = {(int(t), int(g)) for t, g in zip(y, given, strict=True) if t != g}
    assert (given != y).sum() == 1000
    assert len(flips) == 10 * round(0.4 * 9)  # 4 wrong labels a class, all of them met in 100 flips


def test_superclass_leaves_lonely_classes_alone() -> None:
    given = noise.superclass(0.5, [0, 0, 1])(np.array([0, 1, 2, 2, 2, 2]), None, rng_of(0))
    assert (given[2:] == 2).all() and (given[:2] != [0, 1]).sum() == 1


def test_instance_dependent_rate_is_near_and_depends_on_the_features() -> None:
    rng = rng_of(0)
    y, X = rng.integers(0, 4, 20_000), rng.normal(size=(20_000, 6))
    weights = noise.instance_weights(6, 4, rng)
    given = noise.instance_dependent(0.3, 4, weights=weights)(y, X, rng)
    assert abs((given != y).mean() - 0.3) < 0.015  # q is a truncated normal around 0.3, nearly symmetric
    rows = np.flatnonzero((given != y) & (y == 0))
    scores = X[rows] @ weights[0]
    scores[:, 0] = -np.inf
    expected = np.exp(scores - scores.max(1, keepdims=True))
    expected /= expected.sum(1, keepdims=True)
    assert np.abs(expected.mean(0) - np.bincount(given[rows], minlength=4) / len(rows)).max() < 0.03
    assert (scores.argmax(1) == given[rows]).mean() > 0.6  # the likeliest target is taken most often


def test_instance_dependent_at_zero_is_truncated_from_below() -> None:
    y = np.zeros(20_000, int)
    given = noise.instance_dependent(0.0, 2)(y, np.zeros((20_000, 1)), rng_of(0))
    assert abs(given.mean() - 0.1 * np.sqrt(2 / np.pi)) < 0.006  # mean of the half-normal with std 0.1


def test_human_labels_are_returned_as_they_are() -> None:
    flip = noise.human(np.array([2, 0, 1]))
    assert flip(np.zeros(3, int), None, rng_of(0)).tolist() == [2, 0, 1]
    with pytest.raises(DataError, match="3 human labels for 2 rows"):
        flip(np.zeros(2, int), None, rng_of(0))


def test_open_set_replaces_features_only() -> None:
    y, X = np.arange(10) % 2, np.zeros((10, 3))
    outsiders = np.arange(1, 13, dtype=float).reshape(4, 3)
    given, mixed = noise.open_set(0.4, outsiders)(y, X, rng_of(0))
    changed = np.flatnonzero(mixed.any(axis=1))
    assert given.tolist() == y.tolist() and len(changed) == 4 and not X.any()
    assert sorted(mixed[changed].tolist()) == outsiders.tolist()  # without replacement while they last
    _, many = noise.open_set(1.0, outsiders[:1])(y, X, rng_of(0))
    assert (many == outsiders[0]).all()
    with pytest.raises(DataError, match="same shape"):
        noise.open_set(0.5, np.ones((2, 5)))(y, X, rng_of(0))


SCORES = np.array([[9.0, 1.0, 0.0], [3.0, 2.0, 0.0], [0.0, 5.0, 4.9], [1.0, 0.0, 8.0]])
TRUE = np.array([0, 0, 1, 2])  # margins 8, 1, 0.1, 7


@pytest.mark.parametrize(("attack", "expected"), [(noise.far_first, [2, 0, 1, 1]), (noise.near_first, [0, 1, 2, 2])])
def test_margin_attacks_by_hand(attack: object, expected: list[int]) -> None:
    corruption = attack(0.5, lambda X: X, classes=3)  # type: ignore[operator]
    assert corruption(TRUE, SCORES, rng_of(0)).tolist() == expected


def test_margin_attack_from_margins_picks_the_same_rows() -> None:
    given = noise.far_first(0.5, np.array([8, 1, 0.1, 7]), classes=3)(TRUE, None, rng_of(0))
    assert (given != TRUE).tolist() == [True, False, False, True]
    with pytest.raises(DataError, match="margins have shape"):
        noise.near_first(0.5, np.ones(3), classes=3)(TRUE, None, rng_of(0))


def test_margin_ties_fall_at_random() -> None:
    picked = {
        int(np.flatnonzero(noise.far_first(0.25, np.ones(4), classes=2)(np.zeros(4, int), None, rng_of(s)))[0])
        for s in range(40)
    }
    assert picked == {0, 1, 2, 3}


def test_targeted_and_poisoned_source() -> None:
    y = np.array([1] * 10 + [0] * 5)
    assert (noise.targeted(0.35, 1, 4)(y, None, rng_of(0)) == 4).sum() == 3
    sources = np.array(["a", "b", "c"] * 5)
    given = noise.poisoned_source(noise.symmetric(1.0, classes=2), sources, "b")(y, None, rng_of(0))
    assert ((given != y) == (sources == "b")).all()
    with pytest.raises(DataError, match="No row comes from"):
        noise.poisoned_source(noise.symmetric(1.0, classes=2), sources, "z")(y, None, rng_of(0))


def test_schedules_by_hand_and_clamped() -> None:
    assert [noise.constant(2.0)(0), noise.constant(-1.0)(0)] == [1.0, 0.0]
    assert noise.linear(0.2, 0.6, batches=3)(1) == pytest.approx(0.4)
    assert noise.sine(0.9, 0.5, period=4)(1) == 1.0
    assert noise.after_clean(noise.linear(0.5, 1.0, batches=2), batches=2)(2) == 0.5


def test_random_schedules_do_not_depend_on_the_order_of_calls() -> None:
    makers: list[Callable[[np.random.Generator], noise.Schedule]] = [
        lambda rng: noise.uniform(0.1, 0.9, rng),
        lambda rng: noise.gaussian(0.4, 0.2, rng),
        lambda rng: noise.bursts(0.1, 0.7, chance=0.3, rng=rng),
    ]
    for make in makers:
        first, again = make(rng_of(5)), make(rng_of(5))
        forward = [first(b) for b in range(300)]
        assert [again(b) for b in reversed(range(300))] == forward[::-1]
        assert all(0 <= rate <= 1 for rate in forward) and len(set(forward)) > 1
    bursts = [noise.bursts(0.1, 0.7, chance=0.3, rng=rng_of(5))(b) for b in range(1000)]
    assert abs(bursts.count(0.7) / 1000 - 0.3) < 0.06


def test_corrupt_counts_per_batch() -> None:
    y = np.zeros(100, int)
    given = noise.corrupt(
        y, None, lambda r: noise.symmetric(r, classes=3), noise.linear(0.0, 0.75, batches=4), 25, rng_of(0)
    )
    assert [(part != 0).sum() for part in given.reshape(4, 25)] == [0, 6, 12, 18]
    with pytest.raises(DataError, match="sum to 90"):
        noise.corrupt(y, None, lambda r: noise.symmetric(r, classes=3), noise.constant(0.1), [40, 50], rng_of(0))


def test_same_seed_same_noise() -> None:
    y, X = rng_of(0).integers(0, 3, 200), rng_of(1).normal(size=(200, 5))
    for model in (
        noise.symmetric(0.3, classes=3),
        noise.pair_flip(0.3, 3),
        noise.instance_dependent(0.3, 3),
        noise.superclass(0.3, [0, 0, 0]),
        noise.far_first(0.3, lambda X: X[:, :3], classes=3),
    ):
        before = X.copy()
        assert (model(y, X, rng_of(7)) == model(y, X, rng_of(7))).all()
        np.testing.assert_array_equal(X, before)


def test_bad_arguments_are_explained() -> None:
    with pytest.raises(SettingsError, match=r"\[0, 1\]"):
        noise.symmetric(30, classes=3)
    with pytest.raises(SettingsError, match="at least 2"):
        noise.pair_flip(0.1, 1)
    with pytest.raises(SettingsError, match="to itself"):
        noise.asymmetric(0.1, {1: 1})
    with pytest.raises(DataError, match="number of classes"):
        noise.symmetric(0.1, classes=2)(np.array([0, 2]), None, rng_of(0))
    with pytest.raises(DataError, match="integers"):
        noise.symmetric(0.1, classes=2)(np.array([0.5]), None, rng_of(0))
    with pytest.raises(DataError, match="pass X"):
        noise.instance_dependent(0.1, 2)(np.array([0, 1]), None, rng_of(0))


def test_read_cifar_n_never_unpickles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "good.npy", np.array([1, 2]))
    assert noise.read_cifar_n(tmp_path / "good.npy")["labels"].tolist() == [1, 2]
    np.save(tmp_path / "bad.npy", np.array({"worse_label": [1]}, dtype=object), allow_pickle=True)
    with pytest.raises(SourceError, match="never loaded"):
        noise.read_cifar_n(tmp_path / "bad.npy")
    with pytest.raises(SourceError, match="no file"):
        noise.read_cifar_n(tmp_path / "none.npz")
    (tmp_path / "x.txt").write_text("1")
    with pytest.raises(SourceError, match=r"expected \.npz"):
        noise.read_cifar_n(tmp_path / "x.txt")
    (tmp_path / "n.pt").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SourceError, match="needs torch"):
        noise.read_cifar_n(tmp_path / "n.pt")
