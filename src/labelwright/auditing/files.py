"""Files of an audit: the user's table and answers come in; results and questions go out."""

from __future__ import annotations

import csv
import io
import re
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from labelwright.auditing.result import Audit
from labelwright.errors import DataError, SettingsError
from labelwright.streams import Columns, label_text
from labelwright.tables import TableSource, bad_feature_rows, write_bytes, write_table
from labelwright.tables.arrow import is_image

ADDED = ("id", "is_label_issue", "given_label", "predicted_label", "label_score", "probability")
_VERDICTS = ("is_label_issue", "predicted_label", "label_score", "probability")
_EARLIER = re.compile(rf"({'|'.join(ADDED)})(_original(_\d+)?)?$")
_HEAD = ("id", "label", "given_label", "suggestion", "confidence")
_LONGEST = 18
_SHOWN = 5


@dataclass(frozen=True)
class Given:
    """What is to be audited, as the user has it.

    labels: (n,) labels, None where missing, or a .npy file. table: all columns of the user's table. shown: those that
    a person should see beside a label. features: those that models may see. ids, sources, predictions: (n,) or None.
    id_name: the column of the ids. notes: what was odd. aside: label of each row that is set aside, its picture being damaged.
    """

    labels: Any
    table: pa.Table | None = None
    shown: pa.Table | None = None
    features: pa.Table | None = None
    ids: npt.NDArray[Any] | None = None
    sources: npt.NDArray[Any] | None = None
    predictions: npt.NDArray[Any] | None = None
    id_name: str | None = None
    notes: tuple[str, ...] = ()
    aside: Mapping[int, Any] = field(default_factory=dict)


def read_given(source: TableSource, columns: Columns, *, predictions: str | None = None) -> Given:
    """Read a whole table. Label, id, source, predictions and dropped columns are no features.

    predictions: column of what a model predicts. Raises SourceError when a column is not there.
    """
    source.require(*columns.not_features, *((predictions,) if predictions else ()))
    table = next(iter(source.chunks(1 << 62)))
    told_before = set(_VERDICTS) <= set(table.column_names)
    earlier = {name for name in table.column_names if told_before and _EARLIER.match(name)}
    hidden = {*columns.not_features, predictions, *earlier}
    seen = [name for name in table.column_names if name not in hidden]
    told = {columns.label, columns.id, predictions}
    shown = [name for name in table.column_names if name not in told]
    notes: list[str] = []
    if source.skipped_lines:
        notes.append(
            f"{source.skipped_lines:,} {'line' if source.skipped_lines == 1 else 'lines'} of {source.name} had too few or too many "
            "fields and were left out"
        )
    notes += source.notes
    if told_before:
        notes.append("the columns that an earlier audit added (is_label_issue and others) are not learned from")
    said = None if predictions is None else np.array(label_values(table.column(predictions)), object)
    return Given(
        label_values(table.column(columns.label)),
        table=table,
        shown=table.select(shown) if shown else None,
        features=table.select(seen) if seen else None,
        ids=None if columns.id is None else _names(table.column(columns.id)),
        sources=None if columns.source is None else np.array(label_text(table.column(columns.source)), object),
        predictions=said,
        id_name=columns.id,
        notes=tuple(notes),
    )


def without_bad_pictures(given: Given) -> Given:
    """The same without the labels of rows whose picture does not decode, so that none is judged by it; a note names them."""
    table = given.features
    kinds = {} if table is None else {field.name: "image" for field in table.schema if is_image(field.type)}
    bad = {} if table is None else bad_feature_rows(table, kinds)
    if table is None or not bad:
        return given
    names: Any = table["path"].to_pylist() if "path" in table.column_names else range(table.num_rows)
    names = names if given.ids is None else given.ids
    named = ", ".join(str(names[row]) for row in list(bad)[:_SHOWN]) + (", …" if len(bad) > _SHOWN else "")
    have = "1 row has a picture that does" if len(bad) == 1 else f"{len(bad):,} rows have a picture that does"
    note = f"{have} not decode and {'was' if len(bad) == 1 else 'were'} set aside: {named}"
    labels = [None if row in bad else label for row, label in enumerate(given.labels)]
    return replace(given, labels=labels, notes=(*given.notes, note), aside={row: given.labels[row] for row in bad})


def label_values(column: pa.ChunkedArray) -> list[Any]:
    """Labels of a column, None where missing: whole numbers where all are, so that they name columns of probabilities by
    position; text otherwise.

    >>> label_values(pa.chunked_array([["10", None, "9"]])), label_values(pa.chunked_array([["01", "2"]]))
    ([10, None, 9], ['01', '2'])
    """
    texts = label_text(column)
    try:
        numbers = [None if text is None or len(text) > _LONGEST else int(text) for text in texts]
    except ValueError:
        return list(texts)
    same = all(text is None or str(number) == text for text, number in zip(texts, numbers, strict=True))
    return numbers if same else list(texts)


def _names(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """(n,) the rows' names as text; a row without one is called by its place, as ``run`` does."""
    texts = label_text(column)
    return np.array([text or f"(no id, row {at})" for at, text in enumerate(texts)], object)


def read_answers_file(
    path: Path, ids: Sequence[Any] | npt.NDArray[Any] | None, rows: int, classes: Collection[str] = ()
) -> dict[int, str]:
    """What experts answered: row position -> label.

    path: CSV with the columns ``id`` and ``label``, as questions.csv has them; an empty label, or "unsure", is no answer.
    ids: (rows,) names of the rows; without them an id is a position. rows: how many there are. classes: their names, in
    case one of them is named "unsure".
    Raises DataError for a missing column, a row that does not exist, or an id that names several rows.
    """
    said = {name: label for name, label in _said(path).items() if label.lower() != "unsure" or label in classes}
    place: dict[str, int] = {}
    twice: set[str] = set()
    for at, name in enumerate(range(rows) if ids is None else ids):
        text = str(name)
        if text in said:
            if text in place:
                twice.add(text)
            place[text] = at
    strangers = [name for name in said if name not in place]
    if strangers:
        raise DataError(
            f"{path} answers row {strangers[0]!r}, which is not among the rows ({len(strangers)} of {len(said)} answers are "
            "about unknown rows); give the same --id as when the questions were written, or remove these answers"
        )
    if twice:
        name = sorted(twice)[0]
        raise DataError(f"{path} answers row {name!r}, but several rows have that id; make the ids unique")
    return {place[name]: label for name, label in said.items()}


def _said(path: Path) -> dict[str, str]:
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets put a byte order mark first
    except (UnicodeError, OSError) as error:
        raise DataError(f"{path} cannot be read ({error}); save it as CSV in UTF-8") from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    if not {"id", "label"} <= set(reader.fieldnames or ()):
        raise DataError(
            f"{path} has columns {reader.fieldnames}; expected 'id' and 'label': keep the header of questions.csv"
        )
    answers: dict[str, str] = {}
    try:
        for row in reader:
            name, label = (row["id"] or "").strip(), (row["label"] or "").strip()
            if label and answers.setdefault(name, label) != label:
                raise DataError(f"{path} answers row {name!r} twice, {answers[name]!r} and {label!r}; keep one answer")
    except csv.Error as error:
        raise DataError(f"{path} cannot be read as CSV ({error}); save questions.csv again with short cells") from error
    return answers


def result_table(audit: Audit, given: Given) -> pa.Table:
    """(n rows) the user's columns, then :data:`ADDED`; a user's column of an added name becomes ``<name>_original``, but for
    an id column that is named ``id``."""
    issues = audit.issues
    for name in ("given_label", "predicted_label", "probability") if given.aside else ():
        cells = issues[name].astype(object).to_numpy()
        for row, label in given.aside.items():
            cells[row] = label if name == "given_label" else None
        issues[name] = cells
    ids = np.arange(len(audit)) if audit.ids is None else audit.ids
    added: dict[str, Any] = {"id": pa.array(ids)}
    added |= {name: pa.array(issues[name].to_numpy(), from_pandas=True) for name in issues.columns}
    table = given.table
    if table is None:
        return pa.table(added)
    if given.id_name == "id":
        added.pop("id")
    table = table.rename_columns(_renamed(table.column_names, added))
    for name, values in added.items():
        table = table.append_column(name, values)
    return table


def _renamed(names: Sequence[str], added: Collection[str]) -> list[str]:
    """The user's columns; one of an added name is ``<name>_original``, and numbered where that is taken, too.

    >>> _renamed(["id", "id_original", "x"], ["id"])
    ['id_original_2', 'id_original', 'x']
    """
    taken, out = {*names, *added}, list[str]()
    for name in names:
        new, count = name, 1
        while name in added and new in taken:
            new, count = f"{name}_original" + (f"_{count}" if count > 1 else ""), count + 1
        taken.add(new)
        out.append(new)
    return out


def write_result(audit: Audit, given: Given, path: Path) -> None:
    """Write :func:`result_table` as CSV or Parquet. Raises SourceError when it cannot be written."""
    write_table(result_table(audit, given), path)


def write_audit_questions(audit: Audit, count: int, path: Path, purpose: str = "find") -> int:
    """Write the ``count`` rows worth asking about as CSV, with the rows' own columns: an expert fills in ``label`` and saves
    it as the answers file. purpose: see :meth:`Audit.questions`. Returns how many there are."""
    from labelwright.report.rows import shortened

    asked = audit.questions(count, purpose=purpose)
    at = asked["position"].to_numpy()
    rows = [{}] * len(at) if audit.rows is None else audit.rows.take(at).to_pylist()
    extra = [name for name in (() if audit.rows is None else audit.rows.column_names) if name not in _HEAD]
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([*_HEAD, *extra])
    for place, row, q in zip(at, rows, asked.itertuples(), strict=True):
        name = place if audit.ids is None else audit.ids[place]
        cells = ("" if row[key] is None else shortened(row[key], 300) for key in extra)
        writer.writerow([name, "", q.given_label, q.predicted_label, f"{q.probability:.4f}", *cells])
    write_bytes(out.getvalue().encode(), path)
    return len(at)


def check_places(wanted: Mapping[str, Path | None], read: Mapping[str, Path | None] | None = None) -> None:
    """Say before the work, not after it, that a file cannot be written, or would take the place of one that is read or written, too.

    wanted: option -> path. read: what is read, in the same way. Raises SettingsError.
    """
    taken = {path.resolve(): what for what, path in (read or {}).items() if path is not None}
    for option, path in wanted.items():
        if path is None:
            continue
        if not path.parent.is_dir():
            raise SettingsError(f"{option} {path} is in a folder that does not exist; make it, or choose another")
        if path.is_dir():
            raise SettingsError(f"{option} {path} is a folder; give the name of a file")
        if (other := taken.setdefault(path.resolve(), option)) != option:
            raise SettingsError(f"{option} {path} would overwrite {other} {path}; name another file")
        try:
            with tempfile.TemporaryFile(dir=path.parent):
                pass
        except OSError as error:
            raise SettingsError(f"{option} {path} cannot be written ({error.strerror}); name another folder") from error
