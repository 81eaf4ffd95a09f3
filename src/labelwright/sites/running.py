"""A member at work: round after round with whoever is there, until the plan's rounds are done."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median_low
from typing import Any

import numpy as np

from labelwright.errors import SettingsError
from labelwright.settings import StateFolder
from labelwright.sites import masking
from labelwright.sites.attestation import Demand, shown
from labelwright.sites.exchange import Courier, Mailbox, serve
from labelwright.sites.gate import Gate
from labelwright.sites.keys import Identity
from labelwright.sites.message import MASKED, PLAIN, Message
from labelwright.sites.plan import Plan
from labelwright.sites.records import Records
from labelwright.sites.site import Shared, Site, combined
from labelwright.sites.statistics import Statistics, problem
from labelwright.types import Batch, Floats

Progress = Callable[[int, int], None]
Disturb = Callable[[Statistics, int], Statistics]


@dataclass
class Manners:
    """How a member behaves; all in seconds.

    gather: wait for the others before the first round. patience: wait for one that was there in the last round. pause:
    between rounds. linger: stay to answer those that are behind, after the last round.
    """

    gather: float = 30.0
    patience: float = 5.0
    pause: float = 0.0
    linger: float = 30.0


@dataclass
class Membership:
    """Who I am in a plan, and how the others reach me.

    identity: needed where the plan holds my key. listen: host:port. evidence: kind of TEE that I can show. policy: what I want
    to see of the others. disturb: changes what I say (for experiments with liars).
    """

    plan: Plan
    me: str
    listen: str
    identity: Identity | None = None
    evidence: str | None = None
    policy: Any = None
    manners: Manners = field(default_factory=Manners)
    disturb: Disturb | None = None

    def __post_init__(self) -> None:
        self.plan.neighbours(self.me)
        key = self.plan.members[self.me].key
        if key and (self.identity is None or self.identity.public != key):
            raise SettingsError(f"the plan knows {self.me!r} by another key; give the right one with --key")


class Member:
    """A site that exchanges. With ``site`` None it is the coordinator: no rows, only what the others say.

    records: where it writes down. Use as a context: inside, it answers others.
    """

    def __init__(self, membership: Membership, site: Site | None, records: Records, folder: StateFolder):
        self.who, self.plan, self.site, self.records = membership, membership.plan, site, records
        self.gate = Gate(self.plan, membership.me)
        self.neighbours = self.plan.neighbours(membership.me)
        self.round, self.born = 0, time.time_ns()
        shape = self.plan.shape
        self.weights: Floats = np.zeros((shape.columns, shape.classes), np.float32)
        self.shared = Shared.unknown(shape.classes)
        self.absent: dict[str, int] = {}
        self.returned = False  # the last round was the others': none of my own since
        begun = records.begun(folder)
        if begun is not None:
            self._restore(begun)
        self.mailbox = Mailbox(self.gate, self.round)
        self.demand = None
        if membership.policy is not None:
            self.demand = Demand(self.plan, self.gate, membership.policy)
            self.gate.trusted = self.demand.proven.__contains__
            self.mailbox.closed = True

    # ------------------------------------------------------------ being there

    def __enter__(self) -> Member:
        kind, key = self.who.evidence, self.plan.members[self.who.me].key
        attest = None if kind is None else (lambda nonce: shown(self.plan, key, kind, nonce))
        self.server = serve(self.mailbox, self.who.listen, attest)
        self.couriers = [
            Courier(self.mailbox, name, member.address, self._ready(name)) for name, member in self.neighbours.items()
        ]
        for courier in self.couriers:
            courier.start()
        return self

    def __exit__(self, *error: object) -> None:
        for courier in self.couriers:
            courier.stopped.set()
        self.server.shutdown()
        self.server.server_close()

    def _ready(self, name: str) -> Callable[[], bool]:
        demand = self.demand
        return (lambda: True) if demand is None else (lambda: demand.met(name, self.round))

    # ------------------------------------------------------------ rounds

    def run(self, progress: Progress = lambda done, total: None) -> None:
        """Until the plan's rounds are done; a state that was begun goes on."""
        first = True
        while self.round < self.plan.rounds:
            self.step(self.who.manners.gather if first else self.who.manners.patience)
            first = False
            progress(self.round, self.plan.rounds)
            if self.who.manners.pause:
                time.sleep(self.who.manners.pause)

    def step(self, patience: float) -> None:
        """One round."""
        ahead = self._ahead()
        if ahead is not None:  # the others went on without me: begin from what they know, not from what I knew
            self._move(ahead)
            self.returned, heard = True, self._heard(None)
        elif self.site is None:
            self.mailbox.now = self.round
            self._wait(patience)
            heard = self._heard(None)
        else:
            word, self.returned = self.site.learn(), False
            if self.who.disturb is not None:
                word = self.who.disturb(word, self.round)
            own = self._spoken(word)
            self.mailbox.put(own.to_bytes(self.who.identity), self.round)
            self._wait(patience)
            heard = self._heard(own)
        self._combine(heard)

    def _ahead(self) -> int | None:
        """The round that most of the others are in, when I am too far behind to be heard."""
        latest = [r for r in (self.mailbox.newest(name) for name in self.neighbours) if r >= 0]
        if not latest:
            return None
        there = median_low(latest)
        return min(there, self.plan.rounds - 1) if there > self.round + self.plan.stale else None

    def _move(self, round_: int) -> None:
        self.gate.note(self.round, self.who.me, f"behind the others: round {self.round} to {round_}")
        self.round = self.mailbox.now = round_
        if self.site is not None:
            self.site.round = round_

    def _wait(self, patience: float) -> None:
        """Until everybody who is expected has spoken in this round, or patience ends; who has not is absent until heard again."""
        box = self.mailbox
        expected = [
            name
            for name in self.neighbours
            if self.gate.until.get(name, 0) <= self.round
            and (name not in self.absent or box.newest(name) > self.absent[name])
        ]
        refused, limit = (
            self.gate.refused,
            patience / 2 if self.site is None else patience,
        )  # the sites wait for me, too
        spoken = lambda name: max(box.newest(name), refused.get(name, -1)) >= self.round  # noqa: E731
        box.wait(lambda: all(map(spoken, expected)), limit)
        self.absent = {name: at for name in self.neighbours if (at := box.newest(name)) < self.round}

    def _spoken(self, word: Statistics) -> Message:
        """My word as a message, hidden in my group's sum where the plan says so."""
        me, plan, numbers, kind = self.who.me, self.plan, word.vector(), PLAIN
        if plan.secure and self.who.identity is not None:
            group = next(one for one in self._groups() if me in one)
            others = {name: plan.members[name].key for name in group if name != me}
            hidden = masking.masked(numbers, me, self.who.identity, others, plan.digest, self.round)
            return Message(plan.digest, me, self.born, self.round, MASKED, hidden)
        return Message(plan.digest, me, self.born, self.round, kind, numbers)

    def _groups(self) -> list[list[str]]:
        return masking.groups(self.plan.learners, self.plan.secure, self.plan.digest, self.round)

    def _heard(self, own: Message | None) -> dict[str, Statistics]:
        """What can be put together in this round, my own word among it."""
        messages = {name: self.mailbox.at(name, self.round) for name in self.neighbours}
        messages = {name: m for name, m in messages.items() if self.gate.until.get(name, 0) <= self.round}
        coordinated = bool(self.plan.coordinator) and self.site is not None
        if own is not None and not (coordinated and any(messages.values())):
            messages[self.who.me] = own
        if self.plan.secure and not coordinated:
            return self._sums(messages)
        shape = self.plan.shape
        return {
            name: Statistics.of(m.floats, shape) for name, m in messages.items() if m is not None and m.kind == PLAIN
        }

    def _sums(self, messages: Mapping[str, Message | None]) -> dict[str, Statistics]:
        """The mean of each group that is complete in this very round."""
        out, shape = {}, self.plan.shape
        for group in self._groups():
            words = [messages.get(name) for name in group]
            there = [m.numbers for m in words if m is not None and m.round == self.round]
            name = "group of " + ", ".join(group)
            if len(there) < len(group):
                self.gate.note(self.round, name, "a member was absent: the group's sum cannot be read")
                continue
            found = masking.unmasked(there)  # type: ignore[arg-type]
            wrong = problem(found, shape, limit=self.plan.limit, counted=False)
            if wrong is None:
                out[name] = Statistics.of(found, shape)
            else:
                self.gate.note(self.round, name, wrong)
        return out

    def _combine(self, heard: dict[str, Statistics]) -> None:
        """Put it together, write the round down, go on to the next."""
        if self.site is not None:
            far = self.site.combine(heard)
            self.round = self.site.round
        else:
            self.weights, self.shared, far = combined(heard, self.weights, self.shared, self.plan)
            out = Message(self.plan.digest, self.who.me, self.born, self.round, PLAIN, self._agreed().vector())
            self.mailbox.put(out.to_bytes(self.who.identity), self.round)
            self.round += 1
        for name in far:
            if name in self.plan.members and name != self.who.me:
                self.gate.strike(self.round - 1, name, "its weights are more than ten times as far off as the others'")
            else:
                self.gate.note(self.round - 1, name, "its weights are more than ten times as far off as the others'")
        self.records.round(self.facts(sorted(heard)), self.state())

    def _agreed(self) -> Statistics:
        """What a coordinator says: weights, and the shared knowledge in the form of statistics."""
        k, shared = self.plan.shape.classes, self.shared
        pairs = np.full((k, k), shared.wrong / (k * (k - 1)))
        np.fill_diagonal(pairs, (1 - shared.wrong) / k)
        return Statistics(self.weights, pairs, shared.threshold, np.ones(k), shared.classes)

    # ------------------------------------------------------------ keeping

    def facts(self, heard: list[str]) -> dict[str, Any]:
        """What the ledger says of a round."""
        site, box = self.site, self.mailbox
        shared = self.shared if site is None else site.shared
        return {
            "round": self.round,
            "heard": heard,
            "absent": sorted(self.absent),
            "noise_rate": None if site is None else round(site.noise.rate, 4),
            "shared_noise_rate": round(shared.wrong, 4),
            "sent": dict(box.sent),
            "received": dict(box.received),
            "aside": [event.as_json() for event in self.gate.events()],
        }

    def state(self) -> dict[str, Any]:
        """What a restart needs."""
        own = None if self.site is None else self.site.state()
        shared = {"wrong": self.shared.wrong, "threshold": self.shared.threshold, "classes": self.shared.classes}
        hub = {"weights": self.weights, "shared": shared}
        gate = self.gate.state()
        return {
            "round": self.round,
            "born": self.born,
            "gate": gate,
            "site": own,
            "hub": hub,
            "returned": self.returned,
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.gate.restore(state["gate"])
        self.born = max(self.born, int(state["born"]) + 1)  # my clock may have been set back
        self.round, self.returned = int(state["round"]), bool(state.get("returned"))
        hub = state["hub"]
        self.weights = np.asarray(hub["weights"], np.float32)
        self.shared = Shared(
            float(hub["shared"]["wrong"]), np.asarray(hub["shared"]["threshold"]), np.asarray(hub["shared"]["classes"])
        )
        if self.site is not None and state["site"] is not None:
            self.site.restore(state["site"])
            if (self.plan.secure or self.plan.noise) and self.round < self.plan.rounds:
                self.round = self.site.round = self.round + 1  # this round may have been spoken already: never twice

    # ------------------------------------------------------------ the end

    def finish(self, batch: Batch | None) -> dict[str, int]:
        """Write the verdicts, then stay for those that are behind. How many of each verdict."""
        counts: dict[str, int] = {}
        if self.site is not None and batch is not None:
            if self.returned:
                self.site.settle()
            counts = self.records.verdicts(batch, self.site, self.state(), self.facts([]))
        last, box = self.plan.rounds - 1, self.mailbox
        waiting = [name for name in self.neighbours if name not in self.absent]

        def over() -> bool:
            got = [box.handed.get(name, -1) >= last or name in box.gone for name in waiting]
            return all(got) and all(box.newest(name) >= last for name in waiting)

        end = time.monotonic() + self.who.manners.linger
        while not over() and time.monotonic() < end:
            box.wait(over, 0.2)
        return counts
