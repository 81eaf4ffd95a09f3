"""Labels and probabilities as users have them: arrays, memory maps, files, frames. Checked, never copied whole."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from labelwright.errors import DataError, SourceError
from labelwright.types import NO_LABEL, Bools, Floats, Ints

_SUM = 0.02


@dataclass(frozen=True)
class Labels:
    """codes: (n,) class of each row, NO_LABEL where missing. names: (K,) the classes as the user knows them."""

    codes: Ints
    names: npt.NDArray[Any]

    def __len__(self) -> int:
        return len(self.codes)

    def named(self, codes: Ints) -> npt.NDArray[Any]:
        """(n,) names of classes; None (a whole object array then) where there is none."""
        if (codes >= 0).all():
            return self.names[codes]
        out = np.empty(len(codes), object)
        here = codes >= 0
        out[here] = self.names[codes[here]]
        return out


def read_labels(labels: Any, columns: Sequence[Any] | None, width: int | None) -> Labels:
    """Labels with their classes.

    labels: a sequence, array, Series, or a .npy file. columns: names of the probabilities' columns, where they have
    any. width: number of those columns. Integers 0..K-1 name columns by position; other labels name them in sorted order.
    Raises DataError when labels and columns do not fit.
    """
    values = _label_array(labels)
    missing = _missing(values)
    present = values[~missing]
    if not len(present):
        raise DataError(f"all {len(values)} labels are missing; give at least some labels")
    if present.dtype == object:
        kinds = {bool: int, np.bool_: int}
        if all(isinstance(v, int | np.integer | bool | np.bool_) for v in present):
            present = np.array([kinds.get(type(v), int)(v) for v in present])
        elif all(isinstance(v, int | float | np.number) for v in present):
            present = np.array([float(v) for v in present])
        else:
            present = np.array([str(v) for v in present])
    if present.dtype.kind == "b":
        present = present.astype(np.int64)
    if present.dtype.kind == "f" and (present == np.round(present)).all():
        present = present.astype(np.int64)
    codes = np.full(len(values), NO_LABEL, np.int64)
    names, codes[~missing] = _coded(present, columns, width)
    return Labels(codes, names)


def _label_array(labels: Any) -> npt.NDArray[Any]:
    if isinstance(labels, str | os.PathLike):
        labels = load_npy(Path(labels))
    if hasattr(labels, "to_numpy"):
        labels = labels.to_numpy()
    values = np.asarray(labels) if not isinstance(labels, list | tuple) else _from_list(labels)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise DataError(f"the labels have shape {values.shape}; expected one label a row, shape (n,)")
    if not len(values):
        raise DataError("there are no labels; give one a row")
    return values


def _from_list(labels: Sequence[Any]) -> npt.NDArray[Any]:
    if any(v is None or isinstance(v, str) for v in labels):
        out = np.empty(len(labels), object)
        out[:] = list(labels)
        return out
    return np.asarray(labels)


def _missing(values: npt.NDArray[Any]) -> Bools:
    if values.dtype.kind == "f":
        return np.isnan(values)
    if values.dtype.kind in "US":
        return np.char.strip(values) == ("" if values.dtype.kind == "U" else b"")
    if values.dtype == object:
        import pandas as pd

        return np.array([bool(pd.isna(v)) if not isinstance(v, str) else not v.strip() for v in values], bool)
    return np.zeros(len(values), bool)


def _coded(
    present: npt.NDArray[Any], columns: Sequence[Any] | None, width: int | None
) -> tuple[npt.NDArray[Any], Ints]:
    whole = present.dtype.kind in "iu"
    if columns is not None:
        names = np.array(list(columns))
        if whole and names.dtype.kind not in "iu":
            texts = present.astype(str)
            if not np.isin(np.unique(texts), names).all() and present.min() >= 0 and present.max() < len(names):
                return names, present.astype(np.int64)
            present = texts
        order = np.argsort(names)
        at = np.minimum(np.searchsorted(names[order], present), len(names) - 1)
        strangers = np.unique(present[names[order][at] != present])
        if len(strangers):
            raise DataError(
                f"the label {strangers[0]!r} is none of the columns of the probabilities ({_some(names)}); "
                "give a column for each class, or correct the label"
            )
        return names, order[at].astype(np.int64)
    if whole and width is not None and present.min() >= 0 and present.max() < width:
        return np.arange(width), present.astype(np.int64)
    names, codes = np.unique(present, return_inverse=True)
    if width is not None and len(names) != width:
        raise DataError(
            f"the probabilities have {width} columns but the labels name {len(names)} classes ({_some(names)}); give labels "
            f"0..{width - 1}, or name the columns with classes="
        )
    return names, codes.astype(np.int64)


def _some(names: npt.NDArray[Any]) -> str:
    shown = ", ".join(str(name) for name in names[:6])
    return shown + (", …" if len(names) > 6 else "")


@dataclass(frozen=True)
class Probabilities:
    """(n, K) out-of-sample probabilities, held as they came. columns: their names, if they have any."""

    array: npt.NDArray[Any]
    columns: tuple[Any, ...] | None = None

    def __len__(self) -> int:
        return len(self.array)

    @property
    def classes(self) -> int:
        """K."""
        return int(self.array.shape[1])

    def rows(self, index: Any) -> Floats:
        """The rows at ``index`` (slice, positions), checked, float32.

        Raises DataError for a value that is negative or not a number, and for a row that does not sum to one.
        """
        out = np.ascontiguousarray(self.array[index], np.float32)
        self._check(out, index)
        return out

    def _check(self, rows: Floats, index: Any) -> None:
        total = rows @ np.ones(rows.shape[1], np.float32)
        good = np.abs(total - 1) <= _SUM
        lowest = rows.min() if rows.size else 0.0
        if good.all() and lowest >= 0:
            return
        bad = np.flatnonzero(~good | (rows.min(axis=1) < 0))
        place = int(np.arange(len(self.array))[index][bad[0]])
        row, much = rows[bad[0]], float(total[bad[0]])
        if not np.isfinite(row).all():
            raise DataError(f"row {place} of the probabilities holds NaN or infinity; give finite numbers in [0, 1]")
        if row.min() < 0:
            raise DataError(
                f"row {place} of the probabilities holds {row.min():g}, a negative number; expected probabilities "
                "(apply softmax to scores or logits first)"
            )
        raise DataError(
            f"row {place} of the probabilities sums to {much:g}, expected 1; give probabilities over all classes "
            "(apply softmax to scores, or divide each row by its sum)"
        )


def read_probabilities(source: Any, rows: int | None = None, columns: Sequence[Any] | None = None) -> Probabilities:
    """Probabilities from an array, a frame, a .npy file (mapped, not read), or a Parquet file of one column a class.

    rows: number of labels, to recognise a transposed array. columns: names of the classes.
    Raises SourceError for a file that cannot be read, DataError for a wrong shape or type.
    """
    names = tuple(columns) if columns is not None else None
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if path.suffix in (".parquet", ".pq"):
            array, found = _read_parquet(path)
            names = names or found
        else:
            array = load_npy(path)
    elif hasattr(source, "columns") and hasattr(source, "to_numpy"):
        names = names or tuple(source.columns)
        array = source.to_numpy()
    else:
        array = source if isinstance(source, np.ndarray) else np.asarray(source)
    if array.dtype.kind not in "fiu":
        raise DataError(f"the probabilities are of type {array.dtype}, expected numbers in [0, 1]")
    if array.ndim == 1 and rows is not None and len(array) == rows:
        raise DataError(
            "the probabilities are one number a row; expected one column a class: for two classes give "
            "numpy.stack([1 - p, p], axis=1)"
        )
    if array.ndim != 2:
        raise DataError(f"the probabilities have shape {array.shape}; expected (rows, classes)")
    if rows is not None and len(array) != rows:
        turned = " It looks transposed: pass pred_probs.T." if array.shape[1] == rows else ""
        raise DataError(
            f"there are {rows} labels but the probabilities have shape {array.shape}; expected ({rows}, K).{turned}"
        )
    if array.shape[1] < 2:
        raise DataError(f"the probabilities have {array.shape[1]} column; at least 2 classes are needed")
    if names is not None and len(names) != array.shape[1]:
        raise DataError(
            f"{len(names)} class names were given for {array.shape[1]} columns of probabilities; give one each"
        )
    if names is not None and [str(name) for name in names] == [str(i) for i in range(len(names))]:
        names = None
    return Probabilities(array, names)


def load_npy(path: Path) -> npt.NDArray[Any]:
    """A .npy file as a memory map. Raises SourceError, in one sentence, when it cannot be."""
    if not path.is_file():
        raise SourceError(f"There is no file {path}; check the path.")
    try:
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            if "Python objects" not in str(error) and "object" not in str(error).lower():
                raise
            raise SourceError(
                f"{path} holds Python objects, which are never unpickled; save plain numbers or text with numpy.save."
            ) from error
    except SourceError:
        raise
    except (ValueError, OSError, EOFError) as error:
        raise SourceError(
            f"{path} is not a whole .npy file ({error}); it may have ended early: save it again with numpy.save."
        ) from error


def _read_parquet(path: Path) -> tuple[Floats, tuple[str, ...]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise SourceError(f"There is no file {path}; check the path.")
    try:
        file = pq.ParquetFile(path)
        schema = file.schema_arrow
        kinds = [pa.types.is_floating(f.type) or pa.types.is_integer(f.type) for f in schema]
        if not all(kinds):
            stranger = schema[kinds.index(False)]
            raise DataError(
                f"column {stranger.name!r} of {path} is of type {stranger.type}; expected one column of numbers a class and "
                "nothing else"
            )
        out = np.empty((file.metadata.num_rows, len(schema)), np.float32)
        start = 0
        for batch in file.iter_batches(65_536):
            for column, values in enumerate(batch.columns):
                out[start : start + len(values), column] = values.to_numpy(zero_copy_only=False)
            start += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{path} is not a whole Parquet file ({error}); write it again.") from error
    return out, tuple(schema.names)


def read_answers(answers: Any, labels: Labels) -> Ints:
    """(n,) class that an expert named for each row, NO_LABEL where none did.

    answers: a mapping or pairs (row position -> label), or one label a row with missing values.
    Raises DataError for a row or a label that does not exist.
    """
    known = np.full(len(labels), NO_LABEL, np.int64)
    if answers is None:
        return known
    if isinstance(answers, Mapping):
        pairs = list(answers.items())
    else:
        values = answers.to_numpy() if hasattr(answers, "to_numpy") else answers
        if len(values) == len(labels) and np.ndim(values) == 1:
            array = _label_array(list(values))
            here = np.flatnonzero(~_missing(array))
            whole = array.dtype.kind in "iu"
            pairs = [(int(i), array[i]) for i in here if not (whole and array[i] == NO_LABEL)]
        else:
            pairs = [(int(row), label) for row, label in values]
    code = {name: i for i, name in enumerate(labels.names.tolist())}
    by_text = {str(name): i for name, i in code.items()}
    for row, label in pairs:
        if not 0 <= int(row) < len(known):
            raise DataError(
                f"an answer is about row {row}, but there are rows 0 to {len(known) - 1}; give the row's position"
            )
        plain = label.item() if isinstance(label, np.generic) else label
        found = code.get(plain, by_text.get(str(plain)))
        if found is None and isinstance(plain, float) and plain.is_integer():
            found = by_text.get(str(int(plain)))
        if found is None:
            raise DataError(
                f"the answer for row {row} is {label!r}, expected one of {_some(labels.names)}; correct it, or leave it out"
            )
        known[int(row)] = found
    return known
