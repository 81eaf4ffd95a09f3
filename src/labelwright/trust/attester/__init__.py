"""The attester, inside: one function, ``collect``, and ``available`` for the doctor."""

from __future__ import annotations

from typing import Any

from labelwright.errors import EvidenceError
from labelwright.trust.evidence import KINDS, Evidence

_ROOMS = {"tdx": "tsm", "snp": "tsm", "cca": "tsm", "sgx": "gramine", "tpm": "tpm", "sim": "sim"}


def collect(kind: str, data: bytes, **options: Any) -> Evidence:
    """Evidence of the machine that this runs on, bound to 64 bytes of report data.

    options: where to look; see the attester of the kind. Raises EvidenceError when the machine has no such TEE.

    >>> collect("sim", bytes(64)).kind
    'sim'
    """
    from importlib import import_module

    if len(data) != 64:
        raise EvidenceError(f"{len(data)} bytes of report data; expected 64, as evidence.report_data makes them")
    if kind not in _ROOMS:
        hint = "an H100's report comes from NVIDIA's tools" if kind == "h100" else f"expected one of {', '.join(KINDS)}"
        raise EvidenceError(f"evidence of kind {kind!r} is not collected here; {hint}")
    room = import_module(f"labelwright.trust.attester.{_ROOMS[kind]}")
    if _ROOMS[kind] == "tsm":
        options["kind"] = kind
    evidence: Evidence = room.collect(data, **options)
    return evidence


def available() -> list[dict[str, Any]]:
    """The TEEs of this machine: ``{"kind", "here": bool, "why": one sentence}`` each, for ``trust doctor``."""
    from pathlib import Path

    from labelwright.trust.attester.probe import probe

    return probe(Path("/"))
