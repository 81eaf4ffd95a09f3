"""Which back end: by what the command line says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from labelwright.errors import SettingsError
from labelwright.scale.crew import Threads
from labelwright.scale.mapper import InProcess, Mapper, cores
from labelwright.scale.on_ray import OnRay
from labelwright.scale.processes import Processes


def open_mapper(workers: int | None = None, ray: str | None = None, *, threads: bool = False) -> Mapper:
    """The back end for so many workers: this process for one, a process pool for more, Ray where an address is given.

    workers: default one a core, on Ray one a CPU of the cluster. ray: "auto" for the cluster this machine belongs to,
    "local" for one of its own, or HOST:PORT. threads: instead of processes, for work that lets go of the interpreter.
    Raises SettingsError for fewer than one worker, ScaleError when Ray is not installed or does not answer.

    >>> type(open_mapper(1)).__name__, type(open_mapper(2)).__name__
    ('InProcess', 'Processes')
    """
    checked(workers)
    if ray is not None:
        return OnRay(ray, workers)
    count = cores() if workers is None else workers
    if count == 1:
        return InProcess()
    return Threads(count) if threads else Processes(count)


def checked(workers: int | None) -> int | None:
    """The number of workers, if there can be so many. Raises SettingsError.

    >>> checked(2), checked(None)
    (2, None)
    """
    if workers is not None and workers < 1:
        raise SettingsError(f"--workers {workers} was asked for; give 1 or more, or leave it out")
    return workers


@contextmanager
def opened(workers: int | Mapper | None, *, threads: bool = False) -> Iterator[Mapper]:
    """A mapper for so many workers, closed at the end; one that is given stays open. See :func:`open_mapper`.

    >>> with opened(2, threads=True) as mapper:
    ...     mapper.workers
    2
    """
    if workers is not None and not isinstance(workers, int):
        yield workers
        return
    with open_mapper(workers, threads=threads) as mapper:
        yield mapper
