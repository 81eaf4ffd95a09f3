"""People's answers out of the queue into a file, and from a file into the queue."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sqlalchemy import inspect, select

from labelwright.errors import DataError
from labelwright.interchange import Said, answered_tasks, said_in, write_said
from labelwright.ledger import History
from labelwright.ledger.queue import ExpertQueue
from labelwright.ledger.queue_tables import items, replies
from labelwright.ledger.schema import transaction
from labelwright.settings import Settings, StateFolder
from labelwright.tables import write_bytes
from labelwright.types import NO_LABEL

REFUSED = 20


def all_said(history: History) -> list[Said]:
    """Everything that people said, in order, but for the rows that test them."""
    if not inspect(history.engine).has_table("queue_replies"):
        return []
    query = select(replies).join(items, items.c.key == replies.c.key).where(items.c.gold == NO_LABEL)
    with transaction(history.engine, writes=False) as connection:
        rows = connection.execute(query.order_by(replies.c.at, replies.c.key)).all()
    return [Said(row.key, row.expert, row.kind, history.name(row.label), row.seconds) for row in rows]


def hidden_columns(history: History) -> tuple[str, ...]:
    """Columns that people must not see: the true label, where there is one."""
    truth = Settings.of(history.settings).columns.truth
    return () if truth is None else (truth,)


def give_out(state: StateFolder, path: Path) -> int:
    """Write people's answers as Label Studio's JSON, CSV or Parquet, by suffix. Returns how many."""
    history = state.history()
    said = all_said(history)
    if path.suffix.lower() != ".json":
        return write_said(said, history, path)
    tasks = answered_tasks(history, said, hidden=hidden_columns(history))
    write_bytes(json.dumps(tasks, ensure_ascii=False, indent=1).encode(), path)
    return len(said)


def take_in(state: StateFolder, content: bytes, path: Path) -> dict[str, Any]:
    """Take answers from a file into the queue. Returns how many were taken, known before, and late, and sentences about those
    that were refused; a bad one does not stop the others. Raises DataError when the file is none of the kinds."""
    history = state.history()
    settings = Settings.of(history.settings)
    queue = ExpertQueue(history.engine, classes=len(history.classes), overlap=settings.overlap, cost=settings.cost)
    codes = {name: code for code, name in enumerate(history.classes)}
    counts = {"taken": 0, "again": 0, "changed": 0, "late": 0}
    refused: list[str] = []
    for word in said_in(content, path):
        try:
            if word.kind == "answer" and word.label not in codes:
                raise DataError(f"{str(word.label)[:60]!r} is no class")
            label = codes[str(word.label)] if word.kind == "answer" else None
            counts[queue.say(word.expert, word.key, label=label, kind=word.kind, seconds=word.seconds)] += 1
        except DataError as error:
            refused.append(f"row {word.key}: {error}")
    more = [f"and {len(refused) - REFUSED} more"] if len(refused) > REFUSED else []
    counts["taken"] += counts.pop("changed")
    return {**counts, "refused": [*refused[:REFUSED], *more]}
