"""An image set as a table, for the commands that read tables."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from labelwright.images.imageset import ImageSet
from labelwright.tables import TableSource
from labelwright.tables.vectors import picture_column

_AT_ONCE = 512


def image_source(found: ImageSet) -> TableSource:
    """A table of the pictures that are no test: ``image`` (PNG), ``label`` (the class's name). A picture that does not decode is null.

    >>> from labelwright.images import ArrayImages
    >>> some = ImageSet("two", ArrayImages(np.zeros((2, 8, 8), np.uint8)), np.array([1, 0]), ("cat", "dog"))
    >>> next(image_source(some).chunks(5))["label"].to_pylist()
    ['dog', 'cat']
    """
    names = np.array([str(name) for name in found.classes], object)

    def read(source: TableSource, rows: int) -> Iterator[pa.Table]:
        for start in range(0, len(found), _AT_ONCE):
            pixels, bad = found.images.read(slice(start, start + _AT_ONCE))
            paths = [None if at in bad else f"{found.name}/{start + at}.png" for at in range(len(pixels))]
            labels = pa.array(names[found.y[start : start + _AT_ONCE]], pa.string())
            yield pa.table({"image": picture_column(pixels, paths), "label": labels})

    source = TableSource(found.name, ("image", "label"), len(found), read)
    source.label = "label"
    source.notes = (found.note,) if found.note else ()
    return source
