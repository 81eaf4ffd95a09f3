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

SLACK = 0.02


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
        if all(isinstance(v, bool | np.bool_) for v in present):
            present = present.astype(bool)
        elif all(isinstance(v, int | np.integer | bool | np.bool_) for v in present):
            present = _whole(present)
        elif all(isinstance(v, int | float | np.number) for v in present):
            present = np.array([float(v) for v in present])
        else:
            present = np.array([str(v) for v in present])
    if present.dtype.kind == "S":
        try:
            present = np.char.decode(present, "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"the labels are bytes that are no UTF-8 ({error}); save them as text") from error
    if present.dtype.kind == "f" and not np.isfinite(present).all():
        raise DataError("a label is infinite; expected numbers or names of classes, NaN or None where one is missing")
    if present.dtype.kind == "f" and (present == np.round(present)).all():
        present = present.astype(np.int64)
    codes = np.full(len(values), NO_LABEL, np.int64)
    names, codes[~missing] = _coded(present, columns, width)
    return Labels(codes, names)


def _whole(present: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Whole numbers (m,) object as int64; as text where one is too large."""
    try:
        return present.astype(np.int64)
    except OverflowError:
        return np.array([str(v) for v in present])


def _label_array(labels: Any) -> npt.NDArray[Any]:
    if isinstance(labels, str | os.PathLike):
        labels = load_npy(Path(labels))
    if hasattr(labels, "to_pandas"):  # of Arrow
        labels = labels.to_pandas()
    if hasattr(labels, "to_numpy"):
        labels = labels.to_numpy()
    try:
        values = np.asarray(labels) if not isinstance(labels, list | tuple) else _from_list(labels)
    except ValueError as error:
        raise DataError(f"the labels are no plain list ({error}); expected one label a row, shape (n,)") from error
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
    if values.dtype.kind in "mM":
        return np.isnat(values)
    if values.dtype.kind in "US":
        return np.char.strip(values) == ("" if values.dtype.kind == "U" else b"")
    if values.dtype == object:
        import pandas as pd

        return np.array([bool(pd.isna(v)) if not isinstance(v, str) else not v.strip() for v in values], bool)
    return np.zeros(len(values), bool)


def _coded(
    present: npt.NDArray[Any], columns: Sequence[Any] | None, width: int | None
) -> tuple[npt.NDArray[Any], Ints]:
    if columns is not None:
        return _coded_by_columns(present, np.array(list(columns)))
    if present.dtype.kind == "b" and width in (None, 2):
        return np.array([False, True]), present.astype(np.int64)
    if present.dtype.kind == "b":
        present = present.astype(np.int64)
    if present.dtype.kind in "iu" and width is not None and present.min() >= 0 and present.max() < width:
        return np.arange(width), present.astype(np.int64)
    names, codes = np.unique(present, return_inverse=True)
    if width is not None and len(names) != width:
        raise DataError(
            f"the probabilities have {width} columns but the labels name {len(names)} classes ({_some(names)}); give labels "
            f"0..{width - 1}, or name the columns with classes="
        )
    return names, codes.astype(np.int64)


def _coded_by_columns(present: npt.NDArray[Any], names: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], Ints]:
    """Labels are looked for among the columns' names, numbers as numbers and else as text; whole numbers that are no name
    may be positions."""
    if names.dtype.kind == "f" and (names == np.round(names)).all():
        names = names.astype(np.int64)
    if present.dtype.kind in "iu" and names.dtype.kind == "U" and np.char.isdigit(names).all():  # a file's columns
        names = names.astype(np.int64)
    alike = names.dtype.kind in "biuf" and present.dtype.kind in "biuf"
    sought, wanted = (names, present) if alike else (names.astype(str), present.astype(str))
    order = np.argsort(sought, kind="stable")
    ranked = sought[order]
    if (ranked[1:] == ranked[:-1]).any():
        twice = ranked[1:][ranked[1:] == ranked[:-1]][0].item()
        raise DataError(f"two columns of the probabilities are named {twice!r}; give each class one column")
    at = np.minimum(np.searchsorted(ranked, wanted), len(names) - 1)
    strange = ranked[at] != wanted
    if not strange.any():
        return names, order[at].astype(np.int64)
    if present.dtype.kind in "iu" and not alike and present.min() >= 0 and present.max() < len(names):
        return names, present.astype(np.int64)
    raise DataError(
        f"the label {np.sort(present[strange])[0].item()!r} is none of the columns of the probabilities ({_some(names)}); "
        "give a column for each class, or correct the label"
    )


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
        out = self.unchecked(index)
        self._check(out, index)
        return out

    def unchecked(self, index: Any) -> Floats:
        """The rows at ``index``, float32, as they are."""
        return np.ascontiguousarray(self.array[index], np.float32)

    def _check(self, rows: Floats, index: Any) -> None:
        total = rows @ np.ones(rows.shape[1], np.float32)
        good = np.abs(total - 1) <= SLACK
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
    if isinstance(columns, str | bytes | set | frozenset):
        raise DataError(f"classes={columns!r} is no list of names; give one for each column, in the columns' order")
    array, found = _array_of(source)
    names = found if columns is None else tuple(columns)
    own, said = list(map(str, found or ())), list(map(str, names or ()))
    if own and sorted(said) == sorted(own) and said != own:
        raise DataError(
            f"classes names the columns {_some(np.array(said))}, but they are called {_some(np.array(own))}; leave classes out, or give "
            "the columns in its order"
        )
    if array.dtype.kind not in "fiu":
        raise DataError(
            f"the probabilities are of type {array.dtype}, expected numbers in [0, 1]; give a plain array of floats"
        )
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
    return Probabilities(array, names)


def _array_of(source: Any) -> tuple[npt.NDArray[Any], tuple[Any, ...] | None]:
    """(n, K) numbers, and the columns' own names where they have any."""
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        return _read_parquet(path) if path.suffix.lower() in (".parquet", ".pq") else (load_npy(path), None)
    if hasattr(source, "columns") and hasattr(source, "to_pandas"):  # an Arrow table
        return source.to_pandas().to_numpy(), tuple(source.column_names)
    if hasattr(source, "columns") and hasattr(source, "to_numpy"):
        own: list[Any] = list(source.columns)
        numbered = own == list(range(len(own))) and not isinstance(own[0], bool)  # by pandas, not by the user
        array = source.to_numpy()
        if array.dtype == object and all(getattr(kind, "kind", "O") in "fiu" for kind in source.dtypes):
            array = source.to_numpy(dtype=np.float64, na_value=np.nan)  # nullable numbers of pandas
        return array, None if numbered else tuple(own)
    return source if isinstance(source, np.ndarray) else _as_array(source), None


def _as_array(source: Any) -> npt.NDArray[Any]:
    try:
        return np.asarray(source)
    except ValueError as error:
        raise DataError(
            f"the probabilities are no table of numbers ({error}); give one row a label, all of one length"
        ) from error


def load_npy(path: Path) -> npt.NDArray[Any]:
    """A .npy file as a memory map. Raises SourceError, in one sentence, when it cannot be."""
    if not path.is_file():
        raise SourceError(f"There is no file {path}; check the path.")
    with path.open("rb") as file:
        start = file.read(6)
    if len(start) < 6:
        raise SourceError(
            f"{path} is not a whole .npy file ({len(start)} bytes); it may have ended early: save it again with numpy.save."
        )
    if start != b"\x93NUMPY":
        raise SourceError(f"{path} is no .npy file; save one array with numpy.save, or give a Parquet file.")
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
        schema = pa.schema([field for field in file.schema_arrow if not field.name.startswith("__index_level_")])
        kinds = [pa.types.is_floating(f.type) or pa.types.is_integer(f.type) for f in schema]
        if not all(kinds):
            stranger = schema[kinds.index(False)]
            raise DataError(
                f"column {stranger.name!r} of {path} is of type {stranger.type}; expected one column of numbers a class and "
                "nothing else"
            )
        out = np.empty((file.metadata.num_rows, len(schema)), np.float32)
        start = 0
        for batch in file.iter_batches(65_536, columns=schema.names):
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
    pairs = _answer_pairs(answers, len(labels))
    code = {name: i for i, name in enumerate(labels.names.tolist())}
    by_text = {str(name): i for name, i in code.items()}
    for row, label in pairs:
        if not 0 <= (place := _position(row)) < len(known):
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
        if known[place] not in (NO_LABEL, found):
            raise DataError(
                f"row {row} is answered twice, {labels.names[known[place]]!r} and {label!r}; keep one answer"
            )
        known[place] = found
    return known


def _position(row: Any) -> int:
    """A whole number; -1 for anything else."""
    try:
        return int(row) if not isinstance(row, float) or row.is_integer() else -1
    except (TypeError, ValueError):
        return -1


def _answer_pairs(answers: Any, rows: int) -> list[tuple[Any, Any]]:
    """(position, label) of each answer."""
    if not hasattr(answers, "__len__"):
        raise DataError(
            f"answers={answers!r} are none; give a mapping of position to label, pairs, or one answer a row"
        )
    if isinstance(answers, Mapping):
        return list(answers.items())
    if len(answers) == rows and np.ndim(answers) == 1:
        array = _label_array(answers if isinstance(answers, np.ndarray) else list(answers))
        here = np.flatnonzero(~_missing(array))
        whole = array.dtype.kind in "iu"
        return [(int(i), array[i]) for i in here if not (whole and array[i] == NO_LABEL)]
    if hasattr(answers, "items") and np.ndim(answers) == 1:  # a Series by position
        return list(answers.items())
    values = answers.to_numpy() if hasattr(answers, "to_numpy") else answers
    try:
        return [(row, label) for row, label in values]
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{len(values)} answers were given for {rows} rows; give pairs of position and label, or one answer a row with "
            "missing values"
        ) from error
