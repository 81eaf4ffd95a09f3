"""Certificates: read strictly, chained by hand, because vendors' certificates seldom satisfy web rules."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cache, lru_cache
from importlib import resources

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_public_key

from labelwright.errors import EvidenceError


def certificate(der: bytes) -> x509.Certificate:
    """One DER certificate and nothing behind it. Raises EvidenceError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # AMD's serial numbers are 0, which is not positive
            found = x509.load_der_x509_certificate(der)
            _ = found.extensions, found.public_key(), found.subject, found.issuer
    except Exception as error:  # the library has many ways to say that a hostile certificate is none
        raise EvidenceError(
            f"a certificate of {len(der)} bytes cannot be read ({str(error)[:80]}); was it cut?"
        ) from error
    if found.public_bytes(Encoding.DER) != der:
        raise EvidenceError("a certificate has bytes that do not belong to it; was something appended?")
    return found


def pem_certificates(pem: bytes) -> list[x509.Certificate]:
    """Certificates of a PEM text. Raises EvidenceError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = x509.load_pem_x509_certificates(pem)
    except Exception as error:  # as above
        raise EvidenceError(f"the PEM text holds no certificates that can be read ({str(error)[:80]})") from error
    return [certificate(c.public_bytes(Encoding.DER)) for c in found]


def canonical_pem(pem: bytes) -> list[x509.Certificate]:
    """As ``pem_certificates``, but the text has the one spelling that a PEM writer gives: no byte is free. Raises EvidenceError."""
    found = pem_certificates(pem)
    if b"".join(c.public_bytes(Encoding.PEM) for c in found).rstrip(b"\n") != pem.rstrip(b"\n") or pem.endswith(
        b"\n\n"
    ):
        raise EvidenceError("the certificate chain is not spelled as PEM is written; was it edited?")
    return found


def public_key(pem: bytes) -> EllipticCurvePublicKey:
    """An elliptic-curve public key in PEM. Raises EvidenceError."""
    try:
        found = load_pem_public_key(pem)
    except Exception as error:  # as above
        raise EvidenceError(f"the PEM text holds no public key that can be read ({str(error)[:80]})") from error
    if not isinstance(found, EllipticCurvePublicKey):
        raise EvidenceError("the public key is not on an elliptic curve; expected P-256 or P-384")
    return found


@cache
def vendor_roots(name: str) -> tuple[x509.Certificate, ...]:
    """Certificates that ship with labelwright: intel, amd_milan, amd_genoa, nvidia."""
    text = resources.files("labelwright.trust.verify").joinpath("roots", f"{name}.pem").read_bytes()
    return tuple(pem_certificates(text))


@lru_cache(maxsize=256)
def issued(child: x509.Certificate, parent: x509.Certificate) -> bool:
    """Did the parent's key sign the child? (Names too.)"""
    try:
        child.verify_directly_issued_by(parent)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True


def in_time(cert: x509.Certificate, now: datetime) -> bool:
    """Is it valid at ``now``?"""
    return cert.not_valid_before_utc <= now <= cert.not_valid_after_utc


def is_ca(cert: x509.Certificate) -> bool:
    """May it issue others?"""
    try:
        return bool(cert.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
    except x509.ExtensionNotFound:
        return False


def climb(
    leaf: x509.Certificate, between: Iterable[x509.Certificate], roots: Sequence[x509.Certificate], now: datetime
) -> tuple[x509.Certificate | None, str]:
    """(the root that the leaf hangs on, "") or (None, why not). Depth ≤ 8; every link signed, in time, and by a CA."""
    between = list(between)
    current = leaf
    for _ in range(8):
        if not in_time(current, now):
            return None, f"the certificate of {_name(current)} is not valid at {now:%Y-%m-%d %H:%M}"
        for root in roots:
            if current == root or (current.issuer == root.subject and issued(current, root) and in_time(root, now)):
                return root, ""
        parents = [c for c in between if c != current and is_ca(c) and issued(current, c)]
        if not parents:
            return (
                None,
                f"the certificate of {_name(current)} was not issued by any of the roots, nor by another at hand",
            )
        current = parents[0]
    return None, "the certificate chain is longer than 8"


def _name(cert: x509.Certificate) -> str:
    return cert.subject.rfc4514_string()[:80] or "no name"
