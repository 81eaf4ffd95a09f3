"""Enrolment where TPM and CA are on one machine, e.g. while machines are set up; ``verify.enrol`` has the two halves apart."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from labelwright.errors import SettingsError
from labelwright.trust.policy import Policy


def write_ca(ca: Path, ca_key: Path) -> None:
    """Make a CA for enrolments; refuses to overwrite. The key file is readable by its owner alone."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    from labelwright.trust.verify.enrol import make_ca

    for path in (ca, ca_key):
        if path.exists():
            raise SettingsError(f"{path} exists; leave out --new-ca to use it, or name other files")
    cert, key = make_ca("labelwright enrolment", now=datetime.now(UTC))
    descriptor = os.open(ca_key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    ca.write_bytes(cert.public_bytes(Encoding.PEM))


def enrol_here(
    folder: Path, tcti: str, policy: Policy, *, ca: Path, ca_key: Path, chain: Sequence[Path] = ()
) -> dict[str, Any]:
    """Create the quoting key, challenge the TPM, certify; certificates are left in ``folder``.

    Raises SettingsError for a CA that cannot be read, EvidenceError and RefusedError as ``verify.enrol``.
    """
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

    from labelwright.trust.attester.tpm import Tpm
    from labelwright.trust.verify import enrol
    from labelwright.trust.verify.chain import pem_certificates

    authority = pem_certificates(ca.read_bytes())[0]
    try:
        key = load_pem_private_key(ca_key.read_bytes(), None)
    except (ValueError, TypeError) as error:
        raise SettingsError(f"{ca_key} is no private key in PEM without a password") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != authority.public_key():
        raise SettingsError(f"{ca_key} is not the key of {ca}; expected the EC key that --new-ca made with it")
    between = tuple(c.public_bytes(Encoding.DER) for path in chain for c in pem_certificates(path.read_bytes()))
    tpm, now = Tpm(folder, tcti=tcti), datetime.now(UTC)
    ek = tpm.ek_certificate()
    begun = enrol.challenge(ek, between, tpm.create(), policy, now=now)
    cert = enrol.certify(begun, tpm.activate(begun.credential), authority, key, now=now)
    (folder / "ak.der").write_bytes(cert)
    (folder / "ek.der").write_bytes(ek)
    for number, der in enumerate(between):
        (folder / f"ek-chain-{number}.der").write_bytes(der)
    return {"tpm": hashlib.sha256(ek).hexdigest(), "folder": str(folder)}
