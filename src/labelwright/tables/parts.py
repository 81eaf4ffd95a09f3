"""A table cut into parts that can be read one without the other, by whoever works on them."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from labelwright.errors import SourceError
from labelwright.tables.arrow import concatenated
from labelwright.tables.chunked import TableSource

PART_BLOCKS = 2
PART_BYTES = 64 << 20
_CUTS, _NARROW = 8, 2000


@dataclass(frozen=True)
class FilePart:
    """Rows ``start`` to ``stop`` of a Parquet file, which lie in its row groups ``first`` to ``last``; whoever has it reads them.

    skip: rows of the first group that come before. columns: those to be read, in this order.
    """

    file: str
    start: int
    stop: int
    first: int
    last: int
    skip: int
    columns: tuple[str, ...]

    @property
    def name(self) -> str:
        """For messages."""
        return f"rows {self.start:,} to {self.stop:,} of {self.file}"

    @property
    def num_rows(self) -> int:
        """How many."""
        return self.stop - self.start

    def blocks(self, rows: int) -> Iterator[pa.Table]:
        """Tables of exactly ``rows`` rows, the last maybe of fewer. Raises SourceError when they cannot be read."""
        try:
            with pq.ParquetFile(self.file, memory_map=True) as parquet:
                groups = list(range(self.first, self.last + 1))
                batches = parquet.iter_batches(rows, row_groups=groups, columns=list(self.columns), use_threads=False)
                tables = (pa.Table.from_batches([batch]).select(self.columns) for batch in batches)
                yield from _cut(tables, self.skip, self.num_rows, rows)
        except (pa.ArrowException, OSError) as error:
            raise SourceError(
                f"they cannot be read on {socket.gethostname()} ({str(error).rstrip('.')}); the file must be whole, and every "
                "machine that works on it must see it under this path"
            ) from error


@dataclass(frozen=True)
class HeldPart:
    """Rows that were read already. name: for messages."""

    name: str
    table: pa.Table

    @property
    def num_rows(self) -> int:
        """How many."""
        return int(self.table.num_rows)

    def blocks(self, rows: int) -> Iterator[pa.Table]:
        """Tables of exactly ``rows`` rows, the last maybe of fewer."""
        for start in range(0, self.num_rows, rows):
            yield self.table.slice(start, rows)


Part = FilePart | HeldPart


def parts_of(source: TableSource, block: int) -> Iterator[Part]:
    """The table in parts, each to be worked on in blocks of so many rows.

    Where they are cut depends on the data alone. Parquet files are not read here: a part says which rows to read, whole row groups
    where they are small. Other tables are read here, chunk by chunk, since only reading them in order tells what is a row.
    Raises SourceError when a file cannot be read.

    >>> from labelwright.tables import open_source
    >>> [part.name for part in parts_of(open_source(pa.table({"x": list(range(5))})), 2)]
    ['rows 0 to 2 of the table', 'rows 2 to 4 of the table', 'rows 4 to 5 of the table']
    """
    if source.files:
        for file in source.files:
            yield from _file_parts(file, source.columns, block)
        return
    start = 0
    for chunk in source.chunks(block):
        yield HeldPart(f"rows {start:,} to {start + chunk.num_rows:,} of {source.name}", chunk)
        start += chunk.num_rows


def _file_parts(file: Path, columns: tuple[str, ...], block: int) -> Iterator[FilePart]:
    try:
        with pq.ParquetFile(file) as parquet:
            meta = parquet.metadata
            groups = [meta.row_group(group) for group in range(meta.num_row_groups)]
    except (pa.ArrowException, OSError) as error:
        raise SourceError(
            f"{file} is not a complete Parquet file ({str(error).rstrip('.')}); write it again."
        ) from error
    rows = [group.num_rows for group in groups]
    width = max(1, sum(group.total_byte_size for group in groups) // max(1, sum(rows)))
    start = 0
    for first, last in gathered(rows, _target(width, block)):
        count = sum(rows[first : last + 1])
        piece = count if first != last else piece_rows(count, width, block)
        for skip in range(0, count, piece):
            stop = min(skip + piece, count)
            yield FilePart(str(file), start + skip, start + stop, first, last, skip, columns)
        start += count


def _target(width: int, block: int) -> int:
    """Rows that a part should have: two blocks, of wide rows one. width: bytes of a row when decoded."""
    return block * max(1, min(PART_BLOCKS, PART_BYTES // width // block))


def gathered(rows: Sequence[int], target: int) -> Iterator[tuple[int, int]]:
    """(first, last) of neighbouring row groups that make a part: until they have ``target`` rows; a group of more is alone.

    >>> list(gathered([5, 5, 5, 30, 5], 10))
    [(0, 1), (2, 2), (3, 3), (4, 4)]
    """
    first, count = 0, 0
    for at, n in enumerate(rows):
        if count and n > target:
            yield first, at - 1
            first, count = at, 0
        count += n
        if count >= target:
            yield first, at
            first, count = at + 1, 0
    if first < len(rows):
        yield first, len(rows) - 1


def piece_rows(rows: int, width: int, block: int) -> int:
    """Rows of the pieces, in whole blocks, into which a row group is cut. Each is read from the group's start, which costs little
    where rows are narrow: those are cut into up to eight; wide ones only so that a piece has at most about 256 MB.

    rows: of the group. width: bytes of a row when decoded.

    >>> piece_rows(50_000, 72, 10_000), piece_rows(50_000, 3136, 10_000), piece_rows(10**6, 72, 10_000)
    (20000, 50000, 130000)
    """
    wanted = max(-(-rows * width // (4 * PART_BYTES)), min(_CUTS, _NARROW // width), 1)
    pieces = max(1, min(wanted, -(-rows // _target(width, block))))
    return block * -(-rows // (pieces * block))


def _cut(tables: Iterator[pa.Table], skip: int, wanted: int, rows: int) -> Iterator[pa.Table]:
    """The rows after the first ``skip``, ``wanted`` in all, in tables of ``rows``."""
    held: list[pa.Table] = []
    count = 0
    for table in tables:
        gone = min(skip, table.num_rows)
        skip -= gone
        table = table.slice(gone, wanted - count)
        while table.num_rows:
            room = rows - count % rows
            held.append(table.slice(0, room))
            count += held[-1].num_rows
            table = table.slice(room)
            if count % rows == 0:
                yield concatenated(held).combine_chunks()
                held = []
        if count == wanted:
            break
    if held:
        yield concatenated(held).combine_chunks()
