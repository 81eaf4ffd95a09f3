"""Which TEEs does this machine have? Looks only; asks no platform for anything."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

GUESTS = {"tdx": "tdx_guest", "snp": "sev-guest", "cca": "arm-cca-guest"}


def probe(root: Path) -> list[dict[str, Any]]:
    """One entry a kind. root: of the file system, ``/`` but in tests.

    >>> [tee["kind"] for tee in probe(Path("/nonexistent")) if tee["here"]]
    ['sim']
    """
    found = [_guest(kind, device, root) for kind, device in GUESTS.items()]
    enclave = (root / "dev/attestation/quote").exists()
    sgx = any((root / "dev" / name).exists() for name in ("sgx_enclave", "sgx/enclave"))
    outside = "the processor has SGX; run under Gramine to attest" if sgx else "no /dev/sgx_enclave"
    found.append({"kind": "sgx", "here": enclave, "why": "inside a Gramine enclave" if enclave else outside})
    tpm, tools = (root / "dev/tpmrm0").exists(), shutil.which("tpm2_quote") is not None
    said = "no /dev/tpmrm0" if not tpm else "a TPM 2.0 is there" if tools else "a TPM is there; install tpm2-tools"
    found.append({"kind": "tpm", "here": tpm and tools, "why": said})
    gpu = (root / "dev/nvidia0").exists()
    said = "a GPU of NVIDIA's; ask NVIDIA's tools for its report" if gpu else "no /dev/nvidia0"
    return [*found, {"kind": "h100", "here": gpu, "why": said}, {"kind": "sim", "here": True, "why": "proves nothing"}]


def _guest(kind: str, device: str, root: Path) -> dict[str, Any]:
    reports = root / "sys/kernel/config/tsm/report"
    node = any((root / "dev" / name).exists() for name in (device, device.replace("-", "_")))
    if kind == "cca":  # its driver makes no device
        node = node or any((root / "sys/bus/platform/drivers").glob("*cca*guest*"))
    if not node:
        return {"kind": kind, "here": False, "why": f"no /dev/{device}: this is no such guest"}
    if not reports.is_dir():
        return {
            "kind": kind,
            "here": False,
            "why": f"the guest's device is there, {reports} is not: mount configfs; Linux ≥ 6.7",
        }
    return {"kind": kind, "here": True, "why": f"a guest's device and {reports} are there"}
