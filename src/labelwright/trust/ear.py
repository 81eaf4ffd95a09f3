"""The verifier's verdict as a signed token, shaped as an EAT Attestation Result (draft-ietf-rats-ear): a JWT, ES256."""

from __future__ import annotations

import base64
import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

import labelwright
from labelwright.errors import EvidenceError, RefusedError
from labelwright.trust.appraisal import STATUSES, Appraisal
from labelwright.trust.evidence import read_object, unbase64url

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

PROFILE = "tag:github.com,2023:veraison/ear"
HEADER = {"alg": "ES256", "typ": "JWT"}
LIFETIME = 300  # seconds
SKEW = 60  # seconds that two clocks may differ
TRUST = {"affirming": 2, "warning": 32, "contraindicated": 96}  # AR4SI's scale
MEMBERS = {"eat_profile", "iat", "exp", "ear.verifier-id", "submods", "eat_nonce", "cnf"}
WORKLOAD = "labelwright.workload"  # a private claim: hexadecimal SHA-256 of what the evidence was bound to


def token(
    appraisal: Appraisal,
    key: EllipticCurvePrivateKey,
    *,
    nonce: bytes,
    tee_key: dict[str, Any],
    now: datetime,
    lifetime: int = LIFETIME,
    workload: bytes | None = None,
) -> str:
    """Sign a verdict.

    key: EC P-256. nonce: the conversation's. tee_key: JWK of the ephemeral key that the evidence was bound to (public members only).
    workload: digest that the evidence was bound to.
    """
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    issued = int(now.timestamp())
    claims = {
        "eat_profile": PROFILE,
        "iat": issued,
        "exp": issued + lifetime,
        "ear.verifier-id": {"developer": "https://pypi.org/project/labelwright", "build": labelwright.__version__},
        "eat_nonce": _b64(nonce),
        "cnf": {"jwk": {name: tee_key[name] for name in ("crv", "kty", "x", "y") if name in tee_key}},
        "submods": {appraisal.kind: _submodule(appraisal)},
    }
    claims |= {} if workload is None else {WORKLOAD: workload.hex()}
    signed = ".".join(
        _b64(json.dumps(part, sort_keys=True, separators=(",", ":")).encode()) for part in (HEADER, claims)
    )
    r, s = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{signed}.{_b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _submodule(appraisal: Appraisal) -> dict[str, Any]:
    level = TRUST[appraisal.status]
    memory = level if appraisal.isolation == "hardware" else TRUST["contraindicated"]
    return {
        "ear.status": appraisal.status,
        "ear.trustworthiness-vector": {"hardware": level, "runtime-opaque": memory},
        "labelwright.kind": appraisal.kind,
        "labelwright.isolation": appraisal.isolation,
        "labelwright.reasons": list(appraisal.reasons),
        "labelwright.claims": appraisal.claims,
    }


def read(text: str, public_key: EllipticCurvePublicKey, *, now: datetime) -> dict[str, Any]:
    """The claims of a token. Raises EvidenceError when it is malformed, RefusedError for another's signature or time."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

    parts = text.split(".") if len(text) < 1 << 20 else []
    if len(parts) != 3:
        raise EvidenceError("the token is no JWT of three parts; expected what the verifier signed")
    head, body, signature = (unbase64url(part, "token") for part in parts)
    if read_object(head, "the token's header", set(HEADER), needs=set(HEADER)) != HEADER:
        raise EvidenceError("the token is not signed by ES256; no other algorithm is read")
    if len(signature) != 64:
        raise EvidenceError(f"the token's signature has {len(signature)} bytes; expected 64")
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    try:
        public_key.verify(encode_dss_signature(r, s), f"{parts[0]}.{parts[1]}".encode(), ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError) as error:
        raise RefusedError("the token was not signed by this verifier, or was altered") from error
    claims = read_object(body, "the token", MEMBERS | {WORKLOAD}, needs=MEMBERS)
    _check(claims, int(now.timestamp()))
    return claims


def _check(claims: dict[str, Any], now: int) -> None:
    issued, ends, modules = claims["iat"], claims["exp"], claims["submods"]
    if (
        type(issued) is not int
        or type(ends) is not int
        or claims["eat_profile"] != PROFILE
        or not isinstance(modules, dict)
    ):
        raise EvidenceError(
            "the token is not of EAR's shape; expected eat_profile, iat, exp and submods as the verifier writes them"
        )
    if not all(isinstance(m, dict) and m.get("ear.status") in STATUSES for m in modules.values()) or not modules:
        raise EvidenceError(f"the token has a part without a status; expected one of {', '.join(STATUSES)}")
    if not issued - SKEW <= now < ends:
        raise RefusedError("the token's time is over, or has not come; attest again, and compare the clocks")


def _b64(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()
