"""The wire between host and learner: whatever bytes come, a message or one clear sentence."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelwright.errors import TrustError
from labelwright.trust.attester import collect
from labelwright.trust.host import Host
from labelwright.trust.seal import Memory
from labelwright.trust.wire import MAX_HEAD, Message, Wire, WireError, decode_head, encode, serve

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    with left, right:
        yield left, right


def sent(data: bytes, *, longest: int = 1 << 20) -> Message:
    """What the other end makes of these bytes."""
    left, right = socket.socketpair()
    with left, right:
        sender = threading.Thread(target=lambda: (left.sendall(data), left.shutdown(socket.SHUT_WR)))
        sender.start()
        try:
            return Wire(right.fileno(), longest=longest).receive()
        finally:
            right.close()
            sender.join()


@given(
    st.text(max_size=20),
    st.dictionaries(st.text(max_size=8).filter(lambda k: k != "kind"), VALUES),
    st.binary(max_size=5000),
)
def test_a_message_comes_out_as_it_went_in(kind: str, fields: dict[str, object], body: bytes) -> None:
    message = Message(kind, fields, body)
    assert sent(encode(message) + body) == message


@settings(max_examples=300, deadline=2000)
@given(st.binary(max_size=200))
def test_no_bytes_give_anything_but_a_message_or_a_sentence(data: bytes) -> None:
    try:
        assert isinstance(sent(data), Message)
    except (WireError, BrokenPipeError, ConnectionResetError) as error:
        assert str(error)


@settings(max_examples=300, deadline=2000)
@given(st.binary(max_size=60), st.integers(0, 40), st.binary(max_size=20))
def test_no_head_gives_a_traceback(head: bytes, body: int, rest: bytes) -> None:
    try:
        got = sent(struct.pack("!IQ", len(head), body) + head + rest)
        assert len(got.body) == body
    except WireError as error:
        assert str(error)


@pytest.mark.soak
@settings(max_examples=50_000, deadline=2000)
@given(st.binary(max_size=400))
def test_no_head_gives_a_traceback_at_length(head: bytes) -> None:
    try:
        decode_head(head)
    except WireError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (struct.pack("!IQ", MAX_HEAD + 1, 0), "at most"),
        (struct.pack("!IQ", 2, 1 << 40) + b"{}", "at most"),
        (struct.pack("!IQ", 2, 0) + b"{}", "without a kind"),
        (struct.pack("!IQ", 3, 0) + b"[1]", "without a kind"),
        (struct.pack("!IQ", 12, 0) + b'{"kind": 12}', "without a kind"),
        (struct.pack("!IQ", 5000, 0) + b"[" * 5000, "no JSON"),
        (struct.pack("!IQ", 2, 0) + b"\xff\xfe", "no JSON"),
        (b"\0\0\0", "hung up after 3 of 12"),
    ],
)
def test_bad_messages_are_named(data: bytes, sentence: str) -> None:
    with pytest.raises(WireError, match=sentence):
        sent(data)


def test_too_large_a_message_is_not_sent() -> None:
    with pytest.raises(WireError, match="too large"):
        encode(Message("x" * MAX_HEAD))


def test_large_bodies_pass(ends: tuple[socket.socket, socket.socket]) -> None:
    left, right = (Wire(end.fileno()) for end in ends)
    body = os.urandom(3 << 20)
    sender = threading.Thread(target=left.send, args=(Message("chunk", {}, body),))
    sender.start()
    assert right.receive().body == body
    sender.join()


def test_refusals_reach_the_asker_and_unknown_questions_end_it(ends: tuple[socket.socket, socket.socket]) -> None:
    left, right = (Wire(end.fileno()) for end in ends)

    def chunk(message: Message) -> Message:
        if message.number("index") > 1:
            raise TrustError("there are 2 chunks")
        return Message("chunk", {}, b"x" * message.number("index"))

    ended: list[object] = []

    def host() -> None:
        for _ in range(2):
            try:
                ended.append(serve(right, {"chunk": chunk}, until=("done",)).fields)
            except WireError as error:
                ended.append(str(error))

    serving = threading.Thread(target=host)
    serving.start()
    assert left.ask("chunk", index=1).body == b"x"
    with pytest.raises(TrustError, match="there are 2 chunks"):
        left.ask("chunk", index=2)
    left.send(Message("done", {"well": True}))
    left.send(Message("chunk", {"index": -1}))
    serving.join(10)
    assert ended[0] == {"well": True} and "no whole number 'index'" in str(ended[1])


@pytest.mark.parametrize("value", [True, -1, 1.5, "1", None, 1 << 60])
def test_numbers_are_whole_and_bounded(value: object) -> None:
    with pytest.raises(WireError, match="whole number"):
        Message("chunk", {"index": value}).number("index")


def test_hanging_up_is_one_sentence() -> None:
    left, right = socket.socketpair()
    right.close()
    with left, pytest.raises(WireError, match="hung up"):
        Wire(left.fileno()).send(Message("a", {}, b"x" * 100))
        Wire(left.fileno()).receive()


FIELDS = st.dictionaries(
    st.sampled_from(["id", "name", "index", "data", "method", "path", "headers", "done", "of", "reason"]),
    st.sampled_from(
        ["rows", "v1-00000000.chunk", "manifest.jws", "../../etc/passwd", "GET", "/kbs/v0/auth", "zz", "00" * 64]
    )
    | VALUES,
)


@settings(max_examples=400, deadline=2000)
@given(
    st.sampled_from(["chunk", "put", "relay", "collect", "expert", "progress", "confined"]),
    FIELDS,
    st.binary(max_size=50),
)
def test_a_host_takes_no_bent_question(kind: str, fields: dict[str, object], body: bytes) -> None:
    """A learner that went mad reads nothing but sealed blobs, writes nothing but results, and reaches nobody but the broker."""
    stores, results, relayed = {"rows": Memory({"v1-00000000.chunk": b"sealed"})}, {"done": Memory()}, []

    def send(method: str, path: str, headers: object, content: bytes) -> tuple[int, dict[str, str], bytes]:
        relayed.append((method, path))
        return 200, {}, b""

    host = Host(stores, results, send, lambda data: collect("sim", data))
    handlers = host.handlers
    try:
        handlers[kind](Message(kind, fields, body))
    except TrustError as error:
        assert str(error)
    assert set(relayed) <= {("GET", "/kbs/v0/auth")} and not results["done"]
