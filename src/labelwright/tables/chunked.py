"""A table that is read in chunks, in bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from labelwright.errors import SettingsError, SourceError
from labelwright.tables.arrow import concatenated, quoted


class TableSource:
    """A table that is read in chunks, as often as one likes.

    name: where it comes from, for messages. columns: their names. num_rows: rows, or None when only reading
    tells. skipped_lines: CSV lines with the wrong number of fields, left out by the latest reading. notes: what else was
    left out, in plain words. files: Parquet files that hold the rows in this order, where they do. label, id: the columns of labels and
    names, where the kind of source tells them, as a folder of pictures does.

    >>> from labelwright.tables import open_source
    >>> source = open_source(pa.table({"x": [1, 2, 3]}))
    >>> [chunk.num_rows for chunk in source.chunks(2)]
    [2, 1]
    """

    def __init__(
        self,
        name: str,
        columns: Sequence[str],
        num_rows: int | None,
        read: Callable[[TableSource, int], Iterator[pa.Table]],
        finish: Callable[[pa.Table], pa.Table] | None = None,
    ):
        self.name, self.columns, self.num_rows = name, tuple(columns), num_rows
        self.skipped_lines = 0
        self.notes: tuple[str, ...] = ()
        self.files: tuple[Path, ...] = ()
        self.label: str | None = None
        self.id: str | None = None
        self._read, self._finish = read, finish
        twice = [column for column, count in Counter(self.columns).items() if count > 1]
        if twice:
            raise SourceError(f"{name} has two columns named {twice[0]!r}; rename one of them.")

    def chunks(self, rows: int, first: int | None = None) -> Iterator[pa.Table]:
        """Tables of exactly ``rows`` rows, the first of ``first`` rows if given, the last maybe of fewer.

        In memory are one chunk and what Arrow reads ahead: seen 80 MB for CSV files of 84 to 504 MB.
        Raises SettingsError for sizes below 1, SourceError when reading fails.
        """
        if rows < 1 or (first is not None and first < 1):
            raise SettingsError(f"Chunks of {rows} rows (first: {first}) were asked for; ask for 1 row or more.")
        return self._chunks(rows, rows if first is None else first)

    def _chunks(self, rows: int, wanted: int) -> Iterator[pa.Table]:
        self.skipped_lines = 0
        held: list[pa.Table] = []
        count = 0
        for part in self._read(self, max(rows, wanted)):
            held.append(part)
            count += part.num_rows
            if count < wanted:
                continue
            whole, start = concatenated(held), 0
            while count - start >= wanted:
                yield self._done(whole.slice(start, wanted))
                start, wanted = start + wanted, rows
            held, count = [whole.slice(start)], count - start
        if count:
            yield self._done(concatenated(held))

    def _done(self, chunk: pa.Table) -> pa.Table:
        return (self._finish(chunk) if self._finish else chunk).combine_chunks()

    def require(self, *names: str) -> None:
        """Raise SourceError unless every column of ``names`` is there."""
        missing = [name for name in names if name not in self.columns]
        if missing:
            raise SourceError(
                f"{self.name} has no column {quoted(missing)}, only {quoted(self.columns)}; name one of these."
            )
