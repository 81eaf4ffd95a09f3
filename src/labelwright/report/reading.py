"""What the report asks the ledger beyond :class:`~labelwright.ledger.History`: one batch, one entry at a time."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from sqlalchemy import func, select

from labelwright.ledger import History, schema
from labelwright.streams import label_text
from labelwright.types import KEY_SHIFT, Ints

UNKNOWN = -1
OTHER = -2
"""A true label that is none of the ledger's classes: known, and equal to no given label."""

REASONS = 200
EXAMPLES = 10


def entries(history: History, kind: str) -> Iterator[dict[str, Any]]:
    """Entries of one kind in order, parsed one at a time: a noise matrix is K x K, so all at once may be too much."""
    table = schema.entries
    for (seq,) in history._rows(select(table.c.seq).where(table.c.kind == kind).order_by(table.c.seq)):
        row = history._rows(select(table).where(table.c.seq == seq))[0]
        yield {**row._mapping, "body": json.loads(row.body)}


def head(history: History) -> tuple[int, str]:
    """(number of entries, chain head); (0, "") for an empty ledger."""
    table = schema.entries
    found = history._rows(select(table.c.seq, table.c.chain).order_by(table.c.seq.desc()).limit(1))
    return (int(found[0].seq), str(found[0].chain)) if found else (0, "")


def answer_order(history: History) -> dict[int, int]:
    """Row key -> the entry of its answer: the order in which answers came."""
    table = schema.answers
    return {
        int(key): int(seq)
        for key, seq in history._rows(select(table.c.key, func.min(table.c.seq)).group_by(table.c.key))
    }


def set_aside(history: History) -> dict[str, Any]:
    """Rows that could not be used: how many, by reason, and the first :data:`EXAMPLES`.

    Reasons that differ only in a quoted value count as one; beyond :data:`REASONS` kinds they are "other reasons".
    """
    table = schema.aside
    count, reasons, examples = 0, Counter[str](), list[dict[str, Any]]()
    for entry in entries(history, "aside"):
        statement = select(table).where(table.c.seq == entry["seq"]).order_by(table.c.position)
        for row in history._rows(statement):
            count += 1
            kind = general(row.reason)
            reasons[kind if kind in reasons or len(reasons) < REASONS else "other reasons"] += 1
            if len(examples) < EXAMPLES:
                found = {"batch": entry["batch"], "position": int(row.position), "id": row.id}
                examples.append({**found, "reason": row.reason, "content": row.content})
    told = [{"reason": reason, "count": n} for reason, n in reasons.most_common()]
    return {"count": count, "reasons": told, "examples": examples}


def general(reason: str) -> str:
    """A reason without what is particular to one row.

    >>> general("id 'r7' came before with other content")
    "id '…' came before with other content"
    """
    return re.sub(r"^(id|label) (?:'[^']*'|\"[^\"]*\")", r"\1 '…'", reason)


def true_labels(history: History, number: int, keys: Ints) -> Ints | None:
    """(n,) true class of each row of batch ``number``; UNKNOWN where missing or erased, OTHER where it is no class.

    None when the run has no truth column or the rows were not stored.
    """
    column = (history.settings.get("columns") or {}).get("truth")
    table = history.table(number) if column else None
    if table is None or column not in table.column_names:
        return None
    codes = {name: code for code, name in enumerate(history.classes)}
    every = np.array([codes.get(t, OTHER) if t else UNKNOWN for t in label_text(table.column(column))], np.int64)
    places = keys & ((1 << KEY_SHIFT) - 1)
    return np.where(places < len(every), every[np.minimum(places, len(every) - 1)], UNKNOWN) if len(every) else None


def stored_rows(history: History, keys: list[int]) -> dict[int, pa.Table]:
    """Row key -> its row as a table of one, where it was stored. An erased row is all null."""
    out: dict[int, pa.Table] = {}
    for number in sorted({key >> KEY_SHIFT for key in keys}):
        table = history.table(number)
        for key in keys:
            place = key & ((1 << KEY_SHIFT) - 1)
            if table is not None and key >> KEY_SHIFT == number and place < table.num_rows:
                out[key] = table.slice(place, 1)
    return out
