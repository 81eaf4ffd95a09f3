"""One message: a short header in JSON, the numbers, and a signature where the plan holds keys.

``LWS1 | length of header (4 bytes) | header | numbers (4 bytes each) | signature (64 bytes, zeros without keys)``
The header names the plan, the site, its start (``born``) and its round; ``kind`` says whether the numbers are float32 or
masked uint32. A message longer than the plan's is refused before it is read; a shorter one once it is known whose it is.
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from labelwright.errors import DataError
from labelwright.sites.keys import SIGNATURE, Identity, Words, verified
from labelwright.sites.statistics import Shape
from labelwright.types import Floats

MAGIC = b"LWS1"
HEADER = 512  # most bytes of a header
PLAIN, MASKED = "plain", "masked"


@dataclass(frozen=True)
class Message:
    """site said this in round ``round`` since its start ``born`` (nanoseconds on its own clock; only ever compared with the
    same site's). numbers: float32, or uint32 where masked."""

    plan: str
    site: str
    born: int
    round: int
    kind: str
    numbers: Floats | Words
    signature: bytes = b""

    @property
    def floats(self) -> Floats:
        """The numbers, as float64."""
        return np.asarray(self.numbers, np.float64)

    @property
    def order(self) -> tuple[int, int]:
        """Later messages of a site are greater."""
        return self.born, self.round

    @cached_property
    def signed(self) -> bytes:
        """Everything but the signature."""
        head = {"plan": self.plan, "site": self.site, "born": self.born, "round": self.round, "kind": self.kind}
        text = json.dumps(head, separators=(",", ":")).encode()
        dtype = "<u4" if self.kind == MASKED else "<f4"
        return MAGIC + struct.pack("<I", len(text)) + text + np.ascontiguousarray(self.numbers, dtype).tobytes()

    @property
    def digest(self) -> str:
        """Tells two messages apart."""
        return hashlib.sha256(self.signed).hexdigest()

    def to_bytes(self, identity: Identity | None = None) -> bytes:
        """As it travels, signed by ``identity``."""
        return self.signed + (bytes(SIGNATURE) if identity is None else identity.sign(self.signed))

    def by(self, public: str) -> bool:
        """Whether the holder of these keys signed it."""
        return verified(public, self.signed, self.signature)


def most_bytes(shape: Shape) -> int:
    """The longest message of a plan: 4 (P + K^2 + 3K) + the header, the signature and 8.

    >>> most_bytes(Shape(1001, 10)) - 4 * Shape(1001, 10).numbers
    584
    """
    return 8 + HEADER + 4 * shape.numbers + SIGNATURE


def read(data: bytes, shape: Shape) -> Message:
    """The message in these bytes. Raises DataError, with the reason, for anything else."""
    if len(data) > most_bytes(shape):
        raise DataError(f"wrong shape: a message of {len(data):,} bytes; at most {most_bytes(shape):,} are read")
    if len(data) < 8 + SIGNATURE or data[:4] != MAGIC:
        raise DataError("no message of labelwright sites; expected one that begins with LWS1")
    (length,) = struct.unpack("<I", data[4:8])
    body, signature = data[8 + length : -SIGNATURE], data[-SIGNATURE:]
    if length > HEADER or 8 + length + SIGNATURE > len(data):
        raise DataError(f"the header says {length} bytes; at most {HEADER} are read")
    head = _header(data[8 : 8 + length])
    if len(body) % 4:
        raise DataError(f"{len(body)} bytes of numbers; expected 4 for each: was the message cut?")
    numbers = np.frombuffer(body, "<u4" if head["kind"] == MASKED else "<f4").copy()
    return Message(**head, numbers=numbers, signature=signature)


def _header(raw: bytes) -> dict[str, Any]:
    try:
        head = json.loads(raw)
        kinds = {"plan": str, "site": str, "born": int, "round": int, "kind": str}
        sound = isinstance(head, dict) and set(head) == set(kinds)
        sound = sound and all(type(head[name]) is kind for name, kind in kinds.items())
        sound = sound and head["kind"] in (PLAIN, MASKED) and 0 <= head["round"] < 2**31 and 0 <= head["born"] < 2**63
    except (ValueError, RecursionError):
        sound = False
    if not sound:
        raise DataError("the header of a message cannot be read; is the other site of another version?")
    return dict(head)
