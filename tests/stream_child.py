"""A run over a stream that kills itself: started by the stream tests, in a process of its own.

usage: stream_child.py ADDRESS STATE [--deliveries N --after SECONDS] [--until MESSAGES] [--batch ROWS]
It dies so many seconds after its N-th delivery.
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
    parser.add_argument("--deliveries", type=int, default=0)
    parser.add_argument("--until", type=int)
    parser.add_argument("--batch", type=int, default=60)
    options = parser.parse_args()
    source, parse = open_stream(options.address)
    brokers = is_stream(options.address) and not options.address.startswith("folder")
    run = StreamRun(settings(options.batch, brokers=brokers), StateFolder(options.state), parse=parse)
    going = Going()
    if options.until is not None:
        going = Going(True, stop=lambda: hasattr(run, "taken") and run.taken.messages >= options.until)
    timer = threading.Timer(options.after or 0, lambda: os.kill(os.getpid(), signal.SIGKILL))
    timer.daemon = True
    if options.after is not None and options.deliveries == 0:
        timer.start()
    for count, _ in enumerate(run.through(source, going), 1):
        if options.after is not None and options.deliveries == count:
            timer.start()


if __name__ == "__main__":
    main()
