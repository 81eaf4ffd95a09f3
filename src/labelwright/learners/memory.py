"""A bounded memory of labelled rows: what refitting and replay draw from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from labelwright.types import Floats, Ints, Rows

Fetch = Callable[[Ints], tuple[Ints, Floats]]
"""Row keys -> (the keys that can still be had, their features): how a memory is refilled after a crash."""


def _priority(keys: Ints, seed: int) -> Ints:
    """A well-mixed number for each key (splitmix64), so that "the smallest" is a uniform sample."""
    with np.errstate(over="ignore"):
        z = keys.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15) * np.uint64(seed + 1)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed: Ints = (z ^ (z >> np.uint64(31))).astype(np.int64)
    return mixed


class RowMemory:
    """At most ``size`` rows, a uniform sample of all that were added; the same rows whatever the batch sizes.

    >>> memory = RowMemory(2)
    >>> memory.add(Rows(np.zeros((3, 1), np.float32), np.array([0, 1, 0]), np.array([7, 8, 9])))
    >>> len(memory.rows)
    2
    """

    def __init__(self, size: int, *, seed: int = 0):
        self.size, self.seed = size, seed
        self.rows = Rows.none()

    def add(self, rows: Rows) -> None:
        """Take ``rows`` in; a row that is here already (same key) gets the newer label."""
        kept = self.rows
        if len(kept) and len(rows):
            kept = kept.take(~np.isin(kept.keys, rows.keys))
        together = kept.plus(rows)
        if len(together) > self.size:
            together = together.take(
                np.sort(np.argsort(_priority(together.keys, self.seed), kind="stable")[: self.size])
            )
        self.rows = together

    def forget(self, keys: Ints) -> None:
        """Drop the rows with these keys."""
        self.rows = self.rows.take(~np.isin(self.rows.keys, keys))

    def sample(self, count: int, rng: np.random.Generator) -> Rows:
        """``count`` rows without replacement, or all when fewer."""
        if count >= len(self.rows):
            return self.rows
        return self.rows.take(rng.choice(len(self.rows), count, replace=False))

    def state(self) -> dict[str, Any]:
        """Keys, labels and shares; features come back through ``fetch``."""
        held = {"keys": self.rows.keys, "y": self.rows.y}
        return held if self.rows.share is None else {**held, "share": self.rows.share}

    def restore(self, state: Mapping[str, Any], fetch: Fetch) -> None:
        """As it was, less the rows that can no longer be had (erased, or their correction reverted)."""
        keys = np.asarray(state["keys"], np.int64)
        found, X = fetch(keys)
        here = np.isin(keys, found)
        order = np.argsort(found, kind="stable")
        at = order[np.searchsorted(found[order], keys[here])] if len(found) else np.empty(0, np.int64)
        share = np.asarray(state["share"], np.float32)[here] if "share" in state else None
        self.rows = Rows(X[at], np.asarray(state["y"], np.int64)[here], keys[here], share)
