"""Digests: what makes an edit visible."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

SALT_BYTES = 16
DIGEST_BYTES = 16
START = "0" * 64


def canonical(body: Any) -> str:
    """JSON with one spelling."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def entry_chain(previous: str, fields: Sequence[Any]) -> str:
    """sha256 over the previous link and the entry's own fields, hex."""
    return hashlib.sha256(canonical([previous, *fields]).encode()).hexdigest()


class Attached:
    """Digest of the table rows that belong to one entry, fed table by table, column by column."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def table(self, name: str, columns: Sequence[Sequence[Any] | np.ndarray[Any, Any]]) -> None:
        """Add the columns of one table (nothing, when there are no rows)."""
        if not len(columns) or not len(columns[0]):
            return
        self._hash.update(f"|{name}:{len(columns[0])}|".encode())
        for column in columns:
            self._hash.update(_bytes(column))

    def add(self, data: bytes) -> None:
        """Add bytes."""
        self._hash.update(len(data).to_bytes(8, "big") + data)

    def hex(self) -> str:
        """The digest so far."""
        return self._hash.hexdigest()


def _bytes(column: Sequence[Any] | np.ndarray[Any, Any]) -> bytes:
    if isinstance(column, np.ndarray) and column.dtype.kind in "iuf":
        kind = "<i8" if column.dtype.kind in "iu" else "<f8"
        return kind.encode() + (np.ascontiguousarray(column, kind) + 0).tobytes()  # + 0: databases keep no -0.0
    first = column[0]
    if isinstance(first, str):
        text = [value.encode("utf-8", "surrogatepass") for value in column]
        return b"str" + np.array([len(t) for t in text], "<i8").tobytes() + b"".join(text)
    kind = "<f8" if isinstance(first, float) else "<i8"
    return kind.encode() + (np.array(column, kind) + 0).tobytes()


def row_digests(contents: Iterable[bytes], salts: bytes) -> bytes:
    """One salted digest a row, joined: a row can be erased with its salt, and its digest says nothing."""
    blake = hashlib.blake2b
    return b"".join(
        blake(content, digest_size=DIGEST_BYTES, key=salts[at : at + SALT_BYTES]).digest()
        for content, at in zip(contents, range(0, len(salts), SALT_BYTES), strict=True)
    )
