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
    reports = root / "sys/kernel/config/tsm/report"
    found = []
    for kind, device in GUESTS.items():
        node = (root / "dev" / device).exists() or (root / "dev" / device.replace("-", "_")).exists()
        if kind == "cca":
            node = node or any((root / "sys/bus/platform/drivers").glob("*cca*guest*"))
        if node and reports.is_dir():
            why = f"a guest's device and {reports} are there"
        elif node:
            why = f"the guest's device is there, but not {reports}: mount configfs, or use Linux 6.7 or later"
        else:
            why = f"no /dev/{device}: this is no such guest"
        found.append({"kind": kind, "here": node and reports.is_dir(), "why": why})
    enclave = (root / "dev/attestation/quote").exists()
    sgx = any((root / "dev" / name).exists() for name in ("sgx_enclave", "sgx/enclave"))
    said = (
        "inside a Gramine enclave"
        if enclave
        else "the processor has SGX; run under Gramine to attest"
        if sgx
        else "no /dev/sgx_enclave"
    )
    found.append({"kind": "sgx", "here": enclave, "why": said})
    tpm, tools = (root / "dev/tpmrm0").exists(), shutil.which("tpm2_quote") is not None
    said = "no /dev/tpmrm0" if not tpm else "a TPM 2.0 is there" if tools else "a TPM is there; install tpm2-tools"
    found.append({"kind": "tpm", "here": tpm and tools, "why": said})
    gpu = (root / "dev/nvidia0").exists()
    found.append(
        {
            "kind": "h100",
            "here": gpu,
            "why": "a GPU of NVIDIA's; ask NVIDIA's tools for its report" if gpu else "no /dev/nvidia0",
        }
    )
    found.append({"kind": "sim", "here": True, "why": "everywhere; proves nothing"})
    return found
