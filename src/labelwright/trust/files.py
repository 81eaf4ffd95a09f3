"""Files of any hand, read whole: a pipe, a device or a folder in a file's place is told at once, and so is one without an end."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from stat import S_ISREG

SMALL = 1 << 18  #: bytes of a policy, a workload, a key or a manifest for Gramine
LARGE = (1 << 30) + 64  #: bytes of a sealed chunk, a model or a report


def read_bytes(path: str | Path, most: int = LARGE) -> bytes:
    """The bytes of a regular file of at most ``most``. Raises OSError, whatever is there instead.

    >>> read_bytes("/dev/zero")
    Traceback (most recent call last):
    ...
    OSError: [Errno 22] it is no regular file: '/dev/zero'
    """
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "its name holds a zero byte", str(path))
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a pipe would keep its reader waiting
    try:
        told = os.fstat(handle)
        if not S_ISREG(told.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        if told.st_size > most:
            raise OSError(errno.EFBIG, f"it has {told.st_size:,} bytes and at most {most:,} are read", str(path))
        with open(handle, "rb", closefd=False) as file:
            return file.read(most)
    finally:
        os.close(handle)


def read_text(path: str | Path, most: int = SMALL) -> str:
    """The text of a regular file. Raises OSError, or UnicodeDecodeError when it is not UTF-8."""
    return read_bytes(path, most).decode()
