"""CSV and Parquet files: read in chunks, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from labelwright.errors import SourceError
from labelwright.tables.arrow import NOT_A_NUMBER, cast_or_none, quoted
from labelwright.tables.chunked import TableSource

CSV_SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
PARQUET_SUFFIXES = (".parquet", ".pq")
CSV_HEAD = 8 << 20
CSV_BLOCK = 2 << 20  # Arrow reads up to 32 blocks ahead
PARQUET_BATCH = 32 << 20


def suffix_of(path: Path) -> str:
    name = path.name.lower()
    return next((s for s in (*CSV_SUFFIXES, *PARQUET_SUFFIXES, ".npz") if name.endswith(s)), "")


def require_same_columns(expected: Sequence[str], got: Sequence[str], file: Path, first: Path) -> None:
    if set(expected) != set(got):
        raise SourceError(
            f"{file} has the columns {quoted(got)} but {first.name} has {quoted(expected)}; "
            "files of one folder need the same columns."
        )


def open_csv(name: str, files: list[Path]) -> TableSource:
    schema, rows_seen = _csv_head(files[0], CSV_HEAD)
    if not rows_seen:
        raise SourceError(f"{files[0]} has no complete row below its header; give a file with at least one.")
    try:
        types: dict[str, pa.DataType] = {field.name: _csv_type(field.type) for field in schema}
    except UnicodeDecodeError as error:
        raise SourceError(f"{files[0]} is not UTF-8 text; save it as UTF-8, or as Parquet.") from error

    def read(source: TableSource, rows: int) -> Iterator[pa.Table]:
        for file in files:
            for part in _csv_strings(file, source):
                require_same_columns(schema.names, part.column_names, file, files[0])
                yield part.select(schema.names)

    return TableSource(name, schema.names, None, read, partial(_typed, types=types))


def _csv_type(inferred: pa.DataType) -> pa.DataType:
    """The type a CSV column is read as: what Arrow saw, but text where it saw nothing or a time of day."""
    return pa.string() if pa.types.is_null(inferred) or pa.types.is_time(inferred) else inferred


def _csv_reader(
    file: Path, stream: Any, block: int, skip: Callable[[Any], str], convert: pcsv.ConvertOptions
) -> pcsv.CSVStreamingReader:
    delimiter = "\t" if ".tsv" in suffix_of(file) else ","
    return pcsv.open_csv(
        stream,
        read_options=pcsv.ReadOptions(block_size=block),
        parse_options=pcsv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip),
        convert_options=convert,
    )


def _csv_head(file: Path, size: int) -> tuple[pa.Schema, int]:
    """Inferred types, and rows, of the first ``size`` bytes, cut at the end of a line."""
    convert = pcsv.ConvertOptions(null_values=["", *NOT_A_NUMBER], strings_can_be_null=True)
    try:
        with pa.input_stream(str(file)) as stream:
            head = stream.read(size)
        if len(head) == size:
            head = head[: head.rfind(b"\n") + 1] or head
        reader = _csv_reader(file, pa.BufferReader(head), size + 1, lambda row: "skip", convert)
        return reader.schema, reader.read_all().num_rows
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise _csv_error(file, error) from error


def _csv_error(file: Path, error: Exception) -> SourceError:
    text = str(error)
    if "Empty CSV" in text:
        return SourceError(f"{file} is empty; give a file with a header and at least one row.")
    if "UTF8" in text or isinstance(error, UnicodeError):
        return SourceError(f"{file} is not text in UTF-8; save it in that encoding.")
    return SourceError(f"{file} cannot be read as CSV ({text.rstrip('.')}); check that it is complete and well quoted.")


def _csv_strings(file: Path, source: TableSource) -> Iterator[pa.Table]:
    """The file as text columns, an empty field being null: types come later, so that they may change."""

    def skip(row: Any) -> str:
        source.skipped_lines += 1
        return "skip"

    names = _csv_head(file, CSV_BLOCK)[0].names  # needed to force text
    text = pcsv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), null_values=[""], strings_can_be_null=True
    )
    try:
        with pa.input_stream(str(file)) as stream:
            for batch in _csv_reader(file, stream, CSV_BLOCK, skip, text):
                yield pa.Table.from_batches([batch])
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise _csv_error(file, error) from error


def _typed(table: pa.Table, types: dict[str, pa.DataType]) -> pa.Table:
    """Text columns in their settled types; ``types`` widens for good where a value does not fit."""
    columns = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        if not pa.types.is_string(types[name]):
            known = pc.if_else(pc.is_in(column, pa.array(NOT_A_NUMBER)), pa.scalar(None, pa.string()), column)
            kinds = (types[name], pa.float64()) if pa.types.is_integer(types[name]) else (types[name],)
            tried = ((kind, cast_or_none(known, kind)) for kind in kinds)
            kind, converted = next(((k, c) for k, c in tried if c is not None), (pa.string(), column))
            if _holds_names(known, converted):
                kind, converted = pa.string(), column
            types[name], column = kind, converted
        columns.append(column)
    return pa.Table.from_arrays(columns, names=table.column_names)


def _holds_names(texts: pa.ChunkedArray, numbers: pa.ChunkedArray) -> bool:
    """Whether digits are a name and no number: 00037 would come back as another, and 17 digits are more than a float holds."""
    if pa.types.is_integer(numbers.type):
        return not pc.all(pc.equal(pc.cast(numbers, pa.string()), texts)).as_py() and len(texts) > texts.null_count
    if not pa.types.is_floating(numbers.type):
        return False
    large = pc.greater_equal(pc.abs(numbers), 1e15)
    zeros = pc.starts_with(texts, "00")
    asked = texts.filter(pc.fill_null(pc.or_(large, zeros), False))
    return len(asked) > 0 and bool(pc.any(pc.match_substring_regex(asked, "^-?[0-9]+$")).as_py())


def open_parquet(name: str, files: list[Path]) -> TableSource:
    opened = [_parquet_meta(file) for file in files]
    names = opened[0][0]
    for file, (columns, _, _) in zip(files, opened, strict=True):
        require_same_columns(names, columns, file, files[0])
    total = sum(rows for _, rows, _ in opened)
    if not total:
        raise SourceError(f"{name} has no rows; give at least one.")

    def read(source: TableSource, rows: int) -> Iterator[pa.Table]:
        for file, (_, count, size) in zip(files, opened, strict=True):
            batch = max(1, min(rows, 65536, PARQUET_BATCH * max(1, count) // max(1, size)))
            try:
                with pq.ParquetFile(file) as parquet:
                    for part in parquet.iter_batches(batch_size=batch):
                        yield pa.Table.from_batches([part]).select(names).replace_schema_metadata(None)
            except (pa.ArrowException, OSError) as error:
                raise _parquet_error(file, error) from error

    source = TableSource(name, names, total, read)
    source.files = tuple(files)
    source.label = _class_label(files[0])
    return source


def _class_label(file: Path) -> str | None:
    """The one column that a file's metadata, as Hugging Face writes it, says holds classes."""
    try:
        features = json.loads((pq.read_schema(file).metadata or {})[b"huggingface"])["info"]["features"]
        found = [name for name, kind in features.items() if kind.get("_type") == "ClassLabel"]
    except (ValueError, KeyError, TypeError, AttributeError, pa.ArrowException, OSError):
        return None
    return found[0] if len(found) == 1 else None


def _parquet_meta(file: Path) -> tuple[list[str], int, int]:
    """Column names, rows, and bytes when decoded."""
    try:
        with pq.ParquetFile(file) as parquet:
            meta = parquet.metadata
            size = sum(meta.row_group(group).total_byte_size for group in range(meta.num_row_groups))
            return parquet.schema_arrow.names, meta.num_rows, size
    except (pa.ArrowException, OSError) as error:
        raise _parquet_error(file, error) from error


def _parquet_error(file: Path, error: Exception) -> SourceError:
    return SourceError(f"{file} is not a complete Parquet file ({str(error).rstrip('.')}); write it again.")
