"""A site's own key: it signs what the site says, and hides it in a group's sum. Needs the ``trust`` extra."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from labelwright.errors import SettingsError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

SIGNATURE = 64
Words = npt.NDArray[np.uint32]


def _derived(seed: bytes, purpose: str) -> bytes:
    return hashlib.sha256(f"labelwright sites {purpose}|".encode() + seed).digest()


@dataclass(frozen=True)
class Identity:
    """Made from 32 secret bytes: Ed25519 to sign, X25519 to agree on masks.

    >>> one = Identity(bytes(32))
    >>> len(one.public), verified(one.public, b"said", one.sign(b"said")), verified(one.public, b"not", one.sign(b"said"))
    (128, True, False)
    """

    seed: bytes

    @cached_property
    def _signing(self) -> Ed25519PrivateKey:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return Ed25519PrivateKey.from_private_bytes(_derived(self.seed, "sign"))

    @cached_property
    def _agreeing(self) -> X25519PrivateKey:
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        return X25519PrivateKey.from_private_bytes(_derived(self.seed, "agree"))

    @property
    def public(self) -> str:
        """Both public keys, 128 hexadecimal digits: the plan's ``key``."""
        return (self._signing.public_key().public_bytes_raw() + self._agreeing.public_key().public_bytes_raw()).hex()

    def sign(self, content: bytes) -> bytes:
        """64 bytes."""
        return self._signing.sign(content)

    def mask(self, other: str, label: str, size: int) -> Words:
        """(size,) uint32 that only the two sites can make: ChaCha20's key stream under a key that both derive.

        other: the other's public keys. label: what the mask is for (plan, round and both names); never twice the same.
        """
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

        secret = self._agreeing.exchange(X25519PublicKey.from_public_bytes(bytes.fromhex(other)[32:]))
        key = hashlib.sha256(b"labelwright sites mask|" + secret + label.encode()).digest()
        stream = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor().update(bytes(4 * size))
        return np.frombuffer(stream, "<u4").copy()


def verified(public: str, content: bytes, signature: bytes) -> bool:
    """Whether the holder of these public keys signed the content."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)[:32]).verify(signature, content)
    except (InvalidSignature, ValueError):
        return False
    return True


def key_of(path: Path, *, make: bool = False) -> Identity:
    """The identity in a file that only its owner can read; made when asked for. Raises SettingsError when there is none."""
    if make and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(os.urandom(32).hex() + "\n")
    try:
        seed = bytes.fromhex(path.read_text().strip())
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"the key {path} cannot be read; make one with 'labelwright sites key --key {path}'"
        ) from error
    if len(seed) != 32:
        raise SettingsError(
            f"the key {path} holds {len(seed)} bytes; expected 32; make one with 'labelwright sites key'"
        )
    return Identity(seed)
