"""Arm CCA tokens: taken apart, and verified only when the policy holds the platform's key.

A token is a CBOR collection of two COSE_Sign1: the platform's, whose challenge is the digest of the realm's key, and the
realm's, signed by that key. Source: Arm DEN0137 (Realm Management Monitor), A7.2; RFC 9052 for COSE.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from labelwright.errors import EvidenceError
from labelwright.trust.appraisal import Appraisal, Findings
from labelwright.trust.evidence import Evidence
from labelwright.trust.policy import Policy
from labelwright.trust.verify.cbor import Tagged, decode

COLLECTION, SIGN1, PLATFORM, REALM = 399, 18, 44234, 44241
CHALLENGE, PROFILE, INSTANCE, LIFECYCLE, IMPLEMENTATION = 10, 265, 256, 2395, 2396
INITIAL, REALM_KEY, REALM_KEY_HASH = 44238, 44237, 44240
ALGORITHMS: dict[int, tuple[type[ec.EllipticCurve], hashes.HashAlgorithm, int]] = {
    -7: (ec.SECP256R1, hashes.SHA256(), 32),
    -35: (ec.SECP384R1, hashes.SHA384(), 48),
}
SECURED = range(0x3000, 0x3100)


def appraise(evidence: Evidence, policy: Policy, *, report_data: bytes | None, now: datetime) -> Appraisal:
    """Judge a CCA token; contraindicated unless one of the policy's platform keys signed it. Raises EvidenceError."""
    outer = decode(evidence.blob, "the CCA token")
    if not isinstance(outer, Tagged) or outer.tag != COLLECTION or not isinstance(outer.value, dict):
        raise EvidenceError(f"the CCA token is no collection with tag {COLLECTION}; is it another kind of token?")
    if set(outer.value) != {PLATFORM, REALM}:
        raise EvidenceError("the CCA token does not hold one platform token and one realm token, and nothing else")
    platform, realm = (_Signed(outer.value[at], what) for at, what in ((PLATFORM, "platform"), (REALM, "realm")))
    findings = Findings("cca")
    _platform(platform, policy, findings)
    _realm(platform, realm, findings)
    findings.bound(realm.bytes_of(CHALLENGE), report_data)
    claims = {
        "profile": str(platform.claims.get(PROFILE, ""))[:80],
        "instance_id": platform.bytes_of(INSTANCE).hex(),
        "implementation_id": platform.bytes_of(IMPLEMENTATION).hex(),
        "measurement": realm.bytes_of(INITIAL).hex(),
        "challenge": realm.bytes_of(CHALLENGE).hex(),
    }
    findings.among("implementation_id", claims["implementation_id"], policy.cca.implementation_id)
    findings.among("measurement", claims["measurement"], policy.cca.measurement)
    if not policy.cca.measurement:
        findings.doubt("the policy has no reference value for measurement: unknown code")
    return findings.appraisal(claims)


class _Signed:
    """One COSE_Sign1 taken apart. Raises EvidenceError."""

    def __init__(self, data: Any, what: str) -> None:
        self.what = what
        token = decode(data, f"the {what} token") if isinstance(data, bytes) else None
        if (
            not isinstance(token, Tagged)
            or token.tag != SIGN1
            or not isinstance(token.value, list)
            or len(token.value) != 4
        ):
            raise EvidenceError(f"the {what} token is no COSE_Sign1")
        self.protected, unprotected, self.payload, self.signature = token.value
        if unprotected != {} or not all(isinstance(p, bytes) for p in (self.protected, self.payload, self.signature)):
            raise EvidenceError(f"the {what} token has unsigned headers, or parts that are no bytes")
        header = decode(self.protected, f"the {what} token's header")
        if not isinstance(header, dict) or set(header) != {1} or header[1] not in ALGORITHMS:
            raise EvidenceError(f"the {what} token is signed otherwise than by ES256 or ES384")
        self.algorithm = ALGORITHMS[header[1]]
        self.claims = decode(self.payload, f"the {what} token's claims")
        if not isinstance(self.claims, dict):
            raise EvidenceError(f"the {what} token's claims are no map")

    def bytes_of(self, claim: int) -> bytes:
        """A claim that is bytes. Raises EvidenceError."""
        value = self.claims.get(claim)
        if not isinstance(value, bytes):
            raise EvidenceError(f"the {self.what} token has no claim {claim}, or not as bytes")
        return value

    def signed_by(self, key: Any) -> bool:
        """Does the signature verify under the key?"""
        curve, digest, size = self.algorithm
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, curve):
            return False
        if len(self.signature) != 2 * size:
            return False
        r, s = (int.from_bytes(part, "big") for part in (self.signature[:size], self.signature[size:]))
        try:
            key.verify(encode_dss_signature(r, s), _to_sign(self.protected, self.payload), ec.ECDSA(digest))
        except (InvalidSignature, ValueError):
            return False
        return True


def _to_sign(protected: bytes, payload: bytes) -> bytes:
    """COSE's Sig_structure, encoded."""
    parts = [_head(3, 10) + b"Signature1", *(_head(2, len(p)) + p for p in (protected, b"", payload))]
    return _head(4, 4) + b"".join(parts)


def _head(major: int, number: int) -> bytes:
    """CBOR's first bytes of a value, for numbers below 2^32."""
    if number < 24:
        return bytes([major << 5 | number])
    size = 0 if number < 1 << 8 else 1 if number < 1 << 16 else 2
    return bytes([major << 5 | 24 + size]) + number.to_bytes(1 << size, "big")


def _platform(platform: _Signed, policy: Policy, findings: Findings) -> None:
    if not policy.cca.platform_keys:
        findings.refuse("unverified: the policy holds no platform keys, so anybody may have written this token")
        return
    if not any(platform.signed_by(key) for key in policy.platform_keys):
        findings.refuse("the platform token's signature verifies under none of the policy's platform keys")
    lifecycle = platform.claims.get(LIFECYCLE)
    if not isinstance(lifecycle, int) or lifecycle not in SECURED:
        findings.refuse("the platform is not in its secured state: it may be under debug")


def _realm(platform: _Signed, realm: _Signed, findings: Findings) -> None:
    """The realm's key signed its token, and the platform vouches for that key."""
    raw = realm.bytes_of(REALM_KEY)
    if not realm.signed_by(_realm_key(raw)):
        findings.refuse("the realm token's signature does not verify under the realm's key")
    name = realm.claims.get(REALM_KEY_HASH)
    digest = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}.get(name if isinstance(name, str) else "")
    if digest is None or digest(raw).digest() != platform.bytes_of(CHALLENGE):
        findings.refuse("the platform does not vouch for the realm's key")


def _realm_key(raw: bytes) -> ec.EllipticCurvePublicKey | None:
    """P-384 key: an uncompressed point (97 bytes), or a COSE_Key."""
    try:
        if len(raw) == 97:
            return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), raw)
        key = decode(raw, "the realm's key")
        if isinstance(key, dict) and key.get(1) == 2 and key.get(-1) == 2:
            return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), b"\x04" + key[-2] + key[-3])
    except (ValueError, KeyError, TypeError):
        pass
    return None
