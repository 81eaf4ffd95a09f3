"""Where networks run, and in which precision. Needs torch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from labelwright.errors import SettingsError, TooLargeError

_SHARE_OF_MEMORY = 0.5


def find_device(wanted: str) -> torch.device:
    """The device of that name; "auto" is a GPU where there is one. Raises SettingsError.

    >>> find_device("cpu")
    device(type='cpu')
    """
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise SettingsError(f"device={wanted!r} is unknown; expected auto, cpu or cuda") from error
    if device.type not in ("cpu", "cuda"):
        raise SettingsError(f"device={wanted!r} is none that networks run on here; expected auto, cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SettingsError(f"device={wanted!r}, but torch sees no GPU; take device='auto' or 'cpu'")
    return device


def find_precision(wanted: str, device: torch.device, pictures: bool) -> torch.dtype:
    """Precision of the products; "auto" is bfloat16 for pictures where the machine computes it quickly."""
    if wanted == "auto":
        return torch.bfloat16 if pictures and _quick_at_bfloat16(device) else torch.float32
    known = {"bfloat16": torch.bfloat16, "float32": torch.float32}
    if wanted not in known:
        raise SettingsError(f"precision={wanted!r} is unknown; expected auto, bfloat16 or float32")
    return known[wanted]


def _quick_at_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(bool(getattr(torch.cpu, name)()) for name in checks if hasattr(torch.cpu, name))


def resident(values: Any, home: torch.device) -> Tensor:
    """A NumPy array as a tensor where it is read from: on the device, or in host memory when the device has little left.

    Mapped files are not read here. Raises TooLargeError when there is no memory for it.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        tensor = torch.from_numpy(values)
    if home.type == "cpu":
        return tensor
    free, _ = torch.cuda.mem_get_info(home)
    if values.nbytes > _SHARE_OF_MEMORY * free:
        return tensor
    try:
        return tensor.to(home)
    except torch.OutOfMemoryError as error:
        raise TooLargeError(
            f"the memory of {home} does not hold {values.nbytes / 1e9:.1f} GB of rows; train on fewer rows, or on the CPU"
        ) from error


@contextmanager
def only_deterministic(wanted: bool) -> Iterator[None]:
    """Only operations that repeat exactly, for a while; without ``wanted``, whatever is set."""
    before = torch.are_deterministic_algorithms_enabled()
    if wanted:
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@contextmanager
def step_bar(title: str, *, shown: bool) -> Iterator[Callable[[int, int, float], None] | None]:
    """A function to tell (steps done, in all, loss) to: a bar on the terminal, or None."""
    if not shown:
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(title, total=None)

        def tell(done: int, total: int, loss: float) -> None:
            bar.update(task, completed=done, total=total, description=f"{title}, loss {loss:.3f}")

        yield tell
