"""Brokers for the stream tests: Debian's Redis, and librdkafka's mock cluster, each in a process of its own."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest


def messages(n: int, *, noise: float = 0.3, seed: int = 0, start: int = 0, sources: int = 3) -> list[bytes]:
    """Readings as messages, labels flipped, true ones beside them for simulated experts."""
    rng = np.random.default_rng([seed, start])
    out, centre = [], {"good": 0.0, "bad": 2.5, "meh": 5.0}
    for i in range(start, start + n):
        true = str(rng.choice(list(centre)))
        a, b = (round(float(value), 3) for value in rng.normal(centre[true], 1.0, 2))
        given = str(rng.choice([c for c in centre if c != true])) if rng.random() < noise else true
        features = {"a": a, "b": b, "true": true}
        out.append(
            json.dumps({"id": f"r{i}", "label": given, "source": f"s{i % sources}", "features": features}).encode()
        )
    return out


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Redis:
    """A Redis server of the tests' own, with its data on disk so that it can go and come back."""

    def __init__(self, folder: Path):
        self.folder, self.port = folder, free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        import redis

        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        command += ["--appendonly", "yes", "--appendfsync", "always", "--save", "", "--loglevel", "warning"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.client: Any = redis.Redis.from_url(self.url)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(redis.ConnectionError):
                if self.client.ping():
                    return
            time.sleep(0.02)
        raise AssertionError("redis-server did not start")

    def stop(self) -> None:
        self.client.close()
        self.process.kill()
        self.process.wait()

    def add(self, stream: str, rows: Sequence[bytes]) -> None:
        pipe = self.client.pipeline(transaction=False)
        for row in rows:
            pipe.xadd(stream, {"message": row})
        pipe.execute()


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[Redis]:
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server is installed")
    pytest.importorskip("redis")
    folder.mkdir(parents=True, exist_ok=True)
    server = Redis(folder)
    try:
        yield server
    finally:
        server.stop()


MOCK = """
import sys, time
from confluent_kafka import Producer
p = Producer({"test.mock.num.brokers": int(sys.argv[1]), "bootstrap.servers": "mock", "log_level": 0})
print(",".join(f"{b.host}:{b.port}" for b in p.list_topics(timeout=10).brokers.values()), flush=True)
sys.stdin.read()
"""


class Kafka:
    """A mock cluster in a process of its own. It can be frozen, as a broker that does not answer."""

    def __init__(self, brokers: int = 1):
        command = [sys.executable, "-c", MOCK, str(brokers)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.servers = self.process.stdout.readline().strip()

    def add(self, topic: str, rows: Sequence[bytes], *, partitions: int = 1) -> None:
        from confluent_kafka import Producer

        producer = Producer({"bootstrap.servers": self.servers, "linger.ms": 5, "log_level": 0})
        producer.list_topics(topic, timeout=10)
        for at, row in enumerate(rows):
            producer.produce(topic, row, partition=at % partitions)
            if at % 10_000 == 0:
                producer.poll(0)
        assert producer.flush(30) == 0

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        self.thaw()
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def kafka_cluster(brokers: int = 1) -> Iterator[Kafka]:
    pytest.importorskip("confluent_kafka")
    cluster = Kafka(brokers)
    try:
        yield cluster
    finally:
        cluster.stop()
