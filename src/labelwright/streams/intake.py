"""Where batches come from: a user's table, chunk by chunk, with its bad rows set aside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from labelwright.errors import BadRowError, DataError
from labelwright.tables import Encoder, bad_feature_rows, row_bytes, together
from labelwright.types import NO_LABEL, Batch, Bools, Ints

Bad = tuple[int, str, str, str]
"""A row set aside: position in its chunk, id, reason, content."""


@dataclass(frozen=True)
class Columns:
    """Which column means what. label: the given label. id, trusted, truth, source: optional. drop: not features."""

    label: str
    id: str | None = None
    trusted: str | None = None
    truth: str | None = None
    source: str | None = None
    drop: tuple[str, ...] = ()

    @property
    def not_features(self) -> tuple[str, ...]:
        """Columns that models never see."""
        named = (self.label, self.id, self.trusted, self.truth, self.source)
        return tuple(dict.fromkeys([*(n for n in named if n is not None), *self.drop]))

    @property
    def named(self) -> tuple[str, ...]:
        """Columns that must be there."""
        return tuple(n for n in self.not_features if n not in self.drop)


def label_text(column: pa.ChunkedArray | pa.Array) -> list[str | None]:
    """Labels as text: 3, 3.0 and "3" are one class; missing and empty labels are None.

    >>> label_text(pa.array([3.0, None, 1.5]))
    ['3', None, '1.5']
    """
    values = column.to_pylist()
    if pa.types.is_floating(column.type):
        whole = (str(int(v)) if v is not None and np.isfinite(v) and v == int(v) else v for v in values)
        return [None if v is None or v != v else str(v) for v in whole]
    if pa.types.is_boolean(column.type):
        return [None if v is None else str(v).lower() for v in values]
    texts = (None if v is None else str(v).strip() for v in values)
    return [text or None for text in texts]


def class_names(labels: Sequence[str | None]) -> tuple[str, ...]:
    """The distinct labels, numbers by value and words by alphabet.

    >>> class_names(["10", "9", None, "9"])
    ('9', '10')
    """
    names = {label for label in labels if label is not None}
    try:
        return tuple(sorted(names, key=lambda name: (_number(name), name)))
    except ValueError:
        return tuple(sorted(names))


def _number(name: str) -> float:
    value = float(name)
    if value != value:
        raise ValueError("not a number has no place in an order")
    return value


@dataclass(frozen=True)
class Accepted:
    """What of a chunk can be used. good: the rows; ids, clean (vouched for), position in the chunk: (n,) of each.

    bad: rows to be set aside. repeated: rows that say again what an earlier one of the chunk said.
    """

    good: pa.Table
    ids: list[str]
    clean: Bools
    position: Ints
    bad: list[Bad]
    repeated: int = 0

    def narrowed(self, fresh: Bools, other: Bools) -> Accepted:
        """Only the rows marked ``fresh``; those marked ``other`` have an id that came before with other content."""
        more = [
            (int(self.position[at]), self.ids[at], _COME_BEFORE.format(self.ids[at]), content(self.good, int(at)))
            for at in np.flatnonzero(other)
        ]
        ids = [row_id for row_id, new in zip(self.ids, fresh, strict=True) if new]
        bad = sorted([*self.bad, *more])
        return Accepted(
            self.good.filter(pa.array(fresh)), ids, self.clean[fresh], self.position[fresh], bad, self.repeated
        )


UNKNOWN_CLASS = "is none of the classes"
"""In the reason why a row with a label that is no class was set aside."""
_COME_BEFORE = "id {!r} came before with other content"


@dataclass
class Intake:
    """Turns chunks of a user's table into batches.

    columns: what is what. classes: the label names; those of the first chunk, if not given.
    clean_rows: the owner vouches for the first so many rows. strict: a bad row ends the run.
    home: the name of the stream's first source. Rows of other sources that have no id of their own are named after
    their source too, and are not among the first rows.
    """

    columns: Columns
    encoder: Encoder
    classes: tuple[str, ...]
    clean_rows: int = 0
    strict: bool = False
    home: str | None = None
    row: int = 0
    drift: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._codes = {name: code for code, name in enumerate(self.classes)}

    def check(self, chunk: pa.Table) -> None:
        """Raises DataError when a named column is missing."""
        missing = [name for name in self.columns.named if name not in chunk.column_names]
        if missing:
            raise DataError(
                f"there is no column {missing[0]!r}; the columns are {chunk.column_names}. Name the right one"
            )

    def accept(self, chunk: pa.Table, chunk_id: str, names: Sequence[str] | None = None) -> Accepted:
        """Judge a chunk's rows as data. names: (n,) what the source calls each, for rows without an id column.

        Raises BadRowError when strict and one is bad.
        """
        self.check(chunk)
        name = chunk_id.rpartition("#")[0]
        self.home = self.home or name
        start, self.row = self.row, self.row + chunk.num_rows
        if names is not None and self.columns.id is None:
            ids = list(names)
        else:
            ids = self._ids(chunk, start, "" if name == self.home else f"{name}:")
        reasons, again = self._reasons(chunk, ids)
        clean = np.arange(start, start + chunk.num_rows) < (self.clean_rows if name == self.home else 0)
        if self.columns.trusted:
            clean |= _truthy(chunk.column(self.columns.trusted))
        keep = np.array([at not in reasons and at not in again for at in range(chunk.num_rows)], bool)
        good = chunk if keep.all() else chunk.filter(pa.array(keep))
        bad = [(at, ids[at], reasons[at], content(chunk, at)) for at in sorted(reasons)]
        self.refuse(bad, chunk_id)
        position = np.flatnonzero(keep)
        return Accepted(good, [ids[at] for at in position], clean[keep], position, bad, len(again))

    def refuse(self, bad: list[Bad], chunk_id: str) -> None:
        """Raises BadRowError when strict and a row is bad."""
        if self.strict and bad:
            at, row_id, reason, _ = bad[0]
            raise BadRowError(f"row {row_id!r} ({chunk_id}, position {at}): {reason}. Mend it, or run without --strict")

    def batch(self, found: Accepted, *, id: str, number: int) -> Batch:
        """The batch of accepted rows."""
        X = self.encoder.transform(found.good)
        for name, count in self.encoder.drift.items():
            self.drift[name] = self.drift.get(name, 0) + count
        sources = None
        if self.columns.source:
            sources = np.array(found.good.column(self.columns.source).to_pylist(), dtype=object)
        given, ids = self.codes(found.good, self.columns.label), np.array(found.ids, dtype=object)
        return Batch(id, number, X, given, found.clean, ids, found.good.combine_chunks(), sources)

    def codes(self, table: pa.Table, column: str) -> Ints:
        """(n,) class of each row by a label column; NO_LABEL where unknown."""
        return np.array(
            [self._codes.get(t, NO_LABEL) if t else NO_LABEL for t in label_text(table.column(column))], np.int64
        )

    def _ids(self, chunk: pa.Table, start: int, prefix: str) -> list[str]:
        if self.columns.id is None:
            return [f"{prefix}{start + at}" for at in range(chunk.num_rows)]
        texts = label_text(chunk.column(self.columns.id))
        return [text or f"(no id, row {prefix}{start + at})" for at, text in enumerate(texts)]

    def _reasons(self, chunk: pa.Table, ids: list[str]) -> tuple[dict[int, str], set[int]]:
        """(bad rows and why, rows that say again what an earlier one said), by position."""
        reasons = dict(bad_feature_rows(chunk, self.encoder.kinds, widths=self.encoder.widths))
        for at, text in enumerate(label_text(chunk.column(self.columns.label))):
            if text is None:
                reasons[at] = "no label"
            elif text not in self._codes:
                reasons[at] = f"label {text!r} {UNKNOWN_CLASS} {_few(self.classes)}; name all classes with --classes"
        if self.columns.id is None or len(set(ids)) == len(ids):
            return reasons, set()
        contents, first, again = row_bytes(chunk), dict[str, int](), set()
        for at, row_id in enumerate(ids):
            if at in reasons:
                continue
            if contents[first.setdefault(row_id, at)] != contents[at]:
                reasons[at] = _COME_BEFORE.format(row_id)
            elif first[row_id] != at:
                again.add(at)
        return reasons, again


def comparable(table: pa.Table | None, good: pa.Table) -> tuple[list[bytes], list[bytes]]:
    """The rows of both tables as bytes, though a column may have been read as numbers in one and as text in the other."""
    if table is None:
        return [], row_bytes(good)
    contents = row_bytes(together([table, good]))
    return contents[: table.num_rows], contents[table.num_rows :]


def content(chunk: pa.Table, at: int, limit: int = 500) -> str:
    """A row as short text, for people."""
    cells = (f"{name}={_plain(value)!r}" for name, value in chunk.slice(at, 1).to_pylist()[0].items())
    text = ", ".join(cell if len(cell) <= 120 else cell[:117] + "..." for cell in cells)
    return text[:limit]


def _plain(value: Any) -> Any:
    """A value as a person reads it: bytes, such as a picture's, by their number."""
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    return {name: _plain(inner) for name, inner in value.items()} if isinstance(value, dict) else value


def _truthy(column: pa.ChunkedArray) -> Bools:
    if pa.types.is_boolean(column.type) or pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        value = np.nan_to_num(pc.cast(column, pa.float64()).fill_null(0).to_numpy())  # missing is no vouching
        return value != 0
    yes = {"1", "true", "yes", "y", "clean", "trusted"}
    return np.array([str(value).strip().lower() in yes for value in column.to_pylist()], bool)


def _few(names: Sequence[str], limit: int = 12) -> str:
    shown = ", ".join(repr(name) for name in names[:limit])
    return f"[{shown}{', …' if len(names) > limit else ''}]"


def numbered(chunks: Iterator[pa.Table], name: str) -> Iterator[tuple[str, pa.Table]]:
    """(id, chunk): the id is the source's file name and the chunk's place in it, wherever the file lies."""
    short = Path(name).name or name
    for place, chunk in enumerate(chunks):
        yield f"{short}#{place}", chunk


def as_table(X: Any, y: Any, *, label: str = "label") -> pa.Table:
    """Arrays as a table with a vector column ``x`` and a label column."""
    from labelwright.tables import vector_column

    return pa.table({"x": vector_column(np.asarray(X, np.float32)), label: pa.array(np.asarray(y).tolist())})
