"""The broker's decisions, apart from HTTP: who is attested, and who gets which secret."""

from __future__ import annotations

import base64
import hmac
import json
import logging
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from labelwright.errors import EvidenceError, RefusedError, TrustError
from labelwright.trust.broker.jwe import encrypted
from labelwright.trust.broker.keyfolder import KeyFolder
from labelwright.trust.broker.sessions import Clock, Session, Sessions
from labelwright.trust.broker.versions import version_mac
from labelwright.trust.evidence import Evidence, canonical_key, report_data
from labelwright.trust.seal.signing import b64, key_of

log = logging.getLogger("labelwright.broker")
NO_WORKLOAD = bytes(32)


class Refusal(RefusedError):
    """No, with an HTTP status."""

    def __init__(self, status: int, sentence: str):
        super().__init__(sentence)
        self.status = status


class Desk:
    """Attests and releases. Every refusal is a RefusedError or EvidenceError of one sentence; nothing it says or logs holds a secret."""

    def __init__(
        self, keys: KeyFolder, policy: Any, sessions: Sessions, key: ec.EllipticCurvePrivateKey, clock: Clock,
        verify: Callable[..., Any] | None = None, token: Callable[..., str] | None = None,
    ):  # fmt: skip
        self.keys, self.policy, self.sessions, self.key, self.clock = keys, policy, sessions, key, clock
        self._verify, self._token = verify, token

    def challenge(self) -> tuple[str, str]:
        """(session, nonce in base64)."""
        session, nonce = self.sessions.challenge()
        return session, base64.b64encode(nonce).decode()

    def attest(self, session: str, nonce: str, jwk: dict[str, Any], evidence: str, workload: str | None) -> str:
        """Judge evidence for this session's nonce, key and workload; the signed verdict when it is accepted."""
        raw = _nonce(nonce)
        self.sessions.spend(session, raw)
        public, digest = canonical_key(jwk), _digest(workload)
        own = json.loads(public)
        encrypted(b"", own)  # a point off the curve is refused before anything is judged
        self.policy.check_workload(digest)
        appraisal = self._verifier()(
            Evidence.from_json(evidence), self.policy, report_data=report_data(raw, public, digest), now=self.clock()
        )
        log.info("%s evidence for workload %s: %s", appraisal.kind, digest.hex()[:16], appraisal.status)
        self.policy.check(appraisal)
        self.sessions.admit(session, own, digest.hex())
        told = {} if workload is None else {"workload": digest}
        return self._signer()(appraisal, self.key, nonce=raw, tee_key=own, now=self.clock(), **told)

    def release(self, repository: str, type: str, tag: str, session: str, bearer: str) -> dict[str, str]:
        """The secret as a JWE. Not attested: 401; not for this workload: 403; none of this name: 404."""
        held = self.sessions.attested(session)
        jwk = held.jwk if held else self._bearer(bearer)
        if jwk is None:
            raise Refusal(401, "this session is not attested, or is over; begin again at /kbs/v0/auth")
        if type == "version":
            return encrypted(self._version(repository, tag, held), jwk)
        found = self.keys.get(f"{repository}/{type}/{tag}")
        if found is None:
            raise Refusal(404, f"there is no secret {repository}/{type}/{tag}; see 'labelwright trust seal'")
        self._allow(found.workloads, held, f"{repository}/{type}/{tag}")
        return encrypted(found.content, jwk)

    def advance(self, repository: str, tag: str, version: int, digest: str, mac: str, session: str) -> int:
        """Make ``version`` the newest of a sealed model. The ticket proves that the learner asks, and not the host that relays."""
        held = self.sessions.attested(session)
        if held is None:
            raise Refusal(401, "this session is not attested, or is over; begin again at /kbs/v0/auth")
        name = f"{repository}/{tag}"
        key = self.keys.get(f"{repository}/signing-key/{tag}")
        if key is None:
            raise Refusal(
                403, f"{name} is not a model that learners may write; see 'labelwright trust seal --new-model'"
            )
        self._allow(key.workloads, held, name)

        def fits(ticket: bytes) -> bool:
            right = b64(version_mac(ticket, name, version, digest))
            return hmac.compare_digest(right.encode(), mac.encode("utf-8", "replace"))

        if not self.sessions.take_ticket(held, name, fits):
            raise Refusal(403, "this message was not made by the attested learner, or was used; fetch the version anew")
        try:
            return self.keys.versions.advance(tag, version, bytes.fromhex(digest), repository).number
        except RefusedError as error:
            raise Refusal(409, str(error)) from None

    def _version(self, repository: str, tag: str, held: Session | None) -> bytes:
        now = self.keys.versions.current(tag, repository)
        told: dict[str, Any] = {"version": now.number, "digest": now.digest.hex()}
        if held is not None:
            told["ticket"] = b64(self.sessions.ticket(held, f"{repository}/{tag}"))
        return json.dumps(told).encode()

    def _bearer(self, text: str) -> dict[str, Any] | None:
        """The key in a token that this broker signed."""
        if not text:
            return None
        from labelwright.trust import ear

        try:
            claims = ear.read(text, self.key.public_key(), now=self.clock())
            jwk: dict[str, Any] = claims["cnf"]["jwk"]
            key_of(jwk)
        except (TrustError, KeyError, TypeError):
            return None
        return jwk

    def _allow(self, workloads: tuple[str, ...], held: Session | None, name: str) -> None:
        if workloads and (held is None or held.workload not in workloads):
            raise Refusal(403, f"{name} is not for this workload; its owner names those it is for")

    def _verifier(self) -> Callable[..., Any]:
        if self._verify is not None:
            return self._verify
        from labelwright.trust.verify import verify

        return verify

    def _signer(self) -> Callable[..., str]:
        if self._token is not None:
            return self._token
        from labelwright.trust.ear import token

        return token


def _nonce(text: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        raw = b""
    if len(raw) != 32:
        raise EvidenceError("the nonce is not base64 of 32 bytes; send back the one of /kbs/v0/auth")
    return raw


def _digest(text: str | None) -> bytes:
    try:
        raw = NO_WORKLOAD if text is None else bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) != 32 or (text is not None and raw.hex() != text):
        raise EvidenceError("the workload's digest is no SHA-256 in lower-case hexadecimal; send the workload.toml's")
    return raw
