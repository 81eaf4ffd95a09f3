"""Many classes, large files: sum, sign, given class and likeliest other of a row in one read of its probabilities.

Needs numba (the extra ``fast``); without it the same is done in several reads, see :func:`labelwright.auditing.passes.narrowed`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from labelwright.types import Floats, Ints

WORTH_CELLS = 20_000_000
"""Below so many numbers, importing numba takes longer than it saves."""

_HALF = np.float32(0.5)
_ONE = np.float32(1.0)
_SIGN = np.uint32(1 << 31)


@cache
def compiled() -> Callable[..., int] | None:
    """:func:`look` as machine code that runs without the interpreter's lock, or None where numba is not installed."""
    try:
        from numba import njit
    except ImportError:
        return None
    made = {"nogil": True, "fastmath": {"reassoc", "nsz"}}
    try:
        return njit(look, cache=True, **made)  # type: ignore[no-any-return]
    except RuntimeError:  # there is no folder that the machine code could be kept in
        return njit(look, **made)  # type: ignore[no-any-return]


def look(values: Floats, bits: Ints, given: Ints, own: Floats, other: Floats, rival: Ints, slack: np.float32) -> int:
    """Fill ``own``, ``other``, ``rival`` (n,) as of :class:`~labelwright.auditing.evidence.Narrow`.

    values: (n, K) float32. bits: the same memory as uint32: numbers that are not negative have the same order so, and any
    negative one stands above them all. given: (n,) class, none missing. slack: how far a row's sum may be from one.
    Returns how many rows have to be looked at again: a sign bit is set, or the sum is wrong.

    Each loop over a row is kept so plain that the compiler makes vector instructions of it.
    """
    strange = 0
    classes = values.shape[1]
    for i in range(values.shape[0]):
        row, raw, label = values[i], bits[i], given[i]
        total, top = np.float32(0), np.uint32(0)
        for j in range(classes):
            total += row[j]
            top = max(top, raw[j])
        if top >= _SIGN or not abs(total - _ONE) <= slack:
            strange += 1
        mine = row[label]
        own[i], rival[i], other[i] = mine, -1, _ONE - mine
        if mine < _HALF:
            if raw[label] == top:  # the given class is the likeliest: look for the next
                top = np.uint32(0)
                for j in range(label):
                    top = max(top, raw[j])
                for j in range(label + 1, classes):
                    top = max(top, raw[j])
            for j in range(classes):
                if raw[j] == top and j != label:
                    rival[i], other[i] = j, row[j]
                    break
    return strange
