"""A secret for one ephemeral key: flattened JWE (RFC 7516), ECDH-ES+A256KW or ECDH-ES, A256GCM. Only `cryptography`, to fit inside."""

from __future__ import annotations

import json
import os
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from labelwright.errors import EvidenceError, SealError, TrustError
from labelwright.trust.seal.signing import b64, jwk_of, key_of, new_key, unb64

WRAPPED, DIRECT = ALGORITHMS = ("ECDH-ES+A256KW", "ECDH-ES")
ENCRYPTION = "A256GCM"


def encrypted(content: bytes, jwk: Any, *, algorithm: str = WRAPPED) -> dict[str, str]:
    """``content`` for the holder of ``jwk``'s private key. Raises EvidenceError when that is no EC P-256 public key.

    >>> key = new_key()
    >>> decrypted(key, encrypted(b"secret", jwk_of(key)))
    b'secret'
    """
    try:
        public = key_of(jwk)
    except SealError:
        public = None  # type: ignore[assignment]
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise EvidenceError("the ephemeral key is no EC P-256 public key; send a JWK with kty, crv, x and y")
    own = new_key()
    head = {"alg": algorithm, "enc": ENCRYPTION, "epk": jwk_of(own)}
    protected = b64(json.dumps(head, separators=(",", ":")).encode())
    shared = _agreed(own, public, algorithm)
    content_key = os.urandom(32) if algorithm == WRAPPED else shared
    iv = os.urandom(12)
    sealed = AESGCM(content_key).encrypt(iv, content, protected.encode())
    return {
        "protected": protected,
        "encrypted_key": b64(aes_key_wrap(shared, content_key)) if algorithm == WRAPPED else "",
        "iv": b64(iv),
        "ciphertext": b64(sealed[:-16]),
        "tag": b64(sealed[-16:]),
    }


def decrypted(key: ec.EllipticCurvePrivateKey, message: Any) -> bytes:
    """What :func:`encrypted` was given. Raises TrustError for a message for another key, or that was altered."""
    try:
        protected = message["protected"]
        head = json.loads(unb64(protected))
        algorithm, public = head["alg"], key_of(head["epk"])
        if (
            algorithm not in ALGORITHMS
            or head["enc"] != ENCRYPTION
            or not isinstance(public, ec.EllipticCurvePublicKey)
        ):
            raise ValueError
        shared = _agreed(key, public, algorithm)
        wrapped, iv = unb64(message.get("encrypted_key", "")), unb64(message["iv"])
        if algorithm == DIRECT and wrapped:
            raise ValueError
        content_key = aes_key_unwrap(shared, wrapped) if algorithm == WRAPPED else shared
        if len(iv) != 12 or len(content_key) != 32:
            raise ValueError
        sealed = unb64(message["ciphertext"]) + unb64(message["tag"])
        return AESGCM(content_key).decrypt(iv, sealed, protected.encode())
    except (InvalidTag, InvalidUnwrap, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise TrustError(
            "the broker's message does not open with this key; it was altered, or is for another learner: attest again"
        ) from None


def _agreed(own: ec.EllipticCurvePrivateKey, other: ec.EllipticCurvePublicKey, algorithm: str) -> bytes:
    """32 bytes by Concat KDF (RFC 7518, 4.6.2): apu and apv are empty."""
    name = (ENCRYPTION if algorithm == DIRECT else algorithm).encode()
    info = len(name).to_bytes(4, "big") + name + bytes(8) + (256).to_bytes(4, "big")
    return ConcatKDFHash(SHA256(), 32, info).derive(own.exchange(ec.ECDH(), other))
