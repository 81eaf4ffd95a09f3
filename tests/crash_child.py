"""A run that kills itself: started by test_crash.py, in a process of its own.

usage: crash_child.py CSV STATE LOG [--after SECONDS] [--at-question N]
Every question that the expert hears is appended to LOG before it is answered.
"""

from __future__ import annotations

import argparse
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

from labelwright.experts import Expert, Oracle
from labelwright.runner import Run, Settings, StateFolder
from labelwright.streams import Columns
from labelwright.tables import open_source
from labelwright.types import Answer, Queries


class HeardOracle(Oracle):
    """An oracle that writes down what it hears, and may die between hearing and answering."""

    log: Path
    die_at: int

    def ask(self, queries: Queries) -> Iterator[Answer]:
        for key in queries.rows.keys:
            with self.log.open("a") as file:
                file.write(f"{int(key)}\n")
            if len(self.log.read_text().splitlines()) == self.die_at:
                os.kill(os.getpid(), signal.SIGKILL)
        yield from super().ask(queries)

    def collect(self, outstanding: Queries) -> Iterator[Answer]:
        """What it owes, without hearing the question again."""
        return super().ask(outstanding)


class KilledRun(Run):
    """A run with that oracle."""

    log: Path
    die_at: int

    def _expert(self, classes: int) -> Expert:
        expert = HeardOracle(self.truth)
        expert.log, expert.die_at = self.log, self.die_at
        return expert


def settings(classifier: str) -> Settings:
    columns = Columns("label", id="rid", truth="true")
    return Settings(
        columns,
        batch_size=60,
        first_batch=120,
        budget=3,
        expert="oracle",
        quality="sgd",
        classifier=classifier,
        buffer=40,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("csv")
    parser.add_argument("state")
    parser.add_argument("log", type=Path)
    parser.add_argument("--after", type=float)
    parser.add_argument("--at-question", type=int, default=-1)
    parser.add_argument("--classifier", default="bayes")
    options = parser.parse_args()
    run = KilledRun(settings(options.classifier), StateFolder(options.state))
    run.log, run.die_at = options.log, options.at_question
    options.log.touch()
    if options.after is not None:
        timer = threading.Timer(options.after, lambda: os.kill(os.getpid(), signal.SIGKILL))
        timer.daemon = True
        timer.start()
    for _ in run.over(open_source(options.csv)):
        pass


if __name__ == "__main__":
    main()
