"""Intel's quotes, byte by byte: no byte is left unread. Layout: Intel SGX/TDX DCAP quoting library API, versions 3, 4, 5."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509

from labelwright.errors import EvidenceError
from labelwright.trust.verify.chain import canonical_pem

MAX_QUOTE = 8192  # bytes; beyond lie quotes with DICE tokens
HEADER = 48
SGX, TDX = 0, 0x81
SGX_FIELDS = {  # of the 384-byte report: offset, length
    "cpu_svn": (0, 16),
    "attributes": (48, 16),
    "mr_enclave": (64, 32),
    "mr_signer": (128, 32),
    "config_id": (192, 64),
    "report_data": (320, 64),
}
SGX_RESERVED = ((20, 12), (96, 32), (160, 32), (262, 42))
TDX_FIELDS = {  # of the 584-byte report (TDX 1.0) and the 648-byte one (1.5)
    "tee_tcb_svn": (0, 16),
    "mr_seam": (16, 48),
    "mr_signer_seam": (64, 48),
    "seam_attributes": (112, 8),
    "td_attributes": (120, 8),
    "xfam": (128, 8),
    "mr_td": (136, 48),
    "mr_config_id": (184, 48),
    "mr_owner": (232, 48),
    "mr_owner_config": (280, 48),
    "rt_mr0": (328, 48),
    "rt_mr1": (376, 48),
    "rt_mr2": (424, 48),
    "rt_mr3": (472, 48),
    "report_data": (520, 64),
}
TDX_15_FIELDS = TDX_FIELDS | {"tee_tcb_svn2": (584, 16), "mr_service_td": (600, 48)}
BODIES = {1: ("sgx", 384), 2: ("tdx", 584), 3: ("tdx", 648)}  # body types of version 5


@dataclass(frozen=True)
class IntelQuote:
    """A quote taken apart. quote: without padding. fields: of the report, by name. chain: the PCK certificate first."""

    tee: str
    version: int
    quote: bytes
    fields: dict[str, bytes]
    isv_prod_id: int
    isv_svn: int
    chain: tuple[x509.Certificate, ...]

    @property
    def debug(self) -> bool:
        """Can the host look inside? SGX: flag 2. TDX: any bit of the group "TD under debug"."""
        if self.tee == "sgx":
            return bool(self.fields["attributes"][0] & 2)
        return self.fields["td_attributes"][0] != 0

    @property
    def migratable(self) -> bool:
        """May another trust domain, bound to this one, move it and so read its memory? (TDX 1.5)"""
        if self.tee == "sgx":
            return False
        return bool(self.fields["td_attributes"][3] & 0x20) or any(self.fields.get("mr_service_td", b""))


class Reader:
    """Reads forward; never past the end. Raises EvidenceError.

    >>> Reader(b"\\x01\\x00\\x05", "the quote").number(2)
    1
    """

    def __init__(self, data: bytes, what: str, order: str = "little") -> None:
        self._data, self._what, self._at = data, what, 0
        self._order: str = order

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        part = self._data[self._at : self._at + count]
        if len(part) != count:
            raise EvidenceError(
                f"{self._what} ends after {len(self._data)} bytes, in the middle of a field; was it cut?"
            )
        self._at += count
        return part

    def number(self, size: int) -> int:
        """The next ``size`` bytes as a number."""
        return int.from_bytes(self.take(size), self._order)  # type: ignore[arg-type]

    def sized(self, size: int) -> bytes:
        """A length of ``size`` bytes, and so many bytes."""
        return self.take(self.number(size))

    def rest(self) -> bytes:
        """What is left."""
        return self.take(len(self._data) - self._at)


def parse_quote(blob: bytes) -> IntelQuote:
    """Take an SGX or TDX quote apart. Raises EvidenceError naming the first byte that is not as it should be.

    Zero bytes behind a TDX quote are padding that quoting services add; anything else behind a quote is refused.
    """
    if len(blob) > MAX_QUOTE:
        raise EvidenceError(
            f"the quote has {len(blob):,} bytes; quotes of at most {MAX_QUOTE:,} are read "
            "(longer ones may hold DICE tokens, which this verifier does not know)"
        )
    reader = Reader(blob, "the quote")
    header = Reader(reader.take(HEADER), "the quote's header")
    version, key_type, tee_type = header.number(2), header.number(2), header.number(4)
    if version not in (3, 4, 5) or tee_type not in (SGX, TDX) or (version == 3 and tee_type != SGX):
        raise EvidenceError(
            f"a quote of version {version} and TEE type {tee_type:#x}; expected an SGX or TDX quote, 3 to 5"
        )
    if key_type != 2:
        raise EvidenceError(f"a quote signed with key type {key_type}; expected 2, ECDSA over P-256")
    tee = "sgx" if tee_type == SGX else "tdx"
    body = _body(reader, version, tee)
    chain = _signatures(reader.sized(4), nested=version > 3)
    rest = reader.rest()
    if any(rest) or (rest and tee == "sgx"):
        raise EvidenceError(f"{len(rest)} bytes lie behind the quote and are not padding; was something appended?")
    layout = SGX_FIELDS if tee == "sgx" else TDX_FIELDS if len(body) == 584 else TDX_15_FIELDS
    if tee == "sgx" and any(any(body[at : at + n]) for at, n in SGX_RESERVED):
        raise EvidenceError(
            "a reserved byte of the SGX report is not zero; expected a report as the processor makes it"
        )
    values = {name: body[at : at + n] for name, (at, n) in layout.items()}
    numbers = [int.from_bytes(body[at : at + 2], "little") if tee == "sgx" else 0 for at in (256, 258)]
    whole = blob[: len(blob) - len(rest)]
    return IntelQuote(tee, version, whole, values, numbers[0], numbers[1], tuple(chain))


def _body(reader: Reader, version: int, tee: str) -> bytes:
    """The report inside: 384 bytes of SGX, 584 of TDX 1.0, 648 of TDX 1.5 (version 5 says which)."""
    if version < 5:
        return reader.take(BODIES[1 if tee == "sgx" else 2][1])
    named = BODIES.get(reader.number(2))
    if named is None or named != (tee, reader.number(4)):
        raise EvidenceError("the quote's body is of a type or size that its header does not allow")
    return reader.take(named[1])


def _signatures(section: bytes, *, nested: bool) -> list[x509.Certificate]:
    """Certificates of the signature section, whose every byte must belong to a field."""
    reader = Reader(section, "the quote's signature section")
    reader.take(64 + 64)  # signature and attestation key
    if nested:
        if reader.number(2) != 6:
            raise EvidenceError(
                "the quote's certification data are of another type than 6 (a quoting enclave's report)"
            )
        inner = reader.sized(4)
        if reader.rest():
            raise EvidenceError("bytes lie behind the quote's certification data; was something appended?")
        reader = Reader(inner, "the quote's certification data")
    reader.take(384 + 64)  # the quoting enclave's report and its signature
    reader.sized(2)
    kind = reader.number(2)
    chain = reader.sized(4)
    if kind != 5 or reader.rest():
        raise EvidenceError(
            f"the quote's certificates are of type {kind}; expected 5 (a PEM chain) and nothing behind it"
        )
    return canonical_pem(chain.removesuffix(b"\0"))
