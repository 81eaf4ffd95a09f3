"""H100 reports: secondary evidence. They say what a GPU runs; a CPU's evidence must say who talks to it.

Source: DMTF DSP0274 (SPDM 1.1), GET_MEASUREMENTS request and MEASUREMENTS response, one behind the other.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from labelwright.errors import EvidenceError
from labelwright.trust.appraisal import Appraisal, Findings
from labelwright.trust.evidence import Evidence
from labelwright.trust.policy import Policy
from labelwright.trust.verify.chain import certificate, climb, vendor_roots
from labelwright.trust.verify.quote import Reader

REQUEST, SIGNATURE = 37, 96
DRIVER, VBIOS, FIRMWARE = 3, 6, 20  # types in the opaque data
DICE = x509.ObjectIdentifier("2.23.133.5.4.1")  # TCG DICE: digest of the firmware that holds the key


def appraise(evidence: Evidence, policy: Policy, *, report_data: bytes | None, now: datetime) -> Appraisal:
    """Judge a GPU's report; at best a warning. Its nonce is the first 32 bytes of the report data. Raises EvidenceError."""
    report = evidence.blob
    claims, measurements = parse_report(report)
    certs = [certificate(der) for der in evidence.certs]
    if not certs:
        raise EvidenceError("the H100 evidence has no certificates; pass the GPU's chain in certs, its own first")
    findings = Findings("h100")
    findings.doubt("secondary evidence: it says what the GPU runs, not what the processor beside it does")
    _signature(report, certs[0].public_key(), findings)
    firmware = bytes.fromhex(claims["firmware"])
    vouched = [
        e.value.value for e in certs[0].extensions if e.oid == DICE and isinstance(e.value, x509.UnrecognizedExtension)
    ]
    if len(firmware) != 48 or not vouched or not vouched[0].endswith(firmware):
        findings.refuse("the firmware that the report names is not the one that the GPU's certificate was made for")
    own = policy.certificates["h100.test_roots"]
    root, why = climb(certs[0], certs[1:], [*vendor_roots("nvidia"), *own], now)
    if root is None:
        findings.refuse(why)
    elif root in own:
        findings.no_isolation("the chain ends in a test's own root, not in NVIDIA's")
    findings.note("no NVIDIA revocation list is read: revocation is unchecked")
    findings.bound(bytes.fromhex(claims["nonce"]), None if report_data is None else report_data[:32])
    for index, wanted in policy.h100.measurements.items():
        findings.among(f"measurement {index}", measurements.get(index, "none"), wanted)
    if not policy.h100.measurements:
        findings.doubt("the policy has no reference values for the GPU's measurements: unknown firmware")
    return findings.appraisal(claims)


def parse_report(report: bytes) -> tuple[dict[str, Any], dict[int, str]]:
    """(claims, measurements by index as hexadecimal). Raises EvidenceError when a byte belongs to no field."""
    reader = Reader(report, "the H100 report")
    if reader.take(2) != b"\x11\xe0":
        raise EvidenceError(
            "the H100 report does not begin with an SPDM 1.1 request for measurements; is it another file?"
        )
    reader.take(2)
    nonce = reader.take(32)
    reader.take(1)
    if reader.take(2) != b"\x11\x60":
        raise EvidenceError("the H100 report's response is no SPDM 1.1 measurements")
    reader.take(2)
    blocks = reader.number(1)
    record = Reader(reader.sized(3), "the H100 report's measurement record")
    measurements: dict[int, str] = {}
    for _ in range(blocks):
        index, form = record.number(1), record.number(1)
        block = Reader(record.sized(2), "a measurement of the H100 report")
        block.take(1)
        measurements[index] = block.sized(2).hex()
        if form != 1 or block.rest():
            raise EvidenceError(f"measurement {index} of the H100 report is not in DMTF's form")
    if record.rest() or len(measurements) != blocks:
        raise EvidenceError("the H100 report's measurement record holds more or other than it counts")
    reader.take(32)
    facts = _opaque(reader.sized(2))
    reader.take(SIGNATURE)
    if reader.rest():
        raise EvidenceError("bytes lie behind the H100 report's signature; was something appended?")
    claims = {
        "nonce": nonce.hex(),
        "driver": facts.get(DRIVER, b"").rstrip(b"\0").decode("ascii", "replace"),
        "firmware": facts.get(FIRMWARE, b"").hex(),
        "vbios": facts.get(VBIOS, b"").hex(),
        "measurements": {str(index): value for index, value in measurements.items()},
    }
    return claims, measurements


def _opaque(data: bytes) -> dict[int, bytes]:
    """NVIDIA's facts by type: 2 bytes of type, 2 of length, the value."""
    reader, facts, left = Reader(data, "the H100 report's opaque data"), {}, len(data)
    while left:
        kind = reader.number(2)
        facts[kind] = reader.sized(2)
        left -= 4 + len(facts[kind])
    return facts


def _signature(report: bytes, key: Any, findings: Findings) -> None:
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise EvidenceError("the GPU's key is not on P-384; is the first certificate another one?")
    r, s = (int.from_bytes(part, "big") for part in (report[-96:-48], report[-48:]))
    try:
        key.verify(encode_dss_signature(r, s), report[:-SIGNATURE], ec.ECDSA(hashes.SHA384()))
    except (InvalidSignature, ValueError):
        findings.refuse("the report's signature does not verify under the GPU's certificate")
