"""Where pictures are: one face over arrays and encoded files, decoded when asked for."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from labelwright.errors import DataError
from labelwright.tables.vectors import LOOKED_AT, common_shape, decoded_image, pixels_of
from labelwright.types import Ints

Pixels = npt.NDArray[np.uint8]
Shape = tuple[int, int, int]
Size = int | tuple[int, int]
_FEW = 5


class Images(ABC):
    """n pictures of one shape.

    shape: (height, width, channels), 1 channel for grey and 3 for colour. Not to be shared between threads.

    >>> images = ArrayImages(np.arange(12, dtype=np.uint8).reshape(3, 2, 2))
    >>> len(images), images.shape, images.take(slice(1, 2)).ravel().tolist()
    (3, (2, 2, 1), [4, 5, 6, 7])
    """

    shape: Shape

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def name_of(self, row: int) -> str:
        """What to call a row in a message."""

    @abstractmethod
    def _fill(self, rows: Ints, out: Pixels) -> dict[int, str]:
        """Write the pictures of ``rows`` (m,) into zeros (m, h, w, c); position -> reason of those that do not decode."""

    def take(self, index: slice | npt.ArrayLike) -> Pixels:
        """(m, height, width, channels) uint8, C-contiguous, of m rows.

        index: slice, whole numbers in any order, or (n,) booleans. Raises DataError for rows that are not there, and naming
        those that do not decode.
        """
        out, bad = self.read(index)
        if bad:
            told = "; ".join(list(bad.values())[:_FEW]) + ("; …" if len(bad) > _FEW else "")
            raise DataError(
                f"{len(bad)} of {len(out)} pictures cannot be used: {told}. Leave them out, or use read(), which sets them aside."
            )
        return out

    def read(self, index: slice | npt.ArrayLike) -> tuple[Pixels, dict[int, str]]:
        """As :meth:`take`, but pictures that do not decode are zeros: (pictures, position in ``index`` -> name and reason)."""
        rows = self._rows(index)
        out = np.zeros((len(rows), *self.shape), np.uint8)
        bad = self._fill(rows, out)
        for position in bad:
            out[position] = 0
        return out, {position: f"{self.name_of(int(rows[position]))}: {bad[position]}" for position in sorted(bad)}

    def bad_rows(self, *, at_once: int = 1024) -> dict[int, str]:
        """Every row that does not decode: row -> name and reason. Reads all, ``at_once`` rows at a time."""
        found: dict[int, str] = {}
        for start in range(0, len(self), at_once):
            found |= {start + at: why for at, why in self.read(slice(start, start + at_once))[1].items()}
        return found

    def _rows(self, index: slice | npt.ArrayLike) -> Ints:
        if isinstance(index, slice):
            return np.arange(*index.indices(len(self)), dtype=np.int64)
        rows = np.asarray(index)
        if rows.dtype == bool and rows.shape == (len(self),):
            return np.flatnonzero(rows)
        if (rows.size and rows.dtype.kind not in "iu") or rows.ndim != 1:
            raise DataError(
                f"Rows were given as {rows.dtype} of shape {rows.shape}; give whole numbers of shape (m,), "
                f"{len(self)} booleans, or a slice."
            )
        rows = rows.astype(np.int64)
        wrong = rows[(rows < 0) | (rows >= len(self))]
        if len(wrong):
            raise DataError(f"Row {wrong[0]} was asked for, but rows are 0 to {len(self) - 1}; take one of these.")
        return rows


class ArrayImages(Images):
    """Pictures that are an array, in memory or mapped from disk (np.memmap, ``np.load(..., mmap_mode="r")``).

    array: (n, height, width), or with 1 or 3 channels at the end, uint8. size: (height, width), or one number for both;
    grey: as in :class:`EncodedImages`. name: for messages. Raises DataError for other shapes and types.

    >>> ArrayImages(np.zeros((2, 4, 6, 3), np.uint8), size=2, grey=True).take([1]).shape
    (1, 2, 2, 1)
    """

    def __init__(self, array: npt.NDArray[Any], *, size: Size | None = None, grey: bool | None = None, name: str = ""):
        pictured = array.ndim in (3, 4) and (array.ndim == 3 or array.shape[3] in (1, 3)) and all(array.shape[1:])
        if array.dtype != np.uint8 or not pictured:
            raise DataError(
                f"Pictures were given as {array.dtype} of shape {array.shape}; "
                "expected uint8 of (n, height, width), with 1 or 3 channels at the end: convert them."
            )
        self.array: Pixels = array if array.ndim == 4 else array[..., None]
        self._name = name or "the array"
        height, width, channels = self.array.shape[1:]
        self.shape = (*_pair(size, (height, width)), (1 if grey else 3) if grey is not None else channels)

    def __len__(self) -> int:
        return len(self.array)

    def name_of(self, row: int) -> str:
        return f"row {row} of {self._name}"

    def _fill(self, rows: Ints, out: Pixels) -> dict[int, str]:
        if self.shape == self.array.shape[1:]:
            np.take(self.array, rows, axis=0, out=out)
            return {}
        from PIL import Image

        for position, row in enumerate(rows.tolist()):
            plain = self.array[row]
            fit_into(out[position], Image.fromarray(plain[..., 0] if plain.shape[2] == 1 else plain))
        return {}


class EncodedImages(Images):
    """Pictures as encoded bytes (JPEG, PNG, …), decoded when asked for.

    size: (height, width), or one number for both; pictures of other sizes are resized bilinearly. grey: one channel instead
    of three. Both are the commonest of 64 of them when None. Raises DataError when none does.
    """

    def __init__(self, size: Size | None, grey: bool | None):
        if size is None or grey is None:
            size, grey = self._first_shape(size, grey)
        self.shape = (*_pair(size, (0, 0)), 1 if grey else 3)

    @abstractmethod
    def _contents(self, rows: Ints) -> Iterator[bytes | str]:
        """The encoded bytes of sorted rows, or why there are none."""

    def _first_shape(self, size: Size | None, grey: bool | None) -> tuple[Size, bool]:
        some = (
            np.unique(np.linspace(0, len(self) - 1, LOOKED_AT).astype(np.int64)) if len(self) else np.zeros(0, np.int64)
        )
        for rows in (some, np.arange(len(self))):
            contents = (content if isinstance(content, bytes) else b"" for content in self._contents(rows))
            found = common_shape(decoded_image(content) for content in contents if content)
            if found is not None:
                mode, width, height = found
                return (height, width) if size is None else size, mode == "L" if grey is None else grey
        raise DataError(
            f"None of the {len(self)} pictures decodes, the first being {self.name_of(0)}; check that they are pictures."
            if len(self)
            else "There are no pictures; give at least one."
        )

    def _fill(self, rows: Ints, out: Pixels) -> dict[int, str]:
        bad: dict[int, str] = {}
        order = np.argsort(rows, kind="stable")
        for position, content in zip(order.tolist(), self._contents(rows[order])):
            image = decoded_image(content) if isinstance(content, bytes) and content else None
            if image is not None:
                fit_into(out[position], image)
            else:
                bad[position] = content if isinstance(content, str) else _why(content)
        return bad


class SomeImages(Images):
    """Some rows of other images, without a copy. rows: (m,) of ``images``.

    >>> SomeImages(ArrayImages(np.arange(3, dtype=np.uint8).reshape(3, 1, 1)), np.array([2, 0])).take([0]).item()
    2
    """

    def __init__(self, images: Images, rows: Ints):
        self.images, self.rows, self.shape = images, images._rows(rows), images.shape

    def __len__(self) -> int:
        return len(self.rows)

    def name_of(self, row: int) -> str:
        return self.images.name_of(int(self.rows[row]))

    def _fill(self, rows: Ints, out: Pixels) -> dict[int, str]:
        return self.images._fill(self.rows[rows], out)


def fit_into(out: Pixels, image: Any) -> None:
    """Write a decoded picture into (height, width, channels) pixels, resized and in their colours."""
    height, width, channels = out.shape
    out[...] = pixels_of(image, "L" if channels == 1 else "RGB", (width, height)).reshape(out.shape)


def _why(content: bytes) -> str:
    """Why a picture does not decode."""
    if not content:
        return "no picture, the bytes are empty"
    from PIL import Image, UnidentifiedImageError

    try:
        Image.open(io.BytesIO(content)).load()
    except UnidentifiedImageError:
        return f"{len(content):,} bytes that are no picture of a known kind"
    except Exception as error:  # the decoder's own words, whatever it raises
        return f"does not decode ({str(error).strip() or type(error).__name__})"
    return "does not decode"


def _pair(size: Size | None, default: tuple[int, int]) -> tuple[int, int]:
    if size is None:
        return default
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise DataError(f"Pictures of {height} x {width} pixels were asked for; ask for 1 x 1 or more.")
    return int(height), int(width)
