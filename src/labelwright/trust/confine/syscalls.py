"""The allow-list of system calls, enforced by the kernel's seccomp for all threads. Everything else fails with EPERM."""

from __future__ import annotations

import errno
import os
from typing import Any

from labelwright.errors import RefusedError

READ_WRITE = ("read", "write", "readv", "writev", "close", "fstat", "lseek", "poll", "ppoll")
MEMORY = ("munmap", "mremap", "brk", "madvise", "mlock", "munlock", "mincore")
THREADS = (
    "futex",
    "set_robust_list",
    "rseq",
    "sched_yield",
    "sched_getaffinity",
    "getcpu",
    "gettid",
    "membarrier",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sigaltstack",
    "restart_syscall",
    "exit",
    "exit_group",
)
CLOCKS = ("clock_gettime", "clock_getres", "clock_nanosleep", "nanosleep", "gettimeofday", "time", "times")
FACTS = ("getpid", "getppid", "getuid", "geteuid", "getgid", "getegid", "getrandom", "getrusage", "sysinfo", "uname")
ALLOWED = (*READ_WRITE, *MEMORY, *THREADS, *CLOCKS, *FACTS)
"""Allowed whatever their arguments: reading and writing what is already open, memory, threads that already run, clocks.
``mmap``, ``mprotect`` and ``tgkill`` are allowed with conditions. ``newfstatat`` is not: it tells of any file by its path, which
Landlock does not hinder and a filter cannot read."""
PROT_EXEC = 4
MAP_ANONYMOUS = 0x20


def load(*, jit: bool) -> int:
    """Filter the system calls of all threads of this process, for good. Returns how many are allowed.

    jit: memory may be made executable, as the kernels that torch generates need. Raises RefusedError where the kernel or
    libseccomp cannot filter: there is no confinement without it.
    """
    seccomp = library()
    try:
        rules = seccomp.SyscallFilter(seccomp.ERRNO(errno.EPERM))
        rules.set_attr(seccomp.Attr.CTL_TSYNC, 1)
        count = sum(_allowed(seccomp, rules, name) for name in ALLOWED)
        count += _conditional(seccomp, rules, jit)
        rules.load()
    except OSError as error:
        raise RefusedError(
            f"the kernel took no filter of system calls ({error}); expected seccomp: nothing was started, run on Linux with "
            "CONFIG_SECCOMP_FILTER"
        ) from error
    return count


def library() -> Any:
    """pyseccomp. Raises RefusedError without it."""
    try:
        import pyseccomp  # type: ignore[import-untyped]
    except (ImportError, RuntimeError, OSError) as error:
        raise RefusedError(
            f"system calls cannot be filtered here ({error}); pip install 'labelwright[trust]' and the system's libseccomp2"
        ) from error
    return pyseccomp


def _allowed(seccomp: Any, rules: Any, name: str) -> bool:
    """Allow a call; one that this architecture has not is left out."""
    try:
        rules.add_rule(seccomp.ALLOW, name)
    except OSError:
        return False
    return True


def _conditional(seccomp: Any, rules: Any, jit: bool) -> int:
    """Calls that depend on their arguments: memory that is not executable and of no file, signals to itself only."""
    arg, masked, same = seccomp.Arg, seccomp.MASKED_EQ, seccomp.EQ
    anonymous = arg(3, masked, MAP_ANONYMOUS, MAP_ANONYMOUS)
    plain = [] if jit else [arg(2, masked, PROT_EXEC, 0)]
    rules.add_rule(seccomp.ALLOW, "mmap", anonymous, *plain)
    rules.add_rule(seccomp.ALLOW, "mprotect", *plain)
    rules.add_rule(seccomp.ALLOW, "tgkill", arg(0, same, os.getpid()))
    rules.add_rule(seccomp.ERRNO(errno.ENOSYS), "clone3")
    return 3
