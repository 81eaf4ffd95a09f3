"""How quickly streams are read, against plain loops over the same clients, and that memory does not grow with them.

Usage: python benchmarks/streams.py [--rows N] [--long ROWS] [--json FILE]

Each broker runs in a process of its own on this machine: Debian's redis-server without persistence, and librdkafka's mock cluster
(which keeps at most 5 MB a partition, so its rows are compressed, on 4 partitions). Rows are JSON of about 100 bytes with 4
features. "ours" is fetch, decode and check into Arrow tables of 10,000 rows, ready to be judged; the rival is the client's own
loop with json.loads a message, into a list of dicts. "run" is a whole run, judged by two naive Bayes models, written to the ledger.
The long run's rows come from the benchmark itself, as a source that makes them when asked, so that no broker's memory limits them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import psutil
from stream_help import Kafka, kafka_cluster, redis_server

from labelwright.bench.provenance import provenance
from labelwright.runner import Settings, StateFolder
from labelwright.streaming import Going, StreamRun
from labelwright.streams import Columns
from labelwright.streams.address import open_stream
from labelwright.streams.message import decode
from labelwright.streams.source import Lag, Piece, Position, deliveries

BATCH = 10_000


def made(n: int, *, start: int = 0) -> list[bytes]:
    """Rows of three classes, 20 % of the labels wrong, by four sources."""
    rng = np.random.default_rng(start)
    true = rng.integers(0, 3, n)
    X = np.round(rng.normal(size=(n, 3)) + 2.0 * true[:, None], 3).tolist()
    given = np.where(rng.random(n) < 0.2, rng.integers(0, 3, n), true).tolist()
    city = rng.choice(["Oslo", "Rome", "Delft"], n).tolist()
    return [
        b'{"id":"%d","label":"%d","source":"s%d","features":{"a":%g,"b":%g,"c":%g,"city":"%s"}}'
        % (start + i, g, i % 4, x[0], x[1], x[2], c.encode())
        for i, (g, x, c) in enumerate(zip(given, X, city, strict=True))
    ]


def rate(task: Callable[[], int], repeats: int = 3) -> dict[str, list[int]]:
    """Rows a second by the clock, and rows a second of this process's own CPU time (what an idle machine would give, where the
    broker runs on another core), several times."""
    clock, cpu = list[int](), list[int]()
    for _ in range(repeats):
        start, spent = time.perf_counter(), time.process_time()
        rows = task()
        clock.append(round(rows / (time.perf_counter() - start)))
        cpu.append(round(rows / (time.process_time() - spent)))
    return {"a_second": clock, "a_cpu_second": cpu}


def ours(address: str) -> int:
    """Read the whole stream into tables."""
    source, parse = open_stream(address)
    source.open({}, follow=False)
    known, count = None, 0
    for delivery in deliveries(source, rows=lambda: BATCH):
        messages = [m for piece in delivery.pieces for m in piece.rows]
        names = [n for piece in delivery.pieces for n in piece.names]
        table, _, bad = decode(messages, names, known, parse=parse)
        known = known or table.schema
        count += table.num_rows
        assert not bad
    source.close()
    return count


def plain_redis(url: str) -> int:
    """redis-py's own loop."""
    import redis

    client, last, count = redis.Redis.from_url(url), b"0-0", 0
    while reply := client.xrange("rows", b"(" + last, "+", count=BATCH):
        rows = [json.loads(fields[b"message"]) for _, fields in reply]
        last, count = reply[-1][0], count + len(rows)
    return count


def plain_kafka(servers: str, rows: int) -> int:
    """confluent-kafka's own loop."""
    from confluent_kafka import Consumer

    settings = {"bootstrap.servers": servers, "group.id": "plain", "auto.offset.reset": "earliest"}
    consumer, count = Consumer(settings), 0
    consumer.subscribe(["rows"])
    while count < rows:
        count += len([json.loads(m.value()) for m in consumer.consume(BATCH, timeout=1.0) if not m.error()])
    consumer.close()
    return count


def run_of(state: Path, parse: Any) -> StreamRun:
    """A whole run: two naive Bayes models, every row written to the ledger."""
    columns = Columns("label", id="id", source="source")
    settings = Settings(
        columns, BATCH, quality="bayes", classifier="bayes", expert="none", max_rows=5000, watch_sources=True
    )
    return StreamRun(settings, StateFolder(state), parse=parse)


def whole(address: str) -> int:
    """A whole run over a broker's stream."""
    source, parse = open_stream(address)
    with tempfile.TemporaryDirectory() as folder:
        run = run_of(Path(folder), parse)
        for _ in run.through(source, Going()):
            pass
        return run.taken.messages


class Endless:
    """A source that makes its rows when asked, up to so many."""

    name = "made"

    def __init__(self, rows: int):
        self.rows, self.at = rows, 0

    def open(self, position: Position, *, follow: bool) -> None:
        self.at = int(position.get("made", 0))

    def fetch(self, limit: int, wait: float) -> list[Piece]:
        count = min(limit, self.rows - self.at)
        if not count:
            return []
        start, self.at = self.at, self.at + count
        names = [f"made@{at}" for at in range(start, self.at)]
        return [Piece("made", range(start + 1, self.at + 1), names, made(count, start=start))]

    def ended(self) -> bool:
        return self.at >= self.rows

    def lag(self) -> Lag:
        return Lag(self.rows - self.at)

    def done(self, pieces: Sequence[Piece]) -> None: ...

    def notes(self) -> list[str]:
        return []

    def close(self) -> None: ...


def long_run(rows: int) -> dict[str, Any]:
    """Memory and speed along a long run."""
    process, points = psutil.Process(), list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as folder:
        run = run_of(Path(folder), open_stream("redis://h/0/s")[1])
        start, spent = time.perf_counter(), time.process_time()
        for place, moment in enumerate(run.through(Endless(rows), Going())):
            if place % max(1, rows // BATCH // 10) == 0:
                points.append(
                    {
                        "rows": (moment.number + 1) * BATCH,
                        "rss_mb": round(process.memory_info().rss / 1e6, 1),
                        "seconds": round(time.perf_counter() - start, 1),
                        "cpu_seconds": round(time.process_time() - spent, 1),
                    }
                )
        size = sum(f.stat().st_size for f in Path(folder).glob("ledger.db*"))
    half = [p["rss_mb"] for p in points if p["rows"] > rows / 4]
    pace = (points[-1]["rows"] - points[1]["rows"]) / (points[-1]["seconds"] - points[1]["seconds"])
    own = (points[-1]["rows"] - points[1]["rows"]) / (points[-1]["cpu_seconds"] - points[1]["cpu_seconds"])
    return {
        "rows": rows,
        "points": points,
        "rss_growth_mb_after_first_quarter": round(half[-1] - half[0], 1),
        "rows_per_second": round(pace),
        "rows_per_cpu_second": round(own),
        "ledger_bytes_per_row": round(size / rows, 1),
        "extrapolated_ten_million_rows_s": round(1e7 / pace),
        "extrapolated_ten_million_rows_cpu_s": round(1e7 / own),
    }


def brokers(rows: int) -> dict[str, Any]:
    """Both brokers: ours, the client's own loop, a whole run."""
    out: dict[str, Any] = {}
    few = min(rows, 300_000)
    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder)) as redis, kafka_cluster() as kafka:
        redis.client.config_set("appendonly", "no")
        for start in range(0, rows, 50_000):
            redis.add("rows", made(min(50_000, rows - start), start=start))
        url = f"{redis.url}/rows"
        out["redis"] = {
            "rows": rows,
            "ours": rate(lambda: ours(url)),
            "redis-py loop": rate(lambda: plain_redis(redis.url)),
        }
        out["redis"]["run"] = rate(lambda: whole(url), 1)
        spread(kafka, few)
        url = f"kafka://{kafka.servers}/rows"
        plain = rate(lambda: plain_kafka(kafka.servers, few), 1)
        out["kafka"] = {"rows": few, "ours": rate(lambda: ours(url)), "confluent-kafka loop": plain}
        out["kafka"]["run"] = rate(lambda: whole(url), 1)
    return out


def spread(kafka: Kafka, rows: int) -> None:
    """Rows on the 4 partitions of a mock topic, compressed so that the cluster's 5 MB a partition hold them."""
    from confluent_kafka import Producer

    settings = {
        "bootstrap.servers": kafka.servers,
        "linger.ms": 50,
        "compression.type": "zstd",
        "batch.num.messages": 10_000,
    }
    producer = Producer(settings)
    producer.list_topics("rows", timeout=10)
    for at, row in enumerate(made(rows)):
        while True:
            try:
                producer.produce("rows", row, partition=at % 4)
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(60) == 0


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--long", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    example = made(1000)
    result = {
        **provenance(f"python benchmarks/streams.py --rows {options.rows} --long {options.long}"),
        "load_before": os.getloadavg()[0],
        "bytes_a_row": round(sum(map(len, example)) / len(example)),
        "ingestion_rows_per_second": brokers(options.rows),
        "long": long_run(options.long),
    }
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
