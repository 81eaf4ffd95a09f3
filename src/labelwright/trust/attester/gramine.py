"""SGX through Gramine's pseudo-files. Source: Gramine, "Attestation and Secret Provisioning", /dev/attestation."""

from __future__ import annotations

from pathlib import Path

from labelwright.errors import EvidenceError
from labelwright.trust.attester.tsm import read_small, write_once
from labelwright.trust.evidence import Evidence

ROOT = Path("/dev/attestation")
KEY_BYTES = 16


def collect(data: bytes, *, root: Path = ROOT) -> Evidence:
    """Ask the quoting enclave for a quote over 64 bytes. Raises EvidenceError outside an enclave."""
    try:
        kind = read_small(root / "attestation_type", 64).strip()
        if kind != b"dcap":
            raise EvidenceError(
                f"Gramine attests by {kind[:20]!r}; expected dcap: set sgx.remote_attestation in the manifest"
            )
        write_once(root / "user_report_data", data)
        return Evidence("sgx", read_small(root / "quote", 1 << 16))
    except OSError as error:
        raise EvidenceError(
            f"{root} gives no quote ({error.strerror}): this is no enclave of Gramine's; run gramine-sgx"
        ) from error


def key(name: str, *, root: Path = ROOT) -> bytes:
    """A key that Gramine holds for the enclave, 16 bytes, e.g. ``_sgx_mrenclave``. Raises EvidenceError."""
    try:
        found = read_small(root / "keys" / name, 256) if name.strip("._-") and "/" not in name else b""
    except OSError as error:
        raise EvidenceError(f"Gramine holds no key {name!r} ({error.strerror}); name it in the manifest") from error
    if len(found) != KEY_BYTES:
        raise EvidenceError(f"Gramine's key {name!r} has {len(found)} bytes; expected {KEY_BYTES}")
    return found
