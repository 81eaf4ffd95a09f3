"""Small helpers over Arrow columns and types."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from labelwright.types import Floats

NOT_A_NUMBER = ("NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "#N/A")


def quoted(names: Iterable[object]) -> str:
    return ", ".join(repr(str(name)) for name in names)


def contiguous(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """One contiguous array."""
    if isinstance(column, pa.Array):
        return column
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def undictionaried(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Without dictionary encoding."""
    return pc.cast(column, column.type.value_type) if pa.types.is_dictionary(column.type) else column


def as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return pc.cast(undictionaried(column), pa.large_string())
    except pa.ArrowException:
        values = [None if v is None else repr(v) for v in column.to_pylist()]
        return pa.chunked_array([pa.array(values, pa.large_string())])


def cast_or_none(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray | None:
    try:
        return pc.cast(column, kind)
    except pa.ArrowException:
        return None


def concatenated(tables: list[pa.Table]) -> pa.Table:
    """One table; a column whose type differs between files becomes the wider type, or text."""
    if len(tables) == 1:
        return tables[0]
    if all(table.schema.equals(tables[0].schema) for table in tables):
        return pa.concat_tables(tables)
    columns = []
    for name in tables[0].column_names:
        parts = [table[name] for table in tables]
        try:
            kind = pa.unify_schemas([pa.schema([(name, p.type)]) for p in parts], promote_options="permissive")[0].type
            parts = [pc.cast(part, kind) for part in parts]
        except pa.ArrowException:
            parts = [as_text(part) for part in parts]
        columns.append(pa.chunked_array([chunk for part in parts for chunk in part.chunks], parts[0].type))
    return pa.Table.from_arrays(columns, names=tables[0].column_names)


def widened(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """The column as a wider type, or as text."""
    cast = cast_or_none(column, kind)
    return cast if cast is not None else pc.cast(as_text(column), kind)


def together(tables: list[pa.Table]) -> pa.Table:
    """One table with the columns of all; where a table lacks one, it is missing."""
    names = list(dict.fromkeys(name for table in tables for name in table.column_names))
    filled = []
    for table in tables:
        for name in names:
            if name not in table.column_names:
                table = table.append_column(name, pa.nulls(table.num_rows))
        filled.append(table.select(names))
    return concatenated(filled)


def is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def is_vector(kind: pa.DataType) -> bool:
    return is_list(kind) and (is_number(kind.value_type) or pa.types.is_boolean(kind.value_type))


def is_image(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        return False
    inner = kind.field("bytes").type
    return bool(pa.types.is_binary(inner) or pa.types.is_large_binary(inner))


def dense_vectors(array: pa.Array) -> Floats | None:
    """(n, d) float32 of a vector column without missing vectors, all of one width; None otherwise."""
    if array.null_count or not len(array):
        return None
    if pa.types.is_fixed_size_list(array.type):
        width = array.type.list_size
    else:
        widths = pc.min_max(pc.list_value_length(array))
        width = widths["min"].as_py()
        if widths["max"].as_py() != width:
            return None
    flat = np.asarray(pc.cast(array.flatten(), pa.float32(), safe=False).to_numpy(zero_copy_only=False))
    return np.ascontiguousarray(flat.reshape(len(array), width))
