"""What stands before every page: who may come in, how often, how much they may send, and what browsers are told."""

from __future__ import annotations

import base64
import hashlib
import hmac
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

FORM = 64 << 10
"""Most bytes of a form."""
LARGER = {"/label-studio/": 16 << 20, "/guidelines": 4 << 20}
TOO_MUCH = "That is too much: at most {} kB may be sent. Nothing was saved."
PATIENCE = 20.0
LOOPBACK = ("localhost", "127.0.0.1", "::1")

POLICY = (
    "default-src 'none'; img-src 'self'; style-src {style}; script-src 'self' {script}; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""style, script: what may style a page and what may run in it besides the site's own files, as :func:`hash_of` what stands in it."""
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}
"""No cross-origin-opener-policy: a browser begins a new process for it, a fifth of the first paint; the page opens no window, may not be
framed, and takes no form without its token."""


class _TooMuch(Exception):
    """More was sent than may be."""


class Guard:
    """ASGI middleware: security headers on everything, a bound on what is sent, and on a loopback site only requests that
    name a loopback host (a page elsewhere cannot make a browser read it by giving its own name this address).

    local: the site is for this machine alone. secure: it is reached by TLS. policy: what a page may load, as of :data:`POLICY`.
    """

    def __init__(self, app: Any, *, local: bool, secure: bool, policy: str):
        self.app, self.local = app, local
        extra = {"content-security-policy": policy}
        if secure:
            extra["strict-transport-security"] = "max-age=31536000"
        self.headers = [(name.encode(), value.encode()) for name, value in {**HEADERS, **extra}.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = dict(scope["headers"])
        still = scope["path"].startswith("/static/")
        limit = next((most for start, most in LARGER.items() if scope["path"].startswith(start)), FORM)

        async def sent(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                held = {name for name, _ in message["headers"]}
                mine = [(b"cache-control", b"max-age=300"), *self.headers] if still else self.headers
                message["headers"] = [
                    *message["headers"],
                    *dict(reversed([h for h in mine if h[0] not in held])).items(),
                ]
            await send(message)

        if self.local and host_of(given.get(b"host", b"").decode("latin-1")) not in LOOPBACK:
            await _refused(
                sent, 421, "This page answers to localhost only; start 'labelwright serve' with --host for others."
            )
            return
        if scope["method"] not in ("GET", "HEAD") and given.get(b"sec-fetch-site", b"none") in (
            b"cross-site",
            b"same-site",
        ):
            await _refused(sent, 403, "This request comes from another site; nothing was done.")
            return
        length = given.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > limit:
            await _refused(sent, 413, TOO_MUCH.format(limit >> 10))
            return
        try:
            await self.app(scope, _bounded(receive, limit), sent)
        except _TooMuch:
            await _refused(sent, 413, TOO_MUCH.format(limit >> 10))


def hash_of(text: str) -> str:
    """What a content security policy calls an inline style or script by.

    >>> hash_of("")
    "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
    """
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def host_of(header: str) -> str:
    """The host's name in a Host header, without the port.

    >>> host_of("localhost:8000"), host_of("[::1]:80"), host_of("evil.example")
    ('localhost', '::1', 'evil.example')
    """
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.rpartition(":")[0] if ":" in header else header


def _bounded(receive: Receive, limit: int) -> Receive:
    """A body that goes on beyond the limit (chunked, without a length) raises _TooMuch."""
    seen = 0

    async def bounded() -> MutableMapping[str, Any]:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise _TooMuch
        return message

    return bounded


async def _refused(send: Send, status: int, text: str) -> None:
    body = text.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Rate:
    """At most ``count`` events in ``seconds`` for each name; the names are forgotten as they grow quiet.

    >>> rate = Rate(2, 60.0, clock=lambda: 0.0)
    >>> [rate.allows("ann") for _ in range(3)], rate.allows("bob")
    ([True, True, False], True)
    """

    def __init__(self, count: int, seconds: float, *, clock: Callable[[], float] = time.monotonic):
        self.count, self.seconds, self.clock = count, seconds, clock
        self._events: dict[str, deque[float]] = {}
        self._turn = threading.Lock()

    def allows(self, name: str, *, counted: bool = True) -> bool:
        """Whether one more is allowed now; it counts, unless not ``counted``."""
        now = self.clock()
        with self._turn:
            if len(self._events) > 10_000:
                self._events = {
                    who: when for who, when in self._events.items() if when and when[-1] > now - self.seconds
                }
            events = self._events.setdefault(name, deque())
            while events and events[0] <= now - self.seconds:
                events.popleft()
            if len(events) >= self.count:
                return False
            if counted:
                events.append(now)
            return True


def signed(secret: bytes, text: str) -> str:
    """What a form must bring along, so that no other site can send it (HMAC-SHA-256)."""
    return hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()


def same(first: str, second: str) -> bool:
    """Whether two secrets are the same, in a time that tells nothing."""
    return hmac.compare_digest(first.encode(errors="replace"), second.encode(errors="replace"))
