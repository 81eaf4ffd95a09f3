"""TPM 2.0 quotes: signature, nonce, registers, and the certificates of the quoting key and of the TPM.

A quote proves which software a machine measured while it booted; it hides no memory. That of a software TPM proves nothing
against the host that runs it. Source: TCG, TPM 2.0 Library, Part 2 (Structures): TPMS_ATTEST, TPMT_SIGNATURE.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from labelwright.errors import EvidenceError
from labelwright.trust.appraisal import Appraisal, Findings
from labelwright.trust.evidence import Evidence, read_object, unbase64
from labelwright.trust.policy import RESETTABLE, Policy
from labelwright.trust.verify.chain import certificate, climb, in_time, issued
from labelwright.trust.verify.quote import Reader

MAGIC, QUOTE = b"\xffTCG", 0x8018
BANKS = {0x000B: ("sha256", 32), 0x000C: ("sha384", 48)}
DIGESTS: dict[int, hashes.HashAlgorithm] = {0x000B: hashes.SHA256(), 0x000C: hashes.SHA384()}
RSASSA, ECDSA = 0x0014, 0x0018
REGISTERS = 24


@dataclass(frozen=True)
class TpmQuote:
    """message: TPMS_ATTEST, signed. signature: TPMT_SIGNATURE. registers: values of the quoted PCRs, by number."""

    message: bytes
    signature: bytes
    registers: dict[int, bytes]

    def encode(self) -> bytes:
        """The one spelling of the evidence's blob."""
        fields = {
            "message": base64.b64encode(self.message).decode(),
            "registers": {str(n): self.registers[n].hex() for n in sorted(self.registers)},
            "signature": base64.b64encode(self.signature).decode(),
        }
        return json.dumps(fields, sort_keys=True).encode()

    def consistent(self) -> bool:
        """Are the registers those whose digest was signed?"""
        _, digest, selected, bank = parse_message(self.message)
        values = b"".join(self.registers.get(n, b"") for n in selected)
        return hmac.compare_digest(hashlib.new(BANKS[bank][0], values).digest(), digest)

    @classmethod
    def decode(cls, blob: bytes) -> TpmQuote:
        """Read what ``encode`` wrote, and no other spelling. Raises EvidenceError."""
        names = {"message", "registers", "signature"}
        fields = read_object(blob, "the TPM evidence", names, needs=names)
        registers = fields["registers"]
        try:
            values = {int(n): bytes.fromhex(value) for n, value in registers.items()}
        except (AttributeError, TypeError, ValueError) as error:
            raise EvidenceError("the TPM evidence's registers are not numbers with hexadecimal values") from error
        found = cls(unbase64(fields["message"], "message"), unbase64(fields["signature"], "signature"), values)
        if found.encode() != blob:
            raise EvidenceError("the TPM evidence is not spelled as 'attest --kind tpm' writes it; was it edited?")
        return found


def nonce_of(report_data: bytes) -> bytes:
    """What a TPM signs for report data: their SHA-256, because many TPMs take no more than 32 bytes."""
    return hashlib.sha256(report_data).digest()


def appraise(evidence: Evidence, policy: Policy, *, report_data: bytes | None, now: datetime) -> Appraisal:
    """Judge a TPM quote. certs: the quoting key's (by the enrolling CA), the TPM's own (EK), intermediates. Raises EvidenceError."""
    quote = TpmQuote.decode(evidence.blob)
    nonce, _, selected, bank = parse_message(quote.message)
    findings = Findings("tpm")
    if len(evidence.certs) < 2:
        raise EvidenceError(
            "the TPM evidence lacks the certificates of the quoting key and of the TPM; enrol the key first"
        )
    certs = [certificate(der) for der in evidence.certs]
    if not signed(quote.message, quote.signature, certs[0].public_key()):
        findings.refuse("the quote's signature does not verify under the quoting key")
    _registers(quote, selected, bank, findings)
    _chain(certs, policy, now, findings)
    findings.bound(nonce, None if report_data is None else nonce_of(report_data))
    for number, wanted in policy.tpm.pcrs.items():
        findings.among(f"register {number}", quote.registers.get(number, b"").hex() or "not quoted", wanted)
    if not policy.tpm.pcrs:
        findings.doubt("the policy has no reference values for registers: unknown software")
    return findings.appraisal(
        {
            "registers": {str(n): value.hex() for n, value in quote.registers.items() if n not in RESETTABLE},
            "bank": BANKS[bank][0],
            "nonce": nonce.hex(),
            "tpm": hashlib.sha256(evidence.certs[1]).hexdigest(),
        }
    )


def parse_message(message: bytes) -> tuple[bytes, bytes, list[int], int]:
    """(nonce, digest of the registers, their numbers, their bank) of a TPMS_ATTEST. Raises EvidenceError."""
    reader = Reader(message, "the TPM's quote", "big")
    if reader.take(4) != MAGIC or reader.number(2) != QUOTE:
        raise EvidenceError("the TPM's message is no quote that a TPM made; is it another kind of attestation?")
    reader.sized(2)  # the quoting key's qualified name
    nonce = reader.sized(2)
    reader.take(8 + 4 + 4)  # clock, resets, restarts
    if reader.number(1) > 1:
        raise EvidenceError("the TPM's quote has a flag that is neither yes nor no")
    reader.take(8)
    if reader.number(4) != 1:
        raise EvidenceError("the TPM's quote covers several banks of registers; expected one")
    bank = reader.number(2)
    mask = reader.sized(1)
    digest = reader.sized(2)
    if bank not in BANKS or len(mask) > 3 or reader.rest():
        raise EvidenceError("the TPM's quote covers another bank than SHA-256 or SHA-384, or has bytes behind it")
    return nonce, digest, [n for n in range(8 * len(mask)) if mask[n // 8] >> n % 8 & 1], bank


def signed(message: bytes, signature: bytes, key: Any) -> bool:
    """Does a TPMT_SIGNATURE verify? Raises EvidenceError when it cannot be read."""
    reader = Reader(signature, "the TPM's signature", "big")
    scheme, digest = reader.number(2), DIGESTS.get(reader.number(2))
    parts = [reader.sized(2) for _ in range(2 if scheme == ECDSA else 1)]
    if digest is None or scheme not in (RSASSA, ECDSA) or reader.rest():
        raise EvidenceError(
            "the TPM's signature is neither RSASSA nor ECDSA with SHA-256 or SHA-384, or has bytes behind it"
        )
    try:
        if scheme == ECDSA and isinstance(key, ec.EllipticCurvePublicKey):
            if {len(p) for p in parts} != {(key.key_size + 7) // 8}:
                return False
            r, s = (int.from_bytes(p, "big") for p in parts)
            key.verify(encode_dss_signature(r, s), message, ec.ECDSA(digest))
        elif scheme == RSASSA and isinstance(key, rsa.RSAPublicKey):
            key.verify(parts[0], message, padding.PKCS1v15(), digest)
        else:
            return False
    except (InvalidSignature, ValueError):
        return False
    return True


def _registers(quote: TpmQuote, selected: list[int], bank: int, findings: Findings) -> None:
    size = BANKS[bank][1]
    if sorted(quote.registers) != selected or any(len(value) != size for value in quote.registers.values()):
        raise EvidenceError(
            "the TPM evidence's registers are not those that the quote covers, each as long as its bank's digest"
        )
    if not quote.consistent():
        findings.refuse("the registers are not those whose digest the TPM signed")


def _chain(certs: list[x509.Certificate], policy: Policy, now: datetime, findings: Findings) -> None:
    """The enrolling CA vouches that the quoting key lives in the TPM of the EK certificate; the TPM's maker for that TPM."""
    quoting, tpm, *between = certs
    enrollers = policy.certificates["tpm.enrolment_roots"]
    if not any(issued(quoting, ca) and in_time(ca, now) for ca in enrollers) or not in_time(quoting, now):
        findings.refuse(
            "the quoting key was not enrolled by one of the policy's enrolment_roots, or its certificate's time is over"
        )
    serials = quoting.subject.get_attributes_for_oid(x509.NameOID.SERIAL_NUMBER)
    if [s.value for s in serials] != [hashlib.sha256(tpm.public_bytes(Encoding.DER)).hexdigest()]:
        findings.refuse("the quoting key was enrolled for another TPM")
    makers, tests = policy.certificates["tpm.ek_roots"], policy.certificates["tpm.test_roots"]
    root, why = climb(tpm, between, [*makers, *tests], now)
    if not endorses(tpm):
        findings.refuse("the TPM's certificate is for another use than an endorsement key's")
    if root is None:
        findings.isolation = "none"
        findings.refuse(why)
    elif root in tests or software(tpm):
        findings.no_isolation("a software TPM proves nothing against the host that runs it")
    elif policy.tpm.affirm:
        findings.isolation = "none"
        findings.note(
            "isolation: none; a TPM says which software booted and encrypts no memory, which is enough for this policy"
        )
    else:
        findings.no_isolation(
            "a TPM says which software booted; it encrypts no memory (affirm = true in [tpm] if that is enough)"
        )


def endorses(cert: x509.Certificate) -> bool:
    """Is it an endorsement key's certificate? Makers that state a use state this one."""
    try:
        uses = cert.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return x509.ObjectIdentifier("2.23.133.8.1") in uses


def software(cert: x509.Certificate) -> bool:
    """Does the certificate say itself that its TPM is a program (swtpm's model)?"""
    try:
        names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    models = [
        model.value
        for name in names.get_values_for_type(x509.DirectoryName)
        for model in name.get_attributes_for_oid(x509.ObjectIdentifier("2.23.133.2.2"))
    ]
    return "swtpm" in models
