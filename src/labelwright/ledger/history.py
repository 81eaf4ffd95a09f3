"""Reading: what became of each row, batch, question and answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from sqlalchemy import Engine, func, select

from labelwright.errors import DataError, LedgerError
from labelwright.ledger import schema
from labelwright.ledger.columns import SALT_COLUMN, ipc_table
from labelwright.ledger.schema import transaction
from labelwright.packing import unpack
from labelwright.types import KEY_SHIFT, NO_LABEL, Floats, Ints, Verdict


@dataclass(frozen=True)
class Records:
    """The latest word on each row of one batch. All arrays (n,), in the order of the batch.

    label: final class, or NO_LABEL. score: probability that the given label is right. proba: of the label, or of
    the models' best guess where there is none. decider, at: who decided and when.
    """

    keys: Ints
    ids: list[str]
    verdict: Ints
    given: Ints
    label: Ints
    score: Floats
    proba: Floats
    decider: list[str]
    at: list[str]

    @property
    def kept(self) -> Any:
        """(n,) True where the row belongs to the clean data set."""
        return self.label != NO_LABEL


class History:
    """Everything a ledger tells, read-only.

    url: as of :class:`~labelwright.ledger.sql.SqlLedger`. Raises LedgerError when there is no ledger.
    """

    def __init__(self, source: str | Engine):
        self.engine = schema.open_engine(source) if isinstance(source, str) else source
        with transaction(self.engine, writes=False) as connection:
            from sqlalchemy import inspect

            if not inspect(connection).has_table("entries"):
                raise LedgerError(
                    "there is no ledger here; run 'labelwright run' first, or give the right --state folder"
                )
            body = connection.execute(select(schema.entries.c.body).where(schema.entries.c.seq == 1)).scalar()
        held = json.loads(body or '{"settings": {}, "classes": []}')
        self.settings: dict[str, Any] = held["settings"]
        self.classes: tuple[str, ...] = tuple(held["classes"])

    def _rows(self, statement: Any) -> list[Any]:
        with transaction(self.engine, writes=False) as connection:
            return list(connection.execute(statement).all())

    def entries(self, *kinds: str) -> list[dict[str, Any]]:
        """Entries of these kinds in order, bodies parsed."""
        table = schema.entries
        statement = select(table).order_by(table.c.seq)
        if kinds:
            statement = statement.where(table.c.kind.in_(kinds))
        return [{**row._mapping, "body": json.loads(row.body)} for row in self._rows(statement)]

    def batches(self) -> list[dict[str, Any]]:
        """Each committed or recorded batch in order: id, number, at, and what its entry says."""
        return self.entries("batch")

    def alarms(self) -> list[dict[str, Any]]:
        """Alarms of planted labels, and notices, as the newest batch left them; empty where no watch ran."""
        table = schema.entries
        newest = select(table.c.body).where(table.c.kind == "batch").order_by(table.c.seq.desc()).limit(1)
        found = self._rows(newest)
        return list(json.loads(found[0][0]).get("facts", {}).get("poison", {}).get("alarms", [])) if found else []

    def arrivals(self) -> Iterator[dict[str, Any]]:
        """What each delivery of a stream said, in order: its facts, and the ``position`` of the parts that moved; one at a time."""
        table = schema.entries
        mine = select(table.c.body).where(table.c.kind.in_(("batch", "aside"))).order_by(table.c.seq)
        with transaction(self.engine, writes=False) as connection:
            for (body,) in connection.execute(mine).yield_per(500):
                told = json.loads(body).get("stream")
                if told is not None:
                    yield told

    def batch_of(self, batch_id: str) -> int | None:
        """The number of the batch with this id, or None."""
        table = schema.entries
        found = self._rows(select(table.c.number).where(table.c.batch == batch_id, table.c.kind == "batch"))
        return int(found[0][0]) if found else None

    def batch_name(self, number: int) -> str:
        """The id of batch ``number``, or "" when there is none."""
        table = schema.entries
        found = self._rows(select(table.c.batch).where(table.c.number == number, table.c.kind == "batch"))
        return str(found[0][0]) if found else ""

    def records(self, number: int) -> Records:
        """The latest word on each row of batch ``number``."""
        table, low = schema.verdicts, number << KEY_SHIFT
        mine = table.c.key.between(low, low + (1 << KEY_SHIFT) - 1)
        found = self._rows(
            select(table, schema.entries.c.at)
            .join(schema.entries, schema.entries.c.seq == table.c.seq)
            .where(mine)
            .order_by(table.c.key, table.c.seq)
        )
        latest = {int(row.key): row for row in found}
        ids = self.ids_in(number)
        rows = list(latest.values())
        return Records(
            np.array(list(latest), np.int64),
            [ids.get(key, f"{number}:{key - low}") for key in latest],
            np.array([r.verdict for r in rows], np.int64),
            np.array([r.given for r in rows], np.int64),
            np.array([r.label for r in rows], np.int64),
            np.array([r.score for r in rows], float),
            np.array([r.proba for r in rows], float),
            [str(r.decider) for r in rows],
            [str(r.at) for r in rows],
        )

    def ids_in(self, number: int) -> dict[int, str]:
        """Row key -> the user's id, of batch ``number``."""
        table, low = schema.rows, number << KEY_SHIFT
        mine = table.c.key.between(low, low + (1 << KEY_SHIFT) - 1)
        return {int(key): str(row_id) for key, row_id in self._rows(select(table.c.key, table.c.id).where(mine))}

    def all_records(self) -> Iterator[tuple[dict[str, Any], Records]]:
        """(batch entry, its records), batch after batch: memory does not grow with the stream."""
        for entry in self.batches():
            yield entry, self.records(int(entry["number"]))

    def table(self, number: int) -> pa.Table | None:
        """The rows of a batch as the user gave them; erased rows are null. None when they were not stored."""
        data = self._rows(select(schema.payloads.c.data).where(schema.payloads.c.number == number))
        if not data or data[0][0] is None:
            return None
        table = ipc_table(data[0][0])
        return table.drop_columns([SALT_COLUMN])

    def latest(self, keys: list[int]) -> dict[int, dict[str, Any]]:
        """Row key -> the latest word on it: verdict, given, label, proba, decider."""
        table, out = schema.verdicts, dict[int, dict[str, Any]]()
        for start in range(0, len(keys), 500):
            mine = select(table).where(table.c.key.in_(keys[start : start + 500])).order_by(table.c.seq)
            out |= {int(row.key): dict(row._mapping) for row in self._rows(mine)}
        return out

    def each_at(self, keys: Ints, *, reverted: bool = False) -> Iterator[tuple[Ints, pa.Table]]:
        """(found keys, their rows as the user gave them), batch by batch; erased rows are not found, nor those whose
        correction was reverted, unless ``reverted``."""
        gone = set() if reverted else self.reverted()
        for number in np.unique(keys >> KEY_SHIFT):
            data = self._rows(select(schema.payloads.c.data).where(schema.payloads.c.number == int(number)))
            if not data or data[0][0] is None:
                continue
            table = ipc_table(data[0][0])
            here = keys[keys >> KEY_SHIFT == number]
            here = here[np.array([int(key) not in gone for key in here], bool)]
            part = table.take(here & ((1 << KEY_SHIFT) - 1))
            held = ~np.asarray(part.column(SALT_COLUMN).is_null())
            yield here[held], part.filter(pa.array(held)).drop_columns([SALT_COLUMN])

    def at(self, keys: Ints, *, reverted: bool = False) -> tuple[Ints, pa.Table | None]:
        """As :meth:`each_at`, in one table (None: no rows)."""
        from labelwright.tables import together

        parts = list(self.each_at(keys, reverted=reverted))
        if not parts:
            return np.empty(0, np.int64), None
        return np.concatenate([found for found, _ in parts]), together([table for _, table in parts])

    def encoder(self) -> bytes | None:
        """How features are made, or None."""
        s, e = schema.snapshots, schema.entries
        found = self._rows(select(s.c.data).join(e, e.c.seq == s.c.seq).where(e.c.kind == "encoder"))
        return bytes(found[0][0]) if found else None

    def find(self, row_id: str) -> list[int]:
        """Keys of the rows with this id."""
        return [int(k) for (k,) in self._rows(select(schema.rows.c.key).where(schema.rows.c.id == row_id))]

    def id_of(self, key: int) -> str | None:
        """The user's id of a row, or None."""
        found = self._rows(select(schema.rows.c.id).where(schema.rows.c.key == key))
        return str(found[0][0]) if found else None

    def known(self, ids: list[str]) -> dict[str, int]:
        """Which of these row ids the ledger has: id -> key."""
        out: dict[str, int] = {}
        for start in range(0, len(ids), 500):
            part = ids[start : start + 500]
            for key, row_id in self._rows(
                select(schema.rows.c.key, schema.rows.c.id)
                .where(schema.rows.c.id.in_(part))
                .order_by(schema.rows.c.key)
            ):
                out.setdefault(str(row_id), int(key))
        return out

    def story(self, row_id: str) -> dict[str, Any]:
        """All that happened to a row: verdicts, question and answers, in order. Raises DataError when unknown."""
        keys = self.find(row_id)
        if not keys:
            aside = self._rows(select(schema.aside.c.reason).where(schema.aside.c.id == row_id).limit(1))
            if aside:
                raise DataError(f"row {row_id!r} was set aside and never judged: {aside[0][0]}")
            raise DataError(f"no row {row_id!r} in this ledger; 'labelwright export --all' lists every id")
        key = keys[0]
        v, q, a, e = schema.verdicts, schema.questions, schema.answers, schema.entries

        def joined(table: Any) -> list[dict[str, Any]]:
            statement = select(table, e.c.at, e.c.kind, e.c.batch, e.c.number, e.c.body).join(e, e.c.seq == table.c.seq)
            return [dict(r._mapping) for r in self._rows(statement.where(table.c.key == key).order_by(table.c.seq))]

        return {"id": row_id, "key": key, "verdicts": joined(v), "questions": joined(q), "answers": joined(a)}

    def snapshot(self) -> tuple[int, dict[str, Any]] | None:
        """(batch number, parts' state) of the newest commit, or None."""
        s, e = schema.snapshots, schema.entries
        newest = select(e.c.number, s.c.data).join(e, e.c.seq == s.c.seq).where(e.c.kind == "commit")
        found = self._rows(newest.order_by(s.c.seq.desc()).limit(1))
        return (int(found[0][0]), unpack(found[0][1])) if found else None

    def reverted(self) -> set[int]:
        """Keys of rows whose correction was reverted."""
        v, e = schema.verdicts, schema.entries
        found = self._rows(select(v.c.key).join(e, e.c.seq == v.c.seq).where(e.c.kind == "revert"))
        return {int(k) for (k,) in found}

    def erased(self) -> set[int]:
        """Keys of rows whose content was erased."""
        return {int(key) for entry in self.entries("erase") for key in entry["body"]["keys"]}

    def questions(self) -> list[dict[str, Any]]:
        """Every question with its answer (None while open), in the order asked."""
        q, a, r, v = schema.questions, schema.answers, schema.rows, schema.verdicts
        statement = (
            select(q, r.c.id, a.c.label.label("answer"), a.c.expert, a.c.cost, v.c.given)
            .join(r, r.c.key == q.c.key, isouter=True)
            .join(a, a.c.key == q.c.key, isouter=True)
            .join(v, (v.c.key == q.c.key) & (v.c.seq == q.c.seq))
            .order_by(q.c.seq, q.c.value.desc())
        )
        return [dict(row._mapping) for row in self._rows(statement)]

    def aside_known(self, ids: list[str]) -> set[tuple[str, str]]:
        """(id, content) of rows with these ids that were set aside."""
        t, out = schema.aside, set[tuple[str, str]]()
        for start in range(0, len(ids), 500):
            mine = select(t.c.id, t.c.content).where(t.c.id.in_(ids[start : start + 500]))
            out |= {(str(row_id), str(content)) for row_id, content in self._rows(mine)}
        return out

    def set_aside(self) -> list[dict[str, Any]]:
        """Rows that could not be used: batch, position, id, reason, content."""
        t, e = schema.aside, schema.entries
        statement = select(t, e.c.batch).join(e, e.c.seq == t.c.seq).order_by(t.c.seq, t.c.position)
        return [dict(row._mapping) for row in self._rows(statement)]

    def reasons(self, most: int = 1000) -> dict[str, int]:
        """Why rows could not be used, and how many each time: the ``most`` frequent reasons, most rows first."""
        reason, rows = schema.aside.c.reason, func.count()
        statement = select(reason, rows).group_by(reason).order_by(rows.desc(), reason).limit(most)
        return {str(why): int(count) for why, count in self._rows(statement)}

    def corrections(
        self, *, row: str | None = None, label: str | None = None, batch: str | None = None, decider: str | None = None
    ) -> list[dict[str, Any]]:
        """Rows whose final label differs from the given one, newest word only, filtered. label: the *new* class."""
        out = []
        for entry, records in self.all_records():
            if batch is not None and entry["batch"] != batch:
                continue
            changed = np.flatnonzero((records.label != NO_LABEL) & (records.label != records.given))
            for at in changed:
                found = {
                    "key": int(records.keys[at]),
                    "id": records.ids[at],
                    "batch": entry["batch"],
                    "given_label": self.name(int(records.given[at])),
                    "final_label": self.name(int(records.label[at])),
                    "probability": float(records.proba[at]),
                    "decided_by": records.decider[at],
                    "decided_at": records.at[at],
                }
                wanted = ((row, "id"), (label, "final_label"), (decider, "decided_by"))
                if all(value is None or found[name] == value for value, name in wanted):
                    out.append(found)
        return out

    def name(self, label: int) -> str | None:
        """The user's name of a class; None for NO_LABEL."""
        if label == NO_LABEL:
            return None
        return self.classes[label] if 0 <= label < len(self.classes) else str(label)

    def totals(self) -> dict[str, int]:
        """Rows per verdict now, questions, answers, rows set aside, batches."""
        counts = dict.fromkeys((v.word for v in Verdict), 0)
        for _, records in self.all_records():
            for verdict, n in zip(*np.unique(records.verdict, return_counts=True), strict=True):
                counts[Verdict(int(verdict)).word] += int(n)

        def size(table: Any) -> int:
            return int(self._rows(select(func.count()).select_from(table))[0][0])

        counts |= {"questions": size(schema.questions), "answers": size(schema.answers)}
        counts |= {"set_aside": size(schema.aside), "batches": len(self.batches())}
        return counts
