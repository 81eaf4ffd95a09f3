"""Looking at the queue: progress, what each person's answers are worth, where people disagree, and what a lead decides."""

from __future__ import annotations

from typing import Any

import numpy as np
from sqlalchemy import Engine, case, delete, exists, func, insert, select, update

from labelwright.errors import DataError
from labelwright.ledger.people import checked_name
from labelwright.ledger.queue_tables import items, leases, replies, reviews, writing
from labelwright.ledger.schema import transaction
from labelwright.types import NO_LABEL

TIMED = 5000
"""Latest replies that people's median time is taken of."""
REVIEWS = ("right", "given", "drop")
"""Of a correction: it is right; the given label was; neither is, drop the row."""


def progress(engine: Engine, now: float) -> dict[str, Any]:
    """Rows waiting, answered and leased; of each person how many answers of each kind, and the median seconds. now: the
    clock, in seconds."""
    with transaction(engine, writes=False) as connection:
        count = select(func.count()).select_from(items)
        waiting = connection.scalar(count.where(items.c.open == 1))  # by the index alone; gold rows are not open
        done = connection.scalar(count.where(items.c.open == 0, items.c.gold == NO_LABEL))
        held = connection.scalar(select(func.count()).select_from(leases).where(leases.c.until > now))
        counts = connection.execute(
            select(replies.c.expert, replies.c.kind, func.count()).group_by(replies.c.expert, replies.c.kind)
        ).all()
        timed = select(replies.c.expert, replies.c.seconds).where(replies.c.seconds.is_not(None))
        spent = connection.execute(timed.order_by(replies.c.at.desc()).limit(TIMED)).all()
        latest = connection.scalar(select(func.max(replies.c.at)))
    people: dict[str, dict[str, Any]] = {}
    for expert, kind, count in counts:
        people.setdefault(expert, {})[kind] = int(count)
    seconds: dict[str, list[float]] = {}
    for expert, own in spent:
        seconds.setdefault(expert, []).append(own)
    for expert in people:
        people[expert]["seconds"] = float(np.median(seconds[expert])) if expert in seconds else None
    return {
        "waiting": int(waiting or 0),
        "answered": int(done or 0),
        "leased": int(held or 0),
        "latest": latest,
        "experts": people,
    }


def bought(engine: Engine, expert: str | None = None) -> dict[str, int]:
    """What answers brought, of one person or of all: rows answered with a class, and how many of those came with another.
    Of one person, rows that test people count like others, or the counter would tell which they are."""
    named: Any = replies.c.kind == "answer"
    if expert is None:
        named &= items.c.gold == NO_LABEL
    wrong = func.sum(case((replies.c.label != items.c.given, 1), else_=0))
    query = select(func.count(), wrong).join(items, items.c.key == replies.c.key).where(named)
    if expert is not None:
        query = query.where(replies.c.expert == expert)
    with transaction(engine, writes=False) as connection:
        count, found = connection.execute(query).one()
    return {"answers": int(count), "wrong": int(found or 0)}


def measured(engine: Engine) -> dict[str, dict[str, Any]]:
    """Of each person: gold rows answered and right; how often they chose the suggestion when it was shown and when not; how
    often a wrong suggestion on a gold row was followed, shown and blind: (times, of) each."""
    right = case((replies.c.label == items.c.gold, 1), else_=0)
    agreed = case((replies.c.label == items.c.suggestion, 1), else_=0)
    tested, astray = items.c.gold != NO_LABEL, items.c.suggestion != items.c.gold
    query = (
        select(replies.c.expert, replies.c.blind, tested, astray, func.count(), func.sum(right), func.sum(agreed))
        .join(items, items.c.key == replies.c.key)
        .where(replies.c.kind == "answer")
        .group_by(replies.c.expert, replies.c.blind, tested, astray)
    )
    with transaction(engine, writes=False) as connection:
        found = connection.execute(query).all()
    out: dict[str, dict[str, Any]] = {}
    for expert, blind, gold, wrong, count, good, same in found:
        name = "blind" if blind else "shown"
        own = out.setdefault(
            expert,
            {
                "gold": [0, 0],
                "agreed": {"shown": [0, 0], "blind": [0, 0]},
                "swayed": {"shown": [0, 0], "blind": [0, 0]},
            },
        )
        if gold:
            _add(own["gold"], good, count)
            if wrong:
                _add(own["swayed"][name], same, count)
        else:
            _add(own["agreed"][name], same, count)
    return out


def _add(pair: list[int], times: int, of: int) -> None:
    pair[0] += int(times)
    pair[1] += int(of)


def agreement(engine: Engine, *, limit: int = 20_000) -> dict[str, tuple[int, int]]:
    """Of each person: on how many rows that others answered too they said what most said, of how many. Of the latest replies."""
    query = select(replies.c.key, replies.c.expert, replies.c.label).where(replies.c.kind == "answer")
    with transaction(engine, writes=False) as connection:
        rows = connection.execute(query.order_by(replies.c.at.desc()).limit(limit)).all()
    said: dict[int, dict[str, int]] = {}
    for key, expert, label in rows:
        said.setdefault(key, {})[expert] = label
    out: dict[str, tuple[int, int]] = {}
    for own in said.values():
        for expert, label in own.items():
            others = [other for who, other in own.items() if who != expert]
            if not others:
                continue
            most = {o for o in others if others.count(o) == max(map(others.count, others))}
            times, of = out.get(expert, (0, 0))
            out[expert] = (times + (label in most), of + 1)
    return out


def disputed(engine: Engine, *, limit: int = 50) -> list[dict[str, Any]]:
    """Rows that people answered differently and the loop has not taken: key, given, suggestion, decided, and who said what."""
    named = replies.c.kind == "answer"
    split = (
        select(replies.c.key)
        .join(items, items.c.key == replies.c.key)
        .where(named, items.c.taken == 0, items.c.gold == NO_LABEL)
        .group_by(replies.c.key)
        .having(func.count(replies.c.label.distinct()) > 1)
        .order_by(func.max(replies.c.at).desc())
        .limit(limit)
    )
    with transaction(engine, writes=False) as connection:
        keys = connection.scalars(split).all()
        rows = connection.execute(select(items).where(items.c.key.in_(keys))).all()
        said = connection.execute(select(replies).where(replies.c.key.in_(keys), named).order_by(replies.c.at)).all()
    told: dict[int, list[tuple[str, int]]] = {}
    for reply in said:
        told.setdefault(reply.key, []).append((reply.expert, reply.label))
    held = {row.key: row for row in rows}
    names = ("key", "given", "suggestion", "confidence", "decided")
    return [{**{name: getattr(held[key], name) for name in names}, "said": told[key]} for key in keys]


def decide(engine: Engine, lead: str, key: int, label: int, classes: int) -> None:
    """A lead's word on a row that people disagree about: it is what the loop hears. Raises DataError when it is too late, or
    no class."""
    lead = checked_name(lead)
    if not 0 <= label < classes:
        raise DataError(f"label {label} is no class; expected 0 to {classes - 1}")
    answered = exists().where(replies.c.key == key, replies.c.kind == "answer")
    with writing(engine) as connection:
        mine = update(items).where(items.c.key == key, items.c.taken == 0, items.c.gold == NO_LABEL, answered)
        if not connection.execute(mine.values(decided=label, decided_by=lead, wanted=0, open=0)).rowcount:
            raise DataError(f"row {key} is not disputed any more: the loop has its answer, or it was erased")


def review(engine: Engine, expert: str, verdicts: dict[int, str], now: float) -> int:
    """What a person says of corrections: row key -> one of :data:`REVIEWS`. The loop carries it out. Returns how many were
    taken: "right" does not stand against somebody's take-back, and what was carried out stays. Raises DataError for
    another word."""
    expert = checked_name(expert)
    strange = next((word for word in verdicts.values() if word not in REVIEWS), None)
    if strange is not None:
        raise DataError(f"{strange[:40]!r} says nothing of a correction; expected one of {', '.join(REVIEWS)}")
    taken = 0
    with writing(engine) as connection:
        for key, word in verdicts.items():
            before = connection.execute(select(reviews.c.verdict, reviews.c.done).where(reviews.c.key == key)).first()
            if before is not None and (word == "right" or (before.done and before.verdict != "right")):
                taken += before.verdict == word
                continue
            connection.execute(delete(reviews).where(reviews.c.key == key))
            row = {"key": key, "expert": expert, "verdict": word, "at": now, "done": int(word == "right")}
            connection.execute(insert(reviews).values(**row))
            taken += 1
    return taken


def reviewed(engine: Engine) -> set[int]:
    """Keys of the corrections that somebody looked at."""
    with transaction(engine, writes=False) as connection:
        return set(connection.scalars(select(reviews.c.key)).all())


def pending_reviews(engine: Engine) -> list[dict[str, Any]]:
    """Corrections that are to be taken back: key, expert, verdict."""
    with transaction(engine, writes=False) as connection:
        found = connection.execute(select(reviews).where(reviews.c.done == 0).order_by(reviews.c.at)).all()
    return [{"key": row.key, "expert": row.expert, "verdict": row.verdict} for row in found]


def close_reviews(engine: Engine, words: list[dict[str, Any]]) -> None:
    """The loop has carried these out; one that was changed in the meantime stays open."""
    with writing(engine) as connection:
        for word in words:
            same = (reviews.c.key == word["key"]) & (reviews.c.verdict == word["verdict"])
            connection.execute(update(reviews).where(same).values(done=1))
