"""Enrolment of a TPM's quoting key: the CA's half, with ``cryptography`` alone.

The CA encrypts a secret to the TPM's endorsement key, bound to the *name* (digest) of the quoting key. Only the TPM that holds
both can open it; then the CA certifies the quoting key. Source: TCG, TPM 2.0 Library, Part 1, 24 (credential protection).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.serialization import Encoding

from labelwright.errors import EvidenceError, RefusedError
from labelwright.trust.policy import Policy
from labelwright.trust.verify.chain import certificate, climb
from labelwright.trust.verify.quote import Reader
from labelwright.trust.verify.tpm import endorses

NEEDED = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 16 | 1 << 18  # fixedTPM, fixedParent, sensitiveDataOrigin, restricted, sign
DECRYPT = 1 << 17
ECC, SHA256, NULL, ECDSA, P256 = 0x0023, 0x000B, 0x0010, 0x0018, 0x0003
FILE = bytes.fromhex("badcc0de00000001")  # tpm2-tools' header of a credential file


@dataclass(frozen=True)
class Challenge:
    """credential: for the TPM. secret: what it must answer; stays with the CA."""

    credential: bytes
    secret: bytes
    ek: bytes
    ak: ec.EllipticCurvePublicKey


def challenge(ek: bytes, between: tuple[bytes, ...], ak: bytes, policy: Policy, *, now: datetime) -> Challenge:
    """Begin an enrolment. ek: the TPM's certificate, DER. ak: the quoting key's public area (TPM2B_PUBLIC).

    Raises EvidenceError when they cannot be read, RefusedError when the TPM's maker is unknown or the key may do more than quote.
    """
    roots = [*policy.certificates["tpm.ek_roots"], *policy.certificates["tpm.test_roots"]]
    cert = certificate(ek)
    root, why = climb(cert, [certificate(c) for c in between], roots, now)
    if root is None or not endorses(cert):
        raise RefusedError(f"this TPM is not enrolled: {why or 'its certificate is not for an endorsement key'}")
    public = Reader(ak, "the quoting key's public area", "big").sized(2)
    if len(ak) != len(public) + 2:
        raise EvidenceError("bytes lie behind the quoting key's public area; was something appended?")
    key, name = _quoting_key(public), b"\x00\x0b" + hashlib.sha256(public).digest()
    secret = secrets.token_bytes(32)
    ek_key = cert.public_key()
    if not isinstance(ek_key, rsa.RSAPublicKey) or ek_key.key_size != 2048:
        raise EvidenceError("the TPM's endorsement key is not RSA 2048; take the TPM's RSA certificate")
    return Challenge(make_credential(ek_key, name, secret), secret, ek, key)


def certify(
    begun: Challenge,
    answer: bytes,
    ca: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    *,
    now: datetime,
    days: int = 365,
) -> bytes:
    """The quoting key's certificate, DER, when the TPM opened the credential. Raises RefusedError."""
    if not hmac.compare_digest(answer, begun.secret):
        raise RefusedError(
            "the TPM did not open the credential: the quoting key does not live in the TPM that it names"
        )
    subject = x509.Name(
        [
            x509.NameAttribute(x509.NameOID.COMMON_NAME, "labelwright quoting key"),
            x509.NameAttribute(x509.NameOID.SERIAL_NUMBER, hashlib.sha256(begun.ek).hexdigest()),
        ]
    )
    builder = x509.CertificateBuilder(ca.subject, subject, begun.ak, x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(minutes=5)).not_valid_after(now + timedelta(days=days))
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def make_ca(name: str, *, now: datetime, days: int = 3650) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A CA for enrolments: its certificate goes into policies, its key stays where enrolments are made."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(minutes=5)).not_valid_after(now + timedelta(days=days))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return builder.sign(key, hashes.SHA256()), key


def make_credential(ek: rsa.RSAPublicKey, name: bytes, secret: bytes) -> bytes:
    """``secret`` for the TPM that holds ``ek`` and the object called ``name``, as tpm2_activatecredential reads it."""
    seed = secrets.token_bytes(32)
    wrapped = ek.encrypt(seed, padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), b"IDENTITY\0"))
    cipher = Cipher(algorithms.AES(_kdf(seed, b"STORAGE", name, 128)), _cfb()).encryptor()
    identity = cipher.update(_sized(secret)) + cipher.finalize()
    integrity = hmac.digest(_kdf(seed, b"INTEGRITY", b"", 256), identity + name, "sha256")
    return FILE + _sized(_sized(integrity) + identity) + _sized(wrapped)


def _cfb() -> Any:
    """The mode that TPMs use; the library moved it."""
    try:
        from cryptography.hazmat.decrepit.ciphers.modes import CFB
    except ImportError:
        from cryptography.hazmat.primitives.ciphers.modes import CFB  # type: ignore[assignment]
    return CFB(bytes(16))


def _kdf(key: bytes, label: bytes, context: bytes, bits: int) -> bytes:
    """KDFa of Part 1, 11.4.10.2, SHA-256, one block."""
    return hmac.digest(key, (1).to_bytes(4, "big") + label + b"\0" + context + bits.to_bytes(4, "big"), "sha256")[
        : bits // 8
    ]


def _sized(part: bytes) -> bytes:
    return len(part).to_bytes(2, "big") + part


def _quoting_key(public: bytes) -> ec.EllipticCurvePublicKey:
    """The key of a TPMT_PUBLIC that may sign nothing but what the TPM itself says."""
    reader = Reader(public, "the quoting key's public area", "big")
    kind, digest, attributes = reader.number(2), reader.number(2), reader.number(4)
    reader.sized(2)  # its policy
    if kind != ECC or digest != SHA256:
        raise EvidenceError("the quoting key is not on P-256 with SHA-256; make it with Tpm.create")
    if attributes & NEEDED != NEEDED or attributes & DECRYPT:
        raise RefusedError("the key could leave its TPM, or sign more than quotes; make it with Tpm.create")
    shape = [reader.number(2) for _ in range(5)]
    if shape != [NULL, ECDSA, SHA256, P256, NULL]:
        raise EvidenceError("the quoting key is not ECDSA on P-256 with SHA-256; make it with Tpm.create")
    x, y = (int.from_bytes(reader.sized(2), "big") for _ in range(2))
    if reader.rest():
        raise EvidenceError("bytes lie behind the quoting key's point; was something appended?")
    try:
        return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    except ValueError as error:
        raise EvidenceError("the quoting key's point is not on its curve") from error
