"""The public report: who checks it needs the broker's public key, and, to compare it with the sealed ledger, the ledger's key."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from labelwright.errors import SealError, TrustError
from labelwright.trust import ear
from labelwright.trust.chain import check, opened
from labelwright.trust.evidence import canonical_key
from labelwright.trust.inside import REPORT, verdict
from labelwright.trust.seal import Manifest, Store, key_of, reader
from labelwright.trust.seal.signing import payload_of


def unverified(text: bytes) -> dict[str, Any]:
    """What the report says, whoever wrote it. Raises TrustError when it is none."""
    try:
        part = bytes(text).split(b".")[1]
        told = json.loads(base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4)))
        return dict(told)
    except (IndexError, ValueError, TypeError, RecursionError) as error:
        raise TrustError("this is no report; give the report.jws that 'labelwright trust run' wrote") from error


def issued(text: bytes) -> datetime:
    """When the broker issued the report's token, by its own clock: the time to read an old report at. Raises TrustError."""
    try:
        part = str(unverified(text)["token"]).split(".")[1]
        return datetime.fromtimestamp(
            int(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))["iat"]), UTC
        )
    except (IndexError, ValueError, TypeError, KeyError, OverflowError, OSError, RecursionError) as error:
        raise TrustError("the report holds no token; give the report.jws that 'labelwright trust run' wrote") from error


def read(text: bytes, broker: Mapping[str, str], *, now: datetime) -> dict[str, Any]:
    """A report whose signature holds under a key that the broker vouched for.

    now: a time at which the token was good (reports are read later: the run's own). Raises SealError when it was altered or tells
    of another verdict than the broker's, RefusedError or EvidenceError for a token of another broker.
    """
    said = unverified(text)
    try:
        jwk, token = dict(said["key"]), str(said["token"])
        claims = ear.read(token, key_of(broker), now=now)  # type: ignore[arg-type]
        if canonical_key(claims["cnf"]["jwk"]) != canonical_key(jwk):
            raise SealError(
                "the report is signed by another key than the broker vouched for; it was put in another's place"
            )
        if claims.get(ear.WORKLOAD) != said["digest"]:
            raise SealError("the report tells of another workload than the broker vouched for; it was altered")
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, SealError):
            raise
        raise TrustError(
            "the report has no key and token; give the report.jws that 'labelwright trust run' wrote"
        ) from error
    payload_of(key_of(jwk), text, REPORT, "the report")
    _checked(said, verdict(token))
    return said


def _checked(said: Mapping[str, Any], verdict: Mapping[str, Any]) -> None:
    """The verdict is the broker's own, whoever holds the key that signed; and what is told has the shape of a report."""
    if any(said.get(name) != told for name, told in verdict.items()):
        raise SealError(
            f"the report tells of another verdict than the broker's, which is {verdict['status']} by {verdict['evidence']} evidence; "
            "it was made up"
        )
    made = said.get("sealed_results")
    shaped = isinstance(made, list) and all(isinstance(one, dict) and isinstance(one.get("id"), str) for one in made)
    if not shaped or not isinstance(said.get("workload"), str):
        raise TrustError("the report lacks what it should tell; give the report.jws that 'labelwright trust run' wrote")


def matches(report: Mapping[str, Any], manifest: Manifest, key: bytes, store: Store | str) -> int:
    """Compare a report with its sealed ledger, entry by entry. Returns the number of entries; raises TrustError where they differ."""
    made = {entry["id"]: entry for entry in report.get("sealed_results", [])}
    if made.get(manifest.id, {}).get("manifest") != manifest.digest.hex():
        raise SealError(
            f"the report is not about this ledger, {manifest.id!r} version {manifest.version}; give the one that it names"
        )
    digests = [digest for digest, _ in opened(manifest, key, reader(manifest, store))]
    check(report, digests)
    return len(digests)
