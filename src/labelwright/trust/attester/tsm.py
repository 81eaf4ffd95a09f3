"""TDX, SEV-SNP and CCA through the kernel's report interface: configfs-tsm, Linux 6.7 and later.

Source: Linux, Documentation/ABI/testing/configfs-tsm-report. One folder a request; every write raises ``generation``, so a
second writer of the same request is noticed.
"""

from __future__ import annotations

import errno
import os
import secrets
import time
from pathlib import Path

from labelwright.errors import EvidenceError
from labelwright.trust.evidence import LIMITS, Evidence

ROOT = Path("/sys/kernel/config/tsm/report")
PROVIDERS = {"tdx": "tdx_guest", "snp": "sev_guest", "cca": "arm_cca_guest"}
PATIENCE = 10.0  # seconds that the platform may be busy


def collect(data: bytes, *, kind: str, root: Path = ROOT, vmpl: int | None = None) -> Evidence:
    """Ask the platform for a report over 64 bytes. vmpl: SNP's privilege level, 0 to 3. Raises EvidenceError."""
    if not root.is_dir():
        raise EvidenceError(
            f"{root} is not there: this is no confidential virtual machine, or its kernel is older than 6.7, or configfs is "
            "not mounted (mount -t configfs none /sys/kernel/config)"
        )
    request = root / f"labelwright-{secrets.token_hex(8)}"
    try:
        request.mkdir()
    except OSError as error:
        raise EvidenceError(
            f"no request can be made in {root} ({error.strerror}); run as root, in the guest"
        ) from error
    try:
        return _ask(request, data, kind, vmpl)
    except OSError as error:
        raise EvidenceError(
            f"the platform gave no report ({error.strerror}: {error.filename}); see the kernel's log"
        ) from error
    finally:
        try:
            request.rmdir()
        except OSError:
            pass  # the kernel removes it with the guest


def _ask(request: Path, data: bytes, kind: str, vmpl: int | None) -> Evidence:
    provider = read_small(request / "provider", 256).decode("ascii", "replace").strip()
    if provider != PROVIDERS[kind]:
        raise EvidenceError(
            f"this machine's reports come from {provider[:40]!r}, not from {PROVIDERS[kind]}; name the kind it has"
        )
    writes = 0
    if vmpl is not None:
        if kind != "snp" or not 0 <= vmpl <= 3:
            raise EvidenceError(f"privilege level {vmpl} was asked of {kind}; only snp has levels, 0 to 3")
        write_once(request / "privlevel", str(vmpl).encode())
        writes += 1
    before = _generation(request)
    write_once(request / "inblob", data)
    blob = _patiently(request / "outblob", LIMITS["blob"])
    aux = read_small(request / "auxblob", LIMITS["aux"]) if kind == "snp" and (request / "auxblob").exists() else b""
    after = _generation(request)
    if before != writes or after != writes + 1:
        raise EvidenceError("somebody else wrote to the same report request; the report may be theirs: ask again")
    if not blob:
        raise EvidenceError("the platform gave an empty report; see the kernel's log")
    return Evidence(kind, blob, aux=aux)


def _generation(request: Path) -> int:
    text = read_small(request / "generation", 64).strip()
    if not text.isdigit():
        raise EvidenceError(f"the kernel's generation reads {text[:20]!r}; expected a number")
    return int(text)


def _patiently(path: Path, most: int) -> bytes:
    ends = time.monotonic() + PATIENCE
    while True:
        try:
            return read_small(path, most)
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.EAGAIN, errno.EINTR) or time.monotonic() > ends:
                raise
            time.sleep(0.05)


def read_small(path: Path, most: int) -> bytes:
    """The whole of a small file, whatever size it claims: kernel files claim 0 or 4096."""
    parts, size = [], 0
    with open(path, "rb", buffering=0) as file:
        while part := file.read(1 << 16):
            parts.append(part)
            size += len(part)
            if size > most:
                raise EvidenceError(f"{path.name} has more than {most:,} bytes; expected a report")
    return b"".join(parts)


def write_once(path: Path, data: bytes) -> None:
    """One write: the kernel takes a blob in one piece."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        written = os.write(descriptor, data)
    finally:
        os.close(descriptor)
    if written != len(data):
        raise EvidenceError(f"the kernel took {written} of {len(data)} bytes of {path.name}; expected all at once")
