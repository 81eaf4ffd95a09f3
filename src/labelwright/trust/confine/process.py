"""The two steps by which a process confines itself, and what held."""

from __future__ import annotations

import ctypes
import os
import resource
from dataclasses import dataclass
from typing import Any

from labelwright.errors import RefusedError
from labelwright.trust.confine import landlock, syscalls

PR_SET_DUMPABLE, PR_GET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 4, 3, 38
CLONE_NEWNET, CLONE_NEWUSER = 0x40000000, 0x10000000
MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What a confined process may have.

    memory: bytes of resident memory. files: open files. cgroup: the host holds the memory budget by a cgroup; else RLIMIT_AS
    does. jit: memory may be made executable (torch).

    >>> Limits(64 * MEGABYTE).cgroup
    False
    """

    memory: int
    files: int = 8
    cgroup: bool = False
    jit: bool = False


def enter() -> dict[str, Any]:
    """First step, before anything is imported that starts threads. Returns what holds: ``dumpable``, ``network``,
    ``landlock``. Raises RefusedError where the machine is not Linux or the process is threaded already.
    """
    syscalls.library()  # loading it looks for the library by running a program
    if threads() != 1:
        raise RefusedError(
            f"the process has {threads()} threads before it is confined; expected 1: call enter() first thing"
        )
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(PR_SET_DUMPABLE, 0)
    network = _own_network()
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    return {
        "dumpable": bool(_prctl(PR_GET_DUMPABLE, 0)),
        "network": network,
        "landlock": landlock.restrict(reading=True),
    }


def confine(limits: Limits) -> dict[str, Any]:
    """Second step, after all imports and one warm-up. Returns what holds: ``memory``, ``landlock``, ``syscalls`` allowed,
    ``resident`` bytes at this point. Raises RefusedError when the budget is spent already, or the kernel cannot filter.
    """
    size, resident = memory_now()
    if resident > limits.memory:
        raise RefusedError(
            f"the bare process takes {resident / MEGABYTE:.0f} MB and the budget is {limits.memory / MEGABYTE:.0f} MB: raise "
            "'memory' in workload.toml, or take a mode that needs less (judge and predict run without torch)"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits.files, limits.files))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_MSGQUEUE, (0, 0))
    if not limits.cgroup:
        most = size + limits.memory - resident
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    abi = landlock.restrict(reading=False)
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))  # last: from here on no thread can start
    count = syscalls.load(jit=limits.jit)
    return {
        "memory": "cgroup" if limits.cgroup else "RLIMIT_AS",
        "landlock": abi,
        "syscalls": count,
        "resident": resident,
    }


def threads() -> int:
    """How many threads this process has. Raises RefusedError on other systems than Linux.

    >>> threads() >= 1
    True
    """
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError as error:
        raise RefusedError(f"/proc is not there ({error.strerror}); a learner is confined on Linux only") from error


def memory_now() -> tuple[int, int]:
    """(mapped, resident) bytes of this process.

    >>> mapped, resident = memory_now()
    >>> mapped > resident > 0
    True
    """
    with open("/proc/self/statm") as file:
        pages = file.read().split()
    page = resource.getpagesize()
    return int(pages[0]) * page, int(pages[1]) * page


def _own_network() -> str:
    """A network namespace of its own, by itself or, for a process without capabilities (it would lose them), within a user
    namespace. Where neither may be made, no namespace: there is still no socket to be had (seccomp)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) == 0:
        return "namespace"
    if not _capabilities() and libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0:
        return "namespace within a user namespace"
    return f"shared, without sockets ({os.strerror(ctypes.get_errno())})"


def _capabilities() -> int:
    with open("/proc/self/status") as file:
        return next((int(line.split()[1], 16) for line in file if line.startswith("CapEff:")), 0)


def _prctl(option: int, value: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    done = int(libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)))
    if done < 0:
        code = ctypes.get_errno()
        raise RefusedError(f"the process cannot give up rights ({os.strerror(code)}); nothing was started")
    return done
