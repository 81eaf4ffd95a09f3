"""Pieces of an experiment in several processes at once: many small networks fill a GPU, or all cores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelwright.errors import LabelwrightError, SettingsError
from labelwright.scale import Processes, cores, tell


@dataclass(frozen=True)
class _Piece:
    name: str
    function: Callable[..., Mapping[str, Any]]
    arguments: tuple[Any, ...]


def spread(
    calls: Sequence[tuple[str, Callable[..., Mapping[str, Any]], tuple[Any, ...]]],
    workers: int,
    tick: Callable[[str], None],
) -> None:
    """Run ``function(*arguments, tick)`` of all (name, function, arguments), each in one of ``workers`` processes.

    The cores are shared out among them. A call that fails does not stop the others; one whose process is killed runs again.
    Raises SettingsError at the end, naming those that failed, or what a call raised when all failed alike.
    """
    pieces = [_Piece(*call) for call in calls]
    with Processes(workers, threads=max(1, cores() // workers)) as pool:
        errors = pool.map(_one, pieces, shared=None, told=tick, ahead=max(1, len(pieces)))
        failed = {piece.name: error for piece, error in zip(pieces, errors, strict=True) if error is not None}
    _raise(failed)


def _one(_: None, piece: _Piece) -> Exception | None:
    try:
        piece.function(*piece.arguments, tell)
    except Exception as error:
        return error
    return None


def _raise(failed: Mapping[str, BaseException]) -> None:
    if not failed:
        return
    name, first = next(iter(failed.items()))
    kind = type(first).__name__
    if isinstance(first, LabelwrightError) and len({str(error) for error in failed.values()}) == 1:
        raise first
    others = f", and {len(failed) - 1} more: {', '.join(sorted(failed)[:8])}" if len(failed) > 1 else ""
    raise SettingsError(
        f"the piece {name} failed ({kind}: {first}){others}; the others are kept: mend the cause and run it again"
    ) from first


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """One process at a time in here, for what several pieces share and the first makes."""
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
