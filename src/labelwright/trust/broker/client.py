"""The learner's side of the broker. It speaks through any relay: HTTP, or the host's end of the one socket."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable, Iterable, Mapping
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric import ec

from labelwright.errors import RefusedError, SettingsError, TrustError
from labelwright.trust.broker.jwe import WRAPPED, decrypted
from labelwright.trust.broker.signature import COOKIE, HEADER, REQUEST, Exchange, lowered, session_of
from labelwright.trust.broker.versions import Version, version_mac
from labelwright.trust.evidence import Evidence, canonical_key, report_data
from labelwright.trust.seal.manifest import Manifest
from labelwright.trust.seal.signing import PublicKey, b64, jwk_of, key_of, new_key, unb64

Reply = tuple[int, Mapping[str, str], bytes]
Send = Callable[[str, str, Mapping[str, str], bytes], Reply]
"""(method, path, headers, body) -> (status, headers, body)."""

Answer = TypeVar("Answer")
PREFIX = "/kbs/v0"
PROTOCOL = "0.4.0"
MOST_ANSWER = 64 << 20


class Refused(RefusedError):
    """The broker's no, with its HTTP status."""

    def __init__(self, status: int, sentence: str):
        super().__init__(f"the broker refused ({status}): {sentence}")
        self.status = status


class Client:
    """Attests, then fetches secrets. A session that ended meanwhile, as work may take long, is begun anew with the same key.

    send: carries a request to the broker; whoever does is not trusted. pinned: the broker's public key (a key or a JWK); a response
    that it did not sign for this very request is refused. None: no signature is asked for, as with a real Trustee; then ``send``
    itself must speak TLS with a pinned certificate from inside, or a host that relays could hand out keys of its own.
    tee: the kind of evidence, as the protocol wants to be told beforehand.
    """

    def __init__(self, send: Send, pinned: PublicKey | Mapping[str, str] | None, *, tee: str = "sim"):
        self._send, self._tee = send, tee
        self._pinned = None if pinned is None else key_of(pinned)
        self._session = ""
        self._key: ec.EllipticCurvePrivateKey | None = None
        self._again: tuple[Callable[[bytes], Evidence], bytes] | None = None
        self._tickets: dict[str, bytes] = {}
        self.token = ""

    @property
    def key(self) -> ec.EllipticCurvePrivateKey:
        """The ephemeral key that the evidence spoke for. Raises SettingsError before :meth:`attest`."""
        if self._key is None:
            raise SettingsError("nothing was attested yet; call attest first")
        return self._key

    def keys(
        self, collect: Callable[[bytes], Evidence], workload_digest: bytes, resources: Iterable[str]
    ) -> dict[str, bytes]:
        """Attest and fetch: name -> secret. Raises RefusedError with the broker's sentence, TrustError for an impostor's answer."""
        self.attest(collect, workload_digest)
        return {name: self.resource(name) for name in resources}

    def attest(self, collect: Callable[[bytes], Evidence], workload_digest: bytes) -> str:
        """Prove what runs here, under a fresh key. collect: 64 bytes of report data -> evidence. Returns the verdict's token."""
        self._key, self._again = new_key(), (collect, workload_digest)
        return self._attested(collect, workload_digest)

    def _attested(self, collect: Callable[[bytes], Evidence], workload_digest: bytes) -> str:
        self._session, self._tickets = "", {}
        nonce, jwk = self._nonce(), jwk_of(self.key)
        data = report_data(nonce, canonical_key(dict(jwk)), workload_digest)
        evidence = json.loads(collect(data).to_json())
        message = {
            "init-data": {"format": "workload", "body": workload_digest.hex()},
            "runtime-data": {"nonce": base64.b64encode(nonce).decode(), "tee-pubkey": {**jwk, "alg": WRAPPED}},
            "tee-evidence": {"primary_evidence": evidence, "additional_evidence": "{}"},
        }
        said = self._asked("POST", f"{PREFIX}/attest", message)
        self.token = str(said.get("token", ""))
        return self.token

    def resource(self, name: str) -> bytes:
        """A secret by ``repository/type/tag``."""
        return decrypted(self.key, self._held("GET", f"{PREFIX}/resource/{name}"))

    def version(self, id: str, repository: str = "default") -> Version:
        """The newest version of a sealed thing, as the broker counts."""
        try:
            told = json.loads(self.resource(f"{repository}/version/{id}"))
            self._tickets[f"{repository}/{id}"] = unb64(told["ticket"])
            return Version(int(told["version"]), bytes.fromhex(told["digest"]))
        except (ValueError, KeyError, TypeError) as error:
            raise TrustError("the broker's version cannot be read; it is of another kind than ours") from error

    def advance(self, manifest: Manifest, repository: str = "default") -> int:
        """Make a model that was sealed here the newest. Raises RefusedError when another came first."""
        name, digest = f"{repository}/{manifest.id}", manifest.digest.hex()
        self.version(manifest.id, repository)  # a fresh ticket, in a session that is good now
        mac = b64(version_mac(self._tickets.pop(name), name, manifest.version, digest))
        message = {"version": manifest.version, "digest": digest, "mac": mac}
        said = self._asked("POST", f"{PREFIX}/resource/{repository}/version/{manifest.id}", message)
        return int(said.get("version", 0))

    def _held(self, method: str, path: str) -> dict[str, Any]:
        """Ask within the session; when that is over, attest again, once."""
        try:
            return self._asked(method, path)
        except Refused as refused:
            if refused.status != 401 or self._again is None or not self._session:
                raise
        self._attested(*self._again)
        return self._asked(method, path)

    def _nonce(self) -> bytes:
        asked = {"version": PROTOCOL, "tee": self._tee, "extra-params": {}}
        try:
            nonce = base64.b64decode(self._asked("POST", f"{PREFIX}/auth", asked)["nonce"], validate=True)
        except (KeyError, ValueError, TypeError) as error:
            raise TrustError("the broker's challenge holds no nonce; check that its address is a broker's") from error
        if not 16 <= len(nonce) <= 64:
            raise TrustError(
                f"the broker's nonce has {len(nonce)} bytes, expected 32; check that its address is a broker's"
            )
        return nonce

    def _asked(self, method: str, path: str, message: Any = None) -> dict[str, Any]:
        body = b"" if message is None else json.dumps(message, separators=(",", ":")).encode()
        request, sent = b64(secrets.token_bytes(16)), self._session
        headers = {REQUEST: request, "accept": "application/json"}
        headers |= {"content-type": "application/json"} if body else {}
        headers |= {"cookie": f"{COOKIE}={sent}"} if sent else {}
        status, told, answer = self._send(method, path, headers, body)
        told = lowered(told)
        got = session_of(told.get("set-cookie"))
        exchange = Exchange(method, path, request, sent, body, status, got, answer)
        if self._pinned is not None and not exchange.is_from(self._pinned, told.get(HEADER)):
            raise TrustError(
                f"the answer to {method} {path} is not signed by the broker's pinned key: somebody else answered, or altered it; "
                "nothing of it was used"
            )
        self._session = got or sent
        return _read(status, answer)


def _read(status: int, answer: bytes) -> dict[str, Any]:
    try:
        said = json.loads(answer) if len(answer) <= MOST_ANSWER else None
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise TrustError(f"the broker answered {status} with no JSON object; check that its address is a broker's")
    if status != 200:
        raise Refused(status, str(said.get("detail", "no reason given"))[:1000])
    return said


def said_by(error: BaseException) -> str:
    """An error's words in one line, as the other end may have chosen them.

    >>> said_by(ValueError("a\\nb")), said_by(ValueError())
    ('a b', 'ValueError')
    """
    return " ".join(str(error).split())[:200] or type(error).__name__


def within(seconds: float, call: Callable[[], Answer]) -> Answer:
    """What ``call`` returns or raises. Raises TimeoutError after ``seconds``, however slowly the other end goes on; the call is then
    left to itself.

    >>> within(1.0, lambda: 3)
    3
    """
    done: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

    def run() -> None:
        try:
            done.put((call(), None))
        except BaseException as error:
            done.put((None, error))

    Thread(target=run, daemon=True).start()
    try:
        answer, error = done.get(timeout=seconds)
    except Empty:
        raise TimeoutError(f"no whole answer within {seconds:g} s") from None
    if error is not None:
        raise error
    return answer


def http_send(url: str, *, cafile: str | None = None, timeout: float = 30.0) -> Send:
    """Requests over HTTP or HTTPS, one connection each, by the standard library.

    cafile: PEM certificates to trust instead of the system's. timeout: seconds for each request, to its last byte.
    Raises TrustError when the broker cannot be reached.
    """
    import http.client
    import ssl

    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise SettingsError(f"{url!r} is no broker's address ({error}); expected http://HOST:PORT") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingsError(f"{url!r} is no broker's address; expected http://HOST:PORT or https://HOST:PORT")

    def connected() -> http.client.HTTPConnection:
        if parts.scheme == "http":
            return http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=timeout)
        context = ssl.create_default_context(cafile=cafile)
        return http.client.HTTPSConnection(str(parts.hostname), parts.port, timeout=timeout, context=context)

    def sent(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        connection = connected()
        try:
            connection.request(method, path, body=body or None, headers=dict(headers))
            response = connection.getresponse()
            answer, expected = response.read(MOST_ANSWER + 1), response.headers.get("content-length")
            if expected is not None and len(answer) < min(int(expected), MOST_ANSWER):
                raise http.client.IncompleteRead(answer)  # read(n) does not say so itself
            return response.status, dict(response.headers.items()), answer
        finally:
            connection.close()

    def send(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        try:
            return within(timeout, lambda: sent(method, path, headers, body))
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise TrustError(
                f"the broker at {url} cannot be reached ({said_by(error)}); check that it runs there"
            ) from error

    return send
