"""What workers are sent in the tests of many cores: functions of a module that they can import."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from labelwright.errors import SourceError
from labelwright.scale import tell


@dataclass(frozen=True)
class Numbered:
    number: int

    @property
    def name(self) -> str:
        return f"rows {self.number}"


def times(shared: int, part: Numbered) -> int:
    """Says so, and multiplies; the first is the slowest."""
    tell(f"at {part.number}")
    time.sleep(0.1 if part.number == 0 else 0.0)
    return shared * part.number


def dies_once(shared: Path, part: Numbered) -> int:
    """The worker that has partition 2 is killed, the first time."""
    if part.number == 2 and not shared.exists():
        shared.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return part.number


def never_ends(shared: Path, part: Numbered) -> int:
    """Says who it is, and works on without a word."""
    shared.write_text(str(os.getpid()))
    while True:
        time.sleep(0.1)


def always_dies(shared: None, part: Numbered) -> int:
    if part.number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return part.number


def fails(shared: type[Exception], part: Numbered) -> int:
    if part.number == 3:
        raise shared("it is odd")
    return part.number


def broken_source(shared: None, part: Numbered) -> int:
    raise SourceError("it cannot be read; write it again")


def unsendable(shared: None, part: Numbered) -> object:
    return lambda: part
