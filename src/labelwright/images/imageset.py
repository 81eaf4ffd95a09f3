"""What a set of pictures with labels is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from labelwright import datasets
from labelwright.errors import DataError
from labelwright.images.parquet import ParquetImages
from labelwright.images.stores import Images, Size
from labelwright.types import Ints

PEOPLE = 20


@dataclass(frozen=True)
class ImageSet:
    """Pictures with their labels.

    images: n pictures. y: (n,) int64 class of each, 0..K-1. classes: (K,) their names. images_test, y_test: the published
    test set, or a fixed part of the set, None where there is none. groups: (n,) what belongs together and is
    alike, as the frames of one track or the pictures of one person; None when nothing does. note: what to know before using it, in plain
    words; empty when nothing.
    """

    name: str
    images: Images
    y: Ints
    classes: tuple[str, ...]
    images_test: Images | None = None
    y_test: Ints | None = None
    groups: npt.NDArray[Any] | None = None
    note: str = ""

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class Wish:
    """What :func:`load_images` was asked for."""

    folder: Path | None
    strict: bool
    size: Size | None
    people: int = PEOPLE

    def place(self, what: str) -> Path:
        """The data folder. Raises DataError when none was named."""
        if self.folder is None:
            raise DataError(
                f"No data folder was given, but {what} is needed; "
                f"set {datasets.DATA_DIR_VARIABLE} or --data-dir to the folder that holds it."
            )
        return self.folder


def labels_of(images: ParquetImages, column: str = "label", names: Sequence[str] = ()) -> tuple[Ints, tuple[str, ...]]:
    """((n,) classes, their names) of a column of labels.

    Whole numbers are classes where the file, or else ``names``, gives each a name; other values are classes in their order.
    Raises DataError when a label is missing or is no single value.
    """
    values = images.values(column)
    if values.null_count or pa.types.is_nested(values.type):
        what = f"{values.null_count} rows without a label" if values.null_count else f"labels of type {values.type}"
        raise DataError(f"{images.path} has {what} in column {column!r}; give each row one label.")
    given = np.asarray(values.to_numpy())
    known = images.class_names(column) or tuple(names)
    if given.dtype.kind in "iu" and known and given.min(initial=0) >= 0 and given.max(initial=0) < len(known):
        return given.astype(np.int64), known
    distinct, y = np.unique(given, return_inverse=True)
    return y.astype(np.int64), tuple(map(str, distinct))
