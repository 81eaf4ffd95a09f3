"""Worker processes of this machine, each at the end of a pipe of its own: one that dies takes nothing with it."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

from labelwright.errors import ScaleError
from labelwright.scale.crew import Book, Crew, Job, Lost, Shared
from labelwright.scale.mapper import Outcome, Tell, attempted, sendable

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_LOOK_SECONDS = 0.5
_starting = threading.Lock()


class Processes(Crew):
    """A pool of processes. A partition whose process is killed is done again by another one.

    workers: processes. threads: of each one's linear algebra. Raises ScaleError when one cannot be started.

    >>> with Processes(2) as mapper:
    ...     list(mapper.map(pow, [1, 2, 3], shared=2))
    [2, 4, 8]
    """

    def __init__(self, workers: int, *, threads: int = 1):
        super().__init__(workers)
        self.threads = threads

    def hire(self, book: Book) -> Any:
        """See :class:`Crew`."""
        return _Worker(self.threads)

    def work(self, worker: Any, job: Job, say: Tell) -> Outcome:
        """See :class:`Crew`."""
        task = pickle.dumps((job.function, job.partition), protocol=pickle.HIGHEST_PROTOCOL)
        return worker.do(job.shared, task, say)

    def fire(self, worker: Any) -> None:
        """See :class:`Crew`."""
        worker.end()


class _Worker:
    """One process, seen from here."""

    def __init__(self, threads: int):
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, os.getpid()), daemon=True)
        with _starting, _threads(threads):
            self.process.start()
        theirs.close()
        self.held: Shared | None = None
        try:
            self.pipe.recv()
        except (EOFError, OSError) as error:
            self.process.join()
            raise ScaleError(
                f"a worker process ended at its start (exit code {self.process.exitcode}); see what it printed, and keep the "
                "main part of a script under if __name__ == '__main__'"
            ) from error

    def do(self, shared: Shared, task: bytes, say: Tell) -> Outcome:
        try:
            if self.held is not shared:
                self.pipe.send_bytes(b"s" + shared.pickled)
                self.held = shared
            self.pipe.send_bytes(b"t" + task)
            while True:
                kind, value = self.pipe.recv()
                if kind != "told":
                    return kind, value
                say(value)
        except (EOFError, OSError) as error:
            self.process.join(1)
            raise Lost(_death(self.process.exitcode)) from error

    def end(self) -> None:
        self.process.kill()
        self.process.join()  # the pipe may be in use by the thread that has this worker, and closes itself


def _death(code: int | None) -> str:
    """How a process ended, in words.

    >>> _death(-9), _death(3)
    ('by signal SIGKILL', 'with exit code 3')
    """
    if code is not None and code < 0:
        return f"by signal {signal.Signals(-code).name}"
    return f"with exit code {code}"


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """What the libraries of a process read when they are loaded."""
    before = dict(os.environ)
    os.environ |= dict.fromkeys(_THREADS, str(count))
    try:
        yield
    finally:
        for name in _THREADS:
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]


def _serve(pipe: Any, parent: int) -> None:
    """A worker's life: until the pipe is closed, or ``parent``, who gives it work, was killed. Ctrl-C is for the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    pipe.send(("ready", None))
    shared: Outcome = True, None
    while True:
        try:
            message = pipe.recv_bytes()
        except (EOFError, OSError):
            return
        if message[:1] == b"s":
            shared = attempted(_loaded, message, None, _nothing)
            continue
        outcome = shared
        if shared[0]:
            outcome = attempted(_done, shared[1], message, lambda what: pipe.send(("told", what)))
        del message
        try:
            pipe.send(sendable(outcome))
        except OSError:
            return
        except Exception as error:  # pickle says so in many ways, before a byte was sent
            pipe.send((False, RuntimeError(f"its result cannot be sent: {error}")))


def _end_with(parent: int) -> None:
    """An orphan would hold its locks and its core until its work is done."""
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    os._exit(1)


def _nothing(what: str) -> None:
    return None


def _loaded(message: bytes, _: None) -> Any:
    return pickle.loads(memoryview(message)[1:])


def _done(shared: Any, message: bytes) -> Any:
    function, partition = pickle.loads(memoryview(message)[1:])
    return function(shared, partition)
