"""Writing: every step's record, answers and commit."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from sqlalchemy import Connection, Engine, func, select

from labelwright.errors import SettingsError
from labelwright.ledger import schema
from labelwright.ledger.chain import SALT_BYTES, START, Attached, canonical, entry_chain, row_digests
from labelwright.ledger.columns import (
    KEPT_SNAPSHOTS,
    SALT_COLUMN,
    _joined,
    _queries_from,
    _question_columns,
    _sha,
    _take,
    _verdict_columns,
    given_labels,
    insert_columns,
    ipc_bytes,
    latest_scores,
)
from labelwright.ledger.schema import transaction
from labelwright.loop import Parts, answers_about
from labelwright.packing import pack
from labelwright.types import (
    KEY_SHIFT,
    NO_LABEL,
    Answer,
    Answers,
    Arrival,
    Batch,
    Corrections,
    Floats,
    Ints,
    Queries,
    Rows,
    Split,
    Verdict,
)


def now() -> str:
    """This moment, UTC, ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _told(arrival: Arrival) -> dict[str, Any]:
    return {**arrival.facts, "position": dict(arrival.position)}


class SqlLedger:
    """A ledger in SQLite or PostgreSQL; the loop writes to it through the methods of :class:`labelwright.loop.Ledger`.

    url: e.g. ``sqlite:///state/ledger.db``. settings: what the run was started with; a ledger made by other
    settings is refused. One process writes at a time (the caller holds the lock of the state folder).

    >>> ledger = SqlLedger("sqlite://", settings={"label": "y"}, classes=("no", "yes"))
    >>> ledger.seq, ledger.next_number
    (1, 0)
    """

    def __init__(self, url: str, *, settings: Mapping[str, Any], classes: Sequence[str] | None = None):
        self.engine: Engine = schema.open_engine(url)
        self.migrated = schema.migrate(self.engine)
        self.facts: dict[str, Any] = {}
        self._open: Queries = Queries.none()
        self._early: Answers = Answers.none()
        self._recorded: int | None = None
        with transaction(self.engine, writes=False) as connection:
            last = connection.execute(
                select(schema.entries.c.seq, schema.entries.c.chain).order_by(schema.entries.c.seq.desc()).limit(1)
            ).first()
            first = connection.execute(select(schema.entries.c.body).where(schema.entries.c.seq == 1)).scalar()
        if first is not None and classes is not None and not self._started():
            self._clear()
            last = first = None
        self.seq, self.head = (int(last[0]), str(last[1])) if last else (0, START)
        if first is None:
            self.settings = dict(settings)
            self.classes = tuple(classes or ())
            with transaction(self.engine, writes=True) as connection:
                self._enter(connection, "settings", {"settings": self.settings, "classes": list(self.classes)})
        else:
            held = json.loads(first)
            self.settings, self.classes = held["settings"], tuple(held["classes"])
            self._refuse_other(settings, classes)
        self._position()

    def _started(self) -> bool:
        """Whether a batch was recorded, or a site's round."""
        table = schema.entries
        begun = select(table.c.seq).where(table.c.kind.in_(("batch", "commit"))).limit(1)
        with transaction(self.engine, writes=False) as connection:
            return connection.execute(begun).first() is not None

    def _clear(self) -> None:
        """Forget a start that came to nothing (no batch was judged), so that other settings may be tried."""
        with transaction(self.engine, writes=True) as connection:
            for table in schema.metadata.sorted_tables:
                connection.execute(table.delete())

    def _refuse_other(self, settings: Mapping[str, Any], classes: Sequence[str] | None) -> None:
        wanted = json.loads(canonical(dict(settings)))
        other = sorted(k for k in {*wanted, *self.settings} if wanted.get(k) != self.settings.get(k))
        if other:
            told = ", ".join(f"{k}: {self.settings.get(k)!r} then, {wanted.get(k)!r} now" for k in other)
            raise SettingsError(
                f"the state was made by other settings ({told}); use the same settings to go on, or another --state folder"
            )
        if classes is not None and self.classes and tuple(classes) != self.classes:
            raise SettingsError(
                f"the state knows the classes {list(self.classes)}, now they are {list(classes)}; use another --state folder"
            )

    @property
    def recorded(self) -> int | None:
        """The number of a batch that was recorded and not committed, because of a stop."""
        return self._recorded

    def _position(self) -> None:
        """The next batch number, and whether the last recorded batch still lacks its commit."""
        entries = schema.entries
        with transaction(self.engine, writes=False) as connection:
            recorded = connection.execute(select(func.max(entries.c.number)).where(entries.c.kind == "batch")).scalar()
            done = connection.execute(select(func.max(entries.c.number)).where(entries.c.kind == "commit")).scalar()
        recorded = -1 if recorded is None else int(recorded)
        done = -1 if done is None else int(done)
        self._recorded = recorded if recorded > done else None
        self.next_number = done + 1

    # ------------------------------------------------------------ the loop's face

    def record(self, batch: Batch, split: Split, queries: Queries) -> Queries:
        """Write verdicts, rows and questions in one transaction. A batch recorded before a crash is not written again,
        and its questions count as put: none are new."""
        if self._recorded == batch.number:
            return Queries.none(split.rows.X.shape[1])
        columns = _verdict_columns(batch, split)
        body = {
            "rows": len(batch),
            "note": split.note,
            "noise": {"rate": split.noise.rate, "interval": list(split.noise.interval())},
            "transition": np.round(split.noise.transition, 6).tolist(),
            "temperature": split.noise.temperature,
            "facts": dict(split.facts),
        }
        if batch.arrival is not None:
            body["stream"] = _told(batch.arrival)
        with transaction(self.engine, writes=True) as connection:
            if batch.arrival is not None and batch.arrival.aside:
                self._enter_aside(connection, batch.id, batch.arrival.aside)
            attach = {"verdicts": columns, "questions": _question_columns(queries)}
            if batch.ids is not None:
                attach = {"rows": {"key": batch.keys, "id": [str(i) for i in batch.ids]}, **attach}
            digests, stored = self._store_rows(connection, batch)
            body["payload"] = stored
            self._enter(connection, "batch", body, batch=batch.id, number=batch.number, attach=attach, extra=digests)
        self._recorded = batch.number
        self._open = _joined(self._open, queries)
        return queries

    def outstanding(self) -> Queries:
        """Questions without an answer."""
        return self._open

    def unmerged(self) -> Answers:
        """Answers that no commit has taken in."""
        early, self._early = self._early, Answers.none()
        return early

    def note(self, answer: Answer) -> None:
        """Write one answer down and close its question. A second answer to the same question is not written."""
        if answer.key not in self._open.rows.keys:
            return
        with transaction(self.engine, writes=True) as connection:
            columns = {
                "key": [answer.key],
                "label": [answer.label],
                "expert": [answer.expert],
                "cost": [float(answer.cost)],
            }
            number = answer.key >> KEY_SHIFT
            self._enter(connection, "answer", {}, number=number, attach={"answers": columns})
        self._open = self._open.take(self._open.rows.keys != answer.key)

    def commit(self, batch: Batch, split: Split, answers: Answers, fixed: Corrections, parts: Parts) -> None:
        """Write final labels, the parts' state and the position in one transaction."""
        at = {int(key): i for i, key in enumerate(split.rows.keys)}
        given = [int(split.given[at[int(k)]]) for k in fixed.rows.keys]
        believed = {
            int(k): float(split.label_score[at[int(k)]]) for k in (*answers.rows.keys, *fixed.rows.keys) if int(k) in at
        }
        self._settle(batch.id, batch.number, answers, fixed, np.array(given, np.int64), believed, parts)
        self._recorded, self.next_number, self.facts = None, batch.number + 1, {}

    def settle(self, answers: Answers, parts: Parts) -> None:
        """Write late answers' labels and the parts' state in one transaction."""
        none = Corrections.none(answers.rows.X.shape[1])
        self._settle(None, self.next_number - 1, answers, none, none.rows.y, {}, parts)

    def _settle(
        self,
        batch: str | None,
        number: int,
        answers: Answers,
        fixed: Corrections,
        given: Ints,
        believed: Mapping[int, float],
        parts: Parts,
    ) -> None:
        """One commit. given: (n,) of the corrected rows. believed: key -> score, of the rows that were judged just now."""
        data = pack({name: part.state() for name, part in parts.items()})
        said = np.where(answers.label == NO_LABEL, int(Verdict.REJECTED), int(Verdict.ASKED))
        key = np.concatenate([answers.rows.keys, fixed.rows.keys])
        earlier = latest_scores(self.engine, [int(k) for k in key if int(k) not in believed])
        columns: dict[str, Any] = {
            "key": key,
            "verdict": np.concatenate([said, np.full(len(fixed), int(Verdict.CORRECTED))]),
            "given": np.concatenate([answers.rows.y, given]),
            "label": np.concatenate([answers.label, fixed.rows.y]),
            "score": np.array([{**earlier, **believed}[int(k)] for k in key], float),
            "proba": np.concatenate([np.where(answers.label == NO_LABEL, 0.0, 1.0), fixed.probability.astype(float)]),
            "decider": [*answers.experts, *([fixed.by] * len(fixed))],
        }
        order = np.argsort(columns["key"], kind="stable")
        columns = {name: _take(column, order) for name, column in columns.items()}
        body = {"answers": len(answers), "corrections": len(fixed), "snapshot": _sha(data), "facts": self.facts}
        with transaction(self.engine, writes=True) as connection:
            attach = {"verdicts": columns, "merged": self._merge_columns(connection, answers)}
            seq = self._enter(connection, "commit", body, batch=batch, number=number, attach=attach)
            self._keep_snapshot(connection, seq, data)

    def _keep_snapshot(self, connection: Connection, seq: int, data: bytes) -> None:
        """Keep the newest commits' snapshots, drop older ones."""
        table = schema.snapshots
        connection.execute(table.insert().values(seq=seq, data=data))
        commits = select(schema.entries.c.seq).where(schema.entries.c.kind == "commit")
        held = select(table.c.seq).where(table.c.seq.in_(commits)).order_by(table.c.seq.desc())
        old = connection.execute(held).scalars().all()[KEPT_SNAPSHOTS:]
        connection.execute(table.delete().where(table.c.seq.in_(old)))

    def _merge_columns(self, connection: Connection, answers: Answers) -> dict[str, Any]:
        keys = [int(k) for k in answers.rows.keys]
        table = schema.answers
        found = (
            connection.execute(select(table.c.seq).where(table.c.key.in_(keys)).order_by(table.c.seq)) if keys else None
        )
        return {"answer": [] if found is None else [int(seq) for seq in found.scalars()]}

    def keep_encoder(self, data: bytes) -> None:
        """Write down how features are made, once."""
        with transaction(self.engine, writes=True) as connection:
            seq = self._enter(connection, "encoder", {"snapshot": _sha(data)})
            connection.execute(schema.snapshots.insert().values(seq=seq, data=data))

    def measured(self, number: int, facts: Mapping[str, Any]) -> None:
        """Write down what was measured after batch ``number``, e.g. accuracy on test rows."""
        with transaction(self.engine, writes=True) as connection:
            self._enter(connection, "measure", dict(facts), number=number)

    def set_aside(self, batch_id: str, bad: Sequence[tuple[int, str, str, str]]) -> None:
        """Write down rows that could not be used: (position, id, reason, content). Once each, however often delivered."""
        table, entries = schema.aside, schema.entries
        mine = (
            select(table.c.position, table.c.id)
            .join(entries, entries.c.seq == table.c.seq)
            .where(entries.c.batch == batch_id, entries.c.kind == "aside")
        )
        with transaction(self.engine, writes=False) as connection:
            known = {(int(position), str(row_id)) for position, row_id in connection.execute(mine)}
        bad = [b for b in bad if (b[0], b[1]) not in known]
        if not bad:
            return
        with transaction(self.engine, writes=True) as connection:
            self._enter_aside(connection, batch_id, bad)

    def passed_over(self, batch_id: str, arrival: Arrival) -> None:
        """Write down a delivery without a usable new row: what of it was set aside, and where the stream goes on."""
        with transaction(self.engine, writes=True) as connection:
            self._enter_aside(connection, batch_id, arrival.aside, stream=_told(arrival))

    def _enter_aside(
        self,
        connection: Connection,
        batch_id: str,
        bad: Sequence[tuple[int, str, str, str]],
        **more: Any,
    ) -> None:
        position, ids, reason, content = zip(*bad, strict=True) if bad else ((), (), (), ())
        columns = {"position": [*position], "id": [*ids], "reason": [*reason], "content": [*content]}
        attach = {"aside": columns}
        self._enter(connection, "aside", {"rows": len(bad), **more}, batch=batch_id, attach=attach)

    # ------------------------------------------------------------ going on after a stop

    def resume(self, fetch: Callable[[Ints], tuple[Ints, Floats]]) -> None:
        """Load open questions and unmerged answers. fetch: keys -> (found keys, features)."""
        q, a, m = schema.questions, schema.answers, schema.merged
        with transaction(self.engine, writes=False) as connection:
            answered = select(a.c.key)
            asked = connection.execute(
                select(q).where(q.c.key.not_in(answered)).order_by(q.c.seq, q.c.value.desc(), q.c.key)
            ).all()
            taken = select(m.c.answer)
            early = connection.execute(select(a).where(a.c.seq.not_in(taken)).order_by(a.c.seq)).all()
        self._open = _queries_from(asked, self._rows_of([row.key for row in asked], fetch))
        rows = self._rows_of([row.key for row in early], fetch)
        answers = [Answer(int(r.key), int(r.label), str(r.expert), float(r.cost)) for r in early]
        here = set(rows.keys.tolist())
        self._early = answers_about(rows, [x for x in answers if x.key in here])

    def _rows_of(self, keys: Sequence[int], fetch: Callable[[Ints], tuple[Ints, Floats]]) -> Rows:
        """The rows that can still be had, in the order of ``keys``, whatever the order in which they are found."""
        found, X = fetch(np.array(keys, np.int64))
        place = {int(key): at for at, key in enumerate(found)}
        order = np.array([place[int(key)] for key in keys if int(key) in place], np.int64)
        return Rows(X[order], given_labels(self.engine, found[order]), found[order])

    # ------------------------------------------------------------ one entry

    def _enter(
        self,
        connection: Connection,
        kind: str,
        body: Mapping[str, Any],
        *,
        batch: str | None = None,
        number: int | None = None,
        attach: Mapping[str, Mapping[str, Any]] | None = None,
        extra: bytes = b"",
    ) -> int:
        seq = self.seq + 1
        digest = Attached()
        for name, columns in (attach or {}).items():
            size = len(next(iter(columns.values()))) if columns else 0
            if size:
                insert_columns(connection, schema.ATTACHED[name], {"seq": [seq] * size, **columns})
                digest.table(name, list(columns.values()))
        if extra:
            digest.add(extra)
        text, at = canonical(dict(body)), now()
        fields = (seq, kind, batch, number, at, text, digest.hex())
        chain = entry_chain(self.head, fields)
        names = ("seq", "kind", "batch", "number", "at", "body", "attached")
        connection.execute(schema.entries.insert().values(**dict(zip(names, fields, strict=True)), chain=chain))
        # the head moves with the transaction: on failure the exception ends the run before another entry is made
        self.seq, self.head = seq, chain
        return seq

    def _store_rows(self, connection: Connection, batch: Batch) -> tuple[bytes, str]:
        """Store the rows as they came; returns their salted digests, and the digest of what was stored."""
        if batch.table is None:
            return b"", ""
        from labelwright.tables import row_bytes

        salts = os.urandom(SALT_BYTES * len(batch))
        digests = row_digests(row_bytes(batch.table), salts)
        column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(SALT_BYTES), len(batch), [None, pa.py_buffer(salts)])
        data = ipc_bytes(batch.table.append_column(SALT_COLUMN, column))
        values = {"number": batch.number, "seq": self.seq + 1, "data": data, "digests": digests}
        connection.execute(schema.payloads.insert().values(**values))
        return digests, _sha(data)
