"""Where tables come from: files, folders, arrays, data frames."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from labelwright.errors import SourceError
from labelwright.tables.arrow import contiguous, quoted
from labelwright.tables.chunked import TableSource
from labelwright.tables.files import CSV_SUFFIXES, PARQUET_SUFFIXES, open_csv, open_parquet, suffix_of
from labelwright.tables.pictures import find_pictures, open_pictures, unlabelled_pictures
from labelwright.tables.vectors import picture_column
from labelwright.types import Floats

if TYPE_CHECKING:
    import pandas as pd


def open_source(source: str | Path | pa.Table | pd.DataFrame, *, unlabelled: bool = False) -> TableSource:
    """Open a table to be read in chunks.

    source: path of a .csv, .csv.gz, .tsv, .parquet or .npz file; a folder of CSV or Parquet files with the same
    columns, read in the order of their names; a folder with a sub-folder of pictures per class; a pandas DataFrame; a
    pyarrow Table. An .npz holds ``X`` (n, d), which becomes the vector column ``x``, ``y`` (n,), which becomes ``label``,
    and other arrays of n values; an ``X`` of bytes, (n, height, width[, 1 or 3]), becomes pictures. Pictures become ``image``,
    ``label`` (the sub-folder) and ``path``, which can serve as the id; classes are mixed, in an order that depends on the names only.
    unlabelled: one picture, or a folder in which pictures lie without sub-folders, will do, too; their ``label`` is missing.
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
        return _open_folder(path, unlabelled)
    if not path.is_file():
        raise SourceError(f"There is no file or folder {path}; check the path.")
    suffix = suffix_of(path)
    if suffix == ".npz":
        return _open_npz(path)
    if suffix in CSV_SUFFIXES:
        return open_csv(str(path), [path])
    if suffix in PARQUET_SUFFIXES:
        return open_parquet(str(path), [path])
    lying = unlabelled_pictures(path)
    if lying is not None and unlabelled:
        return open_pictures(lying)
    raise SourceError(
        f"{path} is one picture; name a folder with a sub-folder of pictures per class."
        if lying is not None
        else f"{path} is of an unknown kind; expected {', '.join(CSV_SUFFIXES)}, .parquet or .npz: convert it."
    )


def _open_folder(folder: Path, unlabelled: bool) -> TableSource:
    files = sorted(f for f in folder.iterdir() if f.is_file() and f.name[0] not in "._")
    by_csv = [f for f in files if suffix_of(f) in CSV_SUFFIXES]
    by_parquet = [f for f in files if suffix_of(f) in PARQUET_SUFFIXES]
    if not by_csv and not by_parquet:
        pictures = find_pictures(folder) or (unlabelled_pictures(folder) if unlabelled else None)
        if pictures is not None:
            return open_pictures(pictures)
        raise SourceError(
            f"The folder {folder} holds no CSV or Parquet file, nor a sub-folder of pictures per class; "
            "put the data there or name another."
        )
    if by_csv and by_parquet:
        raise SourceError(f"The folder {folder} holds both CSV and Parquet files; keep one kind.")
    return open_csv(str(folder), by_csv) if by_csv else open_parquet(str(folder), by_parquet)


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
            columns.append(pa.chunked_array([contiguous(pa.array(series, from_pandas=True))]))
        except pa.ArrowException:  # a column of mixed Python objects: read it as text
            text = [None if missing else str(value) for value, missing in zip(series, series.isna(), strict=True)]
            columns.append(pa.chunked_array([pa.array(text, pa.string())]))
    return pa.Table.from_arrays(columns, names=[str(name) for name in frame.columns])


def _open_npz(path: Path) -> TableSource:
    X, others = _read_npz(path)
    if X.dtype != np.uint8 or X.ndim not in (3, 4) or (X.ndim == 4 and X.shape[3] not in (1, 3)):
        return _from_table(pa.table({"x": vector_column(X.reshape(len(X), -1)), **others}), str(path))
    pictures, rest = X.reshape(*X.shape[:3], -1), pa.table(others)

    def read(source: TableSource, rows: int) -> Iterator[pa.Table]:
        for start in range(0, len(pictures), rows):
            part = rest.slice(start, rows)
            some = pictures[start : start + rows]
            image = picture_column(some, [f"{start + at}.png" for at in range(len(some))])
            yield pa.table([image, *part.columns], ["image", *part.column_names])

    return TableSource(str(path), ("image", *rest.column_names), len(pictures), read)


def _read_npz(path: Path) -> tuple[Any, dict[str, pa.Array]]:
    """(X (n, …) as it is, the other columns)."""
    try:
        with np.load(path, allow_pickle=False) as loaded:
            arrays = {name: loaded[name] for name in loaded.files}
    except (ValueError, OSError, EOFError, KeyError) as error:
        raise SourceError(f"{path} cannot be read as plain arrays ({error}); save them with numpy.savez.") from error
    except Exception as error:  # zipfile.BadZipFile and zlib.error, not imported for this line
        raise SourceError(f"{path} is damaged ({error}); save it again with numpy.savez.") from error
    if "X" not in arrays or arrays["X"].ndim < 2 or arrays["X"].dtype.kind not in "iufb":
        raise SourceError(f"{path} holds {quoted(arrays)}, expected numbers X of shape (n, d) and y; save those.")
    X = np.ascontiguousarray(arrays.pop("X"))
    if not len(X):
        raise SourceError(f"{path} has no rows; give at least one.")
    if "y" in arrays and arrays["y"].shape != (len(X),):
        raise SourceError(f"{path} has {len(X)} rows in X but y of shape {arrays['y'].shape}; give one y per row.")
    fitting = {name: values for name, values in arrays.items() if values.shape == (len(X),)}
    return X, {"label" if name == "y" else name: pa.array(values) for name, values in fitting.items()}


def vector_column(X: Floats) -> pa.FixedSizeListArray:
    """(n, d) numbers as one Arrow column of float32 vectors.

    >>> vector_column(np.eye(2)).type
    FixedSizeListType(fixed_size_list<item: float>[2])
    """
    flat = pa.array(np.ascontiguousarray(X, np.float32).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, X.shape[1])
