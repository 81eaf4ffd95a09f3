"""A stream of batches as sealed chunks of equal size, in bounded memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from labelwright.errors import DataError, SettingsError
from labelwright.trust.seal.arrays import Array, Piece, pieces_of
from labelwright.trust.seal.chunks import Sealer
from labelwright.trust.seal.manifest import NAME, Manifest
from labelwright.trust.seal.signing import PrivateKey
from labelwright.trust.seal.stores import Store, as_store

Arrays = Mapping[str, Array]
_FIELDS = ("X", "given", "keys", "clean")


def seal_data(
    batches: Iterable[Any], store: Store | str, *, key: bytes, signing_key: PrivateKey, id: str, version: int = 1,
    rows_per_chunk: int = 4096, num_rows: int | None = None, key_id: str = "", about: Mapping[str, Any] | None = None,
) -> Manifest:  # fmt: skip
    """Seal batches into a store, the manifest last, and return it.

    batches: :class:`~labelwright.types.Batch` objects, or dicts of arrays of n rows each (``X``, ``given``, ``keys``, ...), all
    of the same dtypes and row shapes. num_rows: rows in all, when known; otherwise they pass through a temporary file that is
    encrypted under a key of its own, since every chunk is bound to the number of chunks. Memory holds about two chunks.
    Raises DataError when batches differ or there are none.

    >>> from labelwright.trust.seal import Memory, new_key, open_chunk
    >>> owner, store, rows = new_key(), Memory(), {"X": np.eye(3, dtype=np.float32), "given": np.arange(3)}
    >>> manifest = seal_data([rows], store, key=bytes(32), signing_key=owner, id="d", rows_per_chunk=2)
    >>> manifest.rows, open_chunk(manifest, bytes(32), 1, store[manifest.chunk(1)])["given"].tolist()
    ((2, 1), [2])
    """
    if rows_per_chunk < 1:
        raise SettingsError(f"chunks of {rows_per_chunk} rows were asked for; ask for 1 or more")
    shape = _Shape()
    plain: Iterator[list[Piece]] = map(pieces_of, shape.told(_regrouped(map(arrays_of, batches), rows_per_chunk)))
    if num_rows is None:
        with _Spool() as spool:
            for part in plain:
                spool.put(part)
            return _sealed(spool.all(), len(spool), store, shape, key, signing_key, id, version, key_id, about)
    count = -(-num_rows // rows_per_chunk)
    return _sealed(plain, count, store, shape, key, signing_key, id, version, key_id, about)


def _sealed(
    plain: Iterable[list[Piece]], count: int, store: Store | str, shape: _Shape, key: bytes, signing_key: PrivateKey,
    id: str, version: int, key_id: str, about: Mapping[str, Any] | None,
) -> Manifest:  # fmt: skip
    if not count:
        raise DataError(f"there are no rows to seal as {id!r}; give at least one")
    to = as_store(store)
    sealer = Sealer(id, version, key=key, count=count)
    for index, pieces in enumerate(plain):
        to.write(f"v{version}-{index:08d}.chunk", sealer.add_pieces(pieces))
    manifest = sealer.done(signing_key, rows=shape.rows, schema=shape.schema, about=about, key_id=key_id)
    to.write(NAME, manifest.text)
    return manifest


def arrays_of(batch: Any) -> dict[str, Array]:
    """A batch's arrays by name, ready to be sealed: X, given, keys, clean."""
    if isinstance(batch, Mapping):
        return {str(name): np.asarray(array) for name, array in batch.items()}
    return {name: np.asarray(getattr(batch, name)) for name in _FIELDS}


class _Shape:
    """What all chunks share, and the rows of each."""

    def __init__(self) -> None:
        self.schema: dict[str, tuple[str, tuple[int, ...]]] = {}
        self.rows: list[int] = []

    def told(self, chunks: Iterator[list[dict[str, Array]]]) -> Iterator[list[dict[str, Array]]]:
        for parts in chunks:
            self.schema = self.schema or _schema(parts[0])
            self.rows.append(sum(len(next(iter(part.values()))) for part in parts))
            yield parts


def _schema(arrays: Arrays) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {name: (a.dtype.newbyteorder("<").str, a.shape[1:]) for name, a in arrays.items()}


def _regrouped(batches: Iterator[dict[str, Array]], rows: int) -> Iterator[list[dict[str, Array]]]:
    """The same rows, ``rows`` at a time, the last maybe fewer, in pieces."""
    held: list[dict[str, Array]] = []
    count, number, first = 0, 0, None
    for batch in batches:
        sizes = {len(a) if a.ndim else -1 for a in batch.values()}
        first = first or _schema(batch)
        if len(sizes) != 1 or -1 in sizes or _schema(batch) != first:
            raise DataError(f"batch {number} has {_told(batch)}, expected n rows of {first}; make all batches alike")
        start, n, number = 0, sizes.pop(), number + 1
        while start < n:
            step = min(n - start, rows - count)
            held.append({name: a[start : start + step] for name, a in batch.items()})
            start, count = start + step, count + step
            if count == rows:
                yield held
                held, count = [], 0
    if held:
        yield held


def _told(batch: Arrays) -> str:
    return ", ".join(f"{name}: {a.dtype} {a.shape}" for name, a in batch.items())


class _Spool:
    """Chunks on disk until their number is known, encrypted under a key that only this process has."""

    def __init__(self) -> None:
        self._cipher, self._sizes = AESGCM(os.urandom(32)), list[int]()

    def __enter__(self) -> _Spool:
        self._file = tempfile.TemporaryFile()
        return self

    def __exit__(self, *ended: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._sizes)

    def put(self, pieces: list[Piece]) -> None:
        sealed = self._cipher.encrypt(len(self._sizes).to_bytes(12, "big"), b"".join(pieces), None)
        self._sizes.append(len(sealed))
        self._file.write(sealed)

    def all(self) -> Iterator[list[Piece]]:
        self._file.seek(0)
        for index, size in enumerate(self._sizes):
            yield [self._cipher.decrypt(index.to_bytes(12, "big"), self._file.read(size), None)]
