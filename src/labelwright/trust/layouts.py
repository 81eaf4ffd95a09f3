"""Evidence as others' tools write it down: an H100 report in hexadecimal, a TPM quote with its registers in a list."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from labelwright.errors import EvidenceError
from labelwright.trust.evidence import read_object, unbase64
from labelwright.trust.verify.chain import certificate
from labelwright.trust.verify.tpm import TpmQuote, parse_message

_HEX = frozenset(b"0123456789abcdef")


def blob_of(kind: str, raw: bytes, certs: Sequence[bytes] = ()) -> bytes:
    """The evidence's own bytes: ``raw`` itself, unless it is in one of these layouts. certs: DER, the quoting key's first.

    h100: lower-case hexadecimal, as NVIDIA's SDK writes. tpm: ``{"ak_public": …, "tpm_quote": {"message", "signature", "pcrs"}}``
    with all registers in order; only those that the quote covers are kept. Raises EvidenceError.

    >>> blob_of("h100", b"11e0"), blob_of("sim", b"11e0")
    (b'\\x11\\xe0', b'11e0')
    """
    if kind == "h100" and (text := raw.rstrip(b"\r\n")) and len(text) % 2 == 0 and _HEX.issuperset(text):
        return bytes.fromhex(text.decode())
    if kind == "tpm" and b'"tpm_quote"' in raw:
        return _quote(raw, certs)
    return raw


def _quote(raw: bytes, certs: Sequence[bytes]) -> bytes:
    names, parts = {"ak_public", "tpm_quote"}, {"message", "signature", "pcrs"}
    told = read_object(raw, "the TPM evidence", names, needs={"tpm_quote"})
    quote, registers = told["tpm_quote"], []
    if not isinstance(quote, dict) or set(quote) != parts or not isinstance(quote["pcrs"], list):
        raise EvidenceError("the TPM evidence's tpm_quote lacks its message, signature or list pcrs; was it edited?")
    try:
        registers = [bytes.fromhex(value) for value in quote["pcrs"]]
    except (TypeError, ValueError) as error:
        raise EvidenceError("the TPM evidence's pcrs are not hexadecimal; was it edited?") from error
    key = unbase64(told.get("ak_public", ""), "ak_public")
    if key and certs:
        own = certificate(certs[0]).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if own != key:
            raise EvidenceError("the TPM evidence names another quoting key than the first certificate's; give its own")
    message, signature = unbase64(quote["message"], "message"), unbase64(quote["signature"], "signature")
    covered = parse_message(message)[2]
    if covered and covered[-1] >= len(registers):
        raise EvidenceError(
            f"the quote covers register {covered[-1]} and {len(registers)} are listed; give all of them"
        )
    return TpmQuote(message, signature, {number: registers[number] for number in covered}).encode()
