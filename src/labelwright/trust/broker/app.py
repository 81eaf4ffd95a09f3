"""The key broker: the wire protocol of Confidential Containers' Trustee, so that Trustee can take its place.

``POST /kbs/v0/auth`` gives a nonce and a session, ``POST /kbs/v0/attest`` takes evidence that is bound to the nonce, the learner's
ephemeral key and its workload, ``GET /kbs/v0/resource/REPOSITORY/TYPE/TAG`` gives a secret as a JWE to that key. Added to it: the type
``version`` is a counter that an attested session may raise by one, and every response is signed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from cryptography.hazmat.primitives.asymmetric import ec
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from labelwright.errors import EvidenceError, LabelwrightError, RefusedError
from labelwright.trust.broker.guard import Guard, Limits, problem
from labelwright.trust.broker.keyfolder import PART, KeyFolder
from labelwright.trust.broker.release import Desk, Refusal
from labelwright.trust.broker.sessions import Clock, Sessions
from labelwright.trust.broker.signature import COOKIE

log = logging.getLogger("labelwright.broker")
Part = Annotated[str, InPath(pattern=rf"^{PART}$")]


class _Message(BaseModel):
    model_config = ConfigDict(extra="ignore", populate_by_name=True)


class AuthRequest(_Message):
    """The learner's first message."""

    version: str = Field(max_length=20, pattern=r"^0\.[0-9]+(\.[0-9]+)?$", examples=["0.4.0"])
    tee: str = Field(max_length=40, examples=["tdx"])
    extra_params: Any = Field("", alias="extra-params")


class Challenge(_Message):
    """nonce: base64 of 32 bytes, good once."""

    nonce: str
    extra_params: dict[str, str] = Field(default_factory=dict, alias="extra-params")


class InitData(_Message):
    """What the learner was started with: here the workload's digest. format: ``workload``; body: hexadecimal SHA-256."""

    format: str = Field(max_length=40)
    body: str = Field(max_length=1 << 16)


class RuntimeData(_Message):
    nonce: str = Field(max_length=200)
    tee_pubkey: dict[str, Any] = Field(alias="tee-pubkey")


class Attestation(_Message):
    """Evidence, and what it is bound to."""

    init_data: InitData | None = Field(None, alias="init-data")
    runtime_data: RuntimeData = Field(alias="runtime-data")
    tee_evidence: Any = Field(alias="tee-evidence")


class Token(_Message):
    """The verdict, a signed JWT."""

    token: str


class Secret(_Message):
    """A flattened JWE to the learner's ephemeral key."""

    protected: str
    encrypted_key: str
    iv: str
    ciphertext: str
    tag: str


class NewVersion(_Message):
    """version: the next one. digest: hexadecimal SHA-256 of its manifest. mac: HMAC-SHA256 under the ticket, base64url."""

    version: int = Field(ge=1, le=1 << 53)
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    mac: str = Field(max_length=100)


class Problem(_Message):
    """What went wrong, in one sentence."""

    type: str
    detail: str


def create_app(
    keys: KeyFolder, policy: Any, *, signing_key: ec.EllipticCurvePrivateKey | None = None, clock: Clock | None = None,
    verify: Callable[..., Any] | None = None, token: Callable[..., str] | None = None, limits: Limits | None = None,
    nonce_lifetime: timedelta = timedelta(seconds=60), session_lifetime: timedelta = timedelta(minutes=10),
) -> FastAPI:  # fmt: skip
    """The broker as an ASGI app, to be served by one process.

    keys: the secrets. policy: a :class:`~labelwright.trust.policy.Policy`. signing_key: the broker's, ``keys.broker_key`` if None.
    verify: judges evidence; :func:`labelwright.trust.verify.verify` if None. token: signs verdicts; of
    :mod:`labelwright.trust.ear` if None. clock: now, with a time zone.
    """
    now = clock or (lambda: datetime.now(UTC))
    key = signing_key or keys.broker_key
    sessions = Sessions(now, nonce_lifetime=nonce_lifetime, lifetime=session_lifetime)
    app = FastAPI(
        title="labelwright key broker", version="0", docs_url=None, redoc_url=None,
        description="Key Broker Service, protocol of Confidential Containers' Trustee.",
    )  # fmt: skip
    app.state.desk = Desk(keys, policy, sessions, key, now, verify, token)
    app.include_router(_routes)
    app.add_exception_handler(LabelwrightError, _refused)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(HTTPException, _http)
    app.add_middleware(Guard, key=key, limits=limits or Limits())  # type: ignore[arg-type]
    return app


def _session(request: Request) -> str:
    return str(request.cookies.get(COOKIE, ""))[:100]


def _bearer(request: Request) -> str:
    kind, _, text = request.headers.get("authorization", "").partition(" ")
    return text.strip() if kind.lower() == "bearer" else ""


def _desk(request: Request) -> Desk:
    found: Desk = request.app.state.desk
    return found


AtDesk = Annotated[Desk, Depends(_desk)]
Session = Annotated[str, Depends(_session)]
_problems: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": why}
    for status, why in {
        400: "malformed", 401: "not attested", 403: "not for this workload", 404: "no such secret", 405: "no such method",
        408: "too slow", 409: "not the next version", 413: "too large", 429: "too often",
    }.items()
}  # fmt: skip
_routes = APIRouter(prefix="/kbs/v0", responses=_problems)


@_routes.post("/auth", response_model=Challenge)
def auth(asked: AuthRequest, desk: AtDesk, response: Response) -> Any:
    """Begin: a nonce, and a session in the cookie."""
    session, nonce = desk.challenge()
    response.set_cookie(COOKIE, session, httponly=True, path="/kbs/v0", samesite="strict")
    return {"nonce": nonce, "extra-params": {}}


@_routes.post("/attest", response_model=Token)
def attest(said: Attestation, desk: AtDesk, session: Session, response: Response) -> Any:
    """Evidence in, verdict out."""
    digest = said.init_data.body if said.init_data and said.init_data.format == "workload" else None
    runtime = said.runtime_data
    text = desk.attest(session, runtime.nonce, runtime.tee_pubkey, _primary(said.tee_evidence), digest)
    response.set_cookie(COOKIE, session, httponly=True, path="/kbs/v0", samesite="strict")
    return {"token": text}


@_routes.get("/resource/{repository}/{type}/{tag}", response_model=Secret)
def resource(repository: Part, type: Part, tag: Part, desk: AtDesk, session: Session, request: Request) -> Any:
    """A secret, for the attested learner's eyes only."""
    return desk.release(repository, type, tag, session, _bearer(request))


@_routes.post("/resource/{repository}/{type}/{tag}", status_code=200)
def new_version(
    repository: Part, type: Part, tag: Part, said: NewVersion, desk: AtDesk, session: Session
) -> dict[str, int]:
    """Raise the counter of a sealed model by one. Secrets themselves are put by their owner, on the broker's machine."""
    if type != "version":
        raise Refusal(
            403, "secrets are put with 'labelwright trust seal' on the broker's machine; only versions are posted"
        )
    return {"version": desk.advance(repository, tag, said.version, said.digest, said.mac, session)}


def _primary(evidence: Any) -> str:
    """The evidence as the text that :class:`~labelwright.trust.evidence.Evidence` reads."""
    if isinstance(evidence, dict) and "primary_evidence" in evidence:
        evidence = evidence["primary_evidence"]
    return evidence if isinstance(evidence, str) else json.dumps(evidence)


def _refused(request: Request, error: Exception) -> JSONResponse:
    status, kind = 401, type(error).__name__
    if isinstance(error, Refusal):
        status, kind = error.status, "Refused"
    elif isinstance(error, EvidenceError):
        status = 400
    elif not isinstance(error, RefusedError):
        log.error("%s", kind)
        return JSONResponse(problem("Internal", "the broker's keys cannot be read; tell its owner"), 500)
    return JSONResponse(problem(kind, str(error)), status)


def _malformed(request: Request, error: Exception) -> JSONResponse:
    """Names the place and the rule, never what was sent."""
    first = error.errors()[0] if isinstance(error, RequestValidationError) and error.errors() else {}
    place = ".".join(str(part) for part in first.get("loc", ()) if part != "body")[:100]
    said = f"{place or 'the body'}: {first.get('msg', 'malformed')}" if first else "malformed"
    return JSONResponse(problem("Malformed", f"{said}; send what Trustee's protocol describes"), 400)


def _http(request: Request, error: Exception) -> JSONResponse:
    status = getattr(error, "status_code", 400)
    headers = getattr(error, "headers", None)
    return JSONResponse(problem("Http", f"{getattr(error, 'detail', 'refused')}"), status, headers=headers)
