"""run, over a stream: progress, a graceful end, and what status says of it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.table import Table

from labelwright.cli.app import log
from labelwright.runner import Settings, StateFolder
from labelwright.scale import Mapper
from labelwright.streaming import Going, StreamRun
from labelwright.streams.address import open_stream, shown
from labelwright.tables import TableSource


class Stop:
    """Whether the run was asked to end: by SIGTERM or Ctrl-C. A second Ctrl-C ends it at once, which loses nothing either.

    >>> Stop()()
    False
    """

    def __init__(self) -> None:
        self.asked = False

    def __call__(self) -> bool:
        """See the class."""
        return self.asked

    def hear(self, number: int, frame: FrameType | None) -> None:
        """A signal came."""
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        log.warning("ending after the batch in hand; once more to end at once")


@contextmanager
def stoppable() -> Iterator[Stop]:
    """While this lasts, the first SIGTERM or Ctrl-C only asks to end."""
    stop = Stop()
    before = {number: signal.signal(number, stop.hear) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def through(
    address: str,
    settings: Settings,
    place: StateFolder,
    test: TableSource | None,
    *,
    follow: bool,
    seconds: float | None,
    strict: bool,
    wait: float,
    answers: Path | None,
    mapper: Mapper,
) -> tuple[StreamRun, list[str]]:
    """Run over a stream to its end or until asked to end; (the run, what the source had to say)."""
    source, parse = open_stream(address)
    job = StreamRun(settings, place, strict=strict, answers_file=answers, wait=wait, mapper=mapper, parse=parse)
    log.info("reading %s", shown(address))
    with stoppable() as stop:
        for moment in job.through(source, Going(follow, seconds, stop), test=test):
            log.info("batch %s: %s, noise rate %.3f", moment.batch, moment.counts, moment.noise)
            if moment.note:
                log.info(moment.note)
    return job, source.notes()


def show_stream(told: dict[str, Any]) -> None:
    """Where a stream stands, for a person."""
    behind = "an unknown number of rows" if told["behind"] is None else f"{told['behind']:,} rows"
    seen = f", last seen {told['seen_at']}" if told["seen_at"] else ""
    print(
        f"stream {told['source'] or ''}: {told['state']}{seen}; {told['messages']:,} messages taken, behind by {behind}"
    )
    if told["repeated"]:
        print(f"{told['repeated']:,} messages came more than once and count once")
    for note in told["notes"][-5:]:
        print(f"noted: {note}")
    for alarm in told.get("alarms", [])[-5:]:
        print(f"alarm: {alarm}")
    if told.get("sources"):
        table = Table(title="sources of labels, latest batch", title_justify="left")
        for name in ("source", "rows", "wrong labels", "95 % interval", "state"):
            table.add_column(name)
        for name, look in told["sources"].items():
            between = f"{100 * look['low']:.0f} to {100 * look['high']:.0f} %"
            table.add_row(name, str(look["rows"]), f"{100 * look['rate']:.0f} %", between, look["state"])
        Console().print(table)


__all__ = ["Stop", "show_stream", "stoppable", "through"]
