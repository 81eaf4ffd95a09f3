"""Who may speak, and what is not taken: every message from outside passes here before anything learns from it.

A message is refused, with a reason that goes into the ledger, when it is unreadable, of another plan, from a stranger,
forged, older than one that was taken (a replay), a second one for the same round (two tongues), of the wrong shape, or
holds NaN or huge numbers. What only the site itself can have done is a strike; after ``strikes`` of them it is left out for
``sentence`` rounds. A replay or a forgery is no strike: anybody on the way can send those, and an honest site must not
be harmed by them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from labelwright.errors import DataError
from labelwright.sites.message import MASKED, PLAIN, Message, read
from labelwright.sites.plan import Plan
from labelwright.sites.statistics import problem

UNKNOWN = "unknown"
KEPT_EVENTS = 200


@dataclass(frozen=True)
class Event:
    """Something set aside: in which of my rounds, whose, why, and how often in that round."""

    round: int
    site: str
    reason: str
    times: int = 1

    def as_json(self) -> dict[str, Any]:
        """For the ledger."""
        return {"round": self.round, "site": self.site, "reason": self.reason, "times": self.times}


@dataclass
class Gate:
    """The gate of one site.

    me: its name. last: site -> (born, round, digest) of the newest message taken. strikes: site -> how many.
    until: site -> the round of mine before which it is left out. trusted: whether a site may exchange at all.
    refused: site -> the latest round in which it spoke and was refused: there is no waiting for it.
    """

    plan: Plan
    me: str
    last: dict[str, tuple[int, int, str]] = field(default_factory=dict)
    strikes: dict[str, int] = field(default_factory=dict)
    until: dict[str, int] = field(default_factory=dict)
    trusted: Callable[[str], bool] = lambda name: True
    refused: dict[str, int] = field(default_factory=dict)
    _events: dict[tuple[int, str, str], int] = field(default_factory=dict)

    def admit(self, data: bytes, now: int, *, claimed: str = UNKNOWN) -> Message | None:
        """The message when it is sound and new, or the newest once more (a repeated delivery is no offence); else None, and
        the reason is noted.

        now: my round. claimed: the site whose address it came from, for the note when it cannot be read.
        """
        try:
            message = read(data, self.plan.shape)
        except DataError as error:
            self.note(now, claimed, str(error))
            return None
        reason = self._stranger(message)
        if reason is not None:
            self.note(now, message.site if message.site in self.plan.members else claimed, reason)
            return None
        seen = self.last.get(message.site)
        if seen is not None and (message.order, message.digest) == (seen[:2], seen[2]):
            return message
        if now < self.until.get(message.site, 0):
            self.note(now, message.site, f"left out until round {self.until[message.site]}")
            return None
        return self._new(message, seen, now)

    def _stranger(self, message: Message) -> str | None:
        if message.site not in self.plan.members or message.site == self.me:
            return f"it says it is {message.site[:40]!r}, which is no other member of the plan"
        key = self.plan.members[message.site].key
        if key and not message.by(key):
            return "forged: its signature is not the site's"
        if not self.trusted(message.site):
            return "not attested: nothing is exchanged with it"
        if message.plan != self.plan.digest:
            return f"of another plan ({message.plan[:12]}…); expected {self.plan.digest[:12]}…"
        return None

    def _new(self, message: Message, seen: tuple[int, int, str] | None, now: int) -> Message | None:
        if seen is not None and message.order <= seen[:2]:
            if message.order == seen[:2]:
                self.strike(now, message.site, f"two different messages for round {message.round}")
            elif message.born != seen[0] or message.round < seen[1] - self.plan.stale:  # else two messages crossed
                self.note(now, message.site, f"replayed: round {message.round} came after round {seen[1]}")
            return None
        secure = self.plan.secure > 0 and message.site != self.plan.coordinator
        if message.kind != (MASKED if secure else PLAIN):
            self.strike(now, message.site, f"it is {message.kind}; the plan expects {MASKED if secure else PLAIN}")
            return None
        wrong = self.unsound(message)
        if wrong is not None:
            self.refused[message.site] = message.round
            self.strike(now, message.site, wrong)
            return None
        self.last[message.site] = (*message.order, message.digest)
        return message

    def unsound(self, message: Message) -> str | None:
        """What is wrong with the numbers of a message, or None."""
        shape = self.plan.shape
        if message.kind == MASKED:
            size = message.numbers.size
            return None if size == shape.numbers else f"{size} numbers; expected {shape.numbers}"
        return problem(message.floats, shape, limit=self.plan.limit, counted=self.plan.noise == 0)

    def strike(self, now: int, site: str, reason: str) -> None:
        """Note it, and leave the site out once it has done this too often."""
        self.note(now, site, reason)
        self.strikes[site] = self.strikes.get(site, 0) + 1
        if self.strikes[site] >= self.plan.strikes:
            self.until[site] = now + self.plan.sentence
            self.strikes[site] = 0
            self.note(now, site, f"left out until round {self.until[site]}: {self.plan.strikes} bad messages")

    def note(self, now: int, site: str, reason: str) -> None:
        """Remember it for the ledger; the same again in a round is counted."""
        key = (now, site, reason)
        if key in self._events or len(self._events) < KEPT_EVENTS:
            self._events[key] = self._events.get(key, 0) + 1

    def events(self) -> list[Event]:
        """What was noted since this was last asked."""
        out = [Event(*key, times) for key, times in self._events.items()]
        self._events.clear()
        return out

    def state(self) -> dict[str, Any]:
        """What :meth:`restore` needs."""
        return {"last": {k: list(v) for k, v in self.last.items()}, "strikes": self.strikes, "until": self.until}

    def restore(self, state: Mapping[str, Any]) -> None:
        """As it was."""
        self.last = {k: (int(v[0]), int(v[1]), str(v[2])) for k, v in state["last"].items()}
        self.strikes = {k: int(v) for k, v in state["strikes"].items()}
        self.until = {k: int(v) for k, v in state["until"].items()}
