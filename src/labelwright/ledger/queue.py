"""The questions that wait for people: served by value, leased, answered, taken back; shared by any number of processes.

The loop puts questions in and collects answers; pages and scripts lease items to people and take their answers. What people say
lies here until the loop writes it into the ledger's chain, so answers wait while the loop is down.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Connection, Engine, Row, bindparam, func, insert, select, update

from labelwright.errors import DataError, SettingsError
from labelwright.ledger import queue_sql as sql
from labelwright.ledger.people import checked_name
from labelwright.ledger.queue_tables import create, forget, items, replies, writing
from labelwright.ledger.schema import open_engine, transaction
from labelwright.types import NO_LABEL, Answer, Floats, Ints, Queries, Rows

KINDS = ("answer", "unsure", "none", "broken", "skip")
"""What a person may say: a class; I cannot say; none of these classes; this row is broken; not now (another may)."""
LOOK_AHEAD = 24
KNOWN = 20_000
_BITS = 12


@dataclass(frozen=True)
class Item:
    """A question as it is served. given, suggestion: classes. confidence: of the suggestion. until: when the lease ends.
    why: the measure that chose it. blind: the suggestion is not to be shown."""

    key: int
    given: int
    suggestion: int
    confidence: float
    value: float
    until: float
    why: str = ""
    blind: bool = False


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
        blind: float = 0.0,
        gold: float = 0.0,
        clock: Callable[[], float] = time.time,
    ):
        if overlap < 1 or lease <= 0:
            raise SettingsError(
                f"overlap={overlap} and lease={lease} are out of range; expected 1 or more, and above 0"
            )
        if not (0 <= blind <= 1 and 0 <= gold < 1):
            raise SettingsError(f"blind={blind} and gold={gold} are no shares; expected 0 to 1, and 0 to below 1")
        self.engine = open_engine(url) if isinstance(url, str) else url
        self.classes, self.overlap, self.lease, self.cost, self.clock = classes, overlap, lease, cost, clock
        self.blind, self.gold = blind, gold
        self._turn = threading.Lock()  # threads take turns here, not by trying again and again for the database's lock
        create(self.engine)

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """One writer at a time, so that no two people are served the same item."""
        with self._turn, writing(self.engine) as connection:
            yield connection

    # ------------------------------------------------------------ the loop's side

    def ask(self, queries: Queries) -> Iterator[Answer]:
        """Put questions in; nobody answers at once. A question that is there already gets its new value and suggestion."""
        if len(queries):
            self._put(queries)
        return iter(())

    def rank(self, queries: Queries) -> None:
        """New values, suggestions and confidences for questions that wait; questions that are not there are not put."""
        with self._writing() as connection:
            self._rank(connection, queries)

    @staticmethod
    def _rank(connection: Connection, queries: Queries) -> None:
        names = ("at", "value", "suggestion", "confidence")
        columns = (queries.rows.keys, queries.value.astype(float), queries.suggestion, queries.confidence.astype(float))
        rows = [dict(zip(names, row, strict=True)) for row in zip(*(c.tolist() for c in columns), strict=True)]
        if rows:
            changed: dict[str, Any] = {name: bindparam(name) for name in names[1:]}
            connection.execute(update(items).where(items.c.key == bindparam("at")).values(**changed), rows)

    def _put(self, queries: Queries) -> None:
        keys = queries.rows.keys
        with self._writing() as connection:
            known = np.isin(keys, self._known(connection, keys.tolist()))
            self._rank(connection, queries.take(known))
            self._insert(connection, queries.take(~known), gold=np.full((~known).sum(), NO_LABEL))

    @staticmethod
    def _known(connection: Connection, keys: Sequence[int]) -> list[int]:
        found = (connection.scalars(select(items.c.key).where(items.c.key.in_(part))) for part in _parts(keys))
        return [key for part in found for key in part]

    def _insert(self, connection: Connection, queries: Queries, *, gold: Ints) -> None:
        if not len(queries):
            return
        columns = {
            "key": queries.rows.keys,
            "given": queries.rows.y,
            "suggestion": queries.suggestion,
            "confidence": queries.confidence.astype(float),
            "value": queries.value.astype(float),
            "near": bucket(queries.rows.X),
            "gold": gold,
            "open": (gold == NO_LABEL).astype(int),
        }
        same = {"why": queries.why, "wanted": self.overlap, "taken": 0, "decided": NO_LABEL, "decided_by": ""}
        table = zip(*(column.tolist() for column in columns.values()), strict=True)
        rows = [{**dict(zip(columns, row, strict=True)), **same} for row in table]
        for start in range(0, len(rows), 10_000):
            connection.execute(insert(items), rows[start : start + 10_000])

    def put_gold(self, rows: Rows, *, seed: int = 0, why: str = "") -> int:
        """Rows whose label ``y`` the owner vouches for, to be mixed in: they tell how good each person is, and how far a
        suggestion sways them. Half are shown with a wrong suggestion, half with a wrong given label. Returns how many are new."""
        rng = np.random.default_rng(seed)
        n = len(rows)
        other = (rows.y + rng.integers(1, self.classes, size=n)) % self.classes
        swayed = rng.random(n) < 0.5
        shown = Rows(rows.X, np.where(swayed, rows.y, other), rows.keys)
        suggestion, sure = np.where(swayed, other, rows.y), rng.uniform(0.55, 0.95, size=n)
        with self._writing() as connection:
            fresh = ~np.isin(rows.keys, self._known(connection, rows.keys.tolist()))
            queries = Queries(shown, np.zeros(n), suggestion, sure, why).take(fresh)
            self._insert(connection, queries, gold=rows.y[fresh])
        return int(fresh.sum())

    def gold_keys(self) -> set[int]:
        """Rows that test people."""
        with transaction(self.engine, writes=False) as connection:
            return set(connection.scalars(select(items.c.key).where(items.c.gold >= 0)))

    def close(self, keys: Sequence[int]) -> None:
        """These questions were answered elsewhere: nobody is asked any more."""
        with self._writing() as connection:
            for part in _parts(keys):
                closed = update(items).where(items.c.key.in_(part)).values(open=0, wanted=0, taken=1)
                connection.execute(closed)

    def waiting(self) -> int:
        """How many questions wait for an answer."""
        with transaction(self.engine, writes=False) as connection:
            return int(connection.scalar(select(func.count()).select_from(items).where(items.c.open == 1)) or 0)

    def withdraw(self, keys: Sequence[int]) -> None:
        """Forget questions about rows that are gone."""
        with self._writing() as connection:
            forget(connection, keys)

    def collect(self, outstanding: Queries) -> Iterator[Answer]:
        """The answers to questions put earlier that have all the opinions they wait for; each is given to the loop until the
        loop no longer asks for it, so that one that was cut short hears it again.

        Of several people's answers, the consensus (one-coin), by all their names. "None of these" and "broken" are answers
        that name no class.
        """
        keys = outstanding.rows.keys.tolist()
        if not keys:
            return
        with self._writing() as connection:
            done: list[int] = []
            for part in _parts(keys):
                done += connection.scalars(select(items.c.key).where(items.c.key.in_(part), items.c.wanted <= 0)).all()
                connection.execute(update(items).where(items.c.key.in_(part), items.c.wanted <= 0).values(taken=1))
            said = [row for part in _parts(done) for row in connection.execute(_told(part))]
            ruled = [row for part in _parts(done) for row in connection.execute(_decided(part))]
            others = self._others(connection) if self.overlap > 1 else []
        settled = {row.key: row for row in ruled}
        agreed = dict.fromkeys(settled, (NO_LABEL, list[str]())) | self._agreed(said, others)
        for key, (label, names) in agreed.items():
            cost, lead = self.cost * len(names), settled.get(key)
            if lead is not None:
                label, names = lead.decided, [*names, f"{lead.decided_by} (lead)"]
            yield Answer(key, label, ", ".join(names), cost)

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

    def serve(self, expert: str, count: int = 1, *, seeing: bool = False) -> list[Item]:
        """Lease up to ``count`` items to a person: those still held, then the most valuable that nobody else holds and that do
        not look like the one before. seeing: only such as are shown with their suggestion, and none that test people."""
        expert = checked_name(expert)
        with self._writing() as connection:
            return self._serve(connection, expert, count, seeing)

    def _serve(self, connection: Connection, expert: str, count: int, seeing: bool = False) -> list[Item]:
        now = self.clock()
        held = connection.execute(sql.HELD, {"expert_": expert, "now_": now}).all()
        mine = [self._item(row, expert, row.until) for row in held if not (seeing and row.gold != NO_LABEL)]
        out = [item for item in mine if not (seeing and item.blind)][:count]
        return out + (self._fresh(connection, expert, count - len(out), now, seeing) if len(out) < count else [])

    def _item(self, row: Row[Any], expert: str, until: float) -> Item:
        blind = self.is_blind(expert, row.key)
        return Item(row.key, row.given, row.suggestion, row.confidence, row.value, until, row.why, blind)

    def is_blind(self, expert: str, key: int) -> bool:
        """Whether this person is shown this row without a suggestion: the same whenever it is asked."""
        return _chance(expert, key, "blind") < self.blind

    def _fresh(self, connection: Connection, expert: str, count: int, now: float, seeing: bool) -> list[Item]:
        who = {"expert_": expert, "now_": now}
        connection.execute(sql.FORGET_STALE, who)
        last = connection.execute(sql.LAST, {"expert_": expert}).first()
        wanted = {**who, "limit_": max(LOOK_AHEAD, 4 * count)}
        tests: list[Row[Any]] = []
        if self.gold and not seeing and _chance(expert, last.key if last else 0, "gold") < self.gold:
            tests = list(connection.execute(sql.TESTS, {"expert_": expert}))
        found = connection.execute(sql.FRESH, wanted).all()
        if seeing:
            found = [row for row in found if not self.is_blind(expert, row.key)]
        chosen = [*tests, *apart(found, count - len(tests), last.near if last else None)]
        until = now + self.lease
        if chosen:
            rows = [{"key": row.key, "expert": expert, "since": now, "until": until} for row in chosen]
            connection.execute(sql.LEASED, rows)
        return [self._item(row, expert, until) for row in chosen]

    def say(
        self, expert: str, key: int, *, label: int | None = None, kind: str = "answer", seconds: float | None = None
    ) -> str:
        """Take what a person says of a row. seconds: how long it took.

        Returns "taken"; "again" when the same was said before; "changed" when it replaces what was said; "late" when the loop
        has the row's answer already: nothing changes then. An answer after the lease ran out counts like any other, as long
        as the row waits for one. Raises DataError for a row that was never asked about, and for what is no answer.
        """
        return self.say_and_serve(expert, key, label=label, kind=kind, seconds=seconds, count=0)[0]

    def say_and_serve(
        self,
        expert: str,
        key: int,
        *,
        label: int | None = None,
        kind: str = "answer",
        seconds: float | None = None,
        count: int = 1,
    ) -> tuple[str, list[Item]]:
        """As :meth:`say`, then :meth:`serve`, in one transaction."""
        expert, code = checked_name(expert), self._checked_label(label, kind)
        with self._writing() as connection:
            done = self._say(connection, expert, key, kind, code, seconds)
            return done, self._serve(connection, expert, count) if count else []

    def _say(self, connection: Connection, expert: str, key: int, kind: str, code: int, seconds: float | None) -> str:
        mine = {"key_": key, "expert_": expert}
        item = connection.execute(sql.ITEM, {"key_": key}).first()
        if item is None:
            raise DataError(f"nobody asked about row {key}; it may have been erased")
        before = connection.execute(sql.REPLY, mine).first()
        connection.execute(sql.FORGET_LEASE, mine)
        if before is not None and (before.kind, before.label) == (kind, code):
            return "again"
        closed = item.taken or item.decided != NO_LABEL
        if closed or (before is None and item.wanted <= 0 and kind != "skip"):
            return "late"
        if before is not None:
            connection.execute(sql.FORGET_REPLY, mine)
        row = {"key": key, "expert": expert, "kind": kind, "label": code, "at": self.clock(), "seconds": seconds}
        connection.execute(sql.SAID, {**row, "blind": int(self.is_blind(expert, key))})
        counts = int(kind != "skip") - int(before is not None and before.kind != "skip")
        if counts and item.gold == NO_LABEL:
            self._count(connection, key, item.wanted - counts)
        return "taken" if before is None else "changed"

    @staticmethod
    def _count(connection: Connection, key: int, wanted: int) -> None:
        connection.execute(sql.COUNT, {"key_": key, "left_": wanted, "still_": int(wanted > 0)})

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
        expert, now = checked_name(expert), self.clock()
        with self._writing() as connection:
            last = connection.execute(sql.LAST, {"expert_": expert}).first()
            if last is None or last.taken or last.decided != NO_LABEL:
                return None
            mine = {"key_": last.key, "expert_": expert}
            connection.execute(sql.FORGET_REPLY, mine)
            connection.execute(sql.FORGET_LEASE, mine)
            if last.kind != "skip" and last.gold == NO_LABEL:
                self._count(connection, last.key, last.wanted + 1)
            lease = {"key": last.key, "expert": expert, "since": 0.0, "until": now + self.lease}
            connection.execute(sql.LEASED, lease)
        return int(last.key)


def _told(keys: Sequence[int]) -> Any:
    return select(replies).where(replies.c.key.in_(keys), replies.c.kind != "skip")


def _decided(keys: Sequence[int]) -> Any:
    return select(items.c.key, items.c.decided, items.c.decided_by).where(
        items.c.key.in_(keys), items.c.decided != NO_LABEL
    )


def _chance(expert: str, key: int, what: str) -> float:
    """A number in [0, 1) that depends on these alone."""
    digest = hashlib.blake2b(f"{what}:{key}:{expert}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _parts(keys: Sequence[int], size: int = 500) -> Iterator[Sequence[int]]:
    for start in range(0, len(keys), size):
        yield keys[start : start + size]


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
