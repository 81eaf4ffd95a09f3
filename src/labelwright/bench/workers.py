"""Pieces of an experiment in several processes at once: many small networks fill a GPU, or all cores."""

from __future__ import annotations

import os
import queue
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from labelwright.errors import LabelwrightError, SettingsError

_LOOK = 0.2
"""Seconds between two looks at what the workers have done."""
_ticks: Any = None
"""Of a worker: where it tells of its steps."""


def spread(
    calls: Sequence[tuple[str, Callable[..., Mapping[str, Any]], tuple[Any, ...]]],
    workers: int,
    tick: Callable[[str], None],
) -> None:
    """Run ``function(*arguments, tick)`` of all (name, function, arguments), each in one of ``workers`` processes.

    A call that fails does not stop the others. Raises SettingsError at the end, naming those that failed, or what a call
    raised when all failed alike.
    """
    context = get_context("spawn")
    ticks = context.Queue()
    with (
        _threads(workers),
        ProcessPoolExecutor(workers, mp_context=context, initializer=_enter, initargs=(ticks,)) as pool,
    ):
        running: dict[Future[None], str] = {pool.submit(_one, run, given): name for name, run, given in calls}
        waiting = set(running)
        try:
            while waiting:
                waiting = wait(waiting, timeout=_LOOK).not_done
                _pass_on(ticks, tick)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    _pass_on(ticks, tick)
    _raise({name: error for call, name in running.items() if (error := call.exception()) is not None})


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


def _pass_on(ticks: Any, tick: Callable[[str], None]) -> None:
    while True:
        try:
            tick(ticks.get_nowait())
        except queue.Empty:
            return


@contextmanager
def _threads(workers: int) -> Iterator[None]:
    """Cores shared out: what a worker's libraries read when they are loaded."""
    names, before = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), dict(os.environ)
    share = str(max(1, (os.cpu_count() or 1) // workers))
    os.environ |= {name: os.environ.get(name, share) if workers < 2 else share for name in names}
    try:
        yield
    finally:
        for name in names:
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]


def _enter(ticks: Any) -> None:
    global _ticks
    _ticks = ticks


def _one(function: Callable[..., Mapping[str, Any]], arguments: tuple[Any, ...]) -> None:
    function(*arguments, _ticks.put)


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """One process at a time in here, for what several pieces share and the first makes."""
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
