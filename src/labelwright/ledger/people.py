"""Who may answer: experts with a token each (hashed at rest), the server's secret, and the owner's guidelines."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, delete, insert, select

from labelwright.errors import DataError
from labelwright.ledger.queue_tables import create, facts, people, writing
from labelwright.ledger.schema import open_engine, transaction

NAME = 200
GUIDELINE = 4000
PREFIX = "lw_"


@dataclass(frozen=True)
class Person:
    """An expert. lead: may settle disagreements, write guidelines and see the dashboard."""

    name: str
    lead: bool


class People:
    """The experts' accounts, in the queue's database.

    url: of the database, or an engine. clock: seconds, for tests.

    >>> people = People("sqlite://")
    >>> token = people.add("ann")
    >>> people.who(token), people.who("lw_guess")
    (Person(name='ann', lead=False), None)
    """

    def __init__(self, url: str | Engine, *, clock: Callable[[], float] = time.time):
        self.engine = open_engine(url) if isinstance(url, str) else url
        self.clock = clock
        create(self.engine)

    def add(self, name: str, *, lead: bool = False) -> str:
        """A new expert's token, or a new token for one that is there: the old one is no longer good. It is told once; the
        database holds its SHA-256, which is enough for 256 random bits. Raises DataError for a name that is none."""
        name = checked_name(name)
        token = PREFIX + secrets.token_urlsafe(32)
        row = {"name": name, "digest": _digest(token), "lead": int(lead), "since": self.clock()}
        with writing(self.engine) as connection:
            connection.execute(delete(people).where(people.c.name == name))
            connection.execute(insert(people).values(**row))
        return token

    def remove(self, name: str) -> None:
        """The expert's token is no longer good; the answers stay. Raises DataError when there is no such expert."""
        with writing(self.engine) as connection:
            if not connection.execute(delete(people).where(people.c.name == name)).rowcount:
                raise DataError(f"there is no expert {name[:NAME]!r}; 'labelwright experts list' names all")

    def all(self) -> list[dict[str, Any]]:
        """Name, lead and since (seconds) of every expert."""
        with transaction(self.engine, writes=False) as connection:
            found = connection.execute(select(people).order_by(people.c.name)).all()
        return [{"name": row.name, "lead": bool(row.lead), "since": row.since} for row in found]

    def who(self, token: str) -> Person | None:
        """Whose token it is. Looked up by digest: the time it takes tells nothing of the tokens."""
        if not token.startswith(PREFIX) or len(token) > 100:
            return None
        with transaction(self.engine, writes=False) as connection:
            row = connection.execute(select(people).where(people.c.digest == _digest(token))).first()
        return Person(row.name, bool(row.lead)) if row else None

    def secret(self) -> bytes:
        """The server's own secret, made once: what it signed before a restart stays good."""
        return bytes.fromhex(self._fact("secret") or self._keep("secret", secrets.token_hex(32)))

    def guidelines(self) -> dict[str, str]:
        """Class name ("" for all classes) -> what the owner wrote about it."""
        return dict(json.loads(self._fact("guidelines") or "{}"))

    def write_guidelines(self, texts: Mapping[str, str]) -> None:
        """Keep the owner's guidelines; empty ones go. Raises DataError for one above 4,000 characters."""
        kept = {name: text.strip() for name, text in texts.items() if text.strip()}
        long = next((name for name, text in kept.items() if len(text) > GUIDELINE), None)
        if long is not None:
            raise DataError(
                f"the guideline of {long[:NAME]!r} has {len(kept[long])} characters; at most {GUIDELINE} are kept"
            )
        self._keep("guidelines", json.dumps(kept, ensure_ascii=False), over=True)

    def _fact(self, name: str) -> str | None:
        with transaction(self.engine, writes=False) as connection:
            return connection.execute(select(facts.c.value).where(facts.c.name == name)).scalar()

    def _keep(self, name: str, value: str, *, over: bool = False) -> str:
        """Write a fact down; one that another process wrote first stays, unless ``over``."""
        with writing(self.engine) as connection:
            held = connection.execute(select(facts.c.value).where(facts.c.name == name)).scalar()
            if held is not None and not over:
                return held
            connection.execute(delete(facts).where(facts.c.name == name))
            connection.execute(insert(facts).values(name=name, value=value))
        return value


def checked_name(name: str) -> str:
    """An expert's name without the spaces around it. Raises DataError when it is none."""
    name = name.strip() if name else ""
    if not 1 <= len(name) <= NAME or not name.isprintable():
        raise DataError(f"an expert needs a name of 1 to {NAME} printable characters")
    return name


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
