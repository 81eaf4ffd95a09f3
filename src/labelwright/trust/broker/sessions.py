"""Who is speaking with the broker: single-use nonces, attested sessions, and how often anybody may ask."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hmac import compare_digest
from typing import Any

from labelwright.errors import RefusedError

Clock = Callable[[], datetime]
MOST = 4096  #: challenges, and sessions, held at a time; the oldest go first


@dataclass
class Session:
    """An attested learner. jwk: its ephemeral key. workload: hexadecimal digest. tickets: for a new version, by name."""

    jwk: dict[str, Any]
    workload: str
    ends: datetime
    tickets: dict[str, bytes] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class _Challenge:
    nonce: bytes
    ends: datetime


class Sessions:
    """Challenges and attested sessions, in memory only: after a restart no earlier nonce is known, so none can be used again.

    clock: now, with a time zone. nonce_lifetime, lifetime: how long a nonce and a session are good.
    """

    def __init__(self, clock: Clock, *, nonce_lifetime: timedelta, lifetime: timedelta):
        self._clock, self._nonce_lifetime, self._lifetime = clock, nonce_lifetime, lifetime
        self._challenges: OrderedDict[str, _Challenge] = OrderedDict()
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.Lock()

    def challenge(self) -> tuple[str, bytes]:
        """(session, nonce of 32 bytes)."""
        session, nonce = secrets.token_hex(16), secrets.token_bytes(32)
        with self._lock:
            self._challenges[session] = _Challenge(nonce, self._clock() + self._nonce_lifetime)
            while len(self._challenges) > MOST:
                self._challenges.popitem(last=False)
        return session, nonce

    def spend(self, session: str, nonce: bytes) -> None:
        """Use up the challenge, whatever comes of it. Raises RefusedError when it is unknown, used, expired or another's."""
        with self._lock:
            held = self._challenges.pop(session, None)
        if held is None or not compare_digest(held.nonce, nonce):
            raise RefusedError(
                "the nonce is not one that waits for this session, or was used; begin again at /kbs/v0/auth"
            )
        if self._clock() >= held.ends:
            raise RefusedError("the nonce has expired; begin again at /kbs/v0/auth")

    def admit(self, session: str, jwk: dict[str, Any], workload: str) -> None:
        """Remember that this session was attested."""
        with self._lock:
            self._sessions[session] = Session(jwk, workload, self._clock() + self._lifetime)
            while len(self._sessions) > MOST:
                self._sessions.popitem(last=False)

    def attested(self, session: str) -> Session | None:
        """The session, while it is good."""
        with self._lock:
            held = self._sessions.get(session)
            if held is not None and self._clock() >= held.ends:
                del self._sessions[session]
                held = None
        return held

    def ticket(self, session: Session, name: str) -> bytes:
        """32 bytes that only the learner gets to know, to say later that a new version is its own."""
        with self._lock:
            session.tickets[name] = secrets.token_bytes(32)
            return session.tickets[name]

    def take_ticket(self, session: Session, name: str, fits: Callable[[bytes], bool]) -> bool:
        """Use up the ticket when it fits."""
        with self._lock:
            held = session.tickets.get(name)
            if held is None or not fits(held):
                return False
            del session.tickets[name]
            return True


class RateLimit:
    """So many requests a second from one address, after a burst.

    >>> limit = RateLimit(1.0, burst=2)
    >>> [limit.allows("a", 0.0) for _ in range(3)], limit.allows("b", 0.0), limit.allows("a", 1.0)
    ([True, True, False], True, True)
    """

    def __init__(self, rate: float, *, burst: int):
        self.rate, self.burst = rate, burst
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def allows(self, address: str, now: float) -> bool:
        """Count one request at ``now`` seconds."""
        with self._lock:
            left, then = self._left.pop(address, (float(self.burst), now))
            left = min(float(self.burst), left + max(0.0, now - then) * self.rate)
            self._left[address] = (left - 1 if left >= 1 else left, now)
            while len(self._left) > MOST:
                self._left.popitem(last=False)
        return left >= 1
