"""SGX and TDX: the quote's shape here, its signatures, collateral and TCB level by dcap-qvl, the policy here again.

dcap-qvl returns normally for other TCB levels than UpToDate, and verifies neither padding nor the root certificate that
a quote carries along; both are looked at here.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from labelwright.errors import EvidenceError
from labelwright.trust.appraisal import Appraisal, Findings
from labelwright.trust.evidence import Evidence
from labelwright.trust.policy import TDX, IntelRules, Policy
from labelwright.trust.verify.chain import vendor_roots
from labelwright.trust.verify.quote import IntelQuote, parse_quote

CODE = {"tdx": ("mr_td", "rt_mr1", "rt_mr2"), "sgx": ("mr_enclave",)}  # without these the code is unknown


def appraise(evidence: Evidence, policy: Policy, *, report_data: bytes | None, now: datetime) -> Appraisal:
    """Judge an SGX or TDX quote. Raises EvidenceError when quote or collateral cannot be read."""
    quote = parse_quote(evidence.blob)
    if quote.tee != evidence.kind:
        raise EvidenceError(f"evidence of kind {evidence.kind} holds a quote of {quote.tee}; name the kind as it is")
    rules: IntelRules = getattr(policy, evidence.kind)
    findings = Findings(evidence.kind)
    claims: dict[str, Any] = {name: value.hex() for name, value in quote.fields.items()}
    claims |= {"quote_version": quote.version, "debug": quote.debug}
    if quote.tee == "sgx":
        claims |= {"isv_prod_id": quote.isv_prod_id, "isv_svn": quote.isv_svn}
    if quote.debug:
        findings.refuse("it runs in debug mode: its host can read and change its memory")
    if quote.migratable:
        findings.refuse("another trust domain may migrate it, and so read its memory")
    if quote.tee == "tdx" and any(quote.fields["mr_signer_seam"] + quote.fields["seam_attributes"]):
        findings.refuse("the TDX module is not Intel's own, or is a debug one")
    root = _root(quote, policy, findings)
    if root is not None:
        report = _checked(quote.quote, evidence.collateral, root, now, findings)
        if report is not None:
            claims |= {"tcb_status": report["status"], "advisories": report["advisory_ids"]}
            _platform(report, rules, findings)
    findings.bound(quote.fields["report_data"], report_data)
    _code(quote, rules, findings)
    return findings.appraisal(claims)


def _root(quote: IntelQuote, policy: Policy, findings: Findings) -> bytes | None:
    """DER of the root that the quote's chain ends in, if Intel's or a test's own."""
    top = quote.chain[-1] if quote.chain else None
    if top is not None and top in vendor_roots("intel"):
        return top.public_bytes(Encoding.DER)
    if top is not None and top in policy.certificates[f"{quote.tee}.test_roots"]:
        findings.no_isolation("the chain ends in a test's own root, not in Intel's")
        return top.public_bytes(Encoding.DER)
    findings.refuse("the quote's certificate chain does not end in Intel's root")
    return None


def _checked(quote: bytes, collateral: bytes, root: bytes, now: datetime, findings: Findings) -> dict[str, Any] | None:
    """What dcap-qvl reports of signatures, revocation and TCB; None when it refuses."""
    import dcap_qvl  # type: ignore[import-untyped]

    if not collateral:
        findings.refuse(
            "no collateral was given: revocation and TCB level are unknown; fetch it from Intel's service or a PCCS"
        )
        return None
    try:
        kept = dcap_qvl.QuoteCollateralV3.from_json(collateral.decode())
    except (ValueError, RecursionError) as error:
        raise EvidenceError(f"the collateral cannot be read ({str(error)[:100]}); expected dcap-qvl's JSON") from error
    try:
        report = dcap_qvl.verify_with_root_ca(quote, kept, root, int(now.timestamp()))
        return dict(json.loads(report.to_json())) | {"tcb_info": json.loads(kept.tcb_info)}
    except (ValueError, OverflowError, RuntimeError) as error:
        said = str(error).removeprefix("Verification failed: ")[:200]
        findings.refuse(f"the quote does not hold with this collateral at this time, says dcap-qvl: {said}")
    except BaseException as error:  # a panic of the Rust library does not derive from Exception
        if type(error).__name__ != "PanicException":
            raise
        findings.refuse("the quote or its collateral made the verification library fail")
    return None


def _platform(report: dict[str, Any], rules: IntelRules, findings: Findings) -> None:
    status, advisories = report["status"], report["advisory_ids"]
    named = f" ({', '.join(advisories)})" if advisories else ""
    if status in rules.tcb_warning:
        findings.doubt(f"the platform's TCB is {status}{named}, which the policy takes with a warning")
    elif status not in rules.tcb:
        findings.refuse(f"the platform's TCB is {status}{named}; the policy asks for {' or '.join(rules.tcb)}")
    for advisory in sorted(set(advisories) & set(rules.refused_advisories)):
        findings.refuse(f"advisory {advisory} applies to the platform, and the policy refuses it")
    number = report["tcb_info"].get("tcbEvaluationDataNumber", 0)
    if number < rules.min_evaluation:
        findings.refuse(
            f"the collateral is of evaluation {number}; the policy asks for {rules.min_evaluation} or later"
        )


def _code(quote: IntelQuote, rules: IntelRules, findings: Findings) -> None:
    """Compare measurements with the reference values."""
    if quote.tee == "sgx":
        for name in ("mr_enclave", "mr_signer"):
            findings.among(name, quote.fields[name].hex(), getattr(rules, name))
        if rules.isv_prod_id not in (None, quote.isv_prod_id):
            findings.refuse(f"the enclave's product is {quote.isv_prod_id}; the policy asks for {rules.isv_prod_id}")
        if quote.isv_svn < (rules.min_isv_svn or 0):
            findings.refuse(
                f"the enclave's security version is {quote.isv_svn}; the policy asks for {rules.min_isv_svn}"
            )
        signed = rules.mr_signer and None not in (rules.isv_prod_id, rules.min_isv_svn)
        if not rules.mr_enclave and not signed:
            findings.doubt(
                "the policy has no reference values (mr_enclave; or mr_signer, isv_prod_id, min_isv_svn): unknown code"
            )
        return
    for name in sorted(TDX):
        findings.among(name, quote.fields[name].hex(), getattr(rules, name))
    missing = [name for name in CODE["tdx"] if not getattr(rules, name)]
    if missing:
        findings.doubt(f"the policy has no reference value for {', '.join(missing)}: unknown code")
