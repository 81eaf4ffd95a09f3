"""What learner and broker share about versions."""

from __future__ import annotations

import hmac
from dataclasses import dataclass


@dataclass(frozen=True)
class Version:
    """The newest good version of a sealed thing: 0 when there is none yet. digest: SHA-256 of its manifest, or empty."""

    number: int = 0
    digest: bytes = b""


def version_mac(ticket: bytes, name: str, version: int, digest: str) -> bytes:
    """What the learner says with its ticket: 32 bytes over ``repository/tag``, the version and the manifest's digest.

    >>> len(version_mac(bytes(32), "default/m", 1, "00" * 32))
    32
    """
    return hmac.digest(ticket, f"labelwright version 1\0{name}\0{version}\0{digest}".encode(), "sha256")
