"""What a site tells the others, and nothing else: model weights and sufficient statistics. No row, no label of a row.

The size is fixed by the plan: P + K^2 + 3K numbers of 4 bytes, P = columns x K weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from labelwright.types import Floats


@dataclass(frozen=True)
class Shape:
    """columns: rows of the weight matrix. classes: K."""

    columns: int
    classes: int

    @property
    def weights(self) -> int:
        """P."""
        return self.columns * self.classes

    @property
    def numbers(self) -> int:
        """Numbers in a message: P + K^2 + 3K.

        >>> Shape(1001, 10).numbers
        10140
        """
        return self.weights + self.classes**2 + 3 * self.classes


@dataclass(frozen=True)
class Statistics:
    """One site's word in one round.

    weights: (columns, K) of the shared model after the site's own steps. pairs: (K, K) expected (true, given) counts of
    its rows, its noise matrix before normalisation. sure: (K,) summed probability of the label over the rows that it
    trusts, by class; trusted: (K,) how many. classes: (K,) summed posterior: how many rows of each true class.
    """

    weights: Floats
    pairs: Floats
    sure: Floats
    trusted: Floats
    classes: Floats

    def vector(self) -> Floats:
        """(numbers,) float32, in the order above.

        >>> Statistics.none(Shape(2, 2)).vector().shape
        (14,)
        """
        parts = (self.weights, self.pairs, self.sure, self.trusted, self.classes)
        return np.concatenate([np.ravel(part) for part in parts]).astype(np.float32)

    @staticmethod
    def of(vector: Floats, shape: Shape) -> Statistics:
        """What :meth:`vector` made."""
        k = shape.classes
        ends = np.cumsum([shape.weights, k * k, k, k])
        weights, pairs, sure, trusted, classes = np.split(np.asarray(vector, np.float64), ends)
        return Statistics(weights.reshape(shape.columns, k), pairs.reshape(k, k), sure, trusted, classes)

    @staticmethod
    def none(shape: Shape) -> Statistics:
        """Nothing known."""
        return Statistics.of(np.zeros(shape.numbers), shape)

    @property
    def wrong(self) -> float:
        """Expected share of wrong labels; NaN where nothing was counted."""
        total = float(self.pairs.sum())
        return float(1.0 - np.trace(self.pairs) / total) if total > 0 else float("nan")


def problem(vector: Floats, shape: Shape, *, limit: float, counted: bool = True) -> str | None:
    """What is wrong with a vector that came from outside, or None.

    limit: the largest weight and the largest count (1e7 times it) that are taken. counted: counts must not be negative
    (they may be where privacy noise was added).

    >>> shape = Shape(1, 2)
    >>> problem(np.zeros(9), shape, limit=10), problem(np.full(12, np.nan), shape, limit=10)
    ('9 numbers; expected 12', '12 of its numbers are NaN or infinite')
    """
    if vector.shape != (shape.numbers,):
        return f"{vector.size} numbers; expected {shape.numbers}"
    finite = np.isfinite(vector)
    if not finite.all():
        return f"{int((~finite).sum())} of its numbers are NaN or infinite"
    weights, counts = vector[: shape.weights], vector[shape.weights :]
    if np.abs(weights).max(initial=0.0) > limit:
        return f"a weight of {float(np.abs(weights).max()):.3g}; at most {limit:g} is taken"
    if np.abs(counts).max(initial=0.0) > 1e7 * limit:
        return f"a count of {float(np.abs(counts).max()):.3g}; at most {1e7 * limit:g} is taken"
    if counted and counts.min(initial=0.0) < -1e-3:
        return f"a count of {float(counts.min()):.3g}; counts are not negative"
    return None
