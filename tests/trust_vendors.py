"""Vendors of the tests' own: they sign what Intel, AMD, Arm sign, under roots that only a test's policy names."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from labelwright.trust.evidence import Evidence
from labelwright.trust.verify.chain import certificate, pem_certificates
from labelwright.trust.verify.quote import parse_quote

FROZEN = {  # the collateral's issue date plus an hour; for AMD a day within the certificates' time
    "sgx": datetime(2025, 6, 19, 11, 56, 11, tzinfo=UTC),
    "tdx": datetime(2025, 6, 19, 11, 32, 27, tzinfo=UTC),
    "tdx_outdated": datetime(2026, 2, 18, 11, 58, 51, tzinfo=UTC),
    "snp": datetime(2025, 1, 1, tzinfo=UTC),
    "snp_vlek": datetime(2025, 1, 1, tzinfo=UTC),
    "h100": datetime(2025, 1, 1, tzinfo=UTC),
    "cca": datetime(2025, 1, 1, tzinfo=UTC),
}


def folder() -> Path:
    """Where the recorded evidence lies; skips the test without it."""
    place = os.environ.get("LABELWRIGHT_EVIDENCE")
    if not place:
        pytest.skip("LABELWRIGHT_EVIDENCE names no folder of recorded evidence")
    return Path(place)


def recorded(name: str) -> Evidence:
    """One of the recorded pieces: a key of ``FROZEN``."""
    at = folder()
    if name.startswith("snp"):
        report, cert = ("vlek-report", "vlek") if name == "snp_vlek" else ("report", "vcek")
        return Evidence(
            "snp", (at / f"snp_test-{report}.bin").read_bytes(), certs=((at / f"snp_test-{cert}.der").read_bytes(),)
        )
    if name == "h100":
        chain = pem_certificates((at / "nvidia_h100_cert_chain.txt").read_bytes())
        report = bytes.fromhex((at / "nvidia_h100_report.txt").read_text())
        return Evidence("h100", report, certs=tuple(c.public_bytes(Encoding.DER) for c in chain))
    if name == "cca":
        return Evidence("cca", (at / "cca_token.cbor").read_bytes())
    quote = name.replace("tdx", "tdx_quote").replace("sgx", "sgx_quote")
    return Evidence(name[:3], (at / quote).read_bytes(), collateral=(at / f"{quote}_collateral.json").read_bytes())


def pem(cert: x509.Certificate) -> str:
    return cert.public_bytes(Encoding.PEM).decode()


def raw(
    key: ec.EllipticCurvePrivateKey, data: bytes, digest: hashes.HashAlgorithm, size: int, order: Any = "big"
) -> bytes:
    """A signature as r ‖ s."""
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(digest)))
    return r.to_bytes(size, order) + s.to_bytes(size, order)


def point(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]


def reissue(
    old: x509.Certificate, issuer_key: ec.EllipticCurvePrivateKey, key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    """``old`` with another key, signed by another issuer's key: names, times and extensions as they were."""
    builder = x509.CertificateBuilder(old.issuer, old.subject, key.public_key(), old.serial_number)
    builder = builder.not_valid_before(old.not_valid_before_utc).not_valid_after(old.not_valid_after_utc)
    for extension in old.extensions:
        value: x509.ExtensionType = extension.value
        if isinstance(value, x509.AuthorityKeyIdentifier):
            value = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
        elif isinstance(value, x509.SubjectKeyIdentifier):
            value = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = builder.add_extension(value, critical=extension.critical)
    return builder.sign(issuer_key, hashes.SHA256())


class Intel:
    """An Intel of the test's own: re-signs the recorded TDX quote with other report data, attributes, collateral."""

    def __init__(self) -> None:
        self.recorded = recorded("tdx")
        quote = parse_quote(self.recorded.blob)
        self._plain = quote.quote
        leaf, middle, top = quote.chain
        self.root_key, self._middle_key, self._leaf_key, self._tcb_key, self._attestation = (
            ec.generate_private_key(ec.SECP256R1()) for _ in range(5)
        )
        self.root = reissue(top, self.root_key, self.root_key)
        self.middle = reissue(middle, self.root_key, self._middle_key)
        self.leaf = reissue(leaf, self._middle_key, self._leaf_key)
        self.collateral = self._collateral()

    def _collateral(self) -> bytes:
        old = json.loads(self.recorded.collateral)
        signer = reissue(pem_certificates(old["tcb_info_issuer_chain"].encode())[0], self.root_key, self._tcb_key)
        new = dict(old, pck_crl_issuer_chain=pem(self.middle) + pem(self.root))
        for name in ("tcb_info", "qe_identity"):
            new[f"{name}_issuer_chain"] = pem(signer) + pem(self.root)
            new[f"{name}_signature"] = raw(self._tcb_key, old[name].encode(), hashes.SHA256(), 32).hex()
        for name, issuer, key in (
            ("root_ca_crl", self.root, self.root_key),
            ("pck_crl", self.middle, self._middle_key),
        ):
            was = x509.load_der_x509_crl(bytes.fromhex(old[name]))
            assert was.next_update_utc is not None
            builder = x509.CertificateRevocationListBuilder(issuer.subject, was.last_update_utc, was.next_update_utc)
            authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
            builder = builder.add_extension(x509.CRLNumber(1), critical=False).add_extension(authority, critical=False)
            new[name] = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER).hex()
        return json.dumps(new).encode()

    def evidence(self, report_data: bytes, *, change: Callable[[bytearray], None] = lambda body: None) -> Evidence:
        """A TDX quote over report data. change: edits the 584-byte body before it is signed."""
        body = bytearray(self._plain[48:632])
        body[520:584] = report_data
        change(body)
        signed = self._plain[:48] + bytes(body)
        report, inner = bytearray(self._plain[636 + 134 : 636 + 134 + 384]), bytes(range(32))
        report[320:384] = hashlib.sha256(point(self._attestation) + inner).digest() + bytes(32)
        chain = (pem(self.leaf) + pem(self.middle) + pem(self.root)).encode() + b"\0"
        data = bytes(report) + raw(self._leaf_key, bytes(report), hashes.SHA256(), 32)
        data += (
            len(inner).to_bytes(2, "little")
            + inner
            + (5).to_bytes(2, "little")
            + len(chain).to_bytes(4, "little")
            + chain
        )
        signatures = raw(self._attestation, signed, hashes.SHA256(), 32) + point(self._attestation)
        signatures += (6).to_bytes(2, "little") + len(data).to_bytes(4, "little") + data
        return Evidence("tdx", signed + len(signatures).to_bytes(4, "little") + signatures, collateral=self.collateral)


class Amd:
    """An AMD of the test's own: signs SNP reports shaped as the recorded one."""

    def __init__(self) -> None:
        self._report = recorded("snp").blob
        vcek = certificate(recorded("snp").certs[0])
        ask, ark = pem_certificates((folder() / "snp_milan.pem").read_bytes())[:2]
        keys = [ec.generate_private_key(ec.SECP384R1()) for _ in range(3)]
        self.ark = reissue(ark, keys[0], keys[0])
        self.ask = reissue(ask, keys[0], keys[1])
        builder = x509.CertificateBuilder(ask.subject, vcek.subject, keys[2].public_key(), 1)
        builder = builder.not_valid_before(vcek.not_valid_before_utc).not_valid_after(vcek.not_valid_after_utc)
        for extension in vcek.extensions:
            builder = builder.add_extension(extension.value, critical=extension.critical)
        self.vcek, self._key = builder.sign(keys[1], hashes.SHA384()), keys[2]

    def report(
        self, report_data: bytes, *, vmpl: int = 0, change: Callable[[bytearray], None] = lambda body: None
    ) -> bytes:
        """A signed report. change: edits its 672 signed bytes."""
        body = bytearray(self._report[:672])
        body[80:144] = report_data
        body[48:52] = vmpl.to_bytes(4, "little")
        change(body)
        pair = raw(self._key, bytes(body), hashes.SHA384(), 48, "little")
        return bytes(body) + pair[:48] + bytes(24) + pair[48:] + bytes(24 + 368)

    def table(self) -> bytes:
        """AMD's certificate table, as configfs-tsm's auxblob."""
        ders = [c.public_bytes(Encoding.DER) for c in (self.vcek, self.ask, self.ark)]
        start, entries = 24 * 4, b""
        for der in ders:
            entries += uuid.uuid4().bytes_le + start.to_bytes(4, "little") + len(der).to_bytes(4, "little")
            start += len(der)
        return entries + bytes(24) + b"".join(ders)

    def evidence(self, report_data: bytes, **options: Any) -> Evidence:
        return Evidence("snp", self.report(report_data, **options), aux=self.table())


def cbor(value: Any) -> bytes:
    """A small encoder: what tokens need."""

    def head(major: int, n: int) -> bytes:
        if n < 24:
            return bytes([major << 5 | n])
        size = next(i for i in range(4) if n < 1 << (8 << i))
        return bytes([major << 5 | 24 + size]) + n.to_bytes(1 << size, "big")

    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(map(cbor, value))
    if isinstance(value, dict):
        return head(5, len(value)) + b"".join(cbor(k) + cbor(v) for k, v in value.items())
    tag, inner = value
    return head(6, tag) + cbor(inner)


class Arm:
    """An Arm platform of the test's own: signs CCA tokens."""

    def __init__(self) -> None:
        self.key, self._realm = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
        public = self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self.platform_pem = public.decode()

    def evidence(self, report_data: bytes, *, lifecycle: int = 0x3003) -> Evidence:
        realm_key = b"\x04" + point(self._realm)
        realm = {10: report_data, 44236: "sha-256", 44237: realm_key, 44238: bytes(32), 44240: "sha-256"}
        challenge = hashlib.sha256(realm_key).digest()
        platform = {265: "tests", 10: challenge, 2396: bytes(32), 256: bytes(33), 2395: lifecycle}
        parts = {44234: self._sign(platform, self.key), 44241: self._sign(realm, self._realm)}
        return Evidence("cca", cbor((399, parts)))

    def _sign(self, claims: dict[int, Any], key: ec.EllipticCurvePrivateKey) -> bytes:
        protected, payload = cbor({1: -35}), cbor(claims)
        signature = raw(key, cbor(["Signature1", protected, b"", payload]), hashes.SHA384(), 48)
        return cbor((18, [protected, {}, payload, signature]))


def later(now: datetime, **delta: float) -> datetime:
    return now + timedelta(**delta)
