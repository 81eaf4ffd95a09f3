"""Show me where you run before I tell you anything: evidence of a site, bound to its key and the plan (labelwright.trust)."""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from labelwright.errors import LabelwrightError
from labelwright.sites.exchange import fetched
from labelwright.sites.gate import Gate
from labelwright.sites.plan import Plan

if TYPE_CHECKING:
    from labelwright.trust.policy import Policy

RETRY = 5.0  # seconds before a site that did not prove itself is asked again


def bound(plan: Plan, key: str, nonce: bytes) -> bytes:
    """The 64 bytes that a site's evidence is bound to: nonce, its public keys, the plan."""
    from labelwright.trust.evidence import report_data

    told = json.dumps({"crv": "Ed25519+X25519", "kty": "OKP", "x": key}, sort_keys=True, separators=(",", ":"))
    return report_data(nonce, told.encode(), bytes.fromhex(plan.digest))


def shown(plan: Plan, key: str, kind: str, nonce: bytes) -> bytes:
    """This machine's evidence as JSON. Raises EvidenceError when it has no such TEE."""
    from labelwright.trust.attester import collect

    return collect(kind, bound(plan, key, nonce)).to_json().encode()


@dataclass
class Demand:
    """What a site wants to see of the others. policy: of ``labelwright trust``. proven: who has shown it."""

    plan: Plan
    gate: Gate
    policy: Policy
    proven: set[str] = field(default_factory=set)
    _asked: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def met(self, name: str, now: int) -> bool:
        """Ask the site where it has not proven itself yet, and not too often."""
        with self._lock:
            if name in self.proven:
                return True
            if time.monotonic() < self._asked.get(name, 0.0):
                return False
            self._asked[name] = time.monotonic() + RETRY
        reason = self._refusal(name)
        if reason is None:
            self.proven.add(name)
        elif reason:
            self.gate.note(now, name, reason)
        return reason is None

    def _refusal(self, name: str) -> str | None:
        """Why its evidence is not good enough; "" when it cannot be reached; None when all is well."""
        from labelwright.trust.evidence import Evidence
        from labelwright.trust.verify import verify

        member, nonce = self.plan.members[name], os.urandom(32)
        try:
            raw = fetched(member.address, f"/attest?nonce={nonce.hex()}")
            evidence = Evidence.from_json(raw)
            found = verify(
                evidence, self.policy, report_data=bound(self.plan, member.key, nonce), now=datetime.now(UTC)
            )
        except OSError as error:
            return "it shows no evidence" if "404" in str(error) else ""
        except LabelwrightError as error:
            return f"its evidence cannot be read: {error}"
        if found.status not in self.policy.accept:
            return f"its evidence is {found.status}: {found.reasons[0]}"
        return None
