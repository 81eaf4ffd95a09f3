"""The ledger's tables as columns: Arrow bytes, inserts, and what the loop's objects become."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from sqlalchemy import Connection, Engine, Table, select

from labelwright.errors import LedgerError
from labelwright.ledger import schema
from labelwright.ledger.schema import transaction
from labelwright.types import NO_LABEL, Batch, Ints, Queries, Rows, Split, Verdict

SALT_COLUMN = "__salt__"
KEPT_SNAPSHOTS = 2


def ipc_bytes(table: pa.Table) -> bytes:
    """An Arrow table as compressed IPC bytes."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def ipc_table(data: bytes) -> pa.Table:
    """The table of :func:`ipc_bytes`. Raises LedgerError when damaged."""
    try:
        return pa.ipc.open_stream(data).read_all()
    except (pa.ArrowException, OSError) as error:
        raise LedgerError(f"stored rows cannot be read ({error}); run 'labelwright verify'") from error


def insert_columns(connection: Connection, table: Table, columns: Mapping[str, Any]) -> None:
    """Insert many rows, given column by column, by the driver's own executemany."""
    mark = "?" if connection.dialect.name == "sqlite" else "%s"
    names = ", ".join(columns)
    marks = ", ".join([mark] * len(columns))
    lists = [c.tolist() if isinstance(c, np.ndarray) else c for c in columns.values()]
    connection.exec_driver_sql(f"INSERT INTO {table.name} ({names}) VALUES ({marks})", list(zip(*lists, strict=True)))


def given_labels(engine: Engine, keys: Ints) -> Ints:
    """(n,) the given label of each row, as first recorded."""
    table = schema.verdicts
    out: dict[int, int] = {}
    with transaction(engine, writes=False) as connection:
        for start in range(0, len(keys), 500):
            part = [int(k) for k in keys[start : start + 500]]
            for key, given in connection.execute(select(table.c.key, table.c.given).where(table.c.key.in_(part))):
                out[int(key)] = int(given)
    return np.array([out[int(k)] for k in keys], np.int64)


def latest_scores(engine: Engine, keys: Sequence[int]) -> dict[int, float]:
    """The newest recorded score of each row: the probability that its given label is right."""
    table = schema.verdicts
    out: dict[int, float] = {}
    with transaction(engine, writes=False) as connection:
        for start in range(0, len(keys), 500):
            mine = table.c.key.in_(list(keys[start : start + 500]))
            found = select(table.c.key, table.c.score).where(mine).order_by(table.c.seq)
            out |= {int(key): float(score) for key, score in connection.execute(found)}
    return out


def _verdict_columns(batch: Batch, split: Split) -> dict[str, Any]:
    """The verdicts of a split as table columns, by key; rows that merely wait on in the buffer say nothing new."""
    kept = split.kept
    label = np.where(kept, split.label, NO_LABEL)
    believed = split.posterior
    proba = np.where(kept, believed[np.arange(len(split)), np.maximum(label, 0)], believed.max(axis=1, initial=0.0))
    words = np.array([split.deciders.get(int(v), "selector") for v in Verdict], dtype=object)
    words[Verdict.ASKED] = "pending"
    decider = words[split.verdict]
    decider[split.clean] = "owner"
    news = (split.verdict != Verdict.BUFFERED) | np.isin(split.rows.keys, batch.keys)
    at = np.flatnonzero(news)[np.argsort(split.rows.keys[news], kind="stable")]
    return {
        "key": split.rows.keys[at],
        "verdict": split.verdict[at],
        "given": split.given[at],
        "label": label[at],
        "score": split.label_score[at].astype(float),
        "proba": proba[at].astype(float),
        "decider": decider[at].tolist(),
    }


def _question_columns(queries: Queries) -> dict[str, Any]:
    queries = queries.take(np.argsort(queries.rows.keys, kind="stable"))
    return {
        "key": queries.rows.keys,
        "value": np.nan_to_num(queries.value.astype(float)),
        "suggestion": queries.suggestion,
        "confidence": queries.confidence.astype(float),
        "why": [queries.why] * len(queries),
    }


def _queries_from(asked: Sequence[Any], rows: Rows) -> Queries:
    here = {int(k) for k in rows.keys}
    asked = [row for row in asked if int(row.key) in here]
    return Queries(
        rows,
        np.array([row.value for row in asked], float),
        np.array([row.suggestion for row in asked], np.int64),
        np.array([row.confidence for row in asked], float),
        asked[0].why if asked else "",
    )


def _joined(one: Queries, two: Queries) -> Queries:
    if not len(one):
        return two
    return Queries(
        one.rows.plus(two.rows),
        np.concatenate([one.value, two.value]),
        np.concatenate([one.suggestion, two.suggestion]),
        np.concatenate([one.confidence, two.confidence]),
        two.why or one.why,
    )


def _take(column: Any, order: Ints) -> Any:
    return column[order] if isinstance(column, np.ndarray) else [column[i] for i in order]


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
