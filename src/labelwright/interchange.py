"""Questions and answers for other tools and back: Label Studio's JSON tasks and annotations, CSV and Parquet.

The format is Label Studio's own (its documentation, "Basic Label Studio JSON format" and "raw JSON format of completed
tasks"); its SDK is not needed.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from labelwright.errors import DataError
from labelwright.exports import open_questions
from labelwright.ledger import History
from labelwright.tables import write_bytes, write_tables

MODEL = "labelwright"
CONTROL, TARGET = "label", "row"
KEY = "labelwright_key"
DAY = 86_400
OTHER_KINDS = {"unsure": "unsure", "none": "none", "broken": "broken"}


@dataclass(frozen=True)
class Said:
    """One person's word on a row, as it was found in a file. kind: answer, unsure, none, broken or skip. label: a class's
    name, of an answer."""

    key: int
    expert: str
    kind: str
    label: str | None = None
    seconds: float | None = None


def plain(value: Any) -> Any:
    """A JSON value: bytes (images) as a data URI, dates and everything strange as text, no infinities.

    >>> plain({"bytes": b"\\x89PNG", "path": None}), plain(float("nan")), plain(np.int64(3))
    ('data:image/png;base64,iVBORw==', None, 3)
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, dict) and isinstance(value.get("bytes"), bytes):
        kind = "png" if value["bytes"][:4] == b"\x89PNG" else "jpeg"
        return f"data:image/{kind};base64," + base64.b64encode(value["bytes"]).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list) and all(isinstance(v, int | float) and math.isfinite(v) for v in value):
        return value
    return str(value)


def bytes_of(uri: str) -> bytes | None:
    """The bytes of a data URI; None when it is none."""
    head, found, body = uri.partition(";base64,")
    if not found or not head.startswith("data:"):
        return None
    try:
        return base64.b64decode(body, validate=True)
    except ValueError:
        return None


def prediction(
    label: str, score: float, *, control: str = CONTROL, target: str = TARGET, model: str = MODEL
) -> dict[str, Any]:
    """What the models believe of a row, as Label Studio shows it. score: its probability."""
    result = {"from_name": control, "to_name": target, "type": "choices", "value": {"choices": [label]}}
    return {"model_version": model, "score": round(score, 6), "result": [{**result, "score": round(score, 6)}]}


def tasks(history: History, *, hidden: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The open questions as Label Studio tasks, most valuable first: ``data`` holds the row's own columns (but for the ``hidden``),
    its id, given label and key; ``predictions`` what the models believe."""
    asked = open_questions(history)
    keys, table = history.at(np.sort(np.array([q["key"] for q in asked], np.int64)))
    columns = [name for name in (table.column_names if table is not None else []) if name not in hidden]
    held = {} if table is None else dict(zip(keys.tolist(), table.select(columns).to_pylist(), strict=True))
    out = []
    for question in asked:
        cells = {name: plain(value) for name, value in held.get(question["key"], {}).items()}
        data = {**cells, "id": question["id"], "given_label": question["given_label"], KEY: question["key"]}
        out.append({"data": data, "predictions": [prediction(question["suggestion"], question["confidence"])]})
    return out


def config(history: History, *, hidden: Sequence[str] = ()) -> str:
    """A labelling interface (XML) for :func:`tasks`: pictures, texts or a table, and a choice of the classes.

    Escaped by the library; class names may hold anything.
    """
    import xml.etree.ElementTree as tree

    from labelwright.tables.arrow import is_image

    table = next(
        (found for entry in history.batches() if (found := history.table(int(entry["number"]))) is not None), None
    )
    view = tree.Element("View")
    for field in table.schema if table is not None else ():
        if field.name in hidden:
            continue
        kind = "Image" if is_image(field.type) else "Text"
        tree.SubElement(view, kind, name=TARGET if not len(view) else f"row_{len(view)}", value=f"${field.name}")
    choices = tree.SubElement(view, "Choices", name=CONTROL, toName=TARGET, choice="single", showInline="true")
    for name in history.classes:
        tree.SubElement(choices, "Choice", value=name)
    return tree.tostring(view, encoding="unicode")


def write_tasks(history: History, path: str | Path, *, hidden: Sequence[str] = ()) -> int:
    """Write :func:`tasks` as JSON, and :func:`config` beside it (``.xml``). Returns how many."""
    found = tasks(history, hidden=hidden)
    write_bytes(json.dumps(found, ensure_ascii=False, indent=1).encode(), path)
    write_bytes(config(history, hidden=hidden).encode(), Path(path).with_suffix(".xml"))
    return len(found)


# ------------------------------------------------------------ answers of people, out and in


def answered_tasks(history: History, said: Sequence[Said], *, hidden: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Rows with people's answers as Label Studio's completed tasks: ``annotations`` with who and how long, ``predictions`` as the
    models had them when they asked."""
    keys, table = history.at(np.unique(np.array([word.key for word in said], np.int64)))
    columns = [name for name in (table.column_names if table is not None else []) if name not in hidden]
    held = {} if table is None else dict(zip(keys.tolist(), table.select(columns).to_pylist(), strict=True))
    asked = {int(q["key"]): q for q in history.questions()}
    out: dict[int, dict[str, Any]] = {}
    for word in said:
        question = asked.get(word.key)
        if word.key not in out:
            cells = {name: plain(value) for name, value in held.get(word.key, {}).items()}
            given = history.name(int(question["given"])) if question else None
            task = {
                "id": word.key,
                "data": {**cells, "id": history.id_of(word.key), "given_label": given, KEY: word.key},
            }
            believed = (
                []
                if question is None
                else [prediction(str(history.name(int(question["suggestion"]))), float(question["confidence"]))]
            )
            out[word.key] = {**task, "annotations": [], "predictions": believed}
        out[word.key]["annotations"].append(_annotation(word))
    return list(out.values())


def _annotation(word: Said) -> dict[str, Any]:
    result = []
    if word.kind == "answer":
        result.append({"from_name": CONTROL, "to_name": TARGET, "type": "choices", "value": {"choices": [word.label]}})
    elif word.kind != "skip":
        result.append({"from_name": "kind", "to_name": TARGET, "type": "choices", "value": {"choices": [word.kind]}})
    told = {"completed_by": {"email": word.expert}, "result": result, "was_cancelled": word.kind == "skip"}
    return told | ({} if word.seconds is None else {"lead_time": word.seconds})


def said_in(content: bytes, path: str | Path) -> Iterator[Said]:
    """People's answers in a file: Label Studio's JSON (completed tasks), or CSV or Parquet with the columns ``key`` (or
    ``labelwright_key``), ``label``, and perhaps ``expert``, ``kind`` and ``seconds``. Raises DataError for what is none."""
    suffix = Path(path).suffix.lower()
    if suffix == ".json":
        yield from _said_in_tasks(content, path)
    elif suffix in (".csv", ".parquet"):
        yield from _said_in_table(_table(content, suffix, path), path)
    else:
        raise DataError(f"{path} ends in {suffix!r}; expected .json (Label Studio), .csv or .parquet")


def _said_in_tasks(content: bytes, path: str | Path) -> Iterator[Said]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON ({error}); export from Label Studio as JSON") from error
    if not isinstance(found, list):
        raise DataError(f"{path} holds no list of tasks; export from Label Studio as JSON, not JSON-MIN")
    for place, task in enumerate(found):
        data = task.get("data") if isinstance(task, dict) else None
        if not isinstance(data, dict) or not is_key(data.get(KEY)):
            raise DataError(
                f"task {place} of {path} has no {KEY!r} in its data; only tasks that labelwright wrote can come back"
            )
        annotations = task.get("annotations")
        for annotation in annotations if isinstance(annotations, list) else ():
            word = _word(data[KEY], annotation) if isinstance(annotation, dict) else None
            if word is not None:
                yield word


def _word(key: int, annotation: dict[str, Any]) -> Said | None:
    by = annotation.get("completed_by")
    if isinstance(by, dict):
        by = by.get("email") or by.get("id")
    expert = str(by if by is not None else "label studio")
    seconds = seconds_of(annotation.get("lead_time"))
    if annotation.get("was_cancelled"):
        return Said(key, expert, "skip", seconds=seconds)
    results = annotation.get("result")
    for result in results if isinstance(results, list) else ():
        chosen = (
            result.get("value", {}).get("choices")
            if isinstance(result, dict) and isinstance(result.get("value"), dict)
            else None
        )
        if not (isinstance(chosen, list) and chosen and isinstance(chosen[0], str)):
            continue
        if result.get("from_name") == "kind" and chosen[0] in OTHER_KINDS:
            return Said(key, expert, chosen[0], seconds=seconds)
        return Said(key, expert, "answer", chosen[0], seconds)
    return None


def _table(content: bytes, suffix: str, path: str | Path) -> pa.Table:
    import pyarrow.csv as csv
    import pyarrow.parquet as parquet

    source = pa.BufferReader(content)
    try:
        if suffix == ".csv":
            texts = csv.ConvertOptions(column_types={name: pa.string() for name in ("label", "expert", "kind")})
            return csv.read_csv(source, convert_options=texts)
        return parquet.read_table(source)
    except pa.ArrowException as error:
        raise DataError(f"{path} cannot be read ({str(error).splitlines()[0]})") from error


def _said_in_table(table: pa.Table, path: str | Path) -> Iterator[Said]:
    name = next((name for name in ("key", KEY) if name in table.column_names), None)
    if name is None or "label" not in table.column_names or not pa.types.is_integer(table.schema.field(name).type):
        raise DataError(
            f"{path} has columns {table.column_names}; expected 'key' (whole numbers) and 'label', as labelwright writes them"
        )
    for row in table.to_pylist():
        if not is_key(row[name]):
            continue
        label = None if row["label"] in (None, "") else str(row["label"])
        kind = row.get("kind") or ("answer" if label is not None else "")
        if kind:
            yield Said(
                int(row[name]), str(row.get("expert") or "file"), str(kind), label, seconds_of(row.get("seconds"))
            )


def is_key(value: Any) -> bool:
    """Whether a value can be a row's key: a whole number of 63 bits."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def seconds_of(value: Any) -> float | None:
    """How long an answer took, in seconds; None for what cannot be.

    >>> seconds_of(2), seconds_of("fast"), seconds_of(-1.0), seconds_of(float("inf")), seconds_of(10**400)
    (2.0, None, None, None, None)
    """
    known = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= DAY
    return float(value) if known else None


def write_said(said: Sequence[Said], history: History, path: str | Path) -> int:
    """Write people's answers as CSV or Parquet, one row an answer. Returns how many."""
    ids = [history.id_of(word.key) for word in said]
    columns = {
        "key": pa.array([word.key for word in said], pa.int64()),
        "id": pa.array(ids, pa.string()),
        "expert": pa.array([word.expert for word in said], pa.string()),
        "kind": pa.array([word.kind for word in said], pa.string()),
        "label": pa.array([word.label for word in said], pa.string()),
        "seconds": pa.array([word.seconds for word in said], pa.float64()),
    }
    write_tables(iter([pa.table(columns)]), path)
    return len(said)
