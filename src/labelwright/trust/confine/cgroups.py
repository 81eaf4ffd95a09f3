"""The host's side of a memory budget: a cgroup around the learner, version 2 or 1."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_SWAP = {"v2": "memory.swap.max", "v1": "memory.memsw.limit_in_bytes"}


@dataclass(frozen=True)
class Group:
    """A cgroup that bounds memory. version: "v2" or "v1"."""

    folder: Path
    version: str

    def add(self, pid: int) -> None:
        """Put a process into it."""
        (self.folder / "cgroup.procs").write_text(str(pid))

    def killed(self) -> int:
        """How often the kernel killed a process in it for memory."""
        name = "memory.events" if self.version == "v2" else "memory.oom_control"
        with suppress(OSError):
            for line in (self.folder / name).read_text().splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
        return 0

    def peak(self) -> int:
        """The most bytes that were charged to it, 0 where the kernel does not say."""
        name = "memory.peak" if self.version == "v2" else "memory.max_usage_in_bytes"
        with suppress(OSError, ValueError):
            return int((self.folder / name).read_text())
        return 0

    def remove(self) -> None:
        """Remove it, once it is empty."""
        with suppress(OSError):
            self.folder.rmdir()


def make(memory: int, *, mounts: str = "/proc/self/mounts", own: str = "/proc/self/cgroup") -> Group | None:
    """A cgroup for ``memory`` bytes below this process's own, or None where this process may make none."""
    for version, folder in _places(mounts, own):
        group = Group(folder / f"labelwright-{os.getpid()}-{uuid.uuid4().hex[:8]}", version)
        try:
            group.folder.mkdir()
            name = "memory.max" if version == "v2" else "memory.limit_in_bytes"
            if not (group.folder / name).exists():  # version 2 without the memory controller
                raise FileNotFoundError(name)
            (group.folder / name).write_text(str(memory))
        except OSError:
            group.remove()
            continue
        with suppress(OSError):
            (group.folder / _SWAP[version]).write_text("0" if version == "v2" else str(memory))
        return group
    return None


def _places(mounts: str, own: str) -> list[tuple[str, Path]]:
    """Where a cgroup of either version may be made: below this process's own, version 2 first."""
    try:
        mounted = [line.split() for line in Path(mounts).read_text().splitlines()]
        lines = [line.split(":", 2) for line in Path(own).read_text().splitlines()]
    except OSError:
        return []
    here = {controllers: path for _, controllers, path in lines}
    places = []
    for fields in mounted:
        kind, at, options = fields[2], Path(fields[1]), fields[3].split(",")
        if kind == "cgroup2" and "" in here:
            places.append(("v2", at / here[""].lstrip("/")))
        elif kind == "cgroup" and "memory" in options:
            path = next((p for names, p in here.items() if "memory" in names.split(",")), None)
            if path is not None:
                places.append(("v1", at / path.lstrip("/")))
    return sorted(places, reverse=True)
