"""A run over a stream that kills itself: started by the stream tests, in a process of its own.

usage: stream_child.py ADDRESS STATE [--deliveries N --after SECONDS] [--until MESSAGES] [--batch ROWS]
With --serve it reads such arguments as lines of JSON, and runs each in a fork of its own: importing everything once is most of the time.
It dies so many seconds after its N-th delivery.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import traceback

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


def serve() -> None:
    """A fork a line; prints how each ended, a signal as a negative number."""
    import sklearn.naive_bayes  # noqa: F401
    import skops.io

    assert skops.io
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            code = 1
            try:
                main(json.loads(line))
                code = 0
            except Exception:
                traceback.print_exc()
            finally:
                os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("state")
    parser.add_argument("--after", type=float)
    parser.add_argument("--deliveries", type=int, default=0)
    parser.add_argument("--until", type=int)
    parser.add_argument("--batch", type=int, default=60)
    options = parser.parse_args(arguments)
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
    serve() if sys.argv[1:] == ["--serve"] else main(sys.argv[1:])
