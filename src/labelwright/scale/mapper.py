"""What all back ends share: the face, how a partition is worked on, how its failure is told."""

from __future__ import annotations

import os
import pickle
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol, Self, TypeVar

from labelwright.errors import LabelwrightError, ScaleError

S = TypeVar("S")
P = TypeVar("P")
R = TypeVar("R")
Tell = Callable[[str], None]
Outcome = tuple[bool, Any]
"""(whether it went well, the result or the exception)."""

_here = threading.local()


class Mapper(Protocol):
    """Maps a function over partitions; a context manager, which may be used for many maps.

    workers: how many partitions it works on at once.
    """

    @property
    def workers(self) -> int:
        """How many partitions it works on at once."""

    def map(
        self,
        function: Callable[[S, P], R],
        partitions: Iterable[P],
        *,
        shared: S,
        told: Tell | None = None,
        ahead: int | None = None,
    ) -> Iterator[R]:
        """``function(shared, partition)`` of each partition, in their order, whatever finishes first.

        function: of a module, so that a worker can import it. shared: sent once to each worker. told: called with what the
        function says by :func:`tell`. ahead: how many partitions may be under way or done before their turn, default 4 a
        worker; this bounds memory. A partition may have a ``name``, which errors begin with.
        Raises ScaleError, or the LabelwrightError that the function raised, when its turn comes; the rest is not done.
        """

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


class InProcess:
    """One partition after another, in this process.

    >>> with InProcess() as mapper:
    ...     list(mapper.map(pow, [1, 2, 3], shared=2))
    [2, 4, 8]
    """

    workers = 1

    def map(
        self,
        function: Callable[[S, P], R],
        partitions: Iterable[P],
        *,
        shared: S,
        told: Tell | None = None,
        ahead: int | None = None,
    ) -> Iterator[R]:
        """See :class:`Mapper`."""
        for index, partition in enumerate(partitions):
            with one_thread():
                outcome = attempted(function, shared, partition, told or _quiet)
            yield result_of(outcome, name_of(partition, index))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None


def cores() -> int:
    """Cores this process may use.

    >>> cores() >= 1
    True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def tell(what: str) -> None:
    """Say from within a partition how far it got: the ``told`` of its map hears it. Elsewhere: nothing.

    >>> heard = []
    >>> list(InProcess().map(lambda shared, part: tell(part), ["half"], shared=None, told=heard.append)), heard
    ([None], ['half'])
    """
    getattr(_here, "tell", _quiet)(what)


def _quiet(what: str) -> None:
    return None


def attempted(function: Callable[[S, P], R], shared: S, partition: P, say: Tell) -> Outcome:
    """Work on one partition; an exception is an outcome, too."""
    before, _here.tell = getattr(_here, "tell", _quiet), say
    try:
        return True, function(shared, partition)
    except Exception as error:
        return False, error
    finally:
        _here.tell = before


def sendable(outcome: Outcome) -> Outcome:
    """An outcome that can be sent: an exception that cannot is told by its words, and all keep where they came from."""
    well, error = outcome
    if well:
        return outcome
    error.add_note("in a worker:\n" + "".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return False, RuntimeError(f"{type(error).__name__}: {error}")
    return False, error


def name_of(partition: Any, index: int) -> str:
    """What errors call a partition.

    >>> name_of(7, 0)
    'partition 1'
    """
    return str(getattr(partition, "name", "") or f"partition {index + 1}")


def result_of(outcome: Outcome, name: str) -> Any:
    """The result. Raises what the function raised, with the partition's name in front; ScaleError for what is not ours."""
    well, value = outcome
    if well:
        return value
    if not isinstance(value, LabelwrightError):
        raise ScaleError(f"{name} failed ({type(value).__name__}: {value})") from value
    raise type(value)(f"{name}: {value}") from value


def _limited() -> AbstractContextManager[Any]:
    from threadpoolctl import threadpool_limits

    try:
        return threadpool_limits(1)
    except PermissionError:
        return nullcontext()


@contextmanager
def one_thread() -> Iterator[None]:
    """Linear algebra and networks on one thread: the number of threads shows in the last digits. A process that may not read
    which libraries it has (a confined learner) is left as it was started."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch is not None else 0
    if torch is not None:
        torch.set_num_threads(1)
    try:
        with _limited():
            yield
    finally:
        if torch is not None:
            torch.set_num_threads(before)
