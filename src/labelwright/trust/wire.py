"""The one wire between a confined learner and its host: messages over an inherited socket.

A message is a length-prefixed JSON head and a length-prefixed body of bytes. The learner asks, the host answers; neither trusts
the other, so every length is bounded and every head is checked before it is used. Reading and writing need no other system call
than ``read`` and ``write``.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from labelwright.errors import TrustError

_LENGTHS = struct.Struct("!IQ")
MAX_HEAD = 1 << 16
MAX_BODY = 1 << 28
_PIECE = 1 << 20


class WireError(TrustError):
    """The other end of the wire sent what is no message, or hung up."""


class SilenceError(WireError):
    """The other end neither spoke nor listened for as long as the socket waits."""


@dataclass(frozen=True)
class Message:
    """One message. kind: what is asked or answered. fields: JSON values. body: bytes.

    >>> Message("chunk", {"name": "data", "index": 3}).fields["index"]
    3
    """

    kind: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    body: bytes = b""

    def text(self, name: str, longest: int = 4096) -> str:
        """The field ``name``, a string. Raises WireError when it is none."""
        value = self.fields.get(name)
        if not isinstance(value, str) or len(value) > longest:
            raise WireError(f"the message {self.kind!r} has no text {name!r} of at most {longest} characters; hang up")
        return value

    def number(self, name: str, most: int = 1 << 53) -> int:
        """The field ``name``, a whole number from 0 on. Raises WireError when it is none."""
        value = self.fields.get(name)
        if type(value) is not int or not 0 <= value <= most:
            raise WireError(f"the message {self.kind!r} has no whole number {name!r} of 0 to {most}; hang up")
        return value


def encode(message: Message) -> bytes:
    """The bytes of a message, without its body. Raises WireError when it is too large.

    >>> decode_head(encode(Message("done"))[12:]).kind
    'done'
    """
    head = json.dumps({**message.fields, "kind": message.kind}, separators=(",", ":")).encode()
    if len(head) > MAX_HEAD or len(message.body) > MAX_BODY:
        raise WireError(
            f"a message of {len(head)} + {len(message.body)} bytes is too large; at most {MAX_HEAD} + {MAX_BODY} go over the wire: "
            "make the chunks smaller"
        )
    return _LENGTHS.pack(len(head), len(message.body)) + head


def decode_head(head: bytes) -> Message:
    """A message without its body. Raises WireError when the bytes are none."""
    try:
        told = json.loads(head)
    except (ValueError, RecursionError) as error:
        raise WireError(f"the other end sent a head that is no JSON ({str(error)[:80]}); hang up") from error
    if not isinstance(told, dict) or not isinstance(told.get("kind"), str):
        raise WireError("the other end sent a head without a kind; expected a JSON object with 'kind'; hang up")
    return Message(told.pop("kind"), told)


class Wire:
    """One end. fd: of the socket. longest: bytes of body that this end takes.

    >>> import socket
    >>> left, right = socket.socketpair()
    >>> Wire(left.fileno()).send(Message("hello", {"n": 1}, b"body"))
    >>> got = Wire(right.fileno()).receive()
    >>> got.kind, got.fields, got.body
    ('hello', {'n': 1}, b'body')
    """

    def __init__(self, fd: int, *, longest: int = MAX_BODY):
        self.fd, self.longest = fd, longest

    def send(self, message: Message) -> None:
        """Send it all. Raises WireError when the other end hung up."""
        self._write(encode(message))
        self._write(message.body)

    def receive(self) -> Message:
        """The next message. Raises WireError when it is none, too large, or the other end hung up."""
        head, body = _LENGTHS.unpack(self._read(_LENGTHS.size))
        if head > MAX_HEAD or body > self.longest:
            raise WireError(
                f"the other end announced {head} + {body} bytes; at most {MAX_HEAD} + {self.longest} are taken; hang up"
            )
        message = decode_head(bytes(self._read(head)))
        return Message(message.kind, message.fields, self._read(body) if body else b"")

    def hung_up(self) -> None:
        """Wait until the other end hangs up."""
        while os.read(self.fd, _PIECE):
            pass

    def ask(self, kind: str, body: bytes = b"", **fields: Any) -> Message:
        """Send and wait for the answer. Raises TrustError with the host's own sentence when it refuses."""
        self.send(Message(kind, fields, body))
        answer = self.receive()
        if answer.kind == "refused":
            raise TrustError(answer.text("reason"))
        return answer

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self.fd, view[:_PIECE]) :]
        except BlockingIOError as error:
            raise SilenceError("the other end does not listen") from error
        except OSError as error:
            raise WireError(f"the other end hung up ({error.strerror}); nothing more can be sent") from error

    def _read(self, count: int) -> bytes:
        out = bytearray()
        while len(out) < count:
            try:
                piece = os.read(self.fd, min(count - len(out), _PIECE))
            except BlockingIOError as error:
                raise SilenceError("the other end does not speak") from error
            except OSError as error:
                raise WireError(f"the other end cannot be heard ({error.strerror})") from error
            if not piece:
                raise WireError(f"the other end hung up after {len(out)} of {count} bytes")
            out += piece
        return bytes(out) if count < _PIECE else out  # type: ignore[return-value]  # a large body is not copied again


Handler = Callable[[Message], Message]


def serve(
    wire: Wire, handlers: Mapping[str, Handler], *, until: tuple[str, ...], silent: tuple[str, ...] = ()
) -> Message:
    """Answer the other end's messages until it sends one of ``until``; returns that message. ``silent`` ones are not answered.

    A TrustError of a handler is told to the other end as ``refused``, with its sentence. Raises WireError for a message that no
    handler knows.
    """
    while True:
        message = wire.receive()
        if message.kind in until:
            return message
        handler = handlers.get(message.kind)
        if handler is None:
            raise WireError(
                f"the learner asks {message.kind[:40]!r}, which its host does not know; one of {sorted(handlers)}"
            )
        try:
            answer = handler(message)
        except TrustError as error:
            if isinstance(error, WireError):
                raise
            answer = Message("refused", {"reason": str(error)[:4000]})
        if message.kind not in silent:
            wire.send(answer)
