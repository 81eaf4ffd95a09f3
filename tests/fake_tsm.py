"""A file system that stands in for the kernel's configfs-tsm (FUSE): ``python fake_tsm.py MOUNTPOINT KIND [FAULT]``.

KIND: tdx or snp; the reports are signed by vendors of the tests' own, whose roots are written beside the mount point.
FAULT: ``rival`` (somebody else writes to the same request), ``busy`` (the first two reads), ``empty``.
"""

from __future__ import annotations

import errno
import stat
import sys
from pathlib import Path
from typing import Any

import mfusepy as fuse
from trust_vendors import Amd, Intel, pem

FILES = {
    "inblob": 0o200,
    "outblob": 0o400,
    "auxblob": 0o400,
    "provider": 0o400,
    "generation": 0o400,
    "privlevel": 0o200,
}


class FakeTsm(fuse.Operations):  # type: ignore[misc]
    def __init__(self, kind: str, fault: str, beside: Path) -> None:
        self.kind, self.fault = kind, fault
        self.vendor: Any = Intel() if kind == "tdx" else Amd()
        root = self.vendor.root if kind == "tdx" else self.vendor.ark
        (beside / "root.pem").write_text(pem(root))
        if kind == "tdx":
            (beside / "collateral.json").write_bytes(self.vendor.collateral)
        self.requests: dict[str, dict[str, Any]] = {}
        self.busy = 2 if fault == "busy" else 0

    def _split(self, path: str) -> tuple[dict[str, Any], str]:
        name, _, file = path.strip("/").partition("/")
        if name not in self.requests or (file and file not in FILES):
            raise fuse.FuseOSError(errno.ENOENT)
        return self.requests[name], file

    def getattr(self, path: str, fh: Any = None) -> dict[str, Any]:
        if path == "/" or not self._split(path)[1]:
            return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2}
        return {"st_mode": stat.S_IFREG | FILES[self._split(path)[1]], "st_nlink": 1, "st_size": 0}  # as the kernel: 0

    def readdir(self, path: str, fh: Any) -> list[str]:
        return [".", "..", *(self.requests if path == "/" else FILES)]

    def mkdir(self, path: str, mode: int) -> int:
        self.requests[path.strip("/")] = {"generation": 0, "inblob": b"", "privlevel": 0}
        return 0

    def rmdir(self, path: str) -> int:
        del self.requests[path.strip("/")]
        return 0

    def open(self, path: str, flags: Any) -> int:
        self._split(path)
        return 0

    def truncate(self, path: str, length: int, fh: Any = None) -> int:
        return 0

    def write(self, path: str, data: bytes, offset: int, fh: Any) -> int:
        request, file = self._split(path)
        if offset or (file == "inblob" and not 1 <= len(data) <= 64):
            raise fuse.FuseOSError(errno.EINVAL)
        request[file] = data if file == "inblob" else int(data)
        request["generation"] += 1
        return len(data)

    def read(self, path: str, size: int, offset: int, fh: Any) -> bytes:
        request, file = self._split(path)
        return self._content(request, file)[offset : offset + size]

    def _content(self, request: dict[str, Any], file: str) -> bytes:
        if file == "provider":
            return b"tdx_guest\n" if self.kind == "tdx" else b"sev_guest\n"
        if file == "generation":
            return f"{request['generation']}\n".encode()
        if file == "auxblob":
            return self.vendor.table() if self.kind == "snp" else b""
        if self.busy:
            self.busy -= 1
            raise fuse.FuseOSError(errno.EBUSY)
        if self.fault == "empty" or file != "outblob":
            return b""
        if "report" not in request:
            if self.fault == "rival":
                request["inblob"], request["generation"] = bytes(64), request["generation"] + 1
            data = request["inblob"].ljust(64, b"\0")
            request["report"] = (
                self.vendor.evidence(data).blob + bytes(70)
                if self.kind == "tdx"
                else self.vendor.report(data, vmpl=request["privlevel"])
            )
        return bytes(request["report"])


if __name__ == "__main__":
    place = Path(sys.argv[1])
    fault = sys.argv[3] if len(sys.argv) > 3 else ""
    fuse.FUSE(FakeTsm(sys.argv[2], fault, place.parent), str(place), foreground=True, nothreads=True, direct_io=True)
