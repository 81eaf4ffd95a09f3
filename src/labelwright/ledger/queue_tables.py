"""The tables of the experts' queue: questions, leases, replies, people, and what people think of corrections."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Float,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    delete,
    func,
    select,
)

from labelwright.ledger.schema import transaction

tables = MetaData()
items = Table(
    "queue_items",
    tables,
    Column("key", BigInteger, primary_key=True, autoincrement=False),
    Column("given", Integer, nullable=False),
    Column("suggestion", Integer, nullable=False),
    Column("confidence", Float(53), nullable=False),
    Column("value", Float(53), nullable=False),
    Column("why", Text, nullable=False),  # the measure that chose it
    Column("near", Integer, nullable=False),  # rows of one bucket look alike
    Column("wanted", Integer, nullable=False),  # answers that are still to come
    Column("open", Integer, nullable=False),  # 1 while any is: an equality, so that the index gives the order
    Column("taken", Integer, nullable=False),  # the loop has it
    Column(
        "gold", Integer, nullable=False
    ),  # the class that the owner vouches for, of rows that test people; else NO_LABEL
    Column("decided", Integer, nullable=False),  # the class that a lead chose where people disagreed; else NO_LABEL
    Column("decided_by", Text, nullable=False),
)
replies = Table(
    "queue_replies",
    tables,
    Column("key", BigInteger, primary_key=True, autoincrement=False),
    Column("expert", Text, primary_key=True),
    Column("kind", Text, nullable=False),  # answer, unsure, none, broken, skip
    Column("label", Integer, nullable=False),
    Column("at", Float(53), nullable=False),
    Column("seconds", Float(53)),
    Column("blind", Integer, nullable=False),  # the suggestion was not shown
)
leases = Table(
    "queue_leases",
    tables,
    Column("key", BigInteger, primary_key=True, autoincrement=False),
    Column("expert", Text, primary_key=True),
    Column("since", Float(53), nullable=False),
    Column("until", Float(53), nullable=False),
)
people = Table(
    "queue_people",
    tables,
    Column("name", Text, primary_key=True),
    Column("digest", Text, nullable=False, unique=True),  # sha256 of the token; the token itself is nowhere
    Column("lead", Integer, nullable=False),
    Column("since", Float(53), nullable=False),
)
reviews = Table(  # what people say of corrections that the models made; the loop carries it out
    "queue_reviews",
    tables,
    Column("key", BigInteger, primary_key=True, autoincrement=False),
    Column("expert", Text, nullable=False),
    Column("verdict", Text, nullable=False),  # right, given (take it back), drop
    Column("at", Float(53), nullable=False),
    Column("done", Integer, nullable=False),
)
facts = Table("queue_facts", tables, Column("name", Text, primary_key=True), Column("value", Text, nullable=False))
Index("ix_queue_open", items.c.open, items.c.value.desc(), items.c.key)
Index("ix_queue_gold", items.c.gold)
Index("ix_queue_expert", replies.c.expert, replies.c.at)
Index("ix_queue_at", replies.c.at)
Index("ix_queue_lease", leases.c.expert)

_LOCK = 7_115_120


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction of the queue's one writer at a time."""
    with transaction(engine, writes=True) as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
        yield connection


def forget(connection: Connection, keys: Sequence[int]) -> None:
    """Delete whatever the queue holds of these rows."""
    for start in range(0, len(keys), 500):
        for table in (items, leases, replies, reviews):
            connection.execute(delete(table).where(table.c.key.in_(keys[start : start + 500])))


def create(engine: Engine) -> None:
    """Make the tables that are not there."""
    with writing(engine) as connection:
        tables.create_all(connection)
