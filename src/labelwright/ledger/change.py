"""Changing one's mind, on the record: reverting corrections, erasing a person's rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from sqlalchemy import Connection, inspect, select, update

from labelwright.errors import DataError
from labelwright.ledger import schema
from labelwright.ledger.columns import _sha, ipc_bytes, ipc_table, latest_scores
from labelwright.ledger.history import History
from labelwright.ledger.queue_tables import forget
from labelwright.ledger.queue_view import close_reviews, pending_reviews
from labelwright.ledger.schema import transaction
from labelwright.ledger.sql import SqlLedger
from labelwright.ledger.verify import attached_digest
from labelwright.types import KEY_SHIFT, NO_LABEL, Verdict

ERASED = "(erased)"


def revert(
    ledger: SqlLedger,
    *,
    row: str | None = None,
    label: str | None = None,
    batch: str | None = None,
    decider: str | None = None,
    drop: bool = False,
    who: str = "user",
) -> list[dict[str, Any]]:
    """Take back corrections, by row id, class (the new label), batch or decider; filters combine.

    The rows get their given label back (verdict trusted), or with ``drop`` no label (verdict rejected). Returns what
    was reverted. Models that are refitted forget the rows when they are next loaded. Raises DataError when no filter
    is given or nothing matches.
    """
    if row is None and label is None and batch is None and decider is None:
        raise DataError("nothing says what to revert; give a row, a class, a batch or a decider")
    found = History(ledger.engine).corrections(row=row, label=label, batch=batch, decider=decider)
    if not found:
        raise DataError("no correction matches; 'labelwright corrections' lists them all")
    words = {"row": row, "label": label, "batch": batch, "decider": decider}
    return _take_back(ledger, found, words, drop=drop, who=who)


def _take_back(
    ledger: SqlLedger, found: list[dict[str, Any]], words: dict[str, str | None], *, drop: bool, who: str
) -> list[dict[str, Any]]:
    """Enter the end of these corrections; words: the filter that found them."""
    found.sort(key=lambda f: f["key"])
    codes = {name: code for code, name in enumerate(ledger.classes)}
    given = np.array([codes.get(f["given_label"], NO_LABEL) for f in found], np.int64)
    scores = latest_scores(ledger.engine, [f["key"] for f in found])
    score = [scores[f["key"]] for f in found]
    columns = {
        "key": np.array([f["key"] for f in found], np.int64),
        "verdict": np.full(len(found), int(Verdict.REJECTED if drop else Verdict.TRUSTED)),
        "given": given,
        "label": np.full(len(found), NO_LABEL) if drop else given,
        "score": np.array(score, float),
        "proba": np.array(score, float),
        "decider": [f"revert by {who}"] * len(found),
    }
    body = {"filter": words, "who": who, "rows": len(found)}
    with transaction(ledger.engine, writes=True) as connection:
        ledger._enter(connection, "revert", body, batch=words["batch"], attach={"verdicts": columns})
    return found


def carry_out(ledger: SqlLedger) -> int:
    """Take back the corrections that people found wrong, as they said it on the page. Returns how many. A row that is no
    correction by the models any more is left alone."""
    asked, history, done = pending_reviews(ledger.engine), History(ledger.engine), 0
    standing = history.latest([word["key"] for word in asked])
    for word in asked:
        now = standing.get(word["key"])
        if now is None or now["verdict"] != Verdict.CORRECTED:
            continue
        row_id = history.id_of(word["key"])
        found = [{"key": word["key"], "id": row_id, "given_label": history.name(now["given"])}]
        words = {"row": row_id, "label": None, "batch": None, "decider": None}
        _take_back(ledger, found, words, drop=word["verdict"] == "drop", who=word["expert"])
        done += 1
    if asked:
        close_reviews(ledger.engine, asked)
    return done


def erase_rows(ledger: SqlLedger, ids: list[str], *, who: str = "user") -> int:
    """Forget the content of rows (a person's right): their columns and salts become null, their digests stay, so the
    chain still holds. Verdicts and row ids stay. What was kept of rows with these ids that were set aside goes too.
    Returns how many rows were erased. Raises DataError when none is known.
    """
    history = History(ledger.engine)
    keys = sorted({key for row_id in ids for key in history.find(row_id)})
    table = schema.aside
    with transaction(ledger.engine, writes=True) as connection:
        mine = select(table.c.seq, table.c.position).where(table.c.id.in_(ids))
        asides = [(int(seq), int(position)) for seq, position in connection.execute(mine)]
        if not keys and not asides:
            raise DataError(f"none of the rows {ids} is in this ledger; 'labelwright export --all' lists every id")
        payloads = _erased_payloads(connection, keys)
        for seq, position in asides:
            here = (table.c.seq == seq) & (table.c.position == position)
            connection.execute(update(table).where(here).values(content=ERASED))
        left = {str(seq): attached_digest(connection, seq) for seq in sorted({seq for seq, _ in asides})}
        if inspect(connection).has_table("queue_items"):
            forget(connection, keys)
        body = {"keys": keys, "who": who, "payloads": payloads, "aside": left}
        ledger._enter(connection, "erase", body)
    if ledger.engine.dialect.name == "sqlite":
        with ledger.engine.connect() as connection:
            for order in ("COMMIT", "VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"):  # no old page is left behind
                connection.exec_driver_sql(order)
    return len(keys) + len(asides)


def _erased_payloads(connection: Connection, keys: list[int]) -> dict[str, str]:
    """Erase these rows from what is stored of their batches: batch number -> digest of what is left."""
    table, left = schema.payloads, {}
    for number in sorted({key >> KEY_SHIFT for key in keys}):
        data = connection.execute(select(table.c.data).where(table.c.number == number)).scalar()
        if data is None:
            continue
        held = ipc_table(data)
        gone = [key & ((1 << KEY_SHIFT) - 1) for key in keys if key >> KEY_SHIFT == number]
        mask = np.ones(held.num_rows, bool)
        mask[gone] = False
        keep = pa.array(np.where(mask, np.arange(held.num_rows), 0), mask=~mask)
        erased = ipc_bytes(held.take(keep).replace_schema_metadata(held.schema.metadata))
        left[str(number)] = _sha(erased)
        connection.execute(update(table).where(table.c.number == number).values(data=erased))
    return left


__all__ = ["carry_out", "erase_rows", "revert"]
