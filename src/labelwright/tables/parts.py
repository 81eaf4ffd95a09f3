"""A table cut into parts that can be read one without the other, by whoever works on them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from labelwright.errors import SourceError
from labelwright.tables.arrow import concatenated
from labelwright.tables.chunked import TableSource

PART_BLOCKS = 5
PART_BYTES = 64 << 20
_CUTS = 8


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
    """The table in parts of whole blocks of so many rows; only the last part of a file may end with less.

    Where they are cut depends on the data alone. Parquet files are not read here: a part says which rows to read. Other
    tables are read here, chunk by chunk, since only reading them in order tells what is a row.
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
    ends = list(accumulate((group.num_rows for group in groups), initial=0))
    rows = part_rows(
        ends[-1], sum(g.total_byte_size for g in groups), max((g.num_rows for g in groups), default=0), block
    )
    group = 0
    for start, stop in pairwise([*range(0, ends[-1], rows), ends[-1]]):
        while ends[group + 1] <= start:
            group += 1
        last = group
        while ends[last + 1] < stop:
            last += 1
        yield FilePart(str(file), start, stop, group, last, start - ends[group], columns)


def part_rows(rows: int, size: int, group: int, block: int) -> int:
    """Rows of a part of a file: up to five blocks and about 64 MB, at least a block; but no row group is cut into more than
    about eight, since a reader must decode a group from its start.

    rows, size: of the file, in bytes when decoded. group: rows of its largest row group.

    >>> part_rows(1_000_000, 80_000_000, 100_000, 10_000), part_rows(10**7, 8 * 10**8, 10**6, 10_000)
    (50000, 130000)
    """
    blocks = max(1, min(PART_BLOCKS, PART_BYTES * max(1, rows) // max(1, size) // block))
    return block * max(blocks, -(-group // (_CUTS * block)))


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
