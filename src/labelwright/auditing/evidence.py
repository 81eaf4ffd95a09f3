"""What is known of rows before labels are doubted: log-probabilities of the classes that come into question.

Up to :data:`DENSE` classes all are weighed; beyond, the given one and the likeliest other, so that each probability
is read once and nothing grows with K but the reading.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from labelwright.types import Floats, Ints

DENSE = 256
_FLOOR = 1e-6
_SECOND_FLOOR = 0.01


@dataclass(frozen=True)
class Evidence:
    """Rows to judge.

    first: (n, C) float32 log-probabilities. second: (n, C) the same after the second look, or None without one.
    classes: (n, C) class of each column, or None where column = class. own: (n,) column of the given label.
    given: (n,) class. certainty: (n,) probability of the given label as it came.
    """

    first: Floats
    second: Floats | None
    classes: Ints | None
    own: Ints
    given: Ints
    certainty: Floats

    def __len__(self) -> int:
        return len(self.given)

    def at_own(self, values: Floats) -> Floats:
        """(n,) the column of the given label out of (n, C) values."""
        return values[np.arange(len(self)), self.own]

    def class_of(self, column: Ints) -> Ints:
        """(n,) classes of these columns."""
        return column if self.classes is None else self.classes[np.arange(len(self)), column]

    def take(self, index: Ints) -> Evidence:
        """The rows at ``index``."""
        second = None if self.second is None else self.second[index]
        classes = None if self.classes is None else self.classes[index]
        return Evidence(self.first[index], second, classes, self.own[index], self.given[index], self.certainty[index])

    def weighed(self, sharpness: tuple[float, float]) -> Floats:
        """(n, C) ``sharpness[0] * first + sharpness[1] * second``: log-probabilities up to a constant a row."""
        out = np.float32(sharpness[0]) * self.first
        if self.second is not None:
            out += np.float32(sharpness[1]) * self.second
        return out


def wide(proba: Floats, given: Ints, offset: Floats, correction: Floats | None) -> Evidence:
    """Evidence over all classes, from probabilities (n, K) float32 and given labels (n,).

    offset: (K,) what is added to the log-probabilities of each class, for classes too rare to be predicted.
    correction: (n, K) estimates of the second look.
    """
    first = np.log(np.maximum(proba, np.float32(_FLOOR)))
    second = None if correction is None else np.log(np.maximum(correction, np.float32(_SECOND_FLOOR)))
    if offset.any():
        first += offset
        second = None if second is None else second + offset
    return Evidence(first, second, None, given, given, proba[np.arange(len(given)), given])


@dataclass(frozen=True)
class Narrow:
    """The two classes that come into question, row by row: the given one and the likeliest other.

    own, other: (n,) float32 their probabilities. rival: (n,) class of the other.
    """

    own: Floats
    other: Floats
    rival: Ints

    @staticmethod
    def of(proba: Floats, given: Ints) -> Narrow:
        """From probabilities (n, K) float32 and given labels (n,)."""
        rows = np.arange(len(given))
        own = proba[rows, given]
        rest = proba.copy()
        rest[rows, given] = -1.0
        rival = rest.argmax(axis=1)
        return Narrow(own, rest[rows, rival], rival)

    def take(self, index: Ints | slice) -> Narrow:
        """The rows at ``index``."""
        return Narrow(self.own[index], self.other[index], self.rival[index])

    def evidence(self, given: Ints, offset: Floats) -> Evidence:
        """Evidence over the two."""
        classes = np.stack([given, self.rival], axis=1)
        both = np.stack([self.own, self.other], axis=1)
        first = np.log(np.maximum(both, np.float32(_FLOOR)))
        if offset.any():
            first += offset[classes]
        return Evidence(first, None, classes, np.zeros(len(given), np.int64), given, self.own)


def content_order(certainty: Floats, top: Floats, bottom: Floats, seed: int) -> Ints:
    """(n,) positions in a random order that depends on the rows' content, not on their place or the classes' order.

    certainty, top, bottom: (n,) float32, the probability of the given label, the largest and the smallest.
    Rows of equal content are told apart by how many came before, so that none of them is favoured.
    """
    with np.errstate(over="ignore"):
        code = _mixed(_bits(certainty) ^ (_bits(top) << np.uint64(21)) ^ (_bits(bottom) << np.uint64(42)))
        order = np.argsort(code, kind="stable")
        ranked = code[order]
        starts = np.r_[True, ranked[1:] != ranked[:-1]]
        first = np.maximum.accumulate(np.where(starts, np.arange(len(code)), 0))
        turn = (np.arange(len(code)) - first).astype(np.uint64)
        again = _mixed(ranked + np.uint64(0x9E3779B97F4A7C15) * (turn + np.uint64(seed + 1)))
    return order[np.argsort(again, kind="stable")]


def _bits(values: Floats) -> np.ndarray:
    return np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)


def _mixed(z: np.ndarray) -> np.ndarray:
    """splitmix64."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
