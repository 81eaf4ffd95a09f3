"""The signed list of what was sealed: without it no chunk is opened, with it none can be dropped, swapped or altered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from hmac import compare_digest
from typing import Any

from labelwright.errors import SealError
from labelwright.trust.seal.signing import PrivateKey, PublicKey, b64, key_of, payload_of, signed_text, unb64

TYPE = "labelwright-manifest+json"
NAME = "manifest.jws"
TAG = 16
MOST_BYTES = 256 << 20
MOST_CHUNK = 1 << 30
MOST_CHUNKS = 10_000_000
KINDS = ("data", "model", "ledger", "answers")


@dataclass(frozen=True)
class Manifest:
    """What the owner signed of a sealed data set or model.

    id, version: its name and version, 1 and up. kind: one of :data:`KINDS`. schema: array -> [dtype, shape of one row]; empty
    for a model. sizes: bytes of each chunk's plaintext. rows: rows of each chunk, empty for a model. tags: each chunk's GCM
    tag, which is its digest for everybody without the key. salt: 32 random bytes, so that a key never meets a nonce twice.
    key_id: the resource the key is had from. about: a sealed description (classes, encoder), see :func:`about`.
    text: the signed bytes themselves.
    """

    id: str
    version: int
    kind: str
    sizes: tuple[int, ...]
    tags: tuple[bytes, ...] = field(repr=False)
    salt: bytes = field(repr=False)
    rows: tuple[int, ...] = ()
    schema: Mapping[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    key_id: str = ""
    about: bytes = field(default=b"", repr=False)
    text: bytes = field(default=b"", repr=False, compare=False)

    @property
    def count(self) -> int:
        """How many chunks there are."""
        return len(self.sizes)

    @property
    def num_rows(self) -> int:
        """Rows in all chunks; 0 for a model."""
        return sum(self.rows)

    @property
    def digest(self) -> bytes:
        """SHA-256 of the signed text: 32 bytes that name this sealing."""
        return sha256(self.text).digest()

    def chunk(self, index: int) -> str:
        """The chunk's name in a store."""
        return f"v{self.version}-{index:08d}.chunk"

    def signed(self, key: PrivateKey) -> Manifest:
        """The same, with ``text``."""
        told = {
            "format": 1, "id": self.id, "version": self.version, "kind": self.kind, "count": self.count,
            "sizes": list(self.sizes), "rows": list(self.rows), "schema": {n: [d, list(s)] for n, (d, s) in self.schema.items()},
            "tags": b64(b"".join(self.tags)), "salt": b64(self.salt), "key_id": self.key_id, "about": b64(self.about),
        }  # fmt: skip
        text = signed_text(key, json.dumps(told, separators=(",", ":")).encode(), TYPE)
        return Manifest.read(text, key.public_key())

    def check_newest(self, number: int, digest: bytes = b"") -> None:
        """Raise SealError unless this is the very sealing that the broker counts as the newest.

        number, digest: of its counter. An older one was rolled back; a later one was never counted; another of the same number
        is what a learner sealed whose version came second.
        """
        if self.version < number:
            raise _rolled_back(self.id, self.version, number)
        if self.version > number:
            raise SealError(
                f"version {self.version} of {self.id!r} was never counted by the broker, whose newest is {number}; seal it again"
            )
        if digest and not compare_digest(self.digest, digest):
            raise SealError(
                f"this is another sealing of {self.id!r} version {number} than the broker counts; have the store give that one"
            )

    @staticmethod
    def read(text: bytes, signer: PublicKey | Mapping[str, str], *, version: int | None = None) -> Manifest:
        """A manifest that ``signer`` signed.

        version: the least that is good; an older one was rolled back. Raises SealError when it was altered, is signed by
        another, is too old or is no manifest.
        """
        if len(text) > MOST_BYTES:
            raise SealError(f"the manifest has {len(text)} bytes, expected at most {MOST_BYTES}; it is not the owner's")
        payload = payload_of(key_of(signer), text, TYPE, "the manifest")
        try:
            made = _from_payload(payload, bytes(text))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise SealError(
                "the manifest is signed but not complete; seal again with this version of labelwright"
            ) from error
        if version is not None and made.version < version:
            raise _rolled_back(made.id, made.version, version)
        return made


def _rolled_back(id: str, got: int, expected: int) -> SealError:
    return SealError(
        f"{id!r} was rolled back: got version {got}, expected {expected} or later; have the store give the newest version"
    )


def _from_payload(payload: bytes, text: bytes) -> Manifest:
    told = json.loads(payload)
    if told["format"] != 1:
        raise ValueError("format")
    count = _whole(told["count"], most=MOST_CHUNKS)
    sizes = tuple(_whole(n, most=MOST_CHUNK) for n in told["sizes"])
    rows = tuple(_whole(n, most=1 << 40) for n in told["rows"])
    tags = unb64(told["tags"])
    schema = {_text(n): (_text(d), tuple(_whole(k, most=1 << 48) for k in s)) for n, (d, s) in told["schema"].items()}
    if len(sizes) != count or len(tags) != TAG * count or len(rows) not in (0, count) or told["kind"] not in KINDS:
        raise ValueError("lengths")
    return Manifest(
        _text(told["id"]), _whole(told["version"], least=1, most=1 << 53), told["kind"], sizes,
        tuple(tags[at : at + TAG] for at in range(0, len(tags), TAG)), _salt(told["salt"]), rows, schema,
        _text(told["key_id"]), unb64(told["about"]), text,
    )  # fmt: skip


def _salt(text: Any) -> bytes:
    salt = unb64(text)
    if len(salt) != 32:
        raise ValueError("salt")
    return salt


def _whole(value: Any, *, most: int, least: int = 0) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError("number")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("text")
    return value
