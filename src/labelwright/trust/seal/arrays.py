"""A chunk's plaintext: a JSON header and raw arrays. Readable with NumPy alone, without a copy; no pickle.

``b"LWA1" | header length, 4 bytes, little-endian | header | arrays, each at a multiple of 64 bytes``. The header names the arrays
in order: ``[["X", "<f4", [1000, 64]], ...]``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from labelwright.errors import SealError

Array = npt.NDArray[Any]
Piece = bytes | memoryview

MAGIC = b"LWA1"
DTYPES = ("|b1", "|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f2", "<f4", "<f8")
_ALIGN = 64
_MOST_HEADER = 1 << 16
_MOST_AXES = 8


def packed(arrays: Mapping[str, Array]) -> bytes:
    """Named arrays as bytes. Raises SealError for objects and texts, which only pickle could hold.

    >>> unpacked(packed({"X": np.eye(2, dtype=np.float32)}))["X"].tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    return b"".join(pieces_of([arrays]))


def pieces_of(parts: Sequence[Mapping[str, Array]]) -> list[Piece]:
    """The rows of ``parts``, which have the same arrays, as pieces of one chunk's plaintext, in order and without a copy.

    >>> unpacked(b"".join(pieces_of([{"y": np.array([1, 2])}, {"y": np.array([3])}])))["y"].tolist()
    [1, 2, 3]
    """
    plain = {name: [_plain(name, part[name]) for part in parts] for name in parts[0]}
    told = [[name, arrays[0].dtype.str, _shape(arrays)] for name, arrays in plain.items()]
    head = json.dumps(told, separators=(",", ":")).encode()
    if len(head) > _MOST_HEADER:
        raise SealError(f"the names of {len(plain)} arrays take {len(head)} bytes; keep them below {_MOST_HEADER}")
    starts, _ = _places([sum(a.nbytes for a in arrays) for arrays in plain.values()], len(head))
    out: list[Piece] = [MAGIC + len(head).to_bytes(4, "little") + head]
    at = len(out[0])
    for start, arrays in zip(starts, plain.values(), strict=True):
        out.append(bytes(start - at))
        out += [np.ascontiguousarray(a).data.cast("B") for a in arrays if a.nbytes]
        at = start + sum(a.nbytes for a in arrays)
    return out


def _shape(pieces: Sequence[Array]) -> list[int]:
    first = pieces[0].shape
    return [sum(len(a) for a in pieces), *first[1:]] if first else []


def unpacked(content: bytes | bytearray | memoryview) -> dict[str, Array]:
    """The arrays of :func:`packed` as read-only views of ``content``. Raises SealError when it is anything else.

    >>> unpacked(b"LWA1")
    Traceback (most recent call last):
    ...
    labelwright.errors.SealError: the chunk's content is no sealed rows (8 bytes of a header are missing); seal the data again
    """
    view = memoryview(content).toreadonly().cast("B")
    head, size = _header(view)
    kinds = [np.dtype(kind) for _, kind, _ in head]
    sizes = [kind.itemsize * prod(shape) for kind, (_, _, shape) in zip(kinds, head, strict=True)]
    starts, end = _places(sizes, size)
    if end != len(view):
        raise _bad(f"{len(view)} bytes where the header tells of {end}")
    out = {}
    for start, nbytes, kind, (name, _, shape) in zip(starts, sizes, kinds, head, strict=True):
        out[name] = np.frombuffer(view[start : start + nbytes], kind).reshape(shape)
    return out


def _plain(name: str, array: Array) -> Array:
    array = np.asarray(array)
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    if little.dtype.str not in DTYPES or little.ndim > _MOST_AXES:
        raise SealError(
            f"the array {name!r} is {array.dtype} of {array.ndim} axes; expected numbers or booleans: convert it"
        )
    return little


def _places(sizes: list[int], head: int) -> tuple[list[int], int]:
    """(where each array begins, where the last ends)."""
    at, starts = 8 + head, []
    for size in sizes:
        at = -(-at // _ALIGN) * _ALIGN
        starts.append(at)
        at += size
    return starts, at


def _header(view: memoryview) -> tuple[list[tuple[str, str, tuple[int, ...]]], int]:
    if len(view) < 8:
        raise _bad("8 bytes of a header are missing")
    size = int.from_bytes(view[4:8], "little")
    if view[:4] != MAGIC or size > min(_MOST_HEADER, len(view) - 8):
        raise _bad(f"it begins with {bytes(view[:4])!r} and a header of {size} bytes")
    try:
        head = json.loads(bytes(view[8 : 8 + size]))
    except (ValueError, RecursionError) as error:
        raise _bad("its header is no JSON") from error
    if not isinstance(head, list) or not all(map(_is_entry, head)) or len({e[0] for e in head}) != len(head):
        raise _bad("its header names no arrays")
    return [(name, kind, tuple(shape)) for name, kind, shape in head], size


def _is_entry(entry: Any) -> bool:
    if not (isinstance(entry, list) and len(entry) == 3 and isinstance(entry[0], str) and entry[1] in DTYPES):
        return False
    shape = entry[2]
    return (
        isinstance(shape, list)
        and len(shape) <= _MOST_AXES
        and all(type(n) is int and 0 <= n < 1 << 48 for n in shape)
        and prod(n or 1 for n in shape) < 1 << 48
    )


def _bad(why: str) -> SealError:
    return SealError(f"the chunk's content is no sealed rows ({why}); seal the data again")
