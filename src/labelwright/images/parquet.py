"""Pictures in Parquet files in the Hugging Face layout."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from labelwright.errors import DataError
from labelwright.images.stores import EncodedImages, Size
from labelwright.tables.arrow import contiguous, is_image
from labelwright.types import Ints

CACHE_BYTES = 256 << 20
_STREAMED = 256


class ParquetImages(EncodedImages):
    """Pictures in a Parquet file, a column of struct<bytes, path>. Only the row groups that are asked for are read.

    column: of the pictures. size, grey: see :class:`~labelwright.images.stores.EncodedImages`. cache_bytes: the row groups
    read last are kept, still encoded, up to this many bytes; a larger group is streamed anew each time. Rows asked for in
    the file's order, or shuffled within some row groups at a time, are read fastest.
    Raises DataError when the file is damaged or of another layout.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "t.parquet"
    >>> white = b"P5 1 1 255 " + bytes([255])
    >>> table = pa.table({"image": [{"bytes": white, "path": "a"}], "label": ["light"]})
    >>> pq.write_table(table, file)
    >>> images = ParquetImages(file)
    >>> images.take([0]).item(), images.values("label").to_pylist()
    (255, ['light'])
    """

    def __init__(
        self,
        path: str | Path,
        *,
        column: str = "image",
        size: Size | None = None,
        grey: bool | None = None,
        cache_bytes: int = CACHE_BYTES,
    ):
        self.path, self.column, self.cache_bytes = Path(path), column, cache_bytes
        with self._opened() as file:
            schema, meta = file.schema_arrow, file.metadata
            if column not in schema.names or not is_image(schema.field(column).type):
                raise DataError(
                    f"{self.path} has no pictures in column {column!r} but {', '.join(map(repr, schema.names))}; "
                    "expected struct<bytes, path> there: name the right column."
                )
            counts = [meta.row_group(group).num_rows for group in range(meta.num_row_groups)]
            self._sizes = [self._group_bytes(meta.row_group(group)) for group in range(meta.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self._held: OrderedDict[int, pa.Array] = OrderedDict()
        super().__init__(size, grey)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def name_of(self, row: int) -> str:
        return f"row {row} of {self.path.name}"

    def values(self, column: str) -> pa.ChunkedArray:
        """(n,) another column, or a field of the pictures' as ``"image.path"``, read whole.

        Raises DataError when there is none.
        """
        with self._opened() as file:
            table = file.read(columns=[column])
            name, _, inner = column.partition(".")
            if name not in table.column_names or (inner and table[name].type.get_field_index(inner) < 0):
                raise DataError(
                    f"{self.path} has no column {column!r} but {', '.join(map(repr, file.schema_arrow.names))}; "
                    "name one of these."
                )
        return pa.chunked_array([contiguous(table[name]).field(inner)]) if inner else table[name]

    def class_names(self, column: str = "label") -> tuple[str, ...] | None:
        """Names of the classes 0..K-1 of a column, when the file tells them as Hugging Face does."""
        with self._opened() as file:
            told = (file.schema_arrow.metadata or {}).get(b"huggingface", b"{}")
        try:
            names = json.loads(told)["info"]["features"][column]["names"]
            return tuple(map(str, names)) or None
        except (ValueError, KeyError, TypeError):
            return None

    def _contents(self, rows: Ints) -> Iterator[bytes | str]:
        groups = np.searchsorted(self._starts, rows, "right") - 1
        for group in np.unique(groups).tolist():
            local = rows[groups == group] - self._starts[group]
            large = self._sizes[group] > self.cache_bytes
            yield from self._streamed(group, local) if large else _bytes_of(self._group(group), local)

    def _group(self, group: int) -> pa.Array:
        """The encoded pictures of a row group, out of those held or read."""
        if group not in self._held:
            while self._held and sum(self._sizes[g] for g in (*self._held, group)) > self.cache_bytes:
                self._held.popitem(last=False)
            with self._opened() as file:
                table = file.read_row_group(group, columns=[f"{self.column}.bytes"])
            self._held[group] = contiguous(table[self.column])
        self._held.move_to_end(group)
        return self._held[group]

    def _streamed(self, group: int, rows: Ints) -> Iterator[bytes | str]:
        start = 0
        with self._opened() as file:
            for part in file.iter_batches(_STREAMED, row_groups=[group], columns=[f"{self.column}.bytes"]):
                here = rows[(rows >= start) & (rows < start + part.num_rows)] - start
                yield from _bytes_of(part.column(0), here)
                start += part.num_rows
                if not len(rows) or start > rows[-1]:
                    return

    def _group_bytes(self, group: Any) -> int:
        columns = (group.column(at) for at in range(group.num_columns))
        return sum(c.total_uncompressed_size for c in columns if c.path_in_schema == f"{self.column}.bytes")

    @contextmanager
    def _opened(self) -> Iterator[pq.ParquetFile]:
        try:
            with pq.ParquetFile(self.path) as file:
                yield file
        except FileNotFoundError as error:
            raise DataError(f"There is no file {self.path}; check the path.") from error
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{self.path} is not a complete Parquet file ({error}); fetch or write it again."
            ) from error


def _bytes_of(array: pa.Array, rows: Ints) -> Iterator[bytes | str]:
    encoded = array.field("bytes") if array.null_count == 0 else array.flatten()[array.type.get_field_index("bytes")]
    for row in rows.tolist():
        yield encoded[row].as_py() or b""
