"""Workers on a Ray cluster: actors that own partitions, on as many machines as there are.

An actor, a node or a result that is lost costs its partition another try, somewhere else; nothing waits for a lost machine to
come back. Ray itself is an extra, loaded when it is asked for.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from typing import Any

from labelwright.errors import ScaleError
from labelwright.scale.crew import TRIES, Book, Crew, Job, Lost, Shared
from labelwright.scale.mapper import Outcome, Tell, attempted, one_thread, sendable

log = logging.getLogger("labelwright")
ANSWER = 5.0
"""Seconds within which an address must answer."""
PATIENCE = 600.0
"""Seconds that a map without a single worker waits for the cluster to have room."""


class OnRay(Crew):
    """Actors on Ray, one CPU each.

    address: "auto" for the cluster this machine belongs to, "local" for one started here and ended with the mapper,
    HOST:PORT of a cluster's head, or ray://HOST:PORT. workers: actors; default one a CPU of the cluster. Where the process is
    connected to Ray already, that is used. Raises ScaleError when Ray is not installed or does not answer.
    """

    def __init__(self, address: str = "auto", workers: int | None = None):
        self._ray = _imported(address)
        self._ours = not self._ray.is_initialized()
        if self._ours:
            _connect(self._ray, address, workers)
        count = int(self._ray.cluster_resources().get("CPU", 1))
        super().__init__(max(1, count) if workers is None else workers)
        self._actor = self._ray.remote(num_cpus=1, max_restarts=0)(Worker)

    def hire(self, book: Book) -> Any:
        """See :class:`~labelwright.scale.crew.Crew`."""
        for _ in range(TRIES):
            worker = _Hired(self._actor.remote())
            ready = worker.actor.where.remote()
            self._placed(worker, ready, book)
            try:
                log.debug("a worker on %s", self._ray.get(ready))
            except self._ray.exceptions.RayError as error:  # its node died meanwhile, or it cannot start there
                why = _lines(error)[-1]
            else:
                return worker
        raise ScaleError(f"a worker could not be started on Ray ({why}); is labelwright installed on every node?")

    def _placed(self, worker: _Hired, ready: Any, book: Book) -> None:
        """Wait until there is room for a worker. Raises Lost when it is no longer needed."""
        start = told = time.monotonic()
        while not self._ray.wait([ready], timeout=0.5)[0]:
            now = time.monotonic()
            if book.over:
                self.fire(worker)
                raise Lost("it was never needed")
            if now - told > 30:
                told = now
                log.warning("no room on the Ray cluster for another worker since %.0f s", now - start)
            if now - start > PATIENCE and not self._busy:
                raise ScaleError(f"the Ray cluster had no room for a worker in {PATIENCE:.0f} s; give it a free CPU")

    def work(self, worker: Any, job: Job, say: Tell) -> Outcome:
        """See :class:`~labelwright.scale.crew.Crew`."""
        errors = self._ray.exceptions
        try:
            with job.shared.lock:
                if job.shared.place is None:
                    job.shared.place = self._ray.put(job.shared.value)
            if worker.held is not job.shared:
                self._ray.get(worker.actor.hold.remote(job.shared.place))
                worker.held = job.shared
            told, outcome = self._ray.get(worker.actor.do.remote(job.function, job.partition))
        except errors.RayTaskError as error:  # outside the function: what was sent could not be unpacked
            return False, ScaleError(f"the worker could not unpack what it was sent ({_first_line(error.cause)})")
        except errors.RayError as error:
            raise Lost(_first_line(error)) from error
        for what in told:
            say(what)
        return outcome

    def fire(self, worker: Any) -> None:
        """See :class:`~labelwright.scale.crew.Crew`."""
        self._ray.kill(worker.actor, no_restart=True)

    def __exit__(self, *error: object) -> None:
        if self._ray.is_initialized():
            super().__exit__(*error)
            if self._ours:
                self._ray.shutdown()


class _Hired:
    """An actor, seen from here."""

    def __init__(self, actor: Any):
        self.actor = actor
        self.held: Shared | None = None


class Worker:
    """What an actor does."""

    def __init__(self) -> None:
        self.shared: Any = None

    def where(self) -> str:
        """The machine it is on."""
        return socket.gethostname()

    def hold(self, shared: Any) -> None:
        """What all the partitions to come need."""
        self.shared = shared

    def do(self, function: Any, partition: Any) -> tuple[list[str], Outcome]:
        """(what the function told, its outcome) for one partition."""
        told: list[str] = []
        with one_thread():
            return told, sendable(attempted(function, self.shared, partition, told.append))


def _imported(address: str) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address != "local":
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", str(int(ANSWER)))  # about a second each; else 20
    try:
        import ray
    except ImportError as error:
        raise ScaleError("Ray is not installed; run: pip install 'labelwright[ray]'") from error
    return ray


def _connect(ray: Any, address: str, workers: int | None) -> None:
    quiet: dict[str, Any] = {"logging_level": "error", "log_to_driver": False, "configure_logging": False}
    if address == "local":
        ray.init(address="local", num_cpus=workers, include_dashboard=False, **quiet)
        return
    _reached(os.environ.get("RAY_ADDRESS", "auto") if address == "auto" else address)
    try:
        ray.init(address=address, **quiet)
    except Exception as error:  # ConnectionError, ValueError, RuntimeError, and those of gRPC
        raise ScaleError(
            f"no Ray cluster at {address} ({_first_line(error)}); start one with 'ray start --head', or give --ray local"
        ) from error


def _reached(address: str) -> None:
    """Whether anything listens there: Ray itself would try for minutes. Raises ScaleError."""
    if address in ("auto", "local"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise ScaleError(f"--ray {address} is no address; expected auto, local or HOST:PORT, e.g. 10.0.0.1:6379")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER).close()
    except (OSError, OverflowError) as error:
        raise ScaleError(
            f"no Ray answers at {address} ({error}); check the address, or start one with 'ray start --head'"
        ) from error


def _lines(error: Any) -> list[str]:
    return [line.rstrip(". ") for line in str(error).splitlines() if line.strip()] or [type(error).__name__]


def _first_line(error: Any) -> str:
    return _lines(error)[0]
