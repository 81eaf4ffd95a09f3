"""Rows as bytes, to tell by content whether two are the same."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from labelwright.tables.arrow import as_text, contiguous, dense_vectors, is_image, is_number, is_vector, undictionaried
from labelwright.tables.vectors import encoded_images

MISSING_FLOAT = 0x7FF8_0000_DEAD_0000  # a NaN that no arithmetic yields


def row_bytes(table: pa.Table) -> list[bytes]:
    """One byte string per row that covers every column: equal rows give equal bytes, however they are chunked.

    Floats are compared bit by bit, with one NaN and one zero; vectors as float32; images by their encoded bytes;
    everything else as text (the number 7 equals the text "7"). Missing differs from empty. Column names are
    not part of it. Speed: see docs/data.md.

    >>> row_bytes(pa.table({"a": ["", None], "b": [1, 1]}))
    [b'\\x1f1', b'\\\\0\\x1f1']
    """
    plain: list[pa.ChunkedArray] = []
    floats: list[pa.ChunkedArray] = []
    blobs: list[list[bytes]] = []
    for column in map(undictionaried, table.columns):
        kind = column.type
        if is_vector(kind):
            blobs.append(_vector_bytes(contiguous(column)))
        elif is_image(kind):
            blobs.append(_prefixed(encoded_images(column)))
        elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
            blobs.append(_prefixed(column.to_pylist()))
        elif pa.types.is_floating(kind):
            floats.append(column)
        else:
            plain.append(as_text(column) if is_number(kind) else _escaped(as_text(column)))
    if floats:
        blobs.append(_float_bytes(floats))
    if plain:
        blobs.append(_joined(plain))
    if not blobs:
        return [b""] * table.num_rows
    return blobs[0] if len(blobs) == 1 else [b"".join(parts) for parts in zip(*blobs, strict=True)]


def _float_bytes(columns: list[pa.ChunkedArray]) -> list[bytes]:
    """8 bytes per float, bit by bit: printing decimals would take seven times as long."""
    codes = np.empty((len(columns[0]), len(columns)), np.int64)
    for position, column in enumerate(columns):
        values = np.array(pc.cast(column.fill_null(0), pa.float64()).to_numpy(), np.float64) + 0.0  # no -0.0
        values[np.isnan(values)] = np.nan  # one NaN for all
        codes[:, position] = values.view(np.int64)
        codes[column.is_null().to_numpy(), position] = MISSING_FLOAT
    return cast(list[bytes], codes.view(np.dtype((np.void, codes.shape[1] * 8))).ravel().tolist())


def _escaped(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text in which neither the separator nor the mark of a missing value can occur."""
    for old, new in (("\\", "\\\\"), ("\x1f", "\\u")):
        if pc.any(pc.match_substring(column, old)).as_py():
            column = pc.replace_substring(column, old, new)
    return column


def _joined(columns: list[pa.ChunkedArray]) -> list[bytes]:
    parts = [contiguous(column) for column in columns]
    separator = pa.scalar("\x1f", pa.large_string())
    joined = pc.binary_join_element_wise(*parts, separator, null_handling="replace", null_replacement="\\0")
    return cast(list[bytes], pc.cast(joined, pa.large_binary()).to_pylist())


def _prefixed(values: Iterable[bytes | None]) -> list[bytes]:
    """Each value behind its length in 8 bytes, so that neighbours cannot run into each other."""
    return [b"\xff" * 8 if v is None else len(v).to_bytes(8, "little") + v for v in values]


def _vector_bytes(array: pa.Array) -> list[bytes]:
    X = dense_vectors(array)
    if X is not None and X.shape[1]:
        return _prefixed(cast(list[bytes], X.view(np.dtype((np.void, X.shape[1] * 4))).ravel().tolist()))
    return _prefixed(None if v is None else np.array(v, np.float32).tobytes() for v in array.to_pylist())
