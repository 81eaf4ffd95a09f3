"""What the verifier says, and how it comes to say it."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Any

AFFIRMING, WARNING, CONTRAINDICATED = STATUSES = ("affirming", "warning", "contraindicated")


@dataclass(frozen=True)
class Appraisal:
    """A verdict on one piece of evidence (EAR: affirming, warning, contraindicated), with its reasons in plain words.

    isolation: "hardware", or "none" where nothing shows that the host cannot read everything (sim, software TPM, a test's own
    root, refused evidence).
    claims: what the evidence says, as JSON values; believe them only when the status is not contraindicated.
    """

    status: str
    reasons: tuple[str, ...]
    kind: str
    isolation: str
    claims: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The fields, for ``--json``."""
        return {
            "status": self.status,
            "kind": self.kind,
            "isolation": self.isolation,
            "reasons": list(self.reasons),
            "claims": self.claims,
        }


class Findings:
    """Collects what speaks against a piece of evidence.

    >>> findings = Findings("tdx")
    >>> findings.doubt("no reference value")
    >>> findings.appraisal({}).status
    'warning'
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.isolation = "hardware"
        self._refusals: list[str] = []
        self._doubts: list[str] = []
        self._notes: list[str] = []

    def refuse(self, reason: str) -> None:
        """This alone makes it contraindicated."""
        self._refusals.append(reason)

    def doubt(self, reason: str) -> None:
        """This keeps it from being affirming."""
        self._doubts.append(reason)

    def note(self, reason: str) -> None:
        """Said, and of no consequence."""
        self._notes.append(reason)

    def no_isolation(self, reason: str) -> None:
        """Nothing hides the memory from the host; never affirming."""
        self.isolation = "none"
        self.doubt(f"isolation: none; {reason}")

    def bound(self, found: bytes, expected: bytes | None) -> None:
        """Is the evidence for this conversation?"""
        if expected is None:
            self.doubt("not bound to a nonce and a key: it may be a recording")
        elif not hmac.compare_digest(found, expected):
            self.refuse("bound to another nonce, key or workload than this conversation's")

    def among(self, name: str, found: str, wanted: tuple[str, ...]) -> None:
        """Is a measurement one of the reference values? Nothing is asked where there are none."""
        if wanted and found not in wanted:
            self.refuse(f"{name} is {found[:16]}…, not one of the policy's {len(wanted)} reference values")

    def appraisal(self, claims: dict[str, Any]) -> Appraisal:
        """The verdict."""
        status = CONTRAINDICATED if self._refusals else WARNING if self._doubts else AFFIRMING
        reasons = tuple(self._refusals + self._doubts + self._notes) or ("every check of the policy holds",)
        isolation = "none" if self._refusals else self.isolation  # refused evidence proves nothing
        return Appraisal(status, reasons, self.kind, isolation, claims)
