"""What the owner calls the rows: the loop counts them by chunk and place, the sealed ledger and the expert want the owner's names."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from labelwright.trust.seal.arrays import Array
from labelwright.types import Ints, row_keys


class Names:
    """The owner's keys, and the ids where they were sealed, of the rows that the loop may speak of now: those of the present chunk
    and those that wait in the buffer of rejected rows.

    >>> names = Names()
    >>> names.arrived(3, {"X": np.zeros((2, 1)), "given": np.zeros(2, int), "keys": np.array([70, 71])})
    >>> names.told(row_keys(3, 2)[1:])["keys"].tolist()
    [71]
    """

    def __init__(self) -> None:
        self.classes: tuple[str, ...] = ()  #: what the owner calls the classes, where sealed
        self._keys = np.zeros(0, np.int64)
        self._named: dict[str, Array] = {}

    def arrived(self, number: int, arrays: Mapping[str, Array], waiting: Ints | None = None) -> None:
        """Remember a chunk's rows; forget earlier ones but those with the keys ``waiting``."""
        fresh = row_keys(number, len(arrays["given"]))
        named: dict[str, Array] = {"keys": arrays.get("keys", fresh)}
        if "id" in arrays:
            named["id"] = arrays["id"]
        stays = np.isin(self._keys, np.zeros(0, np.int64) if waiting is None else waiting)
        if stays.any():
            named = {name: np.concatenate([self._named[name][stays], part]) for name, part in named.items()}
        self._keys, self._named = np.concatenate([self._keys[stays], fresh]), named

    def told(self, keys: Ints) -> dict[str, Array]:
        """``keys`` (n,) and, where sealed, ``id`` (n, 32) of the rows that the loop calls ``keys``."""
        order = np.argsort(self._keys, kind="stable")
        at = order[np.searchsorted(self._keys[order], keys)] if len(keys) else np.zeros(0, np.int64)
        return {name: part[at] for name, part in self._named.items()}
