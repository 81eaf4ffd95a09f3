"""Self-signed evidence for development. It proves that somebody holds a key, and nothing about where the code runs."""

from __future__ import annotations

import base64
import json
from datetime import datetime

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from labelwright.errors import EvidenceError
from labelwright.trust.appraisal import Appraisal, Findings
from labelwright.trust.evidence import Evidence, read_object, unbase64
from labelwright.trust.policy import Policy

LABEL = b"labelwright sim evidence 1\0"


def appraise(evidence: Evidence, policy: Policy, *, report_data: bytes | None, now: datetime) -> Appraisal:
    """Judge sim evidence: ``{"key": 64 bytes x‖y, "report_data": 64 bytes, "signature": 64 bytes r‖s}`` in base64."""
    names = {"key", "report_data", "signature"}
    fields = read_object(evidence.blob, "the sim evidence", names, needs=names)
    parts = {name: unbase64(fields[name], name) for name in names}
    if encode(parts) != evidence.blob or any(len(part) != 64 for part in parts.values()):
        raise EvidenceError("the sim evidence is not spelled as 'attest --kind sim' writes it; was it edited?")
    findings = Findings("sim")
    findings.no_isolation("self-signed evidence of a development machine; its host can read everything")
    key, signature = parts["key"], parts["signature"]
    try:
        public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + key)
        dss = encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
        public.verify(dss, LABEL + parts["report_data"], ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError):
        findings.refuse("the sim evidence's signature does not verify")
    findings.bound(parts["report_data"], report_data)
    return findings.appraisal({"report_data": parts["report_data"].hex()})


def encode(parts: dict[str, bytes]) -> bytes:
    """The one spelling."""
    return json.dumps({name: base64.b64encode(parts[name]).decode() for name in sorted(parts)}).encode()
