"""Noise models: functions ``(y, X, rng) -> given`` (methods section 7)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from labelwright.errors import DataError, SettingsError
from labelwright.noise.checks import Corruption, another_label, check_rate, checked_labels, exact_count, flat_features
from labelwright.types import Floats, Ints

MNIST_PAIRS: Mapping[int, int] = {7: 1, 2: 7, 3: 8, 5: 6, 6: 5}
CIFAR10_PAIRS: Mapping[int, int] = {9: 1, 2: 0, 3: 5, 5: 3, 4: 7}
_COARSE = (
    "4 1 14 8 0 6 7 7 18 3 3 14 9 18 7 11 3 9 7 11 6 11 5 10 7 6 13 15 3 15 0 11 1 10 12 14 16 9 11 5 "
    "5 19 8 8 15 13 14 17 18 10 16 4 17 4 2 0 17 4 18 17 10 3 2 12 12 16 12 1 9 19 2 10 0 1 16 12 9 13 15 13 "
    "16 19 2 4 6 19 5 5 8 19 18 1 2 15 6 0 17 8 14 13"
)
CIFAR100_GROUPS: tuple[int, ...] = tuple(int(group) for group in _COARSE.split())
"""Superclass of each of the 100 fine classes of CIFAR-100, in the order of the published labels."""


def symmetric(rate: float, *, classes: int) -> Corruption:
    """Flip exactly floor(rate * n) rows, drawn without replacement, uniformly to the other labels.

    rate: in [0, 1]. classes: K, at least 2. Source: methods section 7, "Symmetric".
    Raises SettingsError for a rate outside [0, 1] or fewer than 2 classes.

    >>> y = np.zeros(10, np.int64)
    >>> given = symmetric(0.35, classes=3)(y, None, np.random.default_rng(0))
    >>> int((given != y).sum())
    3
    """
    check_rate(rate, classes)

    def apply(y: Ints, X: Floats | None, rng: np.random.Generator) -> Ints:
        given = checked_labels(y, classes)
        chosen = rng.choice(len(given), exact_count(rate, len(given)), replace=False)
        given[chosen] = another_label(given[chosen], classes, rng)
        return given

    return apply


def asymmetric(rate: float, mapping: Mapping[int, int]) -> Corruption:
    """Flip exactly floor(rate * n_c) of the n_c rows of each class c in ``mapping`` to ``mapping[c]``.

    rate: in [0, 1]. mapping: true class -> wrong class, e.g. :data:`MNIST_PAIRS`, :data:`CIFAR10_PAIRS`;
    other classes stay clean. Source: methods section 7, "Asymmetric".
    Raises SettingsError for a rate outside [0, 1], or a class mapped to itself.

    >>> asymmetric(1.0, MNIST_PAIRS)(np.array([7, 5, 6, 0]), None, np.random.default_rng(0)).tolist()
    [1, 6, 5, 0]
    """
    check_rate(rate)
    same = [source for source, target in mapping.items() if source == target]
    if same:
        raise SettingsError(f"The mapping sends class {same[0]} to itself; map it to another class or leave it out.")

    def apply(y: Ints, X: Floats | None, rng: np.random.Generator) -> Ints:
        true = checked_labels(y)
        given = true.copy()
        for source, target in mapping.items():
            rows = np.flatnonzero(true == source)
            given[rng.choice(rows, exact_count(rate, len(rows)), replace=False)] = target
        return given

    return apply


def pair_flip(rate: float, classes: int) -> Corruption:
    """Flip floor(rate * n_c) rows of each class c to c + 1, the last class to 0.

    rate: in [0, 1]. classes: K, at least 2. Raises SettingsError as :func:`symmetric` does.

    >>> pair_flip(1.0, 3)(np.array([0, 1, 2]), None, np.random.default_rng(0)).tolist()
    [1, 2, 0]
    """
    check_rate(rate, classes)
    return asymmetric(rate, {label: (label + 1) % classes for label in range(classes)})


def sparse_pairs(rate: float, classes: int, *, share: float = 0.4, pairs: int | None = None) -> Corruption:
    """Flip exactly floor(rate * n) rows, but only along a random ``share`` of the ordered pairs of classes.

    Each class has round(share * (K - 1)) wrong labels, at least 1, drawn anew at each call, or by the seed ``pairs`` the same at
    every call; a flipped row gets one of them uniformly. rate, share: in [0, 1]. classes: K, at least 2. Raises SettingsError as
    :func:`symmetric` does.

    >>> y = np.zeros(100, np.int64)
    >>> len(set(sparse_pairs(1.0, 6)(y, None, np.random.default_rng(0)).tolist()))
    2
    """
    check_rate(rate, classes)
    check_rate(share)

    def apply(y: Ints, X: Floats | None, rng: np.random.Generator) -> Ints:
        given = checked_labels(y, classes)
        targets = max(1, round(share * (classes - 1)))
        drawing = rng if pairs is None else np.random.default_rng(pairs)
        shift = np.stack([1 + drawing.permutation(classes - 1)[:targets] for _ in range(classes)])
        rows = rng.choice(len(given), exact_count(rate, len(given)), replace=False)
        given[rows] = (given[rows] + shift[given[rows], rng.integers(targets, size=len(rows))]) % classes
        return given

    return apply


def superclass(rate: float, groups: Sequence[int] = CIFAR100_GROUPS) -> Corruption:
    """Flip rows uniformly to the other classes of their own superclass.

    rate: in [0, 1]; exactly floor(rate * m) of the m rows whose superclass has more than one class are
    flipped. groups: (K,) superclass of each class. Source: methods section 7, "CIFAR-100".
    Raises SettingsError for a rate outside [0, 1] or when every superclass has one class only.

    >>> superclass(1.0, [0, 0, 1])(np.array([0, 1, 2]), None, np.random.default_rng(0)).tolist()
    [1, 0, 2]
    """
    check_rate(rate)
    group = np.asarray(groups)
    peers = [np.flatnonzero((group == group[label]) & (np.arange(len(group)) != label)) for label in range(len(group))]
    can_flip = np.array([len(p) > 0 for p in peers], bool)
    if not can_flip.any():
        raise SettingsError(f"Every superclass of {list(groups)} has one class; give groups that share classes.")

    def apply(y: Ints, X: Floats | None, rng: np.random.Generator) -> Ints:
        given = checked_labels(y, len(group))
        eligible = np.flatnonzero(can_flip[given])
        for row in rng.choice(eligible, exact_count(rate, len(eligible)), replace=False):
            given[row] = rng.choice(peers[given[row]])
        return given

    return apply


def instance_weights(width: int, classes: int, rng: np.random.Generator) -> Floats:
    """(K, d, K) projections W_y ~ N(0, 1) of :func:`instance_dependent`, float32; share them across batches.

    >>> instance_weights(4, 3, np.random.default_rng(0)).shape
    (3, 4, 3)
    """
    return rng.standard_normal((classes, width, classes), dtype=np.float32)


def instance_dependent(rate: float, classes: int, *, weights: Floats | None = None) -> Corruption:
    """Flip each row with its own probability, to labels that its features suggest.

    q ~ TruncNorm(rate, 0.1, [0, 1]) per row; s = x·W_y with s_y = -inf; P(given) = q·softmax(s), P(y) = 1 - q
    (methods section 7). The share of flipped rows is therefore only near ``rate``.
    weights: (K, d, K) from :func:`instance_weights`, drawn anew at each call when None: pass them to keep
    the noise the same function of the features in all batches.
    Raises SettingsError for a bad rate, DataError when X is missing or its width differs from ``weights``.

    >>> y = np.array([0, 1, 2, 0])
    >>> given = instance_dependent(0.5, 3)(y, np.eye(4), np.random.default_rng(1))
    >>> given.shape, bool((given < 3).all())
    ((4,), True)
    """
    check_rate(rate, classes)

    def apply(y: Ints, X: Floats | None, rng: np.random.Generator) -> Ints:
        true = checked_labels(y, classes)
        flat = flat_features(X, len(true))
        W = instance_weights(flat.shape[1], classes, rng) if weights is None else weights
        if W.shape != (classes, flat.shape[1], classes):
            raise DataError(
                f"The weights have shape {W.shape} but the features need {(classes, flat.shape[1], classes)}; "
                "draw them with instance_weights(width, classes, rng)."
            )
        flip_chance = _truncated_normal(rate, 0.1, len(true), rng)
        given = true.copy()
        for label in np.unique(true):
            rows = np.flatnonzero(true == label)
            scores = np.asarray(flat[rows] @ W[label], np.float64)
            scores[:, label] = -np.inf
            chance = np.exp(scores - scores.max(axis=1, keepdims=True))
            target = _draw(chance, rng)
            flips = rng.random(len(rows)) < flip_chance[rows]
            given[rows[flips]] = target[flips]
        return given

    return apply


def human(labels: npt.ArrayLike) -> Corruption:
    """Labels that people really gave, e.g. one array of :func:`read_cifar_n`.

    labels: (n,) class of each row, in the order of the rows. Raises DataError when the number of rows differs.

    >>> human([1, 0])(np.array([0, 0]), None, np.random.default_rng(0)).tolist()
    [1, 0]
    """
    said = checked_labels(labels)

    def apply(y: Ints, X: Floats | None, rng: np.random.Generator) -> Ints:
        if len(y) != len(said):
            raise DataError(
                f"There are {len(said)} human labels for {len(y)} rows; pass one per row, in the same order."
            )
        return said.copy()

    return apply


def open_set(rate: float, outsiders: Floats) -> Callable[[Ints, Floats, np.random.Generator], tuple[Ints, Floats]]:
    """Replace the features of exactly floor(rate * n) rows by rows of none of the K classes; labels stay.

    outsiders: (m, ...) features shaped like the rows of X; drawn without replacement while they last.
    The result maps (y, X, rng) to (given, X): labels equal to ``y`` and a changed copy of X.
    Raises SettingsError for a bad rate, DataError when shapes differ or there are no outsiders.

    >>> given, X = open_set(0.5, np.ones((3, 2)))(np.array([0, 1]), np.zeros((2, 2)), np.random.default_rng(0))
    >>> given.tolist(), int(X.sum())
    ([0, 1], 2)
    """
    check_rate(rate)

    def apply(y: Ints, X: Floats, rng: np.random.Generator) -> tuple[Ints, Floats]:
        given, mixed = checked_labels(y), np.array(X)
        if len(outsiders) == 0 or outsiders.shape[1:] != mixed.shape[1:]:
            raise DataError(
                f"The outsiders have shape {outsiders.shape} but rows have shape {mixed.shape[1:]}; "
                "give at least one row of the same shape."
            )
        count = exact_count(rate, len(given))
        rows = rng.choice(len(given), count, replace=False)
        mixed[rows] = outsiders[rng.choice(len(outsiders), count, replace=count > len(outsiders))]
        return given, mixed

    return apply


def _draw(weights: Floats, rng: np.random.Generator) -> Ints:
    """One column per row, with probability proportional to its weight."""
    total = np.cumsum(weights, axis=1)
    point = rng.random((len(weights), 1)) * total[:, -1:]
    return np.asarray((total <= point).sum(axis=1), np.int64)


def _truncated_normal(mean: float, std: float, n: int, rng: np.random.Generator) -> Floats:
    out = rng.normal(mean, std, n)
    while (outside := (out < 0) | (out > 1)).any():
        out[outside] = rng.normal(mean, std, int(outside.sum()))
    return out
