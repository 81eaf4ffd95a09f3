"""Does the chain still hold? Finds any edit and names the batch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.exc import DBAPIError

from labelwright.errors import LedgerError
from labelwright.ledger import schema
from labelwright.ledger.chain import DIGEST_BYTES, SALT_BYTES, START, Attached, entry_chain, row_digests
from labelwright.ledger.columns import KEPT_SNAPSHOTS, SALT_COLUMN, _sha, ipc_table
from labelwright.ledger.schema import plain


@dataclass(frozen=True)
class Finding:
    """One place where the ledger is not as it was written. batch: its name, where there is one."""

    seq: int
    batch: str | None
    what: str

    def __str__(self) -> str:
        where = f"batch {self.batch!r}" if self.batch else f"entry {self.seq}"
        return f"{where}: {self.what}"


def verify(engine: Engine, *, head: str | None = None) -> tuple[int, str, list[Finding]]:
    """(entries checked, chain head, findings). head: the chain head that a user noted earlier must still be part of
    the chain, which shows that nothing was cut off the end.

    Reads everything once; memory does not grow with the ledger.
    """
    findings: list[Finding] = []
    count, previous, seen = 0, START, head is None
    try:
        with engine.connect() as connection:
            findings += list(_damage(connection))
            expected, stored = 1, _Stored()
            for entry in connection.execute(select(schema.entries).order_by(schema.entries.c.seq)).yield_per(500):
                stored.read(entry)
                findings += [stored.named(entry, f) for f in _readable(connection, entry, previous, expected, stored)]
                count, previous, expected = count + 1, entry.chain, entry.seq + 1
                seen = seen or entry.chain == head
            findings += [*stored.findings(connection), *_strays(connection, expected - 1)]
    except (DBAPIError, LedgerError, ValueError, TypeError, OverflowError) as error:
        findings.append(Finding(count + 1, None, f"cannot be read: {plain(error)}"))
    if not seen:
        findings.append(
            Finding(count, None, f"the chain head {head} that was noted earlier is missing: entries were cut off")
        )
    return count, previous, findings


def _damage(connection: Connection) -> Iterator[Finding]:
    if connection.dialect.name == "sqlite":
        for (line,) in connection.exec_driver_sql("PRAGMA integrity_check(5)"):
            if line != "ok":
                yield Finding(0, None, f"the database file is damaged: {line}")


def _readable(connection: Connection, entry: Any, previous: str, expected: int, stored: _Stored) -> Iterator[Finding]:
    """What :func:`_entry` finds; a value that cannot even be read is a finding too."""
    try:
        yield from _entry(connection, entry, previous, expected, stored)
    except (DBAPIError, LedgerError, ValueError, TypeError, OverflowError) as error:
        yield Finding(entry.seq, entry.batch, f"the {entry.kind} entry's rows or models cannot be read: {plain(error)}")


def _entry(connection: Connection, entry: Any, previous: str, expected: int, stored: _Stored) -> Iterator[Finding]:
    if entry.seq != expected:
        yield Finding(entry.seq, entry.batch, f"entries {expected} to {entry.seq - 1} are missing before it")
    fields = (entry.seq, entry.kind, entry.batch, entry.number, entry.at, entry.body, entry.attached)
    if entry_chain(previous, fields) != entry.chain:
        yield Finding(entry.seq, entry.batch, f"the {entry.kind} entry was edited")
    try:
        held = attached_digest(connection, entry.seq)
    except (TypeError, ValueError, OverflowError, AttributeError):
        held = "values of another type"
    if entry.kind == "aside":
        stored.asides[entry.seq] = (held, entry.attached, entry.batch)
    elif held != entry.attached:
        yield Finding(entry.seq, entry.batch, f"rows of the {entry.kind} entry were edited, added or removed")
    if entry.kind == "batch":
        yield from _payload(connection, entry)
    if entry.kind in ("commit", "encoder"):
        data = connection.execute(select(schema.snapshots.c.data).where(schema.snapshots.c.seq == entry.seq)).scalar()
        if data is not None and _sha(data) != json.loads(entry.body).get("snapshot"):
            yield Finding(entry.seq, entry.batch, "the stored models were edited")


def attached_digest(connection: Connection, seq: int) -> str:
    """Digest of the rows that other tables hold for an entry."""
    digest = Attached()
    for name, table in schema.ATTACHED.items():
        columns = [c for c in table.c if c.name != "seq"]
        order = next(table.c[name] for name in ("key", "position", "answer") if name in table.c)
        rows = connection.execute(select(*columns).where(table.c.seq == seq).order_by(order)).all()
        digest.table(name, [list(column) for column in zip(*rows, strict=True)])
    table = schema.payloads
    digests = connection.execute(select(table.c.digests).where(table.c.seq == seq)).scalar()
    if digests:
        digest.add(digests)
    return digest.hex()


def _payload(connection: Connection, entry: Any) -> Iterator[Finding]:
    from labelwright.tables import row_bytes

    found = connection.execute(select(schema.payloads).where(schema.payloads.c.seq == entry.seq)).first()
    if found is None or found.data is None:
        return
    if found.number != entry.number:
        yield Finding(entry.seq, entry.batch, "the stored rows were moved to another batch")
    try:
        table = ipc_table(found.data)
    except LedgerError:
        yield Finding(entry.seq, entry.batch, "the stored rows were edited: they cannot be read")
        return
    salts = table.column(SALT_COLUMN).to_pylist()
    content = row_bytes(table.drop_columns([SALT_COLUMN]))
    for at, (salt, text) in enumerate(zip(salts, content, strict=True)):
        noted = found.digests[at * DIGEST_BYTES : (at + 1) * DIGEST_BYTES]
        if salt is not None and row_digests([text], salt.ljust(SALT_BYTES, b"\0")) != noted:
            yield Finding(entry.seq, entry.batch, f"the stored content of row {at} was edited")
            return
    if len(content) * DIGEST_BYTES != len(found.digests):
        yield Finding(entry.seq, entry.batch, "stored rows were added or removed")


class _Stored:
    """What the entries say of the stored rows and models: erasing changes rows on the record."""

    def __init__(self) -> None:
        self.payloads: dict[int, tuple[str, int, str | None]] = {}
        self.models: list[tuple[int, str | None]] = []
        self.encoder: int | None = None
        self.holders: set[int] = set()
        self.asides: dict[int, tuple[str, str, str | None]] = {}
        self.erased: dict[int, str] = {}
        self.names: dict[int, str] = {}

    def read(self, entry: Any) -> None:
        """Take in one entry."""
        try:
            body = json.loads(entry.body)
        except ValueError:
            return  # the chain has told already
        if entry.kind == "batch":
            self.payloads[entry.number] = (body.get("payload", ""), entry.seq, entry.batch)
            self.names[entry.number] = entry.batch
        if entry.kind == "erase":
            for number, digest in body.get("payloads", {}).items():
                _, seq, batch = self.payloads.get(int(number), ("", entry.seq, None))
                self.payloads[int(number)] = (digest, seq, batch)
            self.erased |= {int(seq): digest for seq, digest in body.get("aside", {}).items()}
        if entry.kind == "commit":
            self.models = [*self.models, (entry.seq, entry.batch)][-KEPT_SNAPSHOTS:]
        if entry.kind == "encoder":
            self.encoder = entry.seq
        if entry.kind in ("commit", "encoder"):
            self.holders.add(entry.seq)

    def named(self, entry: Any, finding: Finding) -> Finding:
        """The finding with the name of its batch, where the entry says its number only."""
        return replace(finding, batch=finding.batch or self.names.get(entry.number))

    def findings(self, connection: Connection) -> Iterator[Finding]:
        """Compare with what is stored."""
        held = {number for (number,) in connection.execute(select(schema.payloads.c.number))}
        for number, (digest, seq, batch) in self.payloads.items():
            data = connection.execute(select(schema.payloads.c.data).where(schema.payloads.c.number == number)).scalar()
            if digest and (data is None or _sha(data) != digest):
                yield Finding(seq, batch, "the stored rows were edited or removed")
        for number in held - set(self.payloads):
            yield Finding(0, None, f"stored rows of an unknown batch {number} were added")
        models = {seq for (seq,) in connection.execute(select(schema.snapshots.c.seq))}
        for seq, batch in self.models:
            if seq not in models:
                yield Finding(seq, batch, "the stored models were removed")
        if self.encoder is not None and self.encoder not in models:
            yield Finding(self.encoder, None, "the stored encoder was removed")
        for seq, (digest, written, batch) in self.asides.items():
            if digest != self.erased.get(seq, written):
                yield Finding(seq, batch, "rows of the aside entry were edited, added or removed")
        for seq in models - self.holders:
            yield Finding(seq, None, "stored models were added")


def _strays(connection: Connection, last: int) -> Iterator[Finding]:
    for table in (*schema.ATTACHED.values(), schema.payloads, schema.snapshots):
        known = select(schema.entries.c.seq)
        stray = connection.execute(select(func.count()).select_from(table).where(table.c.seq.not_in(known))).scalar()
        if stray:
            yield Finding(last, None, f"{stray} rows of {table.name} belong to no entry: they were added")
