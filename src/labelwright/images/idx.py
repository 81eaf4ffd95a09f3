"""IDX files, as MNIST and Fashion-MNIST are published: mapped, or unpacked when gzipped."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt

from labelwright.errors import DataError

_BYTES = 8  # the code of unsigned bytes
_MOST = 1 << 40
_PIECE = 1 << 20


def read_idx(path: str | Path) -> npt.NDArray[np.uint8]:
    """The array of an IDX file of unsigned bytes, read-only: (n, height, width) for pictures, (n,) for labels.

    A plain file is mapped and takes no memory; a gzipped one (``.gz``) is unpacked into it.
    Raises DataError when the first four bytes are not those of such a file, or its length is not what its header says.
    Source: the layout is told with MNIST: two zeros, the type (8), the number of axes, each axis as 4 bytes, the values.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "labels-idx1-ubyte"
    >>> _ = file.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]))
    >>> read_idx(file).tolist()
    [7, 9]
    """
    path = Path(path)
    try:
        if path.name.endswith(".gz"):
            with gzip.open(path, "rb") as stream:
                shape, _ = _header(cast(BinaryIO, stream), path)
                content = _exactly(cast(BinaryIO, stream), math.prod(shape), path)
            array = np.frombuffer(content, np.uint8).reshape(shape)
            array.flags.writeable = False
            return array
        with path.open("rb") as file:
            shape, start = _header(file, path)
        _check_length(path, path.stat().st_size - start, math.prod(shape))
        if not math.prod(shape):
            return np.zeros(shape, np.uint8)
        return np.memmap(path, np.uint8, "r", start, shape)
    except FileNotFoundError as error:
        raise DataError(f"There is no file {path}; check the path.") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); it is cut or damaged: fetch it again.") from error


def _header(stream: BinaryIO, path: Path) -> tuple[tuple[int, ...], int]:
    """(lengths of the axes, where the values start)."""
    magic = stream.read(4)
    if len(magic) < 4 or magic[:3] != bytes([0, 0, _BYTES]) or not 1 <= magic[3] <= 4:
        raise DataError(
            f"{path} starts with {magic.hex() or 'nothing'}, expected 000008 and 1 to 4 axes: "
            "it is no IDX file of unsigned bytes; fetch it again."
        )
    axes = stream.read(4 * magic[3])
    if len(axes) < 4 * magic[3]:
        raise DataError(f"{path} ends within its header; fetch it again.")
    shape = tuple(int(length) for length in np.frombuffer(axes, ">u4"))
    if math.prod(shape) > _MOST:
        raise DataError(f"{path} says it holds {shape} bytes, which cannot be; fetch it again.")
    return shape, 4 + 4 * magic[3]


def _exactly(stream: BinaryIO, size: int, path: Path) -> bytearray:
    """All that is left, read in pieces, so that a header that lies costs no memory."""
    content = bytearray()
    while len(content) <= size and (piece := stream.read(min(_PIECE, size + 1 - len(content)))):
        content += piece
    _check_length(path, len(content), size)
    return content


def _check_length(path: Path, got: int, expected: int) -> None:
    if got != expected:
        how = "is too short" if got < expected else "is too long"
        more = " or more" if got > expected else ""
        raise DataError(
            f"{path} {how}: it holds {got:,}{more} bytes of values, its header says {expected:,}; fetch it again."
        )
