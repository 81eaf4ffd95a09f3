"""A run over a stream that kills itself: started by the stream tests, in a process of its own.

usage: stream_child.py ADDRESS STATE [--after SECONDS] [--until MESSAGES] [--batch ROWS]
"""

from __future__ import annotations

import argparse
import os
import signal
import threading

from labelwright.runner import Settings, StateFolder
from labelwright.streaming import Going, StreamRun
from labelwright.streams import Columns
from labelwright.streams.address import is_stream, open_stream


def settings(batch: int, *, brokers: bool) -> Settings:
    columns = Columns("label", id="id" if brokers else "rid", truth="true", source="source" if brokers else "city")
    return Settings(
        columns,
        batch,
        2 * batch,
        quality="bayes",
        classifier="bayes",
        budget=2,
        expert="oracle",
        buffer=40,
        watch_sources=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("state")
    parser.add_argument("--after", type=float)
    parser.add_argument("--until", type=int)
    parser.add_argument("--batch", type=int, default=60)
    options = parser.parse_args()
    source, parse = open_stream(options.address)
    brokers = is_stream(options.address) and not options.address.startswith("folder")
    run = StreamRun(settings(options.batch, brokers=brokers), StateFolder(options.state), parse=parse)
    going = Going()
    if options.until is not None:
        going = Going(True, stop=lambda: hasattr(run, "taken") and run.taken.messages >= options.until)
    if options.after is not None:
        timer = threading.Timer(options.after, lambda: os.kill(os.getpid(), signal.SIGKILL))
        timer.daemon = True
        timer.start()
    for _ in run.through(source, going):
        pass


if __name__ == "__main__":
    main()
