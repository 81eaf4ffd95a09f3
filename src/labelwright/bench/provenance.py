"""Where a number comes from: command, commit, versions, machine."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def provenance(command: str, device: str | None = None) -> dict[str, Any]:
    """What a result file says about its origin. device: where its networks were trained, as of TorchClassifier.

    >>> sorted(provenance("labelwright bench qal"))
    ['command', 'commit', 'machine', 'versions']
    """
    names: tuple[str, ...] = ("labelwright", "numpy", "scipy", "scikit-learn")
    machine: dict[str, Any] = {"system": platform.system(), "processor": _processor(), "cores": os.cpu_count()}
    if device is not None:
        names, machine["device"] = (*names, "torch"), _device(device)
    return {
        "command": command,
        "commit": _commit(),
        "versions": {"python": sys.version.split()[0], **{name: _version(name) for name in names}},
        "machine": machine,
    }


def _device(wanted: str) -> str:
    import torch

    from labelwright.learners.devices import find_device

    device = find_device(wanted)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    here = Path(__file__).parent
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        )
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "-uno"], cwd=here, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("LABELWRIGHT_COMMIT", "unknown")
    return head.stdout.strip() + ("+changes" if dirty.stdout.strip() else "")


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
