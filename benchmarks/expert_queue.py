"""The queue that people answer from: how long the next item takes with a million waiting, and how many answers a second it takes.

    python benchmarks/expert_queue.py [--items 1000000] [--people 50] [--seconds 20] [--url sqlite:////tmp/queue.db]

A person is a thread that asks for the next item and answers it at once; people are shared out over processes, as a server's workers
would be. The rival, in the same run: the same database, one plain INSERT a transaction, which is all that must be written.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import text

from labelwright.bench.provenance import provenance
from labelwright.ledger.queue import ExpertQueue
from labelwright.ledger.schema import transaction
from labelwright.types import Queries, Rows

PROCESSES = 2


def fill(url: str, count: int) -> float:
    """Put questions in; seconds."""
    rng, queue, start = np.random.default_rng(0), ExpertQueue(url, classes=10), time.perf_counter()
    for first in range(0, count, 100_000):
        n = min(100_000, count - first)
        rows = Rows(rng.normal(size=(n, 16)).astype(np.float32), rng.integers(10, size=n), first + np.arange(n))
        list(queue.ask(Queries(rows, rng.random(n), rng.integers(10, size=n), rng.random(n))))
    return time.perf_counter() - start


def one_person(url: str, count: int) -> dict[str, float]:
    """Milliseconds of serving and of answering, one person alone."""
    queue, served, said = ExpertQueue(url, classes=10), [], []
    for _ in range(count):
        start = time.perf_counter()
        item = queue.serve("alone")[0]
        middle = time.perf_counter()
        queue.say("alone", item.key, label=1)
        served.append(1000 * (middle - start)), said.append(1000 * (time.perf_counter() - middle))
    parts = {"serve": served, "say": said}
    return {f"{name}_p{q}_ms": float(np.percentile(ms, q)) for name, ms in parts.items() for q in (50, 95, 99)}


def _people(url: str, names: list[str], until: float, out: Any) -> None:
    keys: list[int] = []
    waits: list[float] = []
    queue = ExpertQueue(url, classes=10)

    def work(name: str) -> None:
        while time.time() < until:
            start = time.perf_counter()
            items = queue.serve(name)
            waits.append(1000 * (time.perf_counter() - start))
            if items and queue.say(name, items[0].key, label=1) == "taken":
                keys.append(items[0].key)

    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    out.put((keys, waits))


def many_people(url: str, people: int, seconds: float) -> dict[str, float]:
    """Answers a second by all together, and that none was lost or doubled."""
    context = multiprocessing.get_context("spawn")
    out, until = context.Queue(), time.time() + seconds + 3
    names = [f"person {at}" for at in range(people)]
    workers = [context.Process(target=_people, args=(url, names[at::PROCESSES], until, out)) for at in range(PROCESSES)]
    start = time.time()
    for worker in workers:
        worker.start()
    found = [out.get() for _ in workers]
    for worker in workers:
        worker.join()
    keys = [key for part, _ in found for key in part]
    waits = [wait for _, part in found for wait in part]
    queue = ExpertQueue(url, classes=10)
    with transaction(queue.engine, writes=False) as connection:
        held = connection.execute(text("select count(*) from queue_replies where expert like 'person %'")).scalar()
    return {
        "answers_a_second": len(keys) / (time.time() - start),
        "doubled": len(keys) - len(set(keys)),
        "lost": len(keys) - int(held or 0),
        "serve_p95_ms": float(np.percentile(waits, 95)),
        "serve_p99_ms": float(np.percentile(waits, 99)),
    }


def plain_inserts(url: str, seconds: float = 3.0) -> float:
    """Transactions a second of one INSERT each by one thread."""
    queue, done = ExpertQueue(url, classes=10), 0
    with transaction(queue.engine, writes=True) as connection:
        connection.execute(text("create table if not exists plain (id integer primary key, said integer)"))
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        with transaction(queue.engine, writes=True) as connection:
            connection.execute(text("insert into plain (said) values (1)"))
        done += 1
    return done / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--people", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--url")
    parser.add_argument("--output", type=Path, default=Path("experiments/results/queue-speed.json"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = given.url or f"sqlite:///{folder}/queue.db"
        result: dict[str, Any] = {"experiment": "queue-speed", "items": given.items, "people": given.people}
        result["fill_s"] = fill(url, given.items)
        result["one"] = one_person(url, 300)
        result["plain_inserts_a_second"] = plain_inserts(url)
        result["many"] = many_people(url, given.people, given.seconds)
    result["provenance"] = provenance("python benchmarks/expert_queue.py")
    print(json.dumps(result, indent=1))
    given.output.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
