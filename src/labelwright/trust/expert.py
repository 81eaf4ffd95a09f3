"""Questions and answers between a confined learner and its expert, over a host that can read neither.

The learner's end holds the ephemeral key that the evidence spoke for; the expert's key stands in ``workload.toml``, so the digest
covers it. Both derive one key a direction by ECDH (P-256) and HKDF: only these two can read or write, and each message goes once.
The expert accepts a learner only with a token that the broker signed for that learner's key.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from labelwright.errors import RefusedError, TrustError
from labelwright.trust.evidence import canonical_key
from labelwright.trust.names import Names
from labelwright.trust.seal import jwk_of, key_of, packed, unpacked
from labelwright.trust.seal.arrays import Array
from labelwright.types import NO_LABEL, Answer, Ints, Queries

Deliver = Callable[[bytes], bytes]
Decide = Callable[[Mapping[str, Array]], Ints]
"""The question's arrays -> (n,) the true class of each row, or NO_LABEL. ``X``: features, ``given``: classes, ``keys``: the owner's
keys of the rows; where the owner sealed them, ``id``: (n, 32) ids as UTF-8 and ``classes``: the classes' names, JSON as bytes."""
_HEAD = 4
_MOST_HEAD = 1 << 16


class Channel:
    """One end. own: this end's private key. other: the other end's public key, a JWK. learner: which end this is.

    >>> from labelwright.trust.seal import new_key
    >>> a, b = new_key(), new_key()
    >>> left, right = Channel(a, jwk_of(b), learner=True), Channel(b, jwk_of(a), learner=False)
    >>> right.open(left.seal(b"which?")), left.open(right.seal(b"this"))
    (b'which?', b'this')
    """

    def __init__(self, own: ec.EllipticCurvePrivateKey, other: Mapping[str, str], *, learner: bool):
        public = key_of(other)
        if not isinstance(public, ec.EllipticCurvePublicKey):
            raise TrustError("the other end's key is no EC P-256 key; give one of that kind")
        ends = [canonical_key(dict(jwk_of(own))), canonical_key(dict(other))]
        asks, answers = ends if learner else reversed(ends)
        secret = own.exchange(ec.ECDH(), public)
        keys = [
            AESGCM(HKDF(SHA256(), 32, None, b"labelwright expert 1\0" + way + asks + answers).derive(secret))
            for way in (b"question", b"answer")
        ]
        self._out, self._in = keys if learner else reversed(keys)
        self._sent = self._heard = 0

    def seal(self, content: bytes) -> bytes:
        """The next message out."""
        self._sent += 1
        return self._out.encrypt(self._sent.to_bytes(12, "big"), content, None)

    def open(self, message: bytes) -> bytes:
        """The next message in. Raises TrustError when it was altered, repeated, left out or is another's."""
        try:
            content = self._in.decrypt((self._heard + 1).to_bytes(12, "big"), message, None)
        except (InvalidTag, ValueError):
            raise TrustError(
                "a message between learner and expert was altered, repeated or dropped; nothing of it was used"
            ) from None
        self._heard += 1
        return content


class SealedExpert:
    """The learner's view of an expert behind the host: an :class:`~labelwright.experts.Expert`.

    deliver: carries bytes to the expert and brings the answer. token: the broker's verdict on this learner. names: what the owner
    calls the rows.
    """

    name = "expert"

    def __init__(self, channel: Channel, own: Mapping[str, str], token: str, deliver: Deliver, *, names: Names):
        self._channel, self._deliver, self._names = channel, deliver, names
        self._head = json.dumps({"token": token, "key": dict(own)}).encode()

    def greet(self) -> None:
        """An empty question, while the broker's token is fresh: the expert admits this learner, or the work need not begin."""
        if self._channel.open(self._deliver(self._message(b""))):
            raise TrustError("the expert answered before it was asked; give the workload's own expert")

    def _message(self, content: bytes) -> bytes:
        return len(self._head).to_bytes(_HEAD, "big") + self._head + self._channel.seal(content)

    def ask(self, queries: Queries) -> Iterator[Answer]:
        """The expert's answers, sealed both ways. Raises TrustError for a message that is not the expert's."""
        if not len(queries):
            return
        rows = queries.rows
        told = self._names.told(rows.keys)
        classes = np.frombuffer(json.dumps(self._names.classes).encode(), np.uint8)
        asked = bytes(packed({"X": rows.X, "given": rows.y, "classes": classes, **told}))
        said = unpacked(self._channel.open(self._deliver(self._message(asked))))
        if set(said) != {"keys", "label"} or not np.array_equal(said["keys"], told["keys"]):
            raise TrustError("the expert answered other questions than were put; ask again")
        for key, label in zip(rows.keys, said["label"], strict=True):
            yield Answer(int(key), int(label), self.name)

    def collect(self, outstanding: Queries) -> Iterator[Answer]:
        """None come late."""
        return iter(())


class Expertise:
    """The expert's end: opens questions of learners whom the broker vouches for, and seals the answers.

    key: the expert's own. broker: the broker's public key. decide: says the true class of rows. clock: now, with a time zone.
    workloads: digests that are answered; none: every workload that the broker vouches for.
    """

    def __init__(
        self, key: ec.EllipticCurvePrivateKey, broker: Mapping[str, str], decide: Decide, clock: Callable[[], datetime],
        *, workloads: Collection[bytes] = (),
    ):  # fmt: skip
        self._workloads = {digest.hex() for digest in workloads}
        self._key, self._broker, self._decide, self._clock = key, key_of(broker), decide, clock
        self._channels: dict[bytes, Channel] = {}
        self.answered = 0

    def __call__(self, message: bytes) -> bytes:
        """One sealed question in, one sealed answer out. Raises RefusedError for a learner that nobody vouches for."""
        size = int.from_bytes(message[:_HEAD], "big")
        try:
            head = json.loads(message[_HEAD : _HEAD + size]) if size <= _MOST_HEAD else {}
            token, jwk = str(head["token"]), dict(head["key"])
            name = canonical_key(jwk)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise TrustError(
                "the question has no token and key of a learner; expected what a confined learner sends"
            ) from error
        channel = self._channels.get(name) or self._admitted(name, token, jwk)
        content = channel.open(message[_HEAD + size :])
        if not content:
            return channel.seal(b"")
        asked = unpacked(content)
        label = np.asarray(self._decide(asked), np.int64)
        self.answered += int((label != NO_LABEL).sum())
        return channel.seal(bytes(packed({"keys": asked["keys"], "label": label})))

    def _admitted(self, name: bytes, token: str, jwk: dict[str, str]) -> Channel:
        from labelwright.trust import ear

        claims = ear.read(token, self._broker, now=self._clock())  # type: ignore[arg-type]
        if canonical_key(claims["cnf"]["jwk"]) != name:
            raise RefusedError("the broker vouches for another key than the one that asks; nothing was answered")
        if self._workloads and claims.get(ear.WORKLOAD) not in self._workloads:
            raise RefusedError(
                "the learner that asks runs another workload than this expert answers; nothing was answered"
            )
        self._channels[name] = Channel(self._key, jwk, learner=False)
        return self._channels[name]
