"""A first policy from evidence that one trusts for other reasons, e.g. because one built and started the machine oneself."""

from __future__ import annotations

from typing import Any

from labelwright.errors import EvidenceError
from labelwright.trust.appraisal import Appraisal
from labelwright.trust.evidence import Evidence
from labelwright.trust.policy import Policy

NAMES = {
    "tdx": ("mr_td", "rt_mr0", "rt_mr1", "rt_mr2", "rt_mr3"),
    "sgx": ("mr_enclave",),
    "snp": ("measurement",),
    "cca": ("measurement", "implementation_id"),
}
LEAST = {"bootloader": "min_bootloader", "tee": "min_tee", "snp": "min_snp", "microcode": "min_microcode"}


def draft(evidence: Evidence) -> str:
    """TOML that asks for what this evidence measures. It is believed as it stands: look at it before you use it.

    Raises EvidenceError when the evidence cannot be read.

    >>> from labelwright.trust.attester import collect
    >>> Policy.from_toml(draft(collect("sim", bytes(64)))).sim
    True
    """
    kind = evidence.kind
    head = ["# drafted from evidence, which was believed as it stands: compare before use", f'kinds = ["{kind}"]']
    if kind in ("sim", "tpm"):
        head.append('accept = ["affirming", "warning"]  # isolation: none is meant; remove for real hardware')
    if kind == "sim":
        head.append("sim = true")
    claims = read(evidence).claims
    return "\n".join([*head, "", f"[{kind}]" * (kind != "sim"), *_rules(kind, claims)]).rstrip() + "\n"


def read(evidence: Evidence) -> Appraisal:
    """What the evidence says of itself, under a policy that asks for nothing."""
    from datetime import UTC, datetime

    from labelwright.trust.verify import verify

    bare = f'kinds = ["{evidence.kind}"]' + ("\nsim = true" if evidence.kind == "sim" else "")
    return verify(evidence, Policy.from_toml(bare), report_data=None, now=datetime.now(UTC))


def _rules(kind: str, claims: dict[str, Any]) -> list[str]:
    lines = [f'{name} = ["{claims[name]}"]' for name in NAMES.get(kind, ())]
    if kind in ("tdx", "sgx"):
        lines.insert(0, 'tcb = ["UpToDate"]')
        if claims["debug"]:
            raise EvidenceError(
                "the evidence is of a debug machine, which no policy should accept; start it without debug"
            )
    if kind == "snp":
        lines += [f"max_vmpl = {claims['vmpl']}", f"min_svn = {claims['guest_svn']}"]
        lines += [f"{rule} = {claims['reported_tcb'][part]}" for part, rule in LEAST.items()]
    if kind == "cca":
        lines.append("platform_keys = []  # PEM files of the platform's keys: without them every token is refused")
    if kind == "tpm":
        lines += ["ek_roots = []  # CAs of TPM makers", "test_roots = []  # CAs of software TPMs: isolation none"]
        lines += ["enrolment_roots = []  # the CA that enrolled the quoting key", "", "[tpm.pcrs]"]
        lines += [f'{number} = "{value}"' for number, value in claims["registers"].items()]
    if kind == "h100":
        lines += ["", "[h100.measurements]"]
        lines += [f'{index} = "{value}"' for index, value in claims["measurements"].items()]
    return lines
