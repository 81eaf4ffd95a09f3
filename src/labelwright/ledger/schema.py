"""The tables of the ledger, how an engine is opened, and how older ledgers are migrated."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    create_engine,
    event,
    inspect,
)
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from labelwright.errors import LedgerError, SettingsError

metadata = MetaData()

entries = Table(
    "entries",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),  # settings, batch, answer, commit, revert, erase, note
    Column("batch", Text),
    Column("number", BigInteger),
    Column("at", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("attached", Text, nullable=False),  # digest of the rows that other tables hold for this entry
    Column("chain", Text, nullable=False),  # sha256(previous chain, everything above)
)
rows = Table(
    "rows",
    metadata,
    Column("key", BigInteger, primary_key=True, autoincrement=False),
    Column("id", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
payloads = Table(  # the rows as they came; the chain holds salted digests, so erasing leaves it whole
    "payloads",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    Column("data", LargeBinary),
    Column("digests", LargeBinary, nullable=False),
)
verdicts = Table(
    "verdicts",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("key", BigInteger, primary_key=True, autoincrement=False),
    Column("verdict", SmallInteger, nullable=False),
    Column("given", Integer, nullable=False),
    Column("label", Integer, nullable=False),
    Column("score", Float(53), nullable=False),
    Column("proba", Float(53), nullable=False),
    Column("decider", Text, nullable=False),
    sqlite_with_rowid=False,
)
questions = Table(
    "questions",
    metadata,
    Column("seq", BigInteger, nullable=False),
    Column("key", BigInteger, primary_key=True, autoincrement=False),
    Column("value", Float(53), nullable=False),
    Column("suggestion", Integer, nullable=False),
    Column("confidence", Float(53), nullable=False),
    Column("why", Text, nullable=False),
)
answers = Table(
    "answers",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("key", BigInteger, nullable=False),
    Column("label", Integer, nullable=False),
    Column("expert", Text, nullable=False),
    Column("cost", Float(53), nullable=False),
)
merged = Table(  # which answers a commit has taken into the models
    "merged",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("answer", BigInteger, primary_key=True, autoincrement=False),
)
aside = Table(
    "aside",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("id", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("content", Text, nullable=False),
)
snapshots = Table(
    "snapshots",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),
)
Index("ix_verdicts_key", verdicts.c.key)
Index("ix_rows_id", rows.c.id)
Index("ix_entries_batch", entries.c.batch)

ATTACHED = {table.name: table for table in (rows, verdicts, questions, answers, merged, aside)}
"""Tables whose rows belong to an entry by ``seq`` and are covered by its ``attached`` digest."""


def open_engine(url: str) -> Engine:
    """An engine whose write transactions are BEGIN IMMEDIATE on SQLite. Raises SettingsError on a bad URL."""
    try:
        engine = create_engine(url)
    except (SQLAlchemyError, ModuleNotFoundError) as error:
        raise SettingsError(
            f"the ledger address {without_password(url)!r} cannot be used ({error}); expected e.g. sqlite:///state/ledger.db, or "
            "postgresql+psycopg://user@host/name with the 'postgres' extra installed"
        ) from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def without_password(url: str) -> str:
    """The address as it may be shown.

    >>> without_password("postgresql://ann:secret@host/db")
    'postgresql://ann:***@host/db'
    """
    return re.sub(r"://([^:@/]*):[^@]*@", r"://\1:***@", url)


def _prepare_sqlite(connection: Any, record: Any) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=10000", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("labelwright_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def transaction(engine: Engine, *, writes: bool) -> Iterator[Connection]:
    """A transaction whose failures are plain LedgerErrors."""
    try:
        with engine.connect().execution_options(labelwright_writes=writes) as connection, connection.begin():
            yield connection
    except DBAPIError as error:
        raise LedgerError(plain(error)) from error


def plain(error: Exception) -> str:
    """A database error as one sentence with a remedy."""
    text = str(getattr(error, "orig", error)).strip().splitlines()[0]
    remedies = {
        "disk is full": "free some space and run the same command again; everything up to the last batch is safe",
        "disk I/O error": "check the disk and its free space, then run the same command again; "
        "everything up to the last batch is safe",
        "readonly": "make the state folder writable",
        "unable to open": "check that the state folder exists and is writable",
        "locked": "another process is writing; wait for it or end it, then run the same command again",
        "not a database": "the file is damaged or is no ledger; restore it from a backup",
        "malformed": "the file is damaged; restore it from a backup",
        "connection": "check that the database server runs and the address is right",
    }
    for sign, remedy in remedies.items():
        if sign in text:
            return f"the ledger could not be used: {text}; {remedy}"
    return f"the ledger could not be used: {text}; see docs/ledger.md"


def migrate(engine: Engine) -> bool:
    """Bring the ledger's tables to this version with Alembic. True when something was there before and changed.

    Raises LedgerError when the ledger was written by a newer version.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    head = ScriptDirectory.from_config(config).get_current_head()
    with transaction(engine, writes=False) as connection:
        present = MigrationContext.configure(connection).get_current_revision()
        filled = inspect(connection).has_table("entries")
    if present == head:
        return False
    if not filled:
        with transaction(engine, writes=True) as connection:
            metadata.create_all(connection)
            config.attributes["connection"] = connection
            command.stamp(config, "head")
        return False
    try:
        with transaction(engine, writes=True) as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except CommandError as error:
        raise LedgerError(
            f"the ledger was written by a newer version (schema {present}, this version knows {head}); "
            "upgrade labelwright and run the same command again"
        ) from error
    return True
