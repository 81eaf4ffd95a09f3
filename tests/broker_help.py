"""A broker to test with: a verifier that believes evidence whose blob is the report data, and an app called without a network."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from labelwright.errors import RefusedError
from labelwright.trust.evidence import Evidence

PASSPHRASE = "correct horse battery staple"
WORKLOAD = bytes(range(32))


@dataclass(frozen=True)
class Appraisal:
    status: str
    reasons: tuple[str, ...] = ()
    kind: str = "tdx"
    isolation: str = "hardware"
    claims: Mapping[str, Any] = ()  # type: ignore[assignment]


class Policy:
    """What the broker asks of a policy."""

    def check_workload(self, digest: bytes) -> None:
        if digest != WORKLOAD:
            raise RefusedError(f"the workload {digest.hex()[:16]}… is not one of the policy's 1")

    def check(self, appraisal: Any) -> None:
        if appraisal.status != "affirming":
            raise RefusedError("bound to another nonce, key or workload than this conversation's")


def believe(evidence: Evidence, policy: object, *, report_data: bytes, now: datetime) -> Appraisal:
    return Appraisal("affirming" if evidence.blob == report_data else "contraindicated")


def collect(data: bytes) -> Evidence:
    return Evidence("tdx", data)


def no_token(appraisal: object, key: object, **options: object) -> str:
    return "token"


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def call(
    app: Any, method: str, path: str, headers: Mapping[str, str], body: bytes
) -> tuple[int, dict[str, str], bytes]:
    """One request to an ASGI app: the ``send`` of a client, in this process."""
    status, got, parts, told = 0, dict[str, str](), list[bytes](), False

    async def receive() -> dict[str, Any]:
        nonlocal told
        if told:
            await asyncio.sleep(60)
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Mapping[str, Any]) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
            got.update({name.decode(): value.decode() for name, value in message["headers"]})
        else:
            parts.append(message.get("body", b""))

    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"", "scheme": "http",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()], "client": ("test", 1),
        "server": ("test", 80), "http_version": "1.1", "root_path": "", "asgi": {"version": "3.0"},
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    return status, got, b"".join(parts)


SERVER = """
import socket, sys, uvicorn
from broker_help import Policy, believe, no_token
from labelwright.trust.broker import KeyFolder, Limits, create_app
folder, passphrase = sys.argv[1:3]
app = create_app(KeyFolder(folder, passphrase), Policy(), verify=believe, token=no_token, limits=Limits(rate=1e6, burst=10**6))
listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
listening.bind(("127.0.0.1", 0))
listening.listen(100)
print(listening.getsockname()[1], flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False)).run(sockets=[listening])
"""


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """(address, process) of a broker over a key folder, in a process of its own."""
    here = str(Path(__file__).parent)
    path = os.pathsep.join([here, *(p for p in sys.path if p)])
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(folder), PASSPHRASE],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )
    try:
        assert process.stdout is not None
        port = int(
            process.stdout.readline()
        )  # the server's own choice: a port that is free now may be taken when it starts
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.kill()
        process.communicate()
