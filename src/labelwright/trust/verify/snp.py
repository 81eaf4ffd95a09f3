"""SEV-SNP attestation reports: signature, certificates, TCB, policy bits, and every reserved byte.

Source: AMD, SEV Secure Nested Paging Firmware ABI Specification (56860), tables ATTESTATION_REPORT and TCB_VERSION.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from labelwright.errors import EvidenceError
from labelwright.trust.appraisal import Appraisal, Findings
from labelwright.trust.evidence import Evidence
from labelwright.trust.policy import Policy
from labelwright.trust.verify.chain import certificate, climb, issued, vendor_roots

SIZE, SIGNED = 1184, 672
PRODUCTS = ("milan", "genoa")
RESERVED = {  # byte ranges that must be zero, by report version; the signature's own at the end
    2: ((76, 80), (392, 416), (491, 492), (495, 496), (504, 672)),
    3: ((76, 80), (395, 416), (491, 492), (495, 496), (504, 672)),
    5: ((76, 80), (395, 416), (491, 492), (495, 496), (520, 672)),
}
PADDING = ((720, 744), (792, 1184))  # behind the 48 bytes of r and of s
OID = "1.3.6.1.4.1.3704.1"
TCB_OIDS = {"bootloader": f"{OID}.3.1", "tee": f"{OID}.3.2", "snp": f"{OID}.3.3", "microcode": f"{OID}.3.8"}
TCB_AT = {"bootloader": 0, "tee": 1, "snp": 6, "microcode": 7}  # bytes of TCB_VERSION on Milan and Genoa
DEBUG, MIGRATE, MUST_BE_SET = 1 << 19, 1 << 18, 1 << 17
TURIN = 0x1A  # processor family
VENDOR_KEYS = {"SEV-VCEK": 0, "SEV-VLEK": 1}


def appraise(evidence: Evidence, policy: Policy, *, report_data: bytes | None, now: datetime) -> Appraisal:
    """Judge an SEV-SNP report. Raises EvidenceError when report or certificates cannot be read."""
    report = evidence.blob
    claims = parse_report(report)
    findings = Findings("snp")
    certs = [certificate(der) for der in (*evidence.certs, *table(evidence.aux))]
    leaf = next((c for c in certs if _common(c) in VENDOR_KEYS), None)
    if leaf is None:
        raise EvidenceError(
            "the SNP evidence has no VCEK or VLEK certificate; pass it in certs, or fetch it from AMD's service"
        )
    _signature(report, leaf, findings)
    _chain(leaf, certs, evidence.collateral, policy, now, findings)
    _endorsed(report, leaf, claims, findings)
    _rules(claims, policy, findings)
    findings.bound(report[80:144], report_data)
    return findings.appraisal(claims)


def parse_report(report: bytes) -> dict[str, Any]:
    """The report's fields as JSON values. Raises EvidenceError for a byte that should be zero and is not.

    The report is 1,184 bytes: 672 signed, then r and s as little-endian numbers, each padded to 72, then zeros.
    """
    flags = _shape(report)

    def number(at: int, size: int) -> int:
        return int.from_bytes(report[at : at + size], "little")

    return {
        "version": number(0, 4),
        "guest_svn": number(4, 4),
        "policy": number(8, 8),
        "debug": bool(number(8, 8) & DEBUG),
        "migratable": bool(number(8, 8) & MIGRATE),
        "vmpl": number(48, 4),
        "signing_key": (flags >> 2) & 7,
        "report_data": report[80:144].hex(),
        "measurement": report[144:192].hex(),
        "host_data": report[192:224].hex(),
        "id_key_digest": report[224:272].hex(),
        "chip_id": report[416:480].hex(),
        "platform_info": number(64, 8),
        "current_tcb": tcb(report[56:64]),
        "reported_tcb": tcb(report[384:392]),
        "committed_tcb": tcb(report[480:488]),
        "launch_tcb": tcb(report[496:504]),
    }


def _shape(report: bytes) -> int:
    """The report's flags, when it is laid out as one of the known versions."""
    if len(report) != SIZE:
        raise EvidenceError(f"the SNP report has {len(report)} bytes; expected {SIZE} and nothing behind")
    version = int.from_bytes(report[:4], "little")
    if version not in RESERVED:
        raise EvidenceError(f"an SNP report of version {version}; versions {', '.join(map(str, RESERVED))} are known")
    for start, end in (*RESERVED[version], *PADDING):
        if any(report[start:end]):
            raise EvidenceError(f"a reserved byte of the SNP report (between {start} and {end}) is not zero")
    algorithm, flags = (int.from_bytes(report[at : at + 4], "little") for at in (52, 72))
    if algorithm != 1:
        raise EvidenceError(f"the SNP report is signed by algorithm {algorithm}; expected 1, ECDSA P-384 with SHA-384")
    if version > 2 and report[392] == TURIN:
        raise EvidenceError(
            "the SNP report is of a Turin processor, whose layout and root this verifier does not know yet"
        )
    if flags >> 5 or (flags >> 2) & 7 > 1:
        raise EvidenceError("the SNP report names a signing key other than VCEK and VLEK, or sets a reserved flag")
    return flags


def tcb(raw: bytes) -> dict[str, int]:
    """Security versions of the platform's parts. Raises EvidenceError when a reserved byte is not zero.

    >>> tcb(bytes.fromhex("0300000000000873"))
    {'bootloader': 3, 'tee': 0, 'snp': 8, 'microcode': 115}
    """
    if any(raw[2:6]):
        raise EvidenceError("a reserved byte of the SNP report's TCB version is not zero")
    return {name: raw[at] for name, at in TCB_AT.items()}


def table(aux: bytes) -> list[bytes]:
    """DER certificates of AMD's certificate table (configfs-tsm's ``auxblob``): GUID, offset, length; a zero GUID ends it.

    Raises EvidenceError when an entry points outside.
    """
    found: list[bytes] = []
    for at in range(0, len(aux) - 23, 24):
        entry = aux[at : at + 24]
        if not any(entry):
            return found
        start, size = (int.from_bytes(entry[n : n + 4], "little") for n in (16, 20))
        if start + size > len(aux) or size == 0 or len(found) > 8:
            raise EvidenceError(
                f"the certificate table's entry {uuid.UUID(bytes_le=entry[:16])} points outside the table"
            )
        if aux[start : start + 1] == b"\x30":  # a certificate; others are revocation lists or vendors' own
            found.append(aux[start : start + size])
    if aux:
        raise EvidenceError("the certificate table has no end; expected a last entry of zeros")
    return found


def _common(cert: x509.Certificate) -> str:
    names = cert.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def _signature(report: bytes, leaf: x509.Certificate, findings: Findings) -> None:
    key = leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise EvidenceError("the VCEK or VLEK is no P-384 key; is the certificate another one?")
    r, s = (int.from_bytes(report[at : at + 48], "little") for at in (672, 744))
    try:
        key.verify(encode_dss_signature(r, s), report[:SIGNED], ec.ECDSA(hashes.SHA384()))
    except (InvalidSignature, ValueError):
        findings.refuse("the report's signature does not verify under the VCEK or VLEK")


@cache
def _vendor() -> tuple[list[x509.Certificate], list[x509.Certificate]]:
    """(all certificates that ship, the roots among them)."""
    shipped = [c for product in PRODUCTS for c in vendor_roots(f"amd_{product}")]
    return shipped, [c for c in shipped if issued(c, c)]


def _chain(
    leaf: x509.Certificate,
    certs: list[x509.Certificate],
    crl: bytes,
    policy: Policy,
    now: datetime,
    findings: Findings,
) -> None:
    shipped, roots = _vendor()
    own = policy.certificates["snp.test_roots"]
    root, why = climb(leaf, [*shipped, *certs], [*roots, *own], now)
    if root is None:
        findings.refuse(why)
        return
    if root in own:
        findings.no_isolation("the chain ends in a test's own root, not in AMD's")
    if not crl:
        (findings.refuse if policy.snp.require_crl else findings.note)(
            "no AMD revocation list was given: revocation is unchecked"
        )
        return
    try:
        revoked = x509.load_der_x509_crl(crl)
        sound = revoked.is_signature_valid(root.public_key())  # type: ignore[arg-type]
        fresh = revoked.next_update_utc is not None and revoked.last_update_utc <= now <= revoked.next_update_utc
    except (ValueError, TypeError) as error:
        raise EvidenceError(f"AMD's revocation list cannot be read ({str(error)[:80]}); expected DER") from error
    if not sound or not fresh:
        findings.refuse("AMD's revocation list is not signed by the root, or its time is over; fetch a new one")
        return
    signers = [c for c in (*shipped, *certs) if c != leaf and issued(leaf, c)]
    for cert in signers:
        if revoked.get_revoked_certificate_by_serial_number(cert.serial_number) is not None:
            findings.refuse("the certificate that issued the VCEK or VLEK is revoked")


def _endorsed(report: bytes, leaf: x509.Certificate, claims: dict[str, Any], findings: Findings) -> None:
    """Does the certificate speak for this chip at this TCB?"""
    values = {
        e.oid.dotted_string: e.value.value for e in leaf.extensions if isinstance(e.value, x509.UnrecognizedExtension)
    }
    for name, oid in TCB_OIDS.items():
        raw = values.get(oid, b"")
        if len(raw) < 3 or raw[0] != 2 or int.from_bytes(raw[2:], "big") != claims["reported_tcb"][name]:
            findings.refuse(
                f"the report's {name} version {claims['reported_tcb'][name]} is not the one its certificate is for"
            )
    by_chip = _common(leaf) == "SEV-VCEK"
    if claims["signing_key"] != VENDOR_KEYS[_common(leaf)]:
        findings.refuse("the report says that another kind of key signed it than its certificate's")
    if by_chip and values.get(f"{OID}.4") != report[416:480]:
        findings.refuse("the report's chip is not the one its certificate is for")


def _rules(claims: dict[str, Any], policy: Policy, findings: Findings) -> None:
    rules = policy.snp
    if claims["debug"]:
        findings.refuse("its policy allows debugging: its host can read and change its memory")
    if claims["migratable"] and not rules.allow_migration:
        findings.refuse("its policy lets a migration agent move it; allow_migration is not set")
    if not claims["policy"] & MUST_BE_SET or claims["policy"] >> 26:
        findings.refuse("the guest policy has a reserved bit that is not as it must be")
    if claims["vmpl"] > rules.max_vmpl:
        findings.refuse(
            f"it was asked for at privilege level {claims['vmpl']}; the policy allows up to {rules.max_vmpl}"
        )
    if claims["guest_svn"] < rules.min_svn:
        findings.refuse(f"the guest's security version is {claims['guest_svn']}; the policy asks for {rules.min_svn}")
    for name in TCB_AT:
        wanted = getattr(rules, f"min_{name}")
        if claims["reported_tcb"][name] < wanted:
            findings.refuse(
                f"the platform's {name} version is {claims['reported_tcb'][name]}; the policy asks for {wanted}"
            )
    for name in ("measurement", "id_key_digest", "chip_id"):
        findings.among(name, claims[name], getattr(rules, name))
    if not rules.measurement:
        findings.doubt("the policy has no reference value for measurement: unknown code")
