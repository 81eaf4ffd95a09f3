"""Tensors as safetensors bytes and files; no pickle. Needs torch and safetensors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
from torch import Tensor

from labelwright.errors import SettingsError


def to_bytes(tensors: Mapping[str, Tensor], told: Mapping[str, str]) -> bytes:
    """Named tensors and named texts as the bytes of a safetensors file.

    >>> import torch
    >>> tensors, told = from_bytes(to_bytes({"w": torch.ones(2)}, {"name": "mlp"}), "memory")
    >>> tensors["w"].tolist(), told
    ([1.0, 1.0], {'name': 'mlp'})
    """
    held = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    return safetensors.torch.save(held, dict(told))


def from_bytes(content: bytes, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What :func:`to_bytes` made. Raises SettingsError when the bytes are damaged or something else."""
    import json

    try:
        tensors = safetensors.torch.load(content)
        head = json.loads(content[8 : 8 + int(np.frombuffer(content[:8], np.uint64)[0])])
    except (safetensors.SafetensorError, ValueError, IndexError, KeyError) as error:
        raise SettingsError(f"{name} is no whole safetensors file ({error}); save it again") from error
    return tensors, dict(head.get("__metadata__", {}))


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, whatever happens meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    other = path.with_name(f".{path.name}.{os.getpid()}")
    with other.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    other.replace(path)
