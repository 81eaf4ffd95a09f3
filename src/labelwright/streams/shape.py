"""Schema drift: the columns that a stream began with stay its columns, and what differs is told."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from labelwright.tables import together

_MOST_TOLD = 200


class Shape:
    """The columns of a stream. first: the rows that it began with; None before any came.

    >>> shape = Shape()
    >>> _ = shape.conform(pa.table({"a": [1.0], "b": ["x"]}))
    >>> shape.conform(pa.table({"a": ["?"], "c": [2]})).column_names
    ['a', 'b']
    >>> shape.told()
    ["column 'a' holds string, began as double", "column 'b' is missing: empty", "column 'c' is new: not used"]
    """

    def __init__(self, first: pa.Table | None = None):
        self.known: pa.Schema | None = None
        self._filled: set[str] = set()
        if first is not None:
            self._begin(first)
        self._fresh: list[str] = []
        self._said: set[str] = set()

    def _begin(self, table: pa.Table) -> None:
        self.known = table.schema
        self._filled = {name for name in table.column_names if table.column(name).null_count < table.num_rows}

    def conform(self, table: pa.Table) -> pa.Table:
        """The table with the known columns, in their order; a missing one is empty, a new one left out.

        A column of another type stays as it is: what of it fits is used.
        """
        table = table.replace_schema_metadata(None)
        if self.known is None:
            self._begin(table)
            return table
        columns = {}
        for field in self.known:
            held = field.name in table.column_names
            empty = not held or table.column(field.name).null_count == table.num_rows
            if empty and field.name in self._filled:
                self._say(f"column {field.name!r} is missing: empty")
            if not held:
                columns[field.name] = pa.nulls(table.num_rows, field.type)
                continue
            columns[field.name] = column = table.column(field.name)
            if column.type != field.type and not pa.types.is_null(column.type):
                self._say(f"column {field.name!r} holds {column.type}, began as {field.type}")
        for name in table.column_names:
            if name not in columns:
                self._say(f"column {name!r} is new: not used")
        return pa.table(columns)

    def _say(self, text: str) -> None:
        """Once in a run, and no flood."""
        if text not in self._said and len(self._said) < _MOST_TOLD:
            self._said.add(text)
            self._fresh.append(text)

    def told(self) -> list[str]:
        """What was seen since the last call, in plain words."""
        fresh, self._fresh = self._fresh, []
        return fresh

    @staticmethod
    def joined(tables: Sequence[pa.Table]) -> pa.Table:
        """One table; a column whose types differ gets the wider one."""
        return (tables[0] if len(tables) == 1 else together([*tables])).combine_chunks()


__all__ = ["Shape"]
