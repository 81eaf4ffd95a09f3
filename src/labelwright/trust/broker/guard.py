"""What stands before the broker's endpoints: limits on rate, size and time, a signature on every response, and no traceback."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from labelwright.trust.broker.sessions import RateLimit
from labelwright.trust.broker.signature import HEADER, REQUEST, Exchange, session_of
from labelwright.trust.seal.signing import PrivateKey

log = logging.getLogger("labelwright.broker")
Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]
PROBLEMS = "https://github.com/confidential-containers/kbs/errors/"


@dataclass(frozen=True)
class Limits:
    """rate: requests a second from one address; burst: at once. body: bytes. seconds: for a request to arrive in full."""

    rate: float = 50.0
    burst: int = 200
    body: int = 4 << 20
    seconds: float = 10.0


def problem(kind: str, detail: str) -> dict[str, str]:
    """Trustee's ErrorInformation: one sentence, nothing of what was sent but what is safe to show."""
    return {"type": PROBLEMS + kind, "detail": detail.encode("utf-8", "backslashreplace").decode()[:1000]}


class Guard:
    """ASGI middleware around the whole app."""

    def __init__(self, app: App, *, key: PrivateKey, limits: Limits):
        self.app, self.key, self.limits = app, key, limits
        self._rate = RateLimit(limits.rate, burst=limits.burst)

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body, answer = b"", _Answer()
        address = (scope.get("client") or ("",))[0]
        if not self._rate.allows(address, time.monotonic()):
            answer.refuse(429, "RateLimited", "too many requests from this address; wait a second", retry="1")
        else:
            body = await self._body(receive, answer)
        if not answer.status:
            await self._answered(scope, body, answer)
        await self._send(scope, body, answer, send)

    async def _body(self, receive: Callable[[], Awaitable[Message]], answer: _Answer) -> bytes:
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self.limits.seconds):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        answer.refuse(400, "Disconnected", "the request did not arrive in full; send it again")
                        return b""
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > self.limits.body:
                        answer.refuse(413, "TooLarge", f"the request has more than {self.limits.body} bytes; send less")
                        return b""
                    if not message.get("more_body"):
                        return b"".join(parts)
        except TimeoutError:
            answer.refuse(
                408, "TooSlow", f"the request took more than {self.limits.seconds:g} s to arrive; send it again"
            )
            return b""

    async def _answered(self, scope: Message, body: bytes, answer: _Answer) -> None:
        told = False

        async def receive() -> Message:
            nonlocal told
            if told:
                await asyncio.sleep(3600)
            told = True
            return {"type": "http.request", "body": body, "more_body": False}

        try:
            await self.app(scope, receive, answer.take)
        except Exception as error:  # whatever it is, no traceback leaves and none is logged: it might hold a key
            log.error("%s %s failed: %s", scope["method"], scope["path"], type(error).__name__)
            answer.refuse(500, "Internal", "the broker failed; tell its owner")

    async def _send(
        self, scope: Message, body: bytes, answer: _Answer, send: Callable[[Message], Awaitable[None]]
    ) -> None:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        path = scope.get("raw_path", scope["path"].encode()).decode("latin-1")
        exchange = Exchange(
            scope["method"], path, headers.get(REQUEST, "")[:200], session_of(headers.get("cookie")), body, answer.status,
            session_of(answer.header("set-cookie")), answer.body,
        )  # fmt: skip
        log.info("%s %s %s", scope["method"], path[:200], answer.status)
        signed = (HEADER.encode(), exchange.signed(self.key).encode())
        await send({"type": "http.response.start", "status": answer.status, "headers": [*answer.headers, signed]})
        await send({"type": "http.response.body", "body": answer.body})


class _Answer:
    """A response, held back until it is whole."""

    def __init__(self) -> None:
        self.status, self.body = 0, b""
        self.headers: list[tuple[bytes, bytes]] = []

    async def take(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers, self.body = message["status"], list(message["headers"]), b""
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")

    def refuse(self, status: int, kind: str, detail: str, *, retry: str = "") -> None:
        self.status, self.body = status, json.dumps(problem(kind, detail)).encode()
        self.headers = [(b"content-type", b"application/json"), (b"content-length", str(len(self.body)).encode())]
        if retry:
            self.headers.append((b"retry-after", retry.encode()))

    def header(self, name: str) -> str | None:
        return next(
            (value.decode("latin-1") for key, value in self.headers if key.decode("latin-1").lower() == name), None
        )
