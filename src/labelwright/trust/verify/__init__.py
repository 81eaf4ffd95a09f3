"""The verifier: pure and offline. Evidence and policy in, a verdict with its reasons out.

Malformed evidence raises EvidenceError; sound evidence that does not prove what the policy asks is ``contraindicated``.
"""

from __future__ import annotations

from datetime import datetime
from importlib import import_module

from labelwright.errors import TrustError
from labelwright.trust.appraisal import AFFIRMING, CONTRAINDICATED, WARNING, Appraisal
from labelwright.trust.evidence import Evidence
from labelwright.trust.policy import Policy

_ROOMS = {"tdx": "intel", "sgx": "intel", "snp": "snp", "tpm": "tpm", "h100": "nvidia", "cca": "cca", "sim": "sim"}


def verify(evidence: Evidence, policy: Policy, *, report_data: bytes | None, now: datetime) -> Appraisal:
    """Judge one piece of evidence.

    report_data: 64 bytes that it must be bound to (``evidence.report_data``); None for a recording, never affirming then.
    now: with a time zone. Raises EvidenceError for evidence that cannot be read.
    Source: RFC 9334; draft-ietf-rats-ar4si for the three statuses.

    >>> from datetime import UTC
    >>> from labelwright.trust.attester.sim import collect
    >>> real = Policy.from_toml('kinds = ["tdx"]')
    >>> verify(collect(bytes(64)), real, report_data=bytes(64), now=datetime(2026, 1, 1, tzinfo=UTC)).status
    'contraindicated'
    """
    if now.tzinfo is None:
        raise TrustError("the verifier's clock has no time zone; pass datetime.now(UTC)")
    if report_data is not None and len(report_data) != 64:
        raise TrustError(f"report data of {len(report_data)} bytes; expected 64, as evidence.report_data makes them")
    if evidence.kind not in policy.kinds:
        reason = f"evidence of kind {evidence.kind} is not among the policy's kinds ({', '.join(policy.kinds)})"
        return Appraisal(CONTRAINDICATED, (reason,), evidence.kind, "none", {})
    room = import_module(f"labelwright.trust.verify.{_ROOMS[evidence.kind]}")
    appraisal: Appraisal = room.appraise(evidence, policy, report_data=report_data, now=now)
    return appraisal


__all__ = ["AFFIRMING", "CONTRAINDICATED", "WARNING", "Appraisal", "verify"]
