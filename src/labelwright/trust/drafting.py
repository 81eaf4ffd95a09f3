"""Drafts: a workload, and a first policy from evidence that one trusts for other reasons, e.g. because one built and started the
machine oneself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from labelwright.errors import EvidenceError
from labelwright.trust.appraisal import Appraisal
from labelwright.trust.evidence import Evidence
from labelwright.trust.policy import Policy
from labelwright.trust.workload import Workload, code_digest

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


MEMORY = {"judge": "64 MB", "predict": "64 MB", "rad-duo": "1 GB", "qal": "512 MB"}


def workload(
    name: str, mode: str, *, data: str, classes: int, broker: Mapping[str, str], host: Mapping[str, str], memory: str | None = None,
    models: Mapping[str, str] | None = None, expert: Mapping[str, str] | None = None,
) -> str:  # fmt: skip
    """A ``workload.toml`` for the package that is installed here. data: name of the sealed rows. models: names of sealed models, by
    part. host: the table ``[host]``. Raises SettingsError for what a workload cannot be.

    >>> text = workload("w", "qal", data="rows", classes=3, broker={"kty": "EC"}, host={}, expert={"kty": "EC"})
    >>> Workload.from_toml(text).table("result")["ledger"]
    'w-decisions'
    """
    head = {"name": name, "mode": mode, "code": code_digest(), "memory": memory or MEMORY.get(mode, "64 MB")}
    result = {"ledger": f"{name}-decisions"}
    if mode in ("rad-duo", "qal"):
        result = {"model": f"{name}-model", **result}
    tables: dict[str, Mapping[str, Any]] = {"workload": head, "data": {"id": data, "classes": classes}}
    tables |= {"models": models} if models else {}
    tables |= {"result": result, "broker": {"key": dict(broker)}}
    tables |= {"expert": {"key": dict(expert)}} if expert else {}
    tables |= {"host": host} if host else {}
    text = toml(tables)
    Workload.from_toml(text, name=f"the workload {name!r}")
    return text


def sim_policy(digest: bytes) -> str:
    """A policy for development: evidence that anybody can make, for one workload.

    >>> Policy.from_toml(sim_policy(bytes(32))).kinds
    ('sim',)
    """
    return (
        "# For development: whoever asks can make this evidence. isolation: none\n"
        f'kinds = ["sim"]\nsim = true\naccept = ["warning"]\nworkloads = ["{digest.hex()}"]\n'
    )


def toml(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """Tables of texts, numbers and tables of texts, as TOML.

    >>> print(toml({"a": {"b": 1, "c": {"d": "e"}}}))
    [a]
    b = 1
    c = { d = "e" }
    <BLANKLINE>
    """
    parts = []
    for name, table in tables.items():
        lines = [f"[{name}]"]
        for key, value in table.items():
            inner = ", ".join(f"{k} = {json.dumps(v)}" for k, v in value.items()) if isinstance(value, dict) else ""
            lines.append(f"{key} = {{ {inner} }}" if inner else f"{key} = {json.dumps(value)}")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)
