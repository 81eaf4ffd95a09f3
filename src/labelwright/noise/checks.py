"""What all noise models share: checked rates, labels and features, exact counts."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from labelwright.errors import DataError, SettingsError
from labelwright.types import Floats, Ints

Corruption = Callable[[Ints, Floats | None, np.random.Generator], Ints]


def exact_count(rate: float, n: int) -> int:
    """floor(rate * n), safe from rounding: 0.29 of 100 is 29, though 0.29 * 100 is 28.999… in floats.

    >>> exact_count(0.29, 100), exact_count(0.35, 10)
    (29, 3)
    """
    return min(n, math.floor(rate * n + 1e-9))


def check_rate(rate: float, classes: int | None = None) -> None:
    if not 0.0 <= rate <= 1.0:
        raise SettingsError(f"The rate is {rate}, expected a share in [0, 1]; write 0.3 for 30 %.")
    if classes is not None and classes < 2:
        raise SettingsError(
            f"There are {classes} classes, at least 2 are needed for a label to be wrong; check classes."
        )


def checked_labels(y: npt.ArrayLike, classes: int | None = None) -> Ints:
    """A fresh (n,) int64 copy, checked."""
    array = np.asarray(y)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise DataError(
            f"The labels have shape {array.shape} and type {array.dtype}, expected a list of integers; "
            "encode classes as 0..K-1."
        )
    if array.size and (array.min() < 0 or (classes is not None and array.max() >= classes)):
        top = "K-1" if classes is None else str(classes - 1)
        raise DataError(
            f"The labels run from {array.min()} to {array.max()}, expected 0..{top}; check the number of classes."
        )
    return array.astype(np.int64)


def flat_features(X: Floats | None, n: int) -> Floats:
    if X is None or len(X) != n:
        got = "no features" if X is None else f"features of {len(X)} rows"
        raise DataError(f"Got {got} for {n} labels, expected one row of features per label; pass X.")
    return np.asarray(X).reshape(n, -1)


def another_label(true: Ints, classes: int, rng: np.random.Generator) -> Ints:
    """A uniformly drawn label other than each of ``true``."""
    return (true + rng.integers(1, classes, size=len(true))) % classes
