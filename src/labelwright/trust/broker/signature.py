"""The broker's signature on every response, so that a host that relays messages cannot speak in its name or repeat it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from http.cookies import CookieError, SimpleCookie

from labelwright.errors import SealError
from labelwright.trust.seal.signing import PrivateKey, PublicKey, b64, sign, unb64, verified

HEADER = "labelwright-signature"
REQUEST = "labelwright-request"  #: chosen anew by the client for each request
COOKIE = "kbs-session-id"
UNREAD = (408, 413, 429)  #: refused before the request was read in full: the signature cannot cover its body


@dataclass(frozen=True)
class Exchange:
    """One request and its response: all that the signature covers. request: the client's random text; session: of the cookie."""

    method: str
    path: str
    request: str
    session: str
    body: bytes
    status: int
    new_session: str
    answer: bytes

    @property
    def text(self) -> bytes:
        """The signed bytes: every part with its length, so that none slides into the next."""
        parts = [self.method, self.path, self.request, self.session, str(self.status), self.new_session]
        raw = [part.encode("utf-8", "surrogatepass") for part in parts]
        raw += [sha256(b"" if self.status in UNREAD else self.body).digest(), sha256(self.answer).digest()]
        return b"labelwright broker response 1\0" + b"".join(len(p).to_bytes(4, "big") + p for p in raw)

    def signed(self, key: PrivateKey) -> str:
        """The header's value."""
        return b64(sign(key, self.text))

    def is_from(self, key: PublicKey, value: str | None) -> bool:
        """Whether the broker with this key gave this response to this request."""
        try:
            return value is not None and verified(key, unb64(value), self.text)
        except SealError:
            return False


def session_of(header: str | None) -> str:
    """The session in a Cookie or Set-Cookie header, "" when there is none.

    >>> session_of("kbs-session-id=ab; Path=/")
    'ab'
    """
    if not header or COOKIE not in header or len(header) > 4096:
        return ""
    try:
        found = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


def lowered(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers by lower-case name."""
    return {name.lower(): value for name, value in headers.items()}
