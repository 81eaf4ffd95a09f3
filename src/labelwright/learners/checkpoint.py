"""Files that a training run writes every few seconds and goes on from after a kill. Needs torch."""

from __future__ import annotations

import glob
import hashlib
import json
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from labelwright.errors import SettingsError
from labelwright.learners.tensors import from_bytes, to_bytes, write_whole

_AT_ONCE = 4096


@dataclass
class Checkpoint:
    """A file that a training run writes every few seconds, whole or not at all, and goes on from.

    token: names the data and the settings, see :func:`token_of`; a checkpoint of others is not used. seed: of the run, see
    :meth:`seed_in`. Raises SettingsError where the path is a folder, or a file of something else.
    """

    path: Path
    token: str
    seconds: float = 20.0
    seed: int = 0
    _last: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        said = _said_in(self.path)
        if self.path.is_dir() or (said is not None and "token" not in said) or _foreign(self.path):
            raise SettingsError(
                f"checkpoint={str(self.path)!r} is something else; name a file that is written and deleted"
            )
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(
                f"checkpoint={str(self.path)!r} cannot be written ({error.strerror}); name a file elsewhere"
            ) from error

    def due(self) -> bool:
        """Whether it is time to write again."""
        return time.monotonic() - self._last >= self.seconds

    def write(self, tensors: dict[str, Tensor], told: dict[str, Any]) -> None:
        """Replace the file by one with these. A file that cannot be written is a warning: training matters more."""
        said = {"token": self.token, "seed": str(self.seed), "told": json.dumps(told)}
        try:
            write_whole(self.path, to_bytes(tensors, said))
        except OSError as error:
            warnings.warn(f"checkpoint={str(self.path)!r} cannot be written ({error.strerror})", stacklevel=2)
        self._last = time.monotonic()

    def read(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What was written last for the same token; None when there is none, or the file is of another run."""
        try:
            tensors, said = from_bytes(self.path.read_bytes(), str(self.path))
        except (OSError, SettingsError):
            return None
        return (tensors, json.loads(said["told"])) if said.get("token") == self.token else None

    @staticmethod
    def seed_in(path: Path) -> int | None:
        """Seed of the run that wrote the file; None where there is no such file."""
        said = _said_in(path)
        return None if said is None or "seed" not in said else int(said["seed"])

    def remove(self) -> None:
        """The run is over: neither the file is left, nor one that a killed run had begun to write."""
        self.path.unlink(missing_ok=True)
        for begun in self.path.parent.glob(f".{glob.escape(self.path.name)}.*"):
            begun.unlink(missing_ok=True)


def _said_in(path: Path) -> dict[str, str] | None:
    """What is said in a file of tensors; None when it is none, or is damaged."""
    try:
        return from_bytes(path.read_bytes(), str(path))[1]
    except (OSError, SettingsError):
        return None


def _foreign(path: Path) -> bool:
    """Whether there is a file that was never one of tensors, not even a damaged one (empty, zeros, or cut short)."""
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError:
        return False
    return bool(start.strip(b"\0")) and start[8:9] != b"{"


def token_of(settings: tuple[Any, ...], *arrays: Any) -> str:
    """Names a run: the same for the same settings and arrays (n, ...), number by number."""
    digest = hashlib.sha256(repr(settings).encode())
    for array in arrays:
        digest.update(repr((array.shape, array.dtype.str)).encode())
        for start in range(0, len(array), _AT_ONCE):
            digest.update(np.ascontiguousarray(array[start : start + _AT_ONCE]).tobytes())
    return digest.hexdigest()


class Beside(Protocol):
    """What else a checkpoint keeps: something that learns from the epochs as they end."""

    def held(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors, and JSON values."""

    def resume(self, tensors: Mapping[str, Tensor], told: Mapping[str, Any]) -> None:
        """Take over what :meth:`held` gave."""
