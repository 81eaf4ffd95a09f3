"""Single rows out of the ledger, quickly: the tables of the batches looked at last stay in memory, erased rows leave it."""

from __future__ import annotations

import io
import threading
import time
from collections import OrderedDict
from typing import Any

import pyarrow as pa
from sqlalchemy import func, select

from labelwright.ledger import History
from labelwright.ledger.schema import entries, transaction
from labelwright.report.rows import erased, vector_pixels
from labelwright.tables.arrow import is_image, is_vector
from labelwright.tables.vectors import decoded_image
from labelwright.types import KEY_SHIFT

BATCHES = 64
BYTES = 512 << 20
STALE = 1.0
"""Seconds after which the shelf looks whether rows were erased."""
PICTURE = 900
"""Pixels of the longer side of a picture as it is sent."""


class Shelf:
    """Rows by key. history: of the ledger. At most 64 batches or 512 MB are kept, the latest used.

    Safe to use from several threads.
    """

    def __init__(self, history: History):
        self.history = history
        self._tables: OrderedDict[int, pa.Table] = OrderedDict()
        self._ids: OrderedDict[int, dict[int, str]] = OrderedDict()
        self._turn = threading.Lock()
        self._looked, self._erasures = 0.0, 0

    def row(self, key: int) -> pa.Table | None:
        """The row as the user gave it, a table of one row; None when it was erased or never stored."""
        table = self._table(key >> KEY_SHIFT)
        at = key & ((1 << KEY_SHIFT) - 1)
        if table is None or at >= table.num_rows:
            return None
        row = table.slice(at, 1)
        return None if erased(row) else row

    def id_of(self, key: int) -> str:
        """The user's id of a row; its key, when it has none."""
        number = key >> KEY_SHIFT
        with self._turn:
            ids = self._ids.get(number)
        if ids is None:
            ids = self.history.ids_in(number)
            with self._turn:
                if ids:
                    self._ids[number] = ids
                while len(self._ids) > BATCHES:
                    self._ids.popitem(last=False)
        return ids.get(key, str(key))

    def schema(self) -> pa.Schema:
        """The user's columns, as of the first batch."""
        table = self._table(0)
        return pa.schema([]) if table is None else table.schema

    def _table(self, number: int) -> pa.Table | None:
        self._forget_erased()
        with self._turn:
            if number in self._tables:
                self._tables.move_to_end(number)
                return self._tables[number]
        table = self.history.table(number)
        if table is None:
            return None  # not remembered: the batch may be yet to come
        with self._turn:
            self._tables[number] = table
            while len(self._tables) > 1 and (len(self._tables) > BATCHES or self._held() > BYTES):
                self._tables.popitem(last=False)
        return table

    def _held(self) -> int:
        return sum(table.nbytes for table in self._tables.values())

    def _forget_erased(self) -> None:
        now = time.monotonic()
        if now - self._looked < STALE:
            return
        with transaction(self.history.engine, writes=False) as connection:
            count = connection.scalar(select(func.count()).select_from(entries).where(entries.c.kind == "erase")) or 0
        with self._turn:
            if count != self._erasures:
                self._tables.clear()
            self._looked, self._erasures = now, int(count)

    def picture(self, key: int, column: str) -> tuple[bytes, str] | None:
        """(bytes, media type) of a cell that is a picture, drawn anew, at most 900 pixels: nothing of the user's bytes reaches
        a browser but pixels. None when there is none."""
        row = self.row(key)
        if row is None or column not in row.column_names:
            return None
        image = _image(row.schema.field(column).type, row.column(column)[0].as_py())
        return None if image is None else _encoded(image)


def is_picture(kind: pa.DataType, value: Any) -> bool:
    """Whether a cell is shown as a picture: an image that decodes, or numbers that look like a grey square."""
    if value is None:
        return False
    if is_image(kind):
        return bool(value.get("bytes"))
    return is_vector(kind) and vector_pixels(value) is not None


def _image(kind: pa.DataType, value: Any) -> Any:
    if value is None:
        return None
    if is_image(kind):
        return decoded_image(value["bytes"]) if value.get("bytes") else None
    pixels = vector_pixels(value) if is_vector(kind) else None
    if pixels is None:
        return None
    from PIL import Image

    return Image.fromarray(pixels)


def _encoded(image: Any) -> tuple[bytes, str] | None:
    out = io.BytesIO()
    try:
        image = image.convert("L" if image.mode in ("1", "L", "I", "F", "I;16") else "RGB")
        large = max(image.size) > 256
        image.thumbnail((PICTURE, PICTURE))
        image.save(out, "JPEG", quality=88) if large else image.save(out, "PNG")
    except (OSError, ValueError):
        return None
    return out.getvalue(), "image/jpeg" if large else "image/png"
