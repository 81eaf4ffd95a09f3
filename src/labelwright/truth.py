"""The truth, kept apart. Only an Oracle, the omniscient baselines and the report may hold it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from labelwright.types import Ints


class Truth:
    """True labels by row key, read by the few rooms that may know them.

    labels: batch number -> (n,) true class of each of its rows.

    >>> Truth({0: np.array([1, 0])}).of(np.array([1, 0]))
    array([0, 1])
    """

    def __init__(self, labels: dict[int, Ints] | None = None):
        self._labels = dict(labels or {})

    def add(self, number: int, labels: Ints) -> None:
        """Remember the true labels of batch ``number``."""
        self._labels[number] = np.asarray(labels, np.int64)

    def of(self, keys: Ints) -> Ints:
        """(n,) true class of each key.

        Raises KeyError when a key was never added.
        """
        numbers, positions = keys >> 32, keys & 0xFFFFFFFF
        out = np.empty(len(keys), np.int64)
        for number in np.unique(numbers):
            here = numbers == number
            out[here] = self._labels[int(number)][positions[here]]
        return out


TruthLookup = Callable[[Ints], Ints]
