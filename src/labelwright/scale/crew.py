"""Several workers at once, results in order: a thread for each worker, which hands it one partition after another.

A worker that is lost takes nothing with it: its partition goes back to the front of the queue, and the thread finds another.
"""

from __future__ import annotations

import pickle
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from queue import SimpleQueue
from typing import Any, Self

from labelwright.errors import ScaleError
from labelwright.scale.mapper import Outcome, P, R, S, Tell, attempted, name_of, one_thread, result_of

TRIES = 3
"""How many workers one partition may cost."""
_AHEAD = 4


class Lost(Exception):
    """A worker is gone; the partition it had must be done again."""


class Shared:
    """What all partitions of one map need. value: the object; where it was put, a back end may note in ``place``."""

    def __init__(self, value: Any):
        self.value, self.place = value, None
        self.lock = threading.Lock()

    @cached_property
    def pickled(self) -> bytes:
        """As bytes, made once."""
        return pickle.dumps(self.value, protocol=pickle.HIGHEST_PROTOCOL)


@dataclass
class Job:
    """One partition's work."""

    index: int
    name: str
    function: Callable[[Any, Any], Any]
    partition: Any
    shared: Shared
    lost: int = 0


@dataclass
class Book:
    """What is to be done, and what came of it: threads take jobs and put outcomes, the map puts jobs and takes outcomes."""

    jobs: deque[Job] = field(default_factory=deque)
    inbox: SimpleQueue[tuple[str, Any, Any]] = field(default_factory=SimpleQueue)
    changed: threading.Condition = field(default_factory=threading.Condition)
    over: bool = False
    coming: int = 0

    def put(self, job: Job, *, again: bool = False) -> None:
        """A job to be done; one that was lost goes first."""
        with self.changed:
            (self.jobs.appendleft if again else self.jobs.append)(job)
            self.changed.notify_all()

    def wait(self, hired: bool) -> bool:
        """Until a job waits (True), or all is over (False). A thread that has yet to hire a worker, which may take long or
        for ever, comes only for a job that no other such thread is coming for; those with a worker take what there is.
        """
        with self.changed:
            self.changed.wait_for(lambda: len(self.jobs) > (0 if hired else self.coming) or self.over)
            self.coming += not hired
            return not self.over

    def take(self, came: bool) -> Job | None:
        """The next job; None when another thread was quicker. came: after it had hired a worker for it."""
        with self.changed:
            self.coming -= came
            return self.jobs.popleft() if self.jobs and not self.over else None

    def close(self) -> None:
        """All is over."""
        with self.changed:
            self.over = True
            self.changed.notify_all()

    def say(self, what: str) -> None:
        """What a function told."""
        self.inbox.put(("told", None, what))

    def lose(self, job: Job, why: Lost) -> None:
        """Do it again, if it did not cost too many workers."""
        job.lost += 1
        if job.lost < TRIES:
            self.put(job, again=True)
            return
        self.inbox.put(
            (
                "done",
                job.index,
                (
                    False,
                    ScaleError(
                        f"{job.lost} workers died of it ({why}); give it more memory, or look at what it does to a process"
                    ),
                ),
            )
        )

    def results(self, jobs: Iterator[Job], ahead: int, told: Tell) -> Iterator[tuple[Job, Outcome]]:
        """Outcomes in the order of the jobs; at most ``ahead`` jobs are under way or wait for their turn."""
        under: deque[Job] = deque()
        found: dict[int, Outcome] = {}

        def feed() -> None:
            while len(under) < ahead and (job := next(jobs, None)) is not None:
                under.append(job)
                self.put(job)

        feed()
        while under:
            kind, index, value = self.inbox.get()
            if kind == "told":
                told(value)
            elif kind == "broken":
                raise value
            else:
                found[index] = value
            while under and under[0].index in found:
                job = under.popleft()
                feed()  # before the result is used, so that workers have something to do meanwhile
                yield job, found.pop(job.index)


class Crew:
    """A mapper whose threads have a worker each. Subclasses say what a worker is.

    workers: how many. Workers are hired when there is work, and kept for the next map until the mapper is closed.
    """

    def __init__(self, workers: int):
        if workers < 1:
            raise ScaleError(f"{workers} workers were asked for; ask for 1 or more")
        self.workers = workers
        self._free: list[Any] = []
        self._busy: list[Any] = []

    def hire(self, book: Book) -> Any:
        """A new worker that is ready. Raises Lost when it is no longer needed."""
        return None

    def work(self, worker: Any, job: Job, say: Tell) -> Outcome:
        """Let a worker do a job. Raises Lost when the worker died."""
        return attempted(job.function, job.shared.value, job.partition, say)

    def fire(self, worker: Any) -> None:
        """End a worker at once, dead or alive."""

    def map(
        self,
        function: Callable[[S, P], R],
        partitions: Iterable[P],
        *,
        shared: S,
        told: Tell | None = None,
        ahead: int | None = None,
    ) -> Iterator[R]:
        """See :class:`~labelwright.scale.mapper.Mapper`."""
        book, held = Book(), Shared(shared)
        jobs = (Job(i, name_of(part, i), function, part, held) for i, part in enumerate(partitions))
        threads = [threading.Thread(target=self._serve, args=(book,), daemon=True) for _ in range(self.workers)]
        for thread in threads:
            thread.start()
        whole = False
        try:
            for job, outcome in book.results(jobs, max(1, ahead or _AHEAD * self.workers), told or (lambda what: None)):
                yield result_of(outcome, job.name)
            whole = True
        finally:
            book.close()
            if not whole:
                self._end()  # what is under way is of no more use
            for thread in threads:
                thread.join()
            if not whole:
                self._end()  # a worker that was done just then, too

    def _serve(self, book: Book) -> None:
        worker, hired = None, False
        try:
            while book.wait(hired):
                came = not hired
                if came:
                    worker, hired = self._free.pop() if self._free else self.hire(book), True
                job = book.take(came)
                if job is None:
                    continue
                self._busy.append(worker)
                try:
                    outcome = self.work(worker, job, book.say)
                except Lost as why:
                    self.fire(worker)
                    hired = False
                    book.lose(job, why)
                else:
                    book.inbox.put(("done", job.index, outcome))
                finally:
                    self._busy.remove(worker)
        except Lost:
            return
        except BaseException as error:
            book.inbox.put(("broken", None, error))
        finally:
            if hired:
                self._free.append(worker)

    def _end(self) -> None:
        for worker in [*self._busy, *self._free]:
            self.fire(worker)
        self._free.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._end()


class Threads(Crew):
    """Threads of this process: for work that lets go of the interpreter, such as growing trees; nothing is copied.

    >>> with Threads(2) as mapper:
    ...     list(mapper.map(pow, [1, 2, 3], shared=2))
    [2, 4, 8]
    """

    def map(
        self,
        function: Callable[[S, P], R],
        partitions: Iterable[P],
        *,
        shared: S,
        told: Tell | None = None,
        ahead: int | None = None,
    ) -> Iterator[R]:
        """See :class:`~labelwright.scale.mapper.Mapper`."""
        with one_thread():
            yield from super().map(function, partitions, shared=shared, told=told, ahead=ahead)
