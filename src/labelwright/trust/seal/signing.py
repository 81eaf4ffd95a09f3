"""Signatures (ES256, Ed25519), keys as JWKs, strict base64url. Only `cryptography`, so that it fits inside an enclave."""

from __future__ import annotations

import base64
import json
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from labelwright.errors import SealError, SettingsError

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
Jwk = dict[str, str]


def b64(content: bytes) -> str:
    """Base64url without padding.

    >>> b64(b"ab")
    'YWI'
    """
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def unb64(text: Any, what: str = "a value") -> bytes:
    """What :func:`b64` encoded. Raises SealError for anything it would not have written.

    >>> unb64("YWI")
    b'ab'
    """
    try:
        content = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        if b64(content) == text:
            return content
    except (TypeError, ValueError, AttributeError):
        pass
    raise SealError(f"{what} is no base64url text; it was altered, or is of another kind")


def new_key() -> ec.EllipticCurvePrivateKey:
    """A fresh P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def sign(key: PrivateKey, content: bytes) -> bytes:
    """64 bytes: ES256 as r and s (RFC 7518, 3.4), or Ed25519 (RFC 8037).

    >>> key = new_key()
    >>> verified(key.public_key(), sign(key, b"x"), b"x"), verified(key.public_key(), sign(key, b"x"), b"y")
    (True, False)
    """
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(content)
    r, s = decode_dss_signature(key.sign(content, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def verified(key: PublicKey, signature: bytes, content: bytes) -> bool:
    """Whether :func:`sign` made the signature."""
    if len(signature) != 64:
        return False
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, content)
        else:
            r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
            key.verify(encode_dss_signature(r, s), content, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def algorithm(key: PrivateKey | PublicKey) -> str:
    """The JOSE name of a key's signatures. Raises SettingsError for another kind of key."""
    if isinstance(key, ed25519.Ed25519PrivateKey | ed25519.Ed25519PublicKey):
        return "Ed25519"  # RFC 9864
    if isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey) and key.curve.name == "secp256r1":
        return "ES256"
    raise SettingsError(f"got a {type(key).__name__}, expected an EC P-256 or an Ed25519 key; make one of these")


def jwk_of(key: PrivateKey | PublicKey) -> Jwk:
    """The public key as a JWK (RFC 7517), required members only.

    >>> sorted(jwk_of(new_key()))
    ['crv', 'kty', 'x', 'y']
    """
    public = key if isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey) else key.public_key()
    if algorithm(public) == "Ed25519":
        raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return {"crv": "Ed25519", "kty": "OKP", "x": b64(raw)}
    assert isinstance(public, ec.EllipticCurvePublicKey)
    point = public.public_numbers()
    return {"crv": "P-256", "kty": "EC", "x": b64(point.x.to_bytes(32, "big")), "y": b64(point.y.to_bytes(32, "big"))}


def key_of(jwk: Any) -> PublicKey:
    """The public key of a JWK. Raises SealError when it is none of the two kinds, or no point of the curve."""
    if isinstance(jwk, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey):
        return jwk
    try:
        kind = (jwk["kty"], jwk["crv"])
        x = unb64(jwk["x"])
        if kind == ("OKP", "Ed25519") and len(x) == 32:
            return ed25519.Ed25519PublicKey.from_public_bytes(x)
        y = unb64(jwk["y"])
        if kind == ("EC", "P-256") and len(x) == len(y) == 32:
            return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + x + y)
    except (KeyError, TypeError, ValueError):
        pass
    raise SealError(
        "the public key is no JWK of an EC P-256 or an Ed25519 key; take the one that 'labelwright trust keys' prints"
    )


def thumbprint(key: PrivateKey | PublicKey) -> str:
    """The key's name, RFC 7638: SHA-256 of its canonical JWK, base64url."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(json.dumps(jwk_of(key), separators=(",", ":"), sort_keys=True).encode())
    return b64(digest.finalize())


def signed_text(key: PrivateKey, payload: bytes, kind: str) -> bytes:
    """A compact JWS (RFC 7515). kind: its ``typ``."""
    head = {"alg": algorithm(key), "kid": thumbprint(key), "typ": kind}
    text = f"{b64(json.dumps(head, separators=(',', ':')).encode())}.{b64(payload)}"
    return f"{text}.{b64(sign(key, text.encode()))}".encode()


def payload_of(key: PublicKey, content: bytes, kind: str, what: str) -> bytes:
    """What :func:`signed_text` signed. The key alone says the algorithm. Raises SealError when anything was altered."""
    parts = bytes(content).split(b".")
    if len(parts) != 3:
        raise SealError(f"{what} is no signed text of three parts; it was truncated, or is another file")
    try:
        head, payload, signature = (unb64(part.decode("ascii"), what) for part in parts)
    except UnicodeDecodeError as error:
        raise SealError(f"{what} holds bytes that are no text; it was altered") from error
    if not verified(key, signature, parts[0] + b"." + parts[1]):
        raise SealError(f"{what} was altered, or was not signed by the owner's key ({thumbprint(key)[:12]}…)")
    try:
        said = json.loads(head)
        right = said["alg"] == algorithm(key) and said["typ"] == kind
    except (ValueError, KeyError, TypeError, RecursionError):
        right = False
    if not right:
        raise SealError(f"{what} is signed as something else; expected {kind}")
    return payload
