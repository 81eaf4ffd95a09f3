"""The questions that wait for people: served by value, leased, answered, taken back; shared by any number of processes.

The loop puts questions in and collects answers; pages and scripts lease items to people and take their answers. What people say
lies here until the loop writes it into the ledger's chain, so answers wait while the loop is down.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Float,
    Index,
    Integer,
    MetaData,
    Row,
    Table,
    Text,
    and_,
    delete,
    exists,
    func,
    insert,
    select,
    update,
)

from labelwright.errors import DataError, SettingsError
from labelwright.ledger.schema import open_engine, transaction
from labelwright.types import NO_LABEL, Answer, Floats, Ints, Queries

tables = MetaData()
items = Table(
    "queue_items",
    tables,
    Column("key", BigInteger, primary_key=True, autoincrement=False),
    Column("given", Integer, nullable=False),
    Column("suggestion", Integer, nullable=False),
    Column("confidence", Float(53), nullable=False),
    Column("value", Float(53), nullable=False),
    Column("near", Integer, nullable=False),  # rows of one bucket look alike
    Column("wanted", Integer, nullable=False),  # answers that are still to come
    Column("open", Integer, nullable=False),  # 1 while any is: an equality, so that the index gives the order
    Column("taken", Integer, nullable=False),  # the loop has it
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
)
leases = Table(
    "queue_leases",
    tables,
    Column("key", BigInteger, primary_key=True, autoincrement=False),
    Column("expert", Text, primary_key=True),
    Column("since", Float(53), nullable=False),
    Column("until", Float(53), nullable=False),
)
Index("ix_queue_open", items.c.open, items.c.value.desc(), items.c.key)
Index("ix_queue_expert", replies.c.expert, replies.c.at)
Index("ix_queue_lease", leases.c.expert)

KINDS = ("answer", "unsure", "none", "broken", "skip")
"""What a person may say: a class; I cannot say; none of these classes; this row is broken; not now (another may)."""
LOOK_AHEAD = 64
KNOWN = 20_000
_BITS = 12
_LOCK = 7_115_120


@dataclass(frozen=True)
class Item:
    """A question as it is served. given, suggestion: classes. confidence: of the suggestion. until: when the lease ends."""

    key: int
    given: int
    suggestion: int
    confidence: float
    value: float
    until: float


class ExpertQueue:
    """An expert whom the loop asks now and hears later: people, through :meth:`serve` and :meth:`say`.

    url: of the database, the ledger's own or another. overlap: how many people each row is shown to. lease: seconds for which
    an item is one person's. classes: K. cost: price of an answer. clock: seconds, for tests.

    >>> queue = ExpertQueue("sqlite://", classes=2)
    >>> from labelwright.types import Rows
    >>> rows = Rows(np.zeros((1, 2)), np.array([0]), np.array([7]))
    >>> list(queue.ask(Queries(rows, np.ones(1), np.ones(1, int), np.full(1, 0.8))))
    []
    >>> queue.serve("ann")[0].key
    7
    >>> queue.say("ann", 7, label=1)
    'taken'
    >>> [(a.key, a.label, a.expert) for a in queue.collect(Queries(rows, np.ones(1), np.ones(1, int), np.full(1, 0.8)))]
    [(7, 1, 'ann')]
    """

    def __init__(
        self,
        url: str | Engine,
        *,
        classes: int,
        overlap: int = 1,
        lease: float = 600.0,
        cost: float = 1.0,
        clock: Callable[[], float] = time.time,
    ):
        if overlap < 1 or lease <= 0:
            raise SettingsError(
                f"overlap={overlap} and lease={lease} are out of range; expected 1 or more, and above 0"
            )
        self.engine = open_engine(url) if isinstance(url, str) else url
        self.classes, self.overlap, self.lease, self.cost, self.clock = classes, overlap, lease, cost, clock
        self._turn = threading.Lock()  # threads take turns here, not by trying again and again for the database's lock
        with self._writing() as connection:
            tables.create_all(connection)

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """One writer at a time, so that no two people are served the same item."""
        with self._turn, transaction(self.engine, writes=True) as connection:
            if self.engine.dialect.name == "postgresql":
                connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
            yield connection

    # ------------------------------------------------------------ the loop's side

    def ask(self, queries: Queries) -> Iterator[Answer]:
        """Put questions in; nobody answers at once. A question that is there already gets its new value and suggestion."""
        if len(queries):
            self._put(queries)
        return iter(())

    def _put(self, queries: Queries) -> None:
        keys = queries.rows.keys.tolist()
        fields = {
            "value": queries.value.astype(float).tolist(),
            "suggestion": queries.suggestion.tolist(),
            "confidence": queries.confidence.astype(float).tolist(),
        }
        given, near = queries.rows.y.tolist(), bucket(queries.rows.X).tolist()
        with self._writing() as connection:
            held: set[int] = set()
            for part in _parts(keys):
                held |= set(connection.scalars(select(items.c.key).where(items.c.key.in_(part))))
            for at, key in enumerate(keys):
                if key in held:
                    row = {name: values[at] for name, values in fields.items()}
                    connection.execute(update(items).where(items.c.key == key).values(**row))
            new = [
                {"key": key, "given": given[at], "near": near[at], "wanted": self.overlap, "open": 1, "taken": 0}
                | {name: values[at] for name, values in fields.items()}
                for at, key in enumerate(keys)
                if key not in held
            ]
            for start in range(0, len(new), 10_000):
                connection.execute(insert(items), new[start : start + 10_000])

    def collect(self, outstanding: Queries) -> Iterator[Answer]:
        """The answers to questions put earlier that have all the opinions they wait for; each is given to the loop until the
        loop no longer asks for it, so that one that was cut short hears it again.

        Of several people's answers, the consensus (one-coin), by all their names. "None of these" and "broken" are answers
        that name no class.
        """
        keys = outstanding.rows.keys.tolist()
        if not keys:
            return
        with transaction(self.engine, writes=False) as connection:
            done: list[int] = []
            for part in _parts(keys):
                done += connection.scalars(select(items.c.key).where(items.c.key.in_(part), items.c.wanted <= 0)).all()
            said = [row for part in _parts(done) for row in connection.execute(_told(part))]
            others = self._others(connection) if self.overlap > 1 else []
        agreed = self._agreed(said, others)
        with self._writing() as connection:
            for part in _parts(done):
                connection.execute(update(items).where(items.c.key.in_(part)).values(taken=1))
        for key in done:
            label, names = agreed[key]
            yield Answer(key, label, ", ".join(names), self.cost * len(names))

    @staticmethod
    def _others(connection: Connection) -> list[Row[Any]]:
        """The latest answers to any rows: what is known of the people."""
        query = select(replies).where(replies.c.kind == "answer").order_by(replies.c.at.desc()).limit(KNOWN)
        return list(connection.execute(query))

    def _agreed(self, said: Sequence[Row[Any]], others: Sequence[Row[Any]]) -> dict[int, tuple[int, list[str]]]:
        """key -> (class or NO_LABEL, names)."""
        from labelwright.consensus import Ratings

        names: dict[int, list[str]] = {}
        for row in said:
            names.setdefault(row.key, []).append(row.expert)
        found = {row.key: row.label for row in said if row.kind == "answer"}
        if self.overlap > 1 and found:
            told = {(row.key, row.expert): row.label for row in (*others, *said) if row.kind == "answer"}
            keys, experts = zip(*told, strict=True)
            ratings = Ratings.of(keys, experts, list(told.values()), classes=range(self.classes))
            best = ratings.consensus("one-coin").proba.argmax(axis=1)
            found |= {key: int(label) for key, label in zip(ratings.rows, best, strict=True) if key in found}
        return {key: (int(found.get(key, NO_LABEL)), sorted(who)) for key, who in names.items()}

    # ------------------------------------------------------------ people's side

    def serve(self, expert: str, count: int = 1) -> list[Item]:
        """Lease up to ``count`` items to a person: those still held, then the most valuable that nobody else holds and that do
        not look like the one before."""
        _checked_name(expert)
        now = self.clock()
        with self._writing() as connection:
            held = self._held(connection, expert, now)
            out = held[:count]
            if len(out) < count:
                out += self._fresh(connection, expert, count - len(out), now)
        return out

    def _held(self, connection: Connection, expert: str, now: float) -> list[Item]:
        connection.execute(delete(leases).where(leases.c.expert == expert, leases.c.until <= now))
        query = (
            select(items, leases.c.until)
            .join(leases, leases.c.key == items.c.key)
            .where(leases.c.expert == expert, items.c.wanted > 0)
            .order_by(leases.c.since, items.c.value.desc())
        )
        return [_item(row, row.until) for row in connection.execute(query)]

    def _fresh(self, connection: Connection, expert: str, count: int, now: float) -> list[Item]:
        replied = exists().where(and_(replies.c.key == items.c.key, replies.c.expert == expert))
        mine = exists().where(and_(leases.c.key == items.c.key, leases.c.expert == expert))
        others = (
            select(func.count())
            .select_from(leases)
            .where(leases.c.key == items.c.key, leases.c.until > now)
            .scalar_subquery()
        )
        query = select(items).where(items.c.open == 1, ~replied, ~mine, others < items.c.wanted)
        query = query.order_by(items.c.value.desc(), items.c.key).limit(max(LOOK_AHEAD, 2 * count))
        chosen = apart(list(connection.execute(query)), count, self._last_near(connection, expert))
        until = now + self.lease
        if chosen:
            rows = [{"key": row.key, "expert": expert, "since": now, "until": until} for row in chosen]
            connection.execute(insert(leases), rows)
        return [_item(row, until) for row in chosen]

    @staticmethod
    def _last_near(connection: Connection, expert: str) -> int | None:
        """The bucket of what the person answered last."""
        query = (
            select(items.c.near)
            .join(replies, replies.c.key == items.c.key)
            .where(replies.c.expert == expert)
            .order_by(replies.c.at.desc())
            .limit(1)
        )
        return connection.execute(query).scalar()

    def say(
        self, expert: str, key: int, *, label: int | None = None, kind: str = "answer", seconds: float | None = None
    ) -> str:
        """Take what a person says of a row. seconds: how long it took.

        Returns "taken"; "again" when the same was said before; "changed" when it replaces what was said; "late" when the loop
        has the row's answer already: nothing changes then. An answer after the lease ran out counts like any other, as long
        as the row waits for one. Raises DataError for a row that was never asked about, and for what is no answer.
        """
        _checked_name(expert)
        code = self._checked_label(label, kind)
        now = self.clock()
        with self._writing() as connection:
            item = connection.execute(select(items).where(items.c.key == key)).first()
            if item is None:
                raise DataError(f"nobody asked about row {key}; it may have been erased")
            mine = and_(replies.c.key == key, replies.c.expert == expert)
            before = connection.execute(select(replies).where(mine)).first()
            connection.execute(delete(leases).where(leases.c.key == key, leases.c.expert == expert))
            if before is not None and (before.kind, before.label) == (kind, code):
                return "again"
            if item.taken or (before is None and item.wanted <= 0 and kind != "skip"):
                return "late"
            connection.execute(delete(replies).where(mine))
            row = {"key": key, "expert": expert, "kind": kind, "label": code, "at": now, "seconds": seconds}
            connection.execute(insert(replies).values(**row))
            counts = int(kind != "skip") - int(before is not None and before.kind != "skip")
            if counts:
                self._count(connection, key, item.wanted - counts)
        return "taken" if before is None else "changed"

    @staticmethod
    def _count(connection: Connection, key: int, wanted: int) -> None:
        connection.execute(update(items).where(items.c.key == key).values(wanted=wanted, open=int(wanted > 0)))

    def _checked_label(self, label: int | None, kind: str) -> int:
        if kind not in KINDS:
            raise DataError(f"{str(kind)[:40]!r} is no kind of answer; expected one of {', '.join(KINDS)}")
        if kind != "answer":
            return NO_LABEL
        if label is None or not 0 <= label < self.classes:
            raise DataError(f"label {str(label)[:40]} is no class; expected 0 to {self.classes - 1}")
        return int(label)

    def undo(self, expert: str) -> int | None:
        """Take back what a person said last, unless the loop has it; the row is theirs again. Returns its key, or None."""
        now = self.clock()
        with self._writing() as connection:
            query = (
                select(replies.c.key, replies.c.kind, items.c.taken, items.c.wanted)
                .join(items, items.c.key == replies.c.key)
                .where(replies.c.expert == expert)
                .order_by(replies.c.at.desc())
                .limit(1)
            )
            last = connection.execute(query).first()
            if last is None or last.taken:
                return None
            connection.execute(delete(replies).where(replies.c.key == last.key, replies.c.expert == expert))
            if last.kind != "skip":
                self._count(connection, last.key, last.wanted + 1)
            lease = {"key": last.key, "expert": expert, "since": 0.0, "until": now + self.lease}
            connection.execute(delete(leases).where(leases.c.key == last.key, leases.c.expert == expert))
            connection.execute(insert(leases).values(**lease))
        return int(last.key)

    def progress(self) -> dict[str, Any]:
        """Rows waiting, answered and leased; of each person how many answers of each kind, and the median seconds."""
        now = self.clock()
        with transaction(self.engine, writes=False) as connection:
            waiting = connection.scalar(select(func.count()).select_from(items).where(items.c.open == 1))
            done = connection.scalar(select(func.count()).select_from(items).where(items.c.open == 0))
            held = connection.scalar(select(func.count()).select_from(leases).where(leases.c.until > now))
            counts = connection.execute(
                select(replies.c.expert, replies.c.kind, func.count()).group_by(replies.c.expert, replies.c.kind)
            ).all()
            spent = connection.execute(
                select(replies.c.expert, replies.c.seconds).where(replies.c.seconds.is_not(None))
            ).all()
        people: dict[str, dict[str, Any]] = {}
        for expert, kind, count in counts:
            people.setdefault(expert, {})[kind] = int(count)
        for expert in people:
            own = [seconds for who, seconds in spent if who == expert]
            people[expert]["seconds"] = float(np.median(own)) if own else None
        return {"waiting": int(waiting or 0), "answered": int(done or 0), "leased": int(held or 0), "experts": people}


def _told(keys: Sequence[int]) -> Any:
    return select(replies).where(replies.c.key.in_(keys), replies.c.kind != "skip")


def _item(row: Row[Any], until: float) -> Item:
    return Item(row.key, row.given, row.suggestion, row.confidence, row.value, until)


def _parts(keys: Sequence[int], size: int = 500) -> Iterator[Sequence[int]]:
    for start in range(0, len(keys), size):
        yield keys[start : start + size]


def _checked_name(expert: str) -> None:
    if not expert or len(expert) > 200:
        raise DataError("an expert needs a name of 1 to 200 characters")


def apart(rows: Sequence[Any], count: int, last: int | None) -> list[Any]:
    """``count`` of the rows, best first, none followed by one of the same bucket as long as there are others.

    >>> from collections import namedtuple
    >>> R = namedtuple("R", "key near")
    >>> [r.key for r in apart([R(1, 5), R(2, 5), R(3, 6)], 3, None)]
    [1, 3, 2]
    """
    left, out = list(rows), list[Any]()
    while left and len(out) < count:
        at = next((i for i, row in enumerate(left) if row.near != last), 0)
        out.append(left.pop(at))
        last = out[-1].near
    return out


def bucket(X: Floats) -> Ints:
    """(n,) a number for each row (n, d), the same for rows that nearly are (signs of random projections of the centred row).

    >>> a, b, c = bucket(np.array([[1.0, 2.0, 4.0], [1.0, 2.0, 4.001], [9.0, 0.0, -7.0]]))
    >>> bool(a == b), bool(a == c)
    (True, False)
    """
    flat = np.asarray(X, np.float32).reshape(len(X), -1)
    planes = np.random.default_rng(7).standard_normal((flat.shape[1], _BITS)).astype(np.float32)
    signs = (flat - flat.mean(axis=1, keepdims=True)) @ planes > 0
    return np.asarray(signs @ (1 << np.arange(_BITS)), np.int64)
