"""The truth, kept apart. Only an Oracle, the omniscient baselines and the report may hold it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping

import numpy as np

from labelwright.types import Ints

KEPT_BATCHES = 64


class Truth:
    """True labels by row key, read by the few rooms that may know them.

    labels: batch number -> (n,) true class of each of its rows. load: where older batches come from once more than
    :data:`KEPT_BATCHES` were added, so that memory does not grow with the stream; without it, all are kept.

    >>> Truth({0: np.array([1, 0])}).of(np.array([1, 0]))
    array([0, 1])
    """

    def __init__(self, labels: Mapping[int, Ints] | None = None, *, load: Callable[[int], Ints] | None = None):
        self._labels: OrderedDict[int, Ints] = OrderedDict(labels or {})
        self._load = load

    def add(self, number: int, labels: Ints) -> None:
        """Remember the true labels of batch ``number``."""
        self._labels[number] = np.asarray(labels, np.int64)
        if self._load is not None and len(self._labels) > KEPT_BATCHES:
            self._labels.popitem(last=False)

    def of(self, keys: Ints) -> Ints:
        """(n,) true class of each key.

        Raises KeyError when a key was never added.
        """
        numbers, positions = keys >> 32, keys & 0xFFFFFFFF
        out = np.empty(len(keys), np.int64)
        for number in np.unique(numbers):
            here = numbers == number
            out[here] = self._batch(int(number))[positions[here]]
        return out

    def _batch(self, number: int) -> Ints:
        if number not in self._labels and self._load is not None:
            self.add(number, self._load(number))
        return self._labels[number]
