"""What an attester hands over, and what it is bound to (RFC 9334: Evidence).

A piece of evidence speaks for one key of one workload in one conversation: its *report data* is
``SHA-512(nonce ‖ ephemeral public key ‖ workload digest)``, so that nobody can replay it or use it for another key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from labelwright.errors import EvidenceError

KINDS = ("tdx", "snp", "cca", "sgx", "tpm", "h100", "sim")
LIMITS = {"blob": 1 << 16, "aux": 1 << 17, "certificate": 1 << 14, "collateral": 1 << 20}  # bytes
MAX_CERTS = 16
MAX_TEXT = 4 << 20


@dataclass(frozen=True)
class Evidence:
    """One piece of evidence.

    kind: one of ``KINDS``. blob: the quote, report or token. aux: what the platform adds, e.g. AMD's certificate table.
    certs: DER certificates, the signing key's first. collateral: what the verifier needs beside (Intel: JSON; AMD: a DER CRL).
    Raises EvidenceError for an unknown kind or a part that is too long.

    >>> Evidence.from_json(Evidence("sim", b"abc").to_json()).blob
    b'abc'
    """

    kind: str
    blob: bytes
    aux: bytes = b""
    certs: tuple[bytes, ...] = ()
    collateral: bytes = b""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise EvidenceError(
                f"evidence of kind {str(self.kind)[:40]!r} is unknown; expected one of {', '.join(KINDS)}"
            )
        parts = [("blob", self.blob), ("aux", self.aux), ("collateral", self.collateral)]
        for name, part in parts + [("certificate", c) for c in self.certs]:
            if len(part) > LIMITS[name]:
                raise EvidenceError(
                    f"the evidence's {name} has {len(part):,} bytes; at most {LIMITS[name]:,} are read; is it another file?"
                )
        if len(self.certs) > MAX_CERTS:
            raise EvidenceError(f"the evidence has {len(self.certs)} certificates; at most {MAX_CERTS} are read")

    def to_json(self) -> str:
        """As one JSON object: kind, and base64 of the rest."""
        fields: dict[str, Any] = {"kind": self.kind, "blob": _b64(self.blob)}
        if self.aux:
            fields["aux"] = _b64(self.aux)
        if self.certs:
            fields["certs"] = [_b64(c) for c in self.certs]
        if self.collateral:
            fields["collateral"] = _b64(self.collateral)
        return json.dumps(fields, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Evidence:
        """Read what ``to_json`` wrote. Raises EvidenceError for anything else."""
        fields = read_object(
            text, "the evidence", {"kind", "blob", "aux", "certs", "collateral"}, needs={"kind", "blob"}
        )
        certs = fields.get("certs", [])
        if not isinstance(certs, list) or not isinstance(fields["kind"], str):
            raise EvidenceError("the evidence's kind is no text, or its certs no list; expected what 'attest' writes")
        return cls(
            fields["kind"],
            unbase64(fields["blob"], "blob"),
            unbase64(fields.get("aux", ""), "aux"),
            tuple(unbase64(c, "certificate") for c in certs),
            unbase64(fields.get("collateral", ""), "collateral"),
        )


def report_data(nonce: bytes, public_key: bytes, workload_digest: bytes) -> bytes:
    """What evidence is bound to, 64 bytes.

    nonce: the verifier's, ≥ 16 bytes. public_key: ``canonical_key`` of the ephemeral key. workload_digest: SHA-256, 32 bytes.
    Raises EvidenceError when a length is wrong, because a part that slides into the next would be bound to nothing.

    >>> len(report_data(bytes(32), b'{"crv":"P-256"}', bytes(32)))
    64
    """
    if len(nonce) < 16 or len(workload_digest) != 32 or not public_key.startswith(b"{"):
        raise EvidenceError(
            f"report data of a nonce of {len(nonce)} bytes and a workload digest of {len(workload_digest)}; "
            "expected at least 16, and 32 (SHA-256), and a key made by canonical_key"
        )
    return hashlib.sha512(nonce + public_key + workload_digest).digest()


def canonical_key(jwk: dict[str, Any]) -> bytes:
    """The ephemeral EC P-256 public key as RFC 7638 writes it: required members, sorted, no spaces. Raises EvidenceError.

    >>> canonical_key({"kty": "EC", "crv": "P-256", "y": "A" * 43, "x": "A" * 43, "kid": "1"})[:26]
    b'{"crv":"P-256","kty":"EC",'
    """
    try:
        kept = {name: jwk[name] for name in ("crv", "kty", "x", "y")}
        sound = kept["crv"] == "P-256" and kept["kty"] == "EC"
        sound = sound and all(len(unbase64url(kept[axis], "key")) == 32 for axis in ("x", "y"))
    except (KeyError, TypeError):
        sound = False
    if not sound:
        raise EvidenceError("the ephemeral key is no EC P-256 public key; expected a JWK with kty, crv, x and y")
    return json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()


def read_object(text: str | bytes, what: str, known: set[str], *, needs: set[str]) -> dict[str, Any]:
    """A flat JSON object from an untrusted hand: no unknown and no repeated member. Raises EvidenceError."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in pairs}) < len(pairs):
            raise ValueError("a member is repeated")
        return dict(pairs)

    if len(text) > MAX_TEXT:
        raise EvidenceError(f"{what} has {len(text):,} characters; at most {MAX_TEXT:,} are read")
    try:
        fields = json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise EvidenceError(f"{what} is not JSON that can be read ({str(error)[:80]}); expected one object") from error
    if not isinstance(fields, dict) or not needs <= set(fields) <= known:
        raise EvidenceError(
            f"{what} has other members than expected; needs {', '.join(sorted(needs))}, and no unknown one"
        )
    return fields


def _b64(part: bytes) -> str:
    return base64.b64encode(part).decode()


def unbase64(text: Any, what: str) -> bytes:
    """Canonical base64 only: the same bytes have one spelling. Raises EvidenceError."""
    try:
        part = base64.b64decode(text, validate=True)
        if _b64(part) == text:
            return part
    except (ValueError, TypeError, binascii.Error):
        pass
    raise EvidenceError(f"the evidence's {what} is not base64 as RFC 4648 writes it; was the file cut or edited?")


def unbase64url(text: Any, what: str) -> bytes:
    """Canonical base64url without padding, as in a JWK. Raises EvidenceError."""
    try:
        part = base64.b64decode(text.encode() + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        if base64.urlsafe_b64encode(part).rstrip(b"=").decode() == text:
            return part
    except (ValueError, AttributeError, binascii.Error):
        pass
    raise EvidenceError(f"the {what} is not base64url as RFC 7515 writes it; was it cut or edited?")
