"""Files written whole or not at all: a file appears under its name only when complete."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from labelwright.errors import SourceError
from labelwright.tables.arrow import is_image, undictionaried
from labelwright.tables.files import CSV_SUFFIXES, PARQUET_SUFFIXES, suffix_of


def write_bytes(data: bytes, path: str | Path) -> None:
    """Write ``data`` as a file. Raises SourceError when the folder cannot be written.

    >>> file = Path(tempfile.mkdtemp()) / "x"
    >>> write_bytes(b"ab", file)
    >>> file.read_bytes()
    b'ab'
    """
    with _finished(Path(path)) as temporary:
        Path(temporary).write_bytes(data)


def write_table(table: pa.Table, path: str | Path) -> None:
    """Write one table; see :func:`write_tables`.

    >>> from labelwright.tables import open_source
    >>> file = Path(tempfile.mkdtemp()) / "t.csv"
    >>> write_table(pa.table({"x": [1]}), file)
    >>> next(open_source(file).chunks(9)).to_pydict()
    {'x': [1]}
    """
    write_tables([table], path)


def write_tables(tables: Iterable[pa.Table], path: str | Path) -> None:
    """Write tables one after another into one Parquet (.parquet, .pq) or CSV (.csv, .csv.gz, .tsv) file.

    Memory holds one table at a time. A later table is cast to the columns of the first; vectors become text in
    CSV, images their path. Raises SourceError when the suffix is unknown, a column cannot be written, or the folder cannot.
    """
    target = Path(path)
    suffix = suffix_of(target)
    if suffix not in (*CSV_SUFFIXES, *PARQUET_SUFFIXES):
        raise SourceError(f"{target} is of an unknown kind; end its name in .parquet or .csv.")
    with _finished(target) as temporary:
        write: Callable[[pa.Table], None] | None = None
        writer: Any = None
        schema: pa.Schema | None = None
        with pa.output_stream(temporary, compression="gzip" if suffix.endswith(".gz") else None) as stream:
            for table in tables:
                table = table if suffix in PARQUET_SUFFIXES else as_text(table)
                if schema is None:
                    schema = _lasting(table.schema)
                    writer = _writer(stream, schema, suffix)
                    write = writer.write_table
                if write is not None:
                    write(_fitted(table, schema))
            if writer is not None:
                writer.close()


def _writer(stream: Any, schema: pa.Schema, suffix: str) -> Any:
    if suffix in PARQUET_SUFFIXES:
        return pq.ParquetWriter(stream, schema)
    return pcsv.CSVWriter(stream, schema, write_options=pcsv.WriteOptions(delimiter="\t" if ".tsv" in suffix else ","))


def _lasting(schema: pa.Schema) -> pa.Schema:
    """A column that is empty in the first table may hold text later."""
    return pa.schema([field.with_type(pa.string()) if pa.types.is_null(field.type) else field for field in schema])


def _fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    if table.schema.equals(schema):
        return table
    columns = []
    for field in schema:
        column = table.column(field.name) if field.name in table.column_names else pa.nulls(table.num_rows, field.type)
        try:
            columns.append(column.cast(field.type))
        except pa.ArrowInvalid as error:
            raise SourceError(
                f"column {field.name!r} changes from {field.type} to {column.type} along the way ({error}); "
                "write a .csv file instead, or mend the column at its source."
            ) from error
    return pa.Table.from_arrays(columns, schema=schema)


def as_text(table: pa.Table) -> pa.Table:
    """CSV cells: vectors as numbers between spaces, images as their path, structures as text, everything else as it is."""
    columns = []
    for column in table.columns:
        column = undictionaried(column)
        kind = column.type
        if is_image(kind):
            column = pa.array([None if v is None else _image_cell(v) for v in column.to_pylist()], pa.string())
        elif pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind):
            column = pa.array([None if v is None else _cell(v) for v in column.to_pylist()], pa.string())
        columns.append(column)
    return pa.Table.from_arrays(columns, names=table.column_names)


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return " ".join("" if v is None else f"{v:g}" if isinstance(v, int | float) else str(v) for v in value)
    return str(value)


def _image_cell(value: Any) -> str:
    return value.get("path") or f"({len(value['bytes'] or b''):,} bytes)"


@contextmanager
def _finished(target: Path) -> Iterator[str]:
    """A temporary file that takes the target's name when the block ends well."""
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        os.close(handle)
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes it private
        os.replace(temporary, target)
    except pa.ArrowException as error:
        raise SourceError(f"{target} cannot hold this table ({error}); write a .parquet file instead.") from error
    except OSError as error:
        raise SourceError(
            f"{target} cannot be written ({error}); check that the folder exists and has room."
        ) from error
    finally:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
