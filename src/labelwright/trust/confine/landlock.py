"""Landlock by raw system calls: rights to files and networks that a thread gives up for good.

Source: the kernel's ``Documentation/userspace-api/landlock.rst`` and ``include/uapi/linux/landlock.h``; the numbers of the three
system calls are the same on every architecture.
"""

from __future__ import annotations

import ctypes
import os

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446
_VERSION = 1
_PATH_BENEATH = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_FIRST_RIGHTS = (1 << 13) - 1
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_READING = _EXECUTE | _READ_FILE | _READ_DIR
_TCP = 0b11
_SCOPES = 0b11  # abstract UNIX sockets and signals to processes outside


class _Ruleset(ctypes.Structure):
    _fields_ = [("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]


def _call(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    done = int(libc.syscall(ctypes.c_long(number), *arguments))
    if done < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return done


def version() -> int:
    """The kernel's Landlock ABI, 0 where it has none.

    >>> version() >= 0
    True
    """
    try:
        return _call(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION))
    except OSError:
        return 0


def rights(abi: int) -> int:
    """All rights to files that this ABI knows, as a bit mask.

    >>> [bin(rights(abi)).count("1") for abi in (1, 2, 3, 5)]
    [13, 14, 15, 16]
    """
    more = (_REFER if abi >= 2 else 0) | (_TRUNCATE if abi >= 3 else 0) | (_IOCTL_DEV if abi >= 5 else 0)
    return _FIRST_RIGHTS | more


def restrict(*, reading: bool) -> int:
    """Give up all rights to files (all but reading and executing, and writing to /dev/null, when ``reading``), TCP, and
    signals and abstract sockets to the outside. Binds the calling thread and those it starts later. Returns the ABI, 0 where
    the kernel has no Landlock. The process must have no_new_privs set.
    """
    abi = version()
    if not abi:
        return 0
    fs = rights(abi) & (~_READING if reading else ~0)
    rules = _Ruleset(fs, _TCP if abi >= 4 else 0, _SCOPES if abi >= 6 else 0)
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    ruleset = _call(_CREATE, ctypes.byref(rules), ctypes.c_size_t(size), ctypes.c_uint32(0))
    try:
        if reading:
            _allow_null(ruleset, fs & (_WRITE_FILE | _TRUNCATE | _IOCTL_DEV))
        _call(_RESTRICT, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)
    return abi


def _allow_null(ruleset: int, allowed: int) -> None:
    """Libraries throw output away while they are imported."""
    null = os.open("/dev/null", getattr(os, "O_PATH", 0) | os.O_CLOEXEC)
    try:
        rule = _Beneath(allowed, null)
        _call(_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(_PATH_BENEATH), ctypes.byref(rule), ctypes.c_uint32(0))
    finally:
        os.close(null)
