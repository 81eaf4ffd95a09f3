"""Messages over HTTP: a site answers with its newest message whoever sends it a sound one, and sends its own to its
neighbours until each has given one of the same round. So it is enough that one of two sites can reach the other."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from labelwright.errors import SettingsError, TrustError
from labelwright.sites.gate import Gate
from labelwright.sites.message import Message, most_bytes

TIMEOUT = 2.0  # seconds for one exchange
AGAIN = 0.05  # seconds before the next try, doubled up to SLOW while nothing new comes
SLOW = 1.0
Attest = Callable[[bytes], bytes]


@dataclass
class Mailbox:
    """What came in, by site and round, and what goes out. All methods may be called from any thread.

    sent, received: bytes by neighbour. handed: site -> the round of mine that it has. gone: sites that refuse to be called.
    gate: judges what comes in. now: my round.
    closed: nothing is answered to a message that was not taken (where attestation is demanded).
    """

    gate: Gate
    now: int = 0
    out: bytes = b""
    sent: dict[str, int] = field(default_factory=dict)
    received: dict[str, int] = field(default_factory=dict)
    handed: dict[str, int] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    closed: bool = False
    _in: dict[str, dict[int, Message]] = field(default_factory=dict)
    _outs: dict[int, bytes] = field(default_factory=dict)
    _news: threading.Condition = field(default_factory=threading.Condition)

    def take(self, data: bytes, *, claimed: str = "unknown") -> str | None:
        """Let the gate judge a message; whose it is when it was taken (or is the one we have)."""
        with self._news:
            message = self.gate.admit(data, self.now, claimed=claimed)
            if message is None:
                self._news.notify_all()
                return None
            held = self._in.setdefault(message.site, {})
            held[message.round] = message
            for old in sorted(held)[: -2 * (self.gate.plan.stale + 2)]:
                del held[old]
            self._news.notify_all()
            return message.site

    def put(self, data: bytes, round_: int) -> None:
        """What everybody gets from now on."""
        with self._news:
            self.out, self.now = data, round_
            self._outs[round_] = data
            for old in sorted(self._outs)[: -(self.gate.plan.stale + 2)]:
                del self._outs[old]
            self._news.notify_all()

    def newest(self, site: str) -> int:
        """The latest round heard of from a site; -1: none."""
        with self._news:
            return max(self._in.get(site, {-1: None}))

    def at(self, site: str, round_: int) -> Message | None:
        """A site's message of this round, or the nearest one that is no more than ``stale`` rounds off."""
        with self._news:
            held = self._in.get(site, {})
            near = sorted(held, key=lambda r: (abs(r - round_), -r))
            return held[near[0]] if near and abs(near[0] - round_) <= self.gate.plan.stale else None

    def wait(self, ready: Callable[[], bool], seconds: float) -> bool:
        """Until something makes it ready, or the time is over."""
        with self._news:
            return self._news.wait_for(ready, seconds)

    def outgoing(self, after: int) -> tuple[bytes, int]:
        """What somebody gets who has my words up to the round ``after``: the next one, so that none is left out by a site that
        is a round behind; the newest when it is not held any more."""
        with self._news:
            later = [round_ for round_ in self._outs if round_ > after]
            return (self._outs[min(later)], min(later)) if later else (self.out, self.now)

    def has(self, site: str, round_: int) -> None:
        """A site got my message of this round; it can be reached."""
        with self._news:
            self.handed[site] = max(round_, self.handed.get(site, -1))
            self.gone.discard(site)
            self._news.notify_all()

    def count(self, table: dict[str, int], site: str, size: int) -> None:
        """Bytes of one message."""
        with self._news:
            table[site] = table.get(site, 0) + size


class _Server(ThreadingHTTPServer):
    daemon_threads, request_queue_size = True, 64
    mailbox: Mailbox
    attest: Attest | None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that hangs up is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version, timeout = "HTTP/1.1", 10

    def do_POST(self) -> None:
        """A message in, or nothing; the newest one out, when it is newer than the one the caller has."""
        box = self.server.mailbox
        most = most_bytes(box.gate.plan.shape)
        try:
            size = int(self.headers.get("Content-Length", ""))
        except ValueError:
            size = -1
        have = self.headers.get("Have", "-1")
        if self.path != "/exchange" or not 0 <= size <= most or not have.lstrip("-").isdigit():
            with box._news:
                box.gate.note(
                    box.now, "unknown", f"a request of {size:,} bytes to {self.path[:40]!r}; at most {most:,}"
                )
            self.close_connection = True
            return self._answer(413 if size > most else 400, b"")
        site = box.take(self.rfile.read(size)) if size else None
        if site is not None:
            box.count(box.received, site, size)
        out, round_ = box.outgoing(int(have[:12])) if site is not None or not box.closed else (b"", -1)
        out = b"" if round_ <= int(have[:12]) else out
        self._answer(200 if out else 204, out)
        if out and site is not None:
            box.count(box.sent, site, len(out))
            box.has(site, round_)

    def do_GET(self) -> None:
        """``/attest?nonce=HEX``: evidence of where this site runs, bound to the nonce."""
        where = urlsplit(self.path)
        nonce = parse_qs(where.query).get("nonce", [""])[0]
        if where.path != "/attest" or self.server.attest is None or len(nonce) > 128:
            return self._answer(404, b"")
        try:
            return self._answer(200, self.server.attest(bytes.fromhex(nonce)))
        except (ValueError, TrustError):
            return self._answer(400, b"")

    def _answer(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


def serve(mailbox: Mailbox, address: str, attest: Attest | None = None) -> _Server:
    """Answer on ``host:port`` from a thread of its own. Raises SettingsError when the address cannot be used."""
    host, port = parted(address)
    try:
        server = _Server((host, port), _Handler)
    except OSError as error:
        raise SettingsError(
            f"the address {address} cannot be used ({error.strerror}); name another with --listen"
        ) from error
    server.mailbox, server.attest = mailbox, attest
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
    return server


def parted(address: str) -> tuple[str, int]:
    """Host and port. Raises SettingsError for anything else.

    >>> parted("127.0.0.1:7000"), parted("[::1]:7000")
    (('127.0.0.1', 7000), ('::1', 7000))
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise SettingsError(f"{address!r} is no address; expected host:port, e.g. 10.0.0.2:7000")
    return host.strip("[]"), int(port)


class Courier(threading.Thread):
    """Sends the newest message to one neighbour, again until it has given one of my round.

    ready: whether anything may be sent to it (attestation); asked before each try.
    """

    def __init__(self, mailbox: Mailbox, name: str, address: str, ready: Callable[[], bool]):
        super().__init__(daemon=True, name=f"courier to {name}")
        self.mailbox, self.site, self.address, self.ready = mailbox, name, address, ready
        self.stopped = threading.Event()

    def run(self) -> None:
        """Until :attr:`stopped` is set."""
        pause, before, box = AGAIN, -1, self.mailbox
        while not self.stopped.is_set():
            out, round_ = box.outgoing(box.handed.get(self.site, -1))
            if not out or (box.handed.get(self.site, -1) >= round_ and box.newest(self.site) >= round_):
                box.wait(lambda: bool(box.out) and box.handed.get(self.site, -1) < box.now, 0.2)
                continue
            fresh = self.ready() and self._once(out, round_)
            pause = AGAIN if fresh or round_ != before else min(2 * pause, SLOW)
            before = round_
            self.stopped.wait(AGAIN if fresh else pause)

    def _once(self, out: bytes, round_: int) -> bool:
        """One exchange; whether a new message came back."""
        box = self.mailbox
        host, port = parted(self.address)
        connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT)
        try:
            body = b"" if box.handed.get(self.site, -1) >= round_ and not box.closed else out
            connection.request("POST", "/exchange", body, {"Have": str(box.newest(self.site))})
            answer = connection.getresponse()
            data = answer.read(most_bytes(box.gate.plan.shape) + 1)
        except ConnectionRefusedError:
            box.gone.add(self.site)
            return False
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        if answer.status not in (200, 204):
            return False
        box.has(self.site, round_)
        box.count(box.sent, self.site, len(body))
        if not data:
            return False
        box.count(box.received, self.site, len(data))
        before = box.newest(self.site)
        box.take(data, claimed=self.site)
        return box.newest(self.site) > before


def fetched(address: str, path: str, most: int = 4 << 20) -> bytes:
    """What a site answers to a GET. Raises OSError when it cannot be reached or says no."""
    host, port = parted(address)
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        if answer.status != 200:
            raise OSError(f"{address} answered {answer.status} to {path.partition('?')[0]}")
        return answer.read(most)
    except http.client.HTTPException as error:
        raise OSError(f"{address} gave no answer that can be read") from error
    finally:
        connection.close()
