"""What a run gives back: the clean data set, the questions, a row's story in plain words."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from labelwright.errors import DataError
from labelwright.ledger import History, Records
from labelwright.tables import together, widened, write_bytes, write_tables
from labelwright.types import Verdict

ADDED = ("id", "given_label", "final_label", "verdict", "label_score", "decided_by", "decided_at")


def export(history: History, output: str | Path, *, everything: bool = False) -> int:
    """Write the clean data set, batch by batch: the user's columns, then :data:`ADDED`. Returns the rows written.

    output: .parquet or .csv. everything: rejected, waiting and unanswered rows too, with an empty final_label.
    A user's column of an added name is renamed ``<name>_original``; the user's own id column serves as ``id``.
    """
    written = 0

    def parts() -> Iterator[pa.Table]:
        nonlocal written
        for part in export_parts(history, everything=everything):
            written += part.num_rows
            yield _alike(part, schema)

    schema = _common_schema(history)

    write_tables(parts(), output)
    return written


def _common_schema(history: History) -> pa.Schema:
    """The user's columns over all batches, as exported: a column that changed its type on the way takes the wider one."""
    tables = (history.table(int(entry["number"])) for entry in history.batches())
    rows = together([table.schema.empty_table() for table in tables if table is not None] or [pa.table({})])
    return _renamed(history, rows).schema


def _alike(part: pa.Table, schema: pa.Schema) -> pa.Table:
    """The part with the columns of the schema first, in its types; a column that the part lacks is empty."""
    columns = {}
    for field in schema:
        held = part.column(field.name) if field.name in part.column_names else pa.nulls(part.num_rows, field.type)
        columns[field.name] = held if held.type == field.type else widened(held, field.type)
    own = [name for name in part.column_names if name not in columns]
    return pa.table({**columns, **{name: part.column(name) for name in own}})


def _renamed(history: History, rows: pa.Table) -> pa.Table:
    """A user's column of an added name becomes ``<name>_original``, but for the id column."""
    mine = history.settings.get("columns", {}).get("id") if history.settings else None
    names = [name if name not in ADDED or name == mine == "id" else f"{name}_original" for name in rows.column_names]
    return rows.rename_columns(names)


def export_parts(history: History, *, everything: bool = False) -> Iterator[pa.Table]:
    """The rows of :func:`export`, one table a batch."""
    found = False
    for entry, records in history.all_records():
        found = True
        yield _part(history, int(entry["number"]), records, everything)
    if not found:
        raise DataError("the ledger holds no batch yet; run 'labelwright run' first")


def _part(history: History, number: int, records: Records, everything: bool) -> pa.Table:
    table = history.table(number)
    rows = pa.table({}) if table is None else _renamed(history, table)
    added: dict[str, Any] = {
        "id": records.ids,
        "given_label": [history.name(int(g)) for g in records.given],
        "final_label": pa.array([history.name(int(f)) for f in records.label], pa.string()),
        "verdict": [Verdict(int(v)).word for v in records.verdict],
        "label_score": np.round(records.score, 6),
        "decided_by": records.decider,
        "decided_at": records.at,
    }
    for name, values in added.items():
        if name not in rows.column_names:
            rows = rows.append_column(name, pa.array(values)) if rows.num_columns else pa.table({name: values})
    return rows if everything else rows.filter(pa.array(records.kept))


def open_questions(history: History) -> list[dict[str, Any]]:
    """Questions without an answer, most valuable first, with what an expert needs to see; not those about rows that
    were erased."""
    erased = history.erased()
    return [
        {
            "id": q["id"],
            "label": "",
            "given_label": history.name(int(q["given"])),
            "suggestion": history.name(int(q["suggestion"])),
            "confidence": round(float(q["confidence"]), 4),
            "key": int(q["key"]),
        }
        for q in history.questions()
        if q["answer"] is None and int(q["key"]) not in erased
    ]


def write_questions(history: History, path: Path) -> int:
    """Write open questions as CSV, with the rows' own columns: an expert fills in ``label`` and saves it as the answers
    file. As Parquet, where the path ends so, with the rows' keys and columns as they are. Returns how many there are."""
    asked = open_questions(history)
    if path.suffix.lower() == ".parquet":
        return _questions_table(history, asked, path)
    keys = np.array([q.pop("key") for q in asked], np.int64)
    found, table = history.at(np.sort(keys))
    shown = {} if table is None else dict(zip(found.tolist(), table.to_pylist(), strict=True))
    out = io.StringIO()
    head = ["id", "label", "given_label", "suggestion", "confidence"]
    truth = history.settings.get("columns", {}).get("truth")
    extra = [name for name in (table.column_names if table is not None else []) if name not in (*head, truth)]
    writer = csv.writer(out)
    writer.writerow([*head, *extra])
    for question, key in zip(asked, keys, strict=True):
        row = shown.get(int(key), {})
        writer.writerow([*(question[name] for name in head), *(_short(row.get(name)) for name in extra)])
    write_bytes(out.getvalue().encode(), path)
    return len(asked)


def _questions_table(history: History, asked: list[dict[str, Any]], path: Path) -> int:
    names = {"id": pa.string(), "label": pa.string(), "given_label": pa.string(), "suggestion": pa.string()}
    told = pa.table({name: pa.array([q[name] or None for q in asked], kind) for name, kind in names.items()})
    told = told.append_column("confidence", pa.array([q["confidence"] for q in asked], pa.float64()))
    told = told.append_column("key", pa.array([q["key"] for q in asked], pa.int64()))
    order = np.argsort(np.array([q["key"] for q in asked], np.int64))
    found, table = history.at(np.array([q["key"] for q in asked], np.int64)[order])
    truth = history.settings.get("columns", {}).get("truth")
    if table is not None and len(found) == len(asked):
        rows = table.take(np.argsort(order))
        for name in rows.column_names:
            if name not in told.column_names and name != truth:
                told = told.append_column(name, rows.column(name))
    write_tables(iter([told]), path)
    return len(asked)


def _short(value: Any) -> str:
    if isinstance(value, dict) and isinstance(value.get("bytes"), bytes):
        value = value.get("path") or f"({len(value['bytes']):,} bytes)"
    text = "" if value is None else str(value)
    return text if len(text) <= 300 else text[:297] + "..."


def explain(history: History, row_id: str) -> list[str]:
    """A row's whole story in plain words, one sentence an event. Raises DataError for an unknown row."""
    story = history.story(row_id)
    first = story["verdicts"][0]
    lines = [
        f"{first['at']}: row {row_id!r} arrived in batch {first['batch']!r} with the label {history.name(first['given'])!r}."
    ]
    events = [(v["seq"], _verdict_sentence(history, v)) for v in story["verdicts"]]
    events += [(q["seq"] + 0.5, _question_sentence(history, q)) for q in story["questions"]]
    events += [(a["seq"], _answer_sentence(history, a)) for a in story["answers"]]
    lines += [text for _, text in sorted(events, key=lambda e: e[0])]
    last = story["verdicts"][-1]
    final = history.name(last["label"])
    lines.append(
        f"Now: {Verdict(last['verdict']).word}" + (f", label {final!r}." if final else ", in no clean data set.")
    )
    return lines


def _verdict_sentence(history: History, v: dict[str, Any]) -> str:
    score = f"the given label is right with probability {v['score']:.3f}"
    given, label, who = history.name(v["given"]), history.name(v["label"]), v["decider"]
    words = {
        Verdict.TRUSTED: f"trusted by the {who}: {score}.",
        Verdict.RESCUED: f"doubted by the quality model, rescued by the {who}: {score}.",
        Verdict.ASKED: "chosen to be put to the expert: " + score + "."
        if v["label"] < 0
        else f"settled by {who}: the label is {label!r}" + (" as given." if label == given else f", not {given!r}."),
        Verdict.CORRECTED: f"corrected by the {who} from {given!r} to {label!r}, with probability {v['proba']:.3f}.",
        Verdict.REJECTED: f"rejected by the {who}: {score}.",
        Verdict.QUARANTINED: f"set apart by the {who}, as part of a suspected attack: {score}.",
        Verdict.BUFFERED: f"doubted by the {who}, held back to be judged again: {score}.",
    }
    if v["kind"] == "revert":
        return (
            f"{v['at']}: {who} took the correction back; the label is {label!r} again."
            if label
            else (f"{v['at']}: {who} took the correction back and dropped the row.")
        )
    return f"{v['at']}: {words[Verdict(v['verdict'])]}"


def _question_sentence(history: History, q: dict[str, Any]) -> str:
    suggestion = history.name(q["suggestion"])
    return (
        f"{q['at']}: asked because of {q['why'].replace('_', ' ')} (value {q['value']:.3f}); "
        f"the models suggested {suggestion!r} with probability {q['confidence']:.3f}."
    )


def _answer_sentence(history: History, a: dict[str, Any]) -> str:
    said = history.name(a["label"])
    return (
        f"{a['at']}: {a['expert']} answered "
        + (f"{said!r}" if said else "that it cannot be said")
        + f" (cost {a['cost']:g})."
    )


def story_json(history: History, row_id: str) -> dict[str, Any]:
    """The story as JSON values."""
    return dict(json.loads(json.dumps(history.story(row_id), default=str)))
