"""The queue's statements for people, built once: a page serves hundreds of answers a second, and building them would take most of it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import and_, bindparam, delete, exists, func, insert, select, update

from labelwright.ledger.queue_tables import items, leases, replies

key: Any = bindparam("key_")
expert: Any = bindparam("expert_")
now: Any = bindparam("now_")
_mine = and_(leases.c.key == items.c.key, leases.c.expert == expert)
_replied = exists().where(and_(replies.c.key == items.c.key, replies.c.expert == expert))
_with_others: Any = (
    select(func.count()).select_from(leases).where(leases.c.key == items.c.key, leases.c.until > now).scalar_subquery()
)
_own_reply = and_(replies.c.key == key, replies.c.expert == expert)
_own_lease = and_(leases.c.key == key, leases.c.expert == expert)

HELD = (
    select(items, leases.c.until)
    .join(leases, leases.c.key == items.c.key)
    .where(leases.c.expert == expert, leases.c.until > now, items.c.wanted > 0)
    .order_by(leases.c.since, items.c.value.desc())
)
"""Items that are a person's now, those given back by an undo first."""
FRESH = (
    select(items)
    .where(items.c.open == 1, ~_replied, ~exists().where(_mine), _with_others < items.c.wanted)
    .order_by(items.c.value.desc(), items.c.key)
    .limit(bindparam("limit_"))
)
"""The most valuable items that a person may be given."""
TESTS = (
    select(items)
    .where(items.c.gold >= 0, ~_replied, ~exists().where(_mine))
    .order_by(items.c.near, items.c.key)
    .limit(1)
)
"""A gold row that the person has not seen."""
LAST = (
    select(items.c.key, items.c.near, items.c.taken, items.c.wanted, items.c.gold, items.c.decided, replies.c.kind)
    .join(replies, replies.c.key == items.c.key)
    .where(replies.c.expert == expert)
    .order_by(replies.c.at.desc())
    .limit(1)
)
"""What the person said last."""
ITEM = select(items).where(items.c.key == key)
REPLY = select(replies.c.kind, replies.c.label).where(_own_reply)
FORGET_REPLY = delete(replies).where(_own_reply)
FORGET_LEASE = delete(leases).where(_own_lease)
FORGET_STALE = delete(leases).where(leases.c.expert == expert, leases.c.until <= now)
COUNT = update(items).where(items.c.key == key).values(wanted=bindparam("left_"), open=bindparam("still_"))
SAID = insert(replies)
LEASED = insert(leases)
