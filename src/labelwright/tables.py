"""Users' own data: tables from files and frames, streamed in bounded memory, and turned into features.

:func:`open_source` reads, :class:`Encoder` turns columns into numbers, :func:`bad_feature_rows` finds rows to
set aside, :func:`row_bytes` identifies rows by content, :func:`write_table` writes.
"""

from __future__ import annotations

import io
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from labelwright.errors import DataError, SettingsError, SourceError
from labelwright.types import Floats

if TYPE_CHECKING:
    import pandas as pd

CSV_SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
PARQUET_SUFFIXES = (".parquet", ".pq")
CSV_HEAD = 8 << 20
CSV_BLOCK = 2 << 20  # Arrow reads up to 32 blocks ahead
PARQUET_BATCH = 32 << 20
NOT_A_NUMBER = ("NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "#N/A")

# ---------------------------------------------------------------- sources


class TableSource:
    """A table that is read in chunks, as often as one likes.

    name: where it comes from, for messages. columns: their names. num_rows: rows, or None when only reading
    tells. skipped_lines: CSV lines with the wrong number of fields, left out by the latest reading.

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
        self._read, self._finish = read, finish
        twice = [column for column, count in Counter(self.columns).items() if count > 1]
        if twice:
            raise SourceError(f"{name} has two columns named {twice[0]!r}; rename one of them.")

    def chunks(self, rows: int, first: int | None = None) -> Iterator[pa.Table]:
        """Tables of exactly ``rows`` rows, the first of ``first`` rows if given, the last maybe of fewer.

        In memory are one chunk and what Arrow reads ahead, some 100 MB at most.
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
            whole, start = _concat(held), 0
            while count - start >= wanted:
                yield self._done(whole.slice(start, wanted))
                start, wanted = start + wanted, rows
            held, count = [whole.slice(start)], count - start
        if count:
            yield self._done(_concat(held))

    def _done(self, chunk: pa.Table) -> pa.Table:
        return (self._finish(chunk) if self._finish else chunk).combine_chunks()

    def require(self, *names: str) -> None:
        """Raise SourceError unless every column of ``names`` is there."""
        missing = [name for name in names if name not in self.columns]
        if missing:
            raise SourceError(
                f"{self.name} has no column {_quoted(missing)}, only {_quoted(self.columns)}; name one of these."
            )


def open_source(source: str | Path | pa.Table | pd.DataFrame) -> TableSource:
    """Open a table to be read in chunks.

    source: path of a .csv, .csv.gz, .tsv, .parquet or .npz file; a folder of CSV or Parquet files with the same
    columns, read in the order of their names; a pandas DataFrame; a pyarrow Table. An .npz holds ``X`` (n, d),
    which becomes the vector column ``x``, ``y`` (n,), which becomes ``label``, and other arrays of n values.
    CSV: an empty field is missing; column types are settled on the first 8 MB, and a column that later
    breaks its type is read as decimal numbers or text from then on; lines with too few or many fields are skipped.
    Raises SourceError, in one sentence, when there is no such file or it cannot be used.

    >>> open_source(pa.table({"age": [40], "label": ["cat"]})).columns
    ('age', 'label')
    """
    if isinstance(source, pa.Table):
        return _from_table(source, "the table")
    if not isinstance(source, str | os.PathLike):
        return _from_table(_from_pandas(source), "the data frame")
    path = Path(source)
    if path.is_dir():
        return _open_folder(path)
    if not path.is_file():
        raise SourceError(f"There is no file or folder {path}; check the path.")
    suffix = _suffix(path)
    if suffix == ".npz":
        return _from_table(_read_npz(path), str(path))
    if suffix in CSV_SUFFIXES:
        return _open_csv(str(path), [path])
    if suffix in PARQUET_SUFFIXES:
        return _open_parquet(str(path), [path])
    raise SourceError(
        f"{path} is of an unknown kind; expected {', '.join(CSV_SUFFIXES)}, .parquet or .npz: convert it."
    )


def _suffix(path: Path) -> str:
    name = path.name.lower()
    return next((s for s in (*CSV_SUFFIXES, *PARQUET_SUFFIXES, ".npz") if name.endswith(s)), "")


def _from_table(table: pa.Table, name: str) -> TableSource:
    if not table.num_rows:
        raise SourceError(f"{name} has no rows; give at least one.")
    return TableSource(name, table.column_names, table.num_rows, lambda source, rows: iter([table]))


def _from_pandas(frame: Any) -> pa.Table:
    if not hasattr(frame, "dtypes") or not hasattr(frame, "columns"):
        raise SourceError(f"Got {type(frame).__name__}, expected a path, a pandas DataFrame or a pyarrow Table.")
    columns = []
    for position in range(frame.shape[1]):
        series = frame.iloc[:, position]
        try:
            columns.append(pa.chunked_array([_one(pa.array(series, from_pandas=True))]))
        except pa.ArrowException:  # a column of mixed Python objects: read it as text
            text = [None if missing else str(value) for value, missing in zip(series, series.isna(), strict=True)]
            columns.append(pa.chunked_array([pa.array(text, pa.string())]))
    return pa.Table.from_arrays(columns, names=[str(name) for name in frame.columns])


def _read_npz(path: Path) -> pa.Table:
    try:
        with np.load(path, allow_pickle=False) as loaded:
            arrays = {name: loaded[name] for name in loaded.files}
    except (ValueError, OSError, EOFError, KeyError) as error:
        raise SourceError(f"{path} cannot be read as plain arrays ({error}); save them with numpy.savez.") from error
    except Exception as error:  # zipfile.BadZipFile and zlib.error, not imported for this line
        raise SourceError(f"{path} is damaged ({error}); save it again with numpy.savez.") from error
    if "X" not in arrays or arrays["X"].ndim < 2 or arrays["X"].dtype.kind not in "iufb":
        raise SourceError(f"{path} holds {_quoted(arrays)}, expected numbers X of shape (n, d) and y; save those.")
    X = np.ascontiguousarray(arrays.pop("X"), np.float32)
    columns = {"x": vector_column(X.reshape(len(X), -1))}
    if "y" in arrays and arrays["y"].shape != (len(X),):
        raise SourceError(f"{path} has {len(X)} rows in X but y of shape {arrays['y'].shape}; give one y per row.")
    for name, values in arrays.items():
        if values.shape == (len(X),):
            columns["label" if name == "y" else name] = pa.array(values)
    return pa.table(columns)


def vector_column(X: Floats) -> pa.FixedSizeListArray:
    """(n, d) numbers as one Arrow column of float32 vectors.

    >>> vector_column(np.eye(2)).type
    FixedSizeListType(fixed_size_list<item: float>[2])
    """
    flat = pa.array(np.ascontiguousarray(X, np.float32).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, X.shape[1])


def _open_folder(folder: Path) -> TableSource:
    files = sorted(f for f in folder.iterdir() if f.is_file() and f.name[0] not in "._")
    by_csv = [f for f in files if _suffix(f) in CSV_SUFFIXES]
    by_parquet = [f for f in files if _suffix(f) in PARQUET_SUFFIXES]
    if not by_csv and not by_parquet:
        raise SourceError(f"The folder {folder} holds no CSV or Parquet file; put the data there or name another.")
    if by_csv and by_parquet:
        raise SourceError(f"The folder {folder} holds both CSV and Parquet files; keep one kind.")
    return _open_csv(str(folder), by_csv) if by_csv else _open_parquet(str(folder), by_parquet)


def _same_columns(expected: Sequence[str], got: Sequence[str], file: Path, first: Path) -> None:
    if set(expected) != set(got):
        raise SourceError(
            f"{file} has the columns {_quoted(got)} but {first.name} has {_quoted(expected)}; "
            "files of one folder need the same columns."
        )


# ---------------------------------------------------------------- CSV and Parquet


def _open_csv(name: str, files: list[Path]) -> TableSource:
    schema, rows_seen = _csv_head(files[0], CSV_HEAD)
    if not rows_seen:
        raise SourceError(f"{files[0]} has no complete row below its header; give a file with at least one.")
    types: dict[str, pa.DataType] = {field.name: _csv_type(field.type) for field in schema}

    def read(source: TableSource, rows: int) -> Iterator[pa.Table]:
        for file in files:
            for part in _csv_strings(file, source):
                _same_columns(schema.names, part.column_names, file, files[0])
                yield part.select(schema.names)

    return TableSource(name, schema.names, None, read, partial(_typed, types=types))


def _csv_type(inferred: pa.DataType) -> pa.DataType:
    """The type a CSV column is read as: what Arrow saw, but text where it saw nothing or a time of day."""
    return pa.string() if pa.types.is_null(inferred) or pa.types.is_time(inferred) else inferred


def _csv_reader(
    file: Path, stream: Any, block: int, skip: Callable[[Any], str], convert: pcsv.ConvertOptions
) -> pcsv.CSVStreamingReader:
    delimiter = "\t" if ".tsv" in _suffix(file) else ","
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
            for kind in (types[name], pa.float64()) if pa.types.is_integer(types[name]) else (types[name],):
                converted = _cast(known, kind)
                if converted is not None:
                    types[name], column = kind, converted
                    break
            else:
                types[name] = pa.string()
        columns.append(column)
    return pa.Table.from_arrays(columns, names=table.column_names)


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray | None:
    try:
        return pc.cast(column, kind)
    except pa.ArrowException:
        return None


def _open_parquet(name: str, files: list[Path]) -> TableSource:
    opened = [_parquet_meta(file) for file in files]
    names = opened[0][0]
    for file, (columns, _, _) in zip(files, opened, strict=True):
        _same_columns(names, columns, file, files[0])
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

    return TableSource(name, names, total, read)


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


def _concat(tables: list[pa.Table]) -> pa.Table:
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
            parts = [_text(part) for part in parts]
        columns.append(pa.chunked_array([chunk for part in parts for chunk in part.chunks], parts[0].type))
    return pa.Table.from_arrays(columns, names=tables[0].column_names)


def write_table(table: pa.Table, path: str | Path) -> None:
    """Write a table as Parquet (.parquet, .pq) or CSV (.csv, .csv.gz, .tsv), whole or not at all.

    The file appears under its name only when complete. Raises SourceError when the suffix is unknown, a column
    cannot be written in that format, or the folder cannot be written.

    >>> file = Path(tempfile.mkdtemp()) / "t.csv"
    >>> write_table(pa.table({"x": [1]}), file)
    >>> next(open_source(file).chunks(9)).to_pydict()
    {'x': [1]}
    """
    target = Path(path)
    suffix = _suffix(target)
    if suffix not in (*CSV_SUFFIXES, *PARQUET_SUFFIXES):
        raise SourceError(f"{target} is of an unknown kind; end its name in .parquet or .csv.")
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        os.close(handle)
        _write(table, temporary, suffix)
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


def _write(table: pa.Table, file: str, suffix: str) -> None:
    if suffix in PARQUET_SUFFIXES:
        pq.write_table(table, file)
        return
    plain = [_plain(column) for column in table.columns]
    options = pcsv.WriteOptions(delimiter="\t" if ".tsv" in suffix else ",")
    compression = "gzip" if suffix.endswith(".gz") else None
    with pa.output_stream(file, compression=compression) as stream:
        pcsv.write_csv(pa.Table.from_arrays(plain, names=table.column_names), stream, options)


# ---------------------------------------------------------------- columns -> numbers

ID_NAME = re.compile(r"(^|_)(id|idx|index|key|uuid|unnamed: 0)_*$", re.IGNORECASE)
MAX_CATEGORIES = 100
MISSING_FLOAT = 0x7FF8_0000_DEAD_0000  # a NaN that no arithmetic yields
TRUSTED_TYPES = frozenset({"numpy.dtype", "sklearn.compose._column_transformer.make_column_selector"})
"""What a saved Encoder may hold beyond the scikit-learn, NumPy and SciPy types that skops itself trusts."""

State = dict[str, Any]
_Fitted = tuple[State, str]
_Applied = tuple[Floats, int]


class Encoder:
    """Turn the columns of a table into one matrix of numbers, with stated assumptions.

    transformer: any unfitted scikit-learn transformer that accepts a pandas DataFrame, instead of the default
    treatment (it is cloned). exclude: columns to leave alone, such as the label and the id.
    kinds: column -> number, boolean, category, text, date, vector, image, dropped (or custom).
    widths: vector column -> its width. drift: column -> values of the *latest* transform that did not
    convert to the column's kind and were taken as missing.

    >>> table = pa.table({"age": [20.0, None, 40.0], "label": ["a", "b", "a"]})
    >>> encoder = Encoder(exclude=["label"]).fit(table)
    >>> encoder.describe()
    ['age: number, standardised, 1 missing filled with the median']
    >>> encoder.transform(table)[:, 0].round(2).astype(str).tolist()
    ['-1.22', '0.0', '1.22']
    """

    def __init__(self, transformer: Any = None, *, exclude: Iterable[str] = ()):
        self.transformer = transformer
        self.exclude = frozenset([exclude] if isinstance(exclude, str) else exclude)
        self.kinds: dict[str, str] = {}
        self.drift: dict[str, int] = {}
        self._states: dict[str, State] = {}
        self._sentences: list[str] = []
        self._fitted: Any = None

    @property
    def widths(self) -> dict[str, int]:
        """Vector column -> width."""
        return {name: int(state["width"]) for name, state in self._states.items() if self.kinds[name] == "vector"}

    def fit(self, table: pa.Table) -> Encoder:
        """Settle what each column is. Raises DataError when nothing usable is left."""
        names = [name for name in table.column_names if name not in self.exclude]
        if not names or not table.num_rows:
            raise DataError(f"The table has {table.num_rows} rows and {len(names)} feature columns; give at least one.")
        self.kinds, self._states, self._sentences, self.drift = {}, {}, [], {}
        if self.transformer is not None:
            return self._fit_custom(table, names)
        for name in names:
            column = _plain(table[name])
            kind, why = _kind(column, name)
            if kind != "dropped":
                state, why = _FIT[kind](column)
                kind = "dropped" if not state else kind
                self._states[name] = state
            self.kinds[name] = kind
            self._sentences.append(f"{name}: {kind}, {why}")
        self._states = {name: state for name, state in self._states.items() if state}
        if not self._states:
            raise DataError(f"No column can be used as a feature ({'; '.join(self._sentences)}); give other columns.")
        return self

    def _fit_custom(self, table: pa.Table, names: list[str]) -> Encoder:
        from sklearn.base import clone

        self._fitted = clone(self.transformer)
        self._fitted.fit(table.select(names).to_pandas())
        self.kinds = dict.fromkeys(names, "custom")
        self._sentences = [f"{name}: custom, given to {type(self.transformer).__name__}" for name in names]
        return self

    def transform(self, table: pa.Table) -> Floats:
        """(n, d) float32, C-contiguous, all finite.

        Additional columns are ignored. Raises SettingsError before fit, DataError naming columns that are missing.
        """
        if not self.kinds:
            raise SettingsError("This Encoder was never fitted; call fit(table) first.")
        needed = [name for name, kind in self.kinds.items() if kind != "dropped"]
        missing = [name for name in needed if name not in table.column_names]
        if missing:
            raise DataError(f"The table lacks {_quoted(missing)}, which the encoder was fitted on; add these columns.")
        if self._fitted is not None:
            return self._transform_custom(table, needed)
        self.drift = {}
        blocks = []
        for name in needed:
            block, lost = _APPLY[self.kinds[name]](_plain(table[name]), self._states[name])
            blocks.append(block)
            if lost:
                self.drift[name] = lost
        return np.ascontiguousarray(blocks[0] if len(blocks) == 1 else np.hstack(blocks), np.float32)

    def _transform_custom(self, table: pa.Table, names: list[str]) -> Floats:
        out = self._fitted.transform(table.select(names).to_pandas())
        X = np.ascontiguousarray(out.toarray() if hasattr(out, "toarray") else out, np.float32)
        if not np.isfinite(X).all():
            rows = int((~np.isfinite(X)).any(axis=1).sum())
            raise DataError(f"The transformer left {rows} rows with NaN or inf; add a SimpleImputer to its steps.")
        return X

    def describe(self) -> list[str]:
        """One plain sentence per column about what was assumed."""
        return list(self._sentences)

    def to_bytes(self) -> bytes:
        """The fitted encoder as a skops file, free of pickle."""
        import skops.io

        return cast(
            bytes,
            skops.io.dumps(
                {
                    "format": 1,
                    "exclude": sorted(self.exclude),
                    "kinds": self.kinds,
                    "states": self._states,
                    "sentences": self._sentences,
                    "fitted": self._fitted,
                }
            ),
        )

    @staticmethod
    def from_bytes(data: bytes) -> Encoder:
        """The encoder that :meth:`to_bytes` saved.

        Raises SettingsError when the file holds types outside :data:`TRUSTED_TYPES`, or is no such file.
        """
        import skops.io

        try:
            unknown = set(skops.io.get_untrusted_types(data=data))
            refused = sorted(unknown - TRUSTED_TYPES)
            if refused:
                raise SettingsError(
                    f"The saved encoder holds {_quoted(refused)}, expected scikit-learn types only; "
                    "fit the encoder again instead of loading it."
                )
            saved = skops.io.loads(data, trusted=sorted(unknown))
            encoder = Encoder(saved["fitted"], exclude=saved["exclude"])
            encoder.kinds, encoder._states = saved["kinds"], saved["states"]
            encoder._sentences, encoder._fitted = saved["sentences"], saved["fitted"]
        except SettingsError:
            raise
        except Exception as error:  # zip, JSON and skops errors of many kinds, one cause
            raise SettingsError(f"The saved encoder is damaged ({error}); fit it again.") from error
        return encoder


# ---------------------------------------------------------------- which kind a column is


def _kind(column: pa.ChunkedArray, name: str) -> tuple[str, str]:
    """The kind of a column, or "dropped" and the reason."""
    kind = column.type
    if column.null_count == len(column):
        return "dropped", "every value is missing"
    if _is_vector(kind):
        return "vector", ""
    if _is_image(kind):
        return "image", ""
    simple = pa.types.is_boolean(kind) or _is_number(kind) or _is_string(kind) or pa.types.is_temporal(kind)
    if not simple:
        return "dropped", f"values of type {kind} are not used"
    distinct = pc.count_distinct(column).as_py()
    if distinct == 1 and not column.null_count:
        return "dropped", "the same value in every row"
    if pa.types.is_boolean(kind):
        return "boolean", ""
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return "date", ""
    if _is_string(kind):
        return _string_kind(column, distinct, name)
    if pa.types.is_integer(kind) and distinct == len(column) and ID_NAME.search(name):
        return "dropped", "looks like an identifier"
    return "number", ""


def _string_kind(column: pa.ChunkedArray, distinct: int, name: str) -> tuple[str, str]:
    present = column.drop_null()
    words = pc.mean(pc.count_substring(pc.utf8_trim_whitespace(present), " ")).as_py() + 1
    longest = pc.max(pc.utf8_length(present)).as_py()
    if distinct <= 20 and 2 * distinct <= len(present):
        return "category", ""
    numbers, lost = _numbers(present)
    if lost <= 0.05 * len(numbers) and not ID_NAME.search(name):
        return "number", ""
    if distinct == len(present) and len(present) >= 10 and words == 1 and longest <= 64:
        return "dropped", "looks like an identifier"
    if words >= 3 or longest > 200 or (distinct > 20 and 2 * distinct > len(present)):
        return "text", ""
    return "category", ""


# ---------------------------------------------------------------- numbers and dates


def _numbers(column: pa.ChunkedArray) -> tuple[Floats, int]:
    """(n,) float64 with NaN where missing, infinite or not a number; and how many did not convert."""
    kind = column.type
    if not (_is_number(kind) or _is_string(kind) or pa.types.is_boolean(kind) or _is_span(kind)):
        return np.full(len(column), np.nan), len(column) - column.null_count
    if _is_string(kind):
        text = pc.utf8_trim_whitespace(column)
        column = pc.if_else(pc.is_in(text, pa.array(["", *NOT_A_NUMBER], text.type)), pa.scalar(None, text.type), text)
    if _is_span(kind):
        column = pc.cast(column, pa.int32() if kind.bit_width == 32 else pa.int64())
    before = column.null_count
    converted = _cast(column, pa.float64())
    if converted is None:
        pattern = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
        fits = pc.match_substring_regex(column, pattern) if _is_string(kind) else pc.is_valid(column)
        kept = pc.if_else(fits, column, pa.scalar(None, column.type))
        converted = pc.cast(kept, pa.float64(), safe=False)
    values = np.array(converted.to_numpy(), np.float64)
    values[~np.isfinite(values)] = np.nan
    return values, converted.null_count - before


def _is_span(kind: pa.DataType) -> bool:
    return bool(pa.types.is_time(kind) or pa.types.is_duration(kind))


def _fit_dense(values: Floats) -> State:
    """Median, mean and deviation of each column of (n, w) values; flags: columns with missing values."""
    gaps = np.isnan(values)
    with np.errstate(over="ignore", invalid="ignore"):
        median = np.array([np.median(v[~g]) if not g.all() else 0.0 for v, g in zip(values.T, gaps.T, strict=True)])
        filled = np.where(gaps, median, values)
        mean, std = filled.mean(axis=0), filled.std(axis=0)
    usable = np.isfinite(std) & (std > 1e-12 * np.maximum(1.0, np.abs(mean)))
    return {"median": median, "mean": mean, "std": np.where(usable, std, 1.0), "flags": gaps.any(axis=0)}


def _apply_dense(values: Floats, state: State) -> Floats:
    gaps = np.isnan(values)
    scaled = (np.where(gaps, state["median"], values) - state["mean"]) / state["std"]
    flags = gaps[:, np.asarray(state["flags"], bool)]
    return np.hstack([np.clip(scaled, -1e6, 1e6), flags]).astype(np.float32)


def _filled(missing: int) -> str:
    return f"standardised, {missing} missing filled with the median" if missing else "standardised"


def _fit_number(column: pa.ChunkedArray) -> _Fitted:
    values, _ = _numbers(column)
    return _fit_dense(values[:, None]), _filled(int(np.isnan(values).sum()))


def _apply_number(column: pa.ChunkedArray, state: State) -> _Applied:
    values, lost = _numbers(column)
    return _apply_dense(values[:, None], state), lost


def _dates(column: pa.ChunkedArray) -> tuple[Floats, int]:
    """(n, 5) year, month, weekday (Monday 0), hour, days since 1970; NaN where missing or not a date."""
    stamp = pa.timestamp("us")
    if _is_string(column.type):
        text = column
        column = pc.strptime(pc.utf8_slice_codeunits(text, 0, 10), format="%Y-%m-%d", unit="us", error_is_null=True)
        column = _cast(text, stamp) or column
        lost = column.null_count - text.null_count
    elif pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        column, lost = pc.cast(column, stamp, safe=False), 0
    else:
        return np.full((len(column), 5), np.nan), len(column) - column.null_count
    missing = column.is_null().to_numpy()
    micros = pc.cast(column, pa.int64()).fill_null(0).to_numpy()
    days = micros // 86_400_000_000
    moments = days.astype("datetime64[D]")
    years, months = moments.astype("datetime64[Y]"), moments.astype("datetime64[M]")
    month = (months - years.astype("datetime64[M]")).astype(int) + 1
    hour = micros // 3_600_000_000 % 24
    parts = [years.astype(int) + 1970, month, (days + 3) % 7, hour, micros / 86_400_000_000]
    values = np.stack(parts, axis=1).astype(np.float64)
    values[missing] = np.nan
    return values, lost


def _fit_date(column: pa.ChunkedArray) -> _Fitted:
    values, _ = _dates(column)
    state = _fit_dense(values)
    state["flags"][1:] = False  # one flag says it for all five
    return state, "year, month, weekday, hour and day count, " + _filled(int(np.isnan(values[:, 0]).sum()))


def _apply_date(column: pa.ChunkedArray, state: State) -> _Applied:
    values, lost = _dates(column)
    return _apply_dense(values, state), lost


# ---------------------------------------------------------------- booleans, categories, text


def _fit_boolean(column: pa.ChunkedArray) -> _Fitted:
    return {"missing": 0.5}, f"0 or 1, {column.null_count} missing as 0.5" if column.null_count else "0 or 1"


def _apply_boolean(column: pa.ChunkedArray, state: State) -> _Applied:
    values = column if pa.types.is_boolean(column.type) else _cast(column, pa.bool_())
    if values is None:
        text = pc.utf8_lower(_text(column))
        known = pc.is_in(text, pa.array(["true", "false", "1", "0"], text.type))
        values = pc.cast(pc.if_else(known, text, pa.scalar(None, text.type)), pa.bool_())
    numbers = pc.cast(values, pa.float32()).fill_null(float(state["missing"])).to_numpy()
    return np.array(numbers, np.float32)[:, None], values.null_count - column.null_count


def _fit_category(column: pa.ChunkedArray) -> _Fitted:
    counts = {c["values"]: c["counts"] for c in pc.value_counts(_text(column).drop_null()).to_pylist()}
    least = max(2, len(column) // 1000) if len(column) >= 20 else 1
    ranked = sorted(counts, key=lambda value: (-counts[value], value))
    common = [value for value in ranked if counts[value] >= least][:MAX_CATEGORIES]
    rare = sorted(set(ranked) - set(common))
    state = {"values": common, "rare": rare, "missing": bool(column.null_count)}
    said = f"{len(common)} values" + (f", {len(rare)} rare ones as one" if rare else "")
    return state, said + (", missing as a value of its own" if column.null_count else "")


def _apply_category(column: pa.ChunkedArray, state: State) -> _Applied:
    text = _text(column)
    common, rare = state["values"], state["rare"]
    where = pc.index_in(text, pa.array([*common, *rare], pa.large_string()))
    code = np.minimum(where.fill_null(-1).to_numpy(), len(common))
    width = len(common) + bool(rare) + bool(state["missing"])
    block = np.zeros((len(code), width), np.float32)
    known = np.flatnonzero(code >= 0)
    block[known, code[known]] = 1
    if state["missing"]:
        block[:, -1] = text.is_null().to_numpy()
    return block, 0


def _vectorizer(**options: Any) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), dtype=np.float32, **options)


def _fit_text(column: pa.ChunkedArray) -> _Fitted:
    from sklearn.decomposition import TruncatedSVD

    vectorizer = _vectorizer(max_features=20_000)
    try:
        weights = vectorizer.fit_transform(_text(column).fill_null("").to_pylist())
    except ValueError:
        return {}, "no words in it"
    width = min(50, weights.shape[0] - 1, weights.shape[1] - 1)
    if width < 1:
        return {}, "too few different words"
    axes = TruncatedSVD(width, random_state=0).fit(weights).components_.astype(np.float32)
    topics = np.asarray(weights @ axes.T, np.float64)
    words = "\n".join(vectorizer.get_feature_names_out())  # one string: skops stores each list item as a node
    state = {"words": words, "idf": vectorizer.idf_, "axes": axes, "scale": _fit_dense(topics)}
    missing = f", {column.null_count} missing as empty" if column.null_count else ""
    return state, f"TF-IDF, {width} components{missing}"


def _apply_text(column: pa.ChunkedArray, state: State) -> _Applied:
    vectorizer = _vectorizer(vocabulary=state["words"].split("\n"))
    vectorizer.idf_ = state["idf"]
    weights = vectorizer.transform(_text(column).fill_null("").to_pylist())
    return _apply_dense(np.asarray(weights @ state["axes"].T, np.float64), state["scale"]), 0


# ---------------------------------------------------------------- vectors and images


def _vectors(column: pa.ChunkedArray, width: int) -> tuple[Floats, int]:
    """(n, width) float32 with NaN where missing; and how many vectors were of another width or type."""
    if not _is_vector(column.type):
        return np.full((len(column), width), np.nan, np.float32), len(column) - column.null_count
    array = _one(column)
    X = _dense(array)
    if X is not None and X.shape[1] == width:
        return X, 0
    out, lost = np.full((len(array), width), np.nan, np.float32), 0
    for row, vector in enumerate(array.to_pylist()):
        if vector is not None and len(vector) == width:
            out[row] = vector
        else:
            lost += vector is not None
    return out, lost


def _fit_vector(column: pa.ChunkedArray) -> _Fitted:
    array = _one(column)
    width = int(pc.mode(pc.list_value_length(array))[0]["mode"].as_py())
    if not width:
        return {}, "the vectors are empty"
    X, _ = _vectors(column, width)
    low, high = X.min(), X.max()
    if low >= 0 and high <= 1:  # False when there is a NaN
        return {"width": width, "as_is": True, "mean": X.mean(axis=0)}, f"{width} numbers in [0, 1], used as they are"
    values = np.where(np.isfinite(X), X, np.nan).astype(np.float64)
    gaps = int(np.isnan(values).sum())
    inside = not gaps or not ((values < 0) | (values > 1)).any()
    scale = _fit_dense(values)
    scale["flags"][:] = False
    state = {"width": width, "as_is": bool(gaps and inside), "mean": scale["median"].astype(np.float32), "scale": scale}
    how = "in [0, 1], used as they are" if state["as_is"] else "standardised"
    return state, f"{width} numbers {how}" + (f", {gaps} missing filled with the median" if gaps else "")


def _apply_vector(column: pa.ChunkedArray, state: State) -> _Applied:
    X, lost = _vectors(column, int(state["width"]))
    finite = np.isfinite(X)
    if state["as_is"]:
        return (X.copy() if finite.all() else np.where(finite, X, state["mean"])), lost
    return _apply_dense(np.where(finite, X, np.nan).astype(np.float64), state["scale"]), lost


def _encoded_images(column: pa.ChunkedArray) -> list[bytes | None]:
    if not _is_image(column.type):
        return [None] * len(column)
    return [None if value is None else value["bytes"] for value in column.to_pylist()]


def _decode(content: bytes) -> Any:
    """The image, loaded whole; None when it does not decode."""
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(content))
        image.load()
        return image
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError):
        return None


def _fit_image(column: pa.ChunkedArray) -> _Fitted:
    for content in _encoded_images(column):
        image = _decode(content) if content else None
        if image is not None:
            mode = "L" if image.mode in ("1", "L", "I", "F", "I;16") else "RGB"
            width, height = image.size
            colour = "grey" if mode == "L" else "colour"
            return {"mode": mode, "width": width, "height": height}, f"{width} x {height} {colour} pixels in [0, 1]"
    return {}, "no image decodes"


def _apply_image(column: pa.ChunkedArray, state: State) -> _Applied:
    size = (int(state["width"]), int(state["height"]))
    contents = _encoded_images(column)
    out = np.zeros((len(contents), size[0] * size[1] * (1 if state["mode"] == "L" else 3)), np.float32)
    lost = 0
    for row, content in enumerate(contents):
        image = _decode(content) if content else None
        if image is None:
            lost += 1
            continue
        image = image.convert(state["mode"])
        out[row] = np.asarray(image if image.size == size else image.resize(size), np.uint8).ravel()
    out /= 255
    return out, lost


_FIT: Mapping[str, Callable[[pa.ChunkedArray], _Fitted]] = {
    "number": _fit_number,
    "boolean": _fit_boolean,
    "category": _fit_category,
    "text": _fit_text,
    "date": _fit_date,
    "vector": _fit_vector,
    "image": _fit_image,
}
_APPLY: Mapping[str, Callable[[pa.ChunkedArray, State], _Applied]] = {
    "number": _apply_number,
    "boolean": _apply_boolean,
    "category": _apply_category,
    "text": _apply_text,
    "date": _apply_date,
    "vector": _apply_vector,
    "image": _apply_image,
}


# ---------------------------------------------------------------- rows that cannot be used


def bad_feature_rows(
    table: pa.Table, kinds: Mapping[str, str], *, widths: Mapping[str, int] | None = None
) -> dict[int, str]:
    """Rows whose features cannot be used: position -> reason in plain words.

    A vector that is missing, of the wrong width or holds NaN or inf; an image that does not decode; a number
    that is infinite. Missing numbers, text and categories are not bad: the Encoder fills them.
    kinds, widths: of an :class:`Encoder`; without a width the commonest of the column is expected.

    >>> bad_feature_rows(pa.table({"v": [[1.0, 2.0], [1.0], [1.0, float("nan")]]}), {"v": "vector"}, widths={"v": 2})
    {1: 'v: a vector of 1 numbers, expected 2', 2: 'v: a vector with NaN or inf'}
    """
    reasons: dict[int, list[str]] = {}
    for name, kind in kinds.items():
        if name not in table.column_names or kind not in ("vector", "image", "number"):
            continue
        column = _plain(table[name])
        for row, reason in _bad_values(column, kind, (widths or {}).get(name)):
            reasons.setdefault(row, []).append(f"{name}: {reason}")
    return {row: "; ".join(reasons[row]) for row in sorted(reasons)}


def _bad_values(column: pa.ChunkedArray, kind: str, width: int | None) -> Iterator[tuple[int, str]]:
    if kind == "number":
        text = _is_string(column.type)
        if pa.types.is_floating(column.type) or text:
            infinite = pc.match_substring_regex(column, r"(?i)^\s*[+-]?inf(inity)?\s*$") if text else pc.is_inf(column)
            for row in np.flatnonzero(infinite.fill_null(False).to_numpy()).tolist():
                yield row, "an infinite number"
    elif kind == "image":
        for row, content in enumerate(_encoded_images(column)):
            if not content or _decode(content) is None:
                yield row, "an image that does not decode" if content else "no image"
    else:
        yield from _bad_vectors(column, width)


def _bad_vectors(column: pa.ChunkedArray, width: int | None) -> Iterator[tuple[int, str]]:
    if not _is_vector(column.type):
        for row in range(len(column)):
            yield row, f"a value of type {column.type}, expected a vector"
        return
    array = _one(column)
    lengths = pc.list_value_length(array)
    if width is None:
        width = int(pc.mode(lengths)[0]["mode"].as_py()) if array.null_count < len(array) else 0
    X = _dense(array)
    if X is None or X.shape[1] != width:
        X, _ = _vectors(column, width)
    got = lengths.fill_null(-1).to_numpy()
    # A finite sum proves all values finite at a quarter of the cost of looking at each.
    with np.errstate(over="ignore", invalid="ignore"):
        suspects = np.flatnonzero(~np.isfinite(X.sum(axis=1)) | (got != width)).tolist()
    for row in suspects:
        if got[row] < 0:
            yield row, "no vector"
        elif got[row] != width:
            yield row, f"a vector of {got[row]} numbers, expected {width}"
        elif not np.isfinite(X[row]).all():
            yield row, "a vector with NaN or inf"


# ---------------------------------------------------------------- rows as bytes


def row_bytes(table: pa.Table) -> list[bytes]:
    """One byte string per row that covers every column: equal rows give equal bytes, however they are chunked.

    Floats are compared bit by bit, with one NaN and one zero; vectors as float32; images by their encoded bytes;
    everything else as text (the number 7 equals the text "7"). Missing differs from empty. Column names are
    not part of it. Speed: see docs/data.md.

    >>> row_bytes(pa.table({"a": ["", None], "b": [1, 1]}))
    [b'\\x1f1', b'\\\\0\\x1f1']
    """
    plain: list[pa.ChunkedArray] = []
    floats: list[pa.ChunkedArray] = []
    blobs: list[list[bytes]] = []
    for column in map(_plain, table.columns):
        kind = column.type
        if _is_vector(kind):
            blobs.append(_vector_bytes(_one(column)))
        elif _is_image(kind):
            blobs.append(_prefixed(_encoded_images(column)))
        elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
            blobs.append(_prefixed(column.to_pylist()))
        elif pa.types.is_floating(kind):
            floats.append(column)
        else:
            plain.append(_text(column) if _is_number(kind) else _escaped(_text(column)))
    if floats:
        blobs.append(_float_bytes(floats))
    if plain:
        blobs.append(_joined(plain))
    if not blobs:
        return [b""] * table.num_rows
    return blobs[0] if len(blobs) == 1 else [b"".join(parts) for parts in zip(*blobs, strict=True)]


def _float_bytes(columns: list[pa.ChunkedArray]) -> list[bytes]:
    """8 bytes per float, bit by bit: printing decimals would take seven times as long."""
    codes = np.empty((len(columns[0]), len(columns)), np.int64)
    for position, column in enumerate(columns):
        values = np.array(pc.cast(column.fill_null(0), pa.float64()).to_numpy(), np.float64) + 0.0  # no -0.0
        values[np.isnan(values)] = np.nan  # one NaN for all
        codes[:, position] = values.view(np.int64)
        codes[column.is_null().to_numpy(), position] = MISSING_FLOAT
    return cast(list[bytes], codes.view(np.dtype((np.void, codes.shape[1] * 8))).ravel().tolist())


def _escaped(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text in which neither the separator nor the mark of a missing value can occur."""
    for old, new in (("\\", "\\\\"), ("\x1f", "\\u")):
        if pc.any(pc.match_substring(column, old)).as_py():
            column = pc.replace_substring(column, old, new)
    return column


def _joined(columns: list[pa.ChunkedArray]) -> list[bytes]:
    parts = [_one(column) for column in columns]
    separator = pa.scalar("\x1f", pa.large_string())
    joined = pc.binary_join_element_wise(*parts, separator, null_handling="replace", null_replacement="\\0")
    return cast(list[bytes], pc.cast(joined, pa.large_binary()).to_pylist())


def _prefixed(values: Iterable[bytes | None]) -> list[bytes]:
    """Each value behind its length in 8 bytes, so that neighbours cannot run into each other."""
    return [b"\xff" * 8 if v is None else len(v).to_bytes(8, "little") + v for v in values]


def _vector_bytes(array: pa.Array) -> list[bytes]:
    X = _dense(array)
    if X is not None and X.shape[1]:
        return _prefixed(cast(list[bytes], X.view(np.dtype((np.void, X.shape[1] * 4))).ravel().tolist()))
    return _prefixed(None if v is None else np.array(v, np.float32).tobytes() for v in array.to_pylist())


# ---------------------------------------------------------------- Arrow helpers


def _quoted(names: Iterable[object]) -> str:
    return ", ".join(repr(str(name)) for name in names)


def _one(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """One contiguous array."""
    if isinstance(column, pa.Array):
        return column
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Without dictionary encoding."""
    return pc.cast(column, column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return pc.cast(_plain(column), pa.large_string())
    except pa.ArrowException:
        values = [None if v is None else repr(v) for v in column.to_pylist()]
        return pa.chunked_array([pa.array(values, pa.large_string())])


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_vector(kind: pa.DataType) -> bool:
    return _is_list(kind) and (_is_number(kind.value_type) or pa.types.is_boolean(kind.value_type))


def _is_image(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        return False
    inner = kind.field("bytes").type
    return bool(pa.types.is_binary(inner) or pa.types.is_large_binary(inner))


def _dense(array: pa.Array) -> Floats | None:
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
