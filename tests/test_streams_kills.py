"""SIGKILLs of a run over a stream at random moments: the export is that of an undisturbed run, but for timestamps."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pytest
from stream_help import Kafka, Redis, kafka_cluster, messages, redis_server

from labelwright.exports import export_parts
from labelwright.ledger import verify
from labelwright.runner import StateFolder
from labelwright.streaming import Taken

SERVER: subprocess.Popen[str]
CHILD = Path(__file__).parent / "stream_child.py"


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    """What runs the children."""
    global SERVER
    command = [sys.executable, str(CHILD), "--serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as SERVER:
        yield
        assert SERVER.stdin is not None
        SERVER.stdin.close()


def child(address: str, state: Path, *options: object) -> int:
    assert SERVER.stdin is not None and SERVER.stdout is not None
    SERVER.stdin.write(json.dumps([address, str(state), *map(str, options)]) + "\n")
    SERVER.stdin.flush()
    code = int(SERVER.stdout.readline())
    assert code in (0, -9)
    return code


def outcome(state: Path) -> tuple[Any, ...]:
    """The export less its timestamps, what was set aside, where the stream stands; and that the chain holds."""
    history = StateFolder(state).history()
    assert verify(history.engine)[2] == []
    table = pa.concat_tables(list(export_parts(history, everything=True)), promote_options="permissive")
    aside = [(bad["batch"], bad["position"], bad["id"], bad["reason"]) for bad in history.set_aside()]
    taken = Taken.of(StateFolder(state))
    return table.drop_columns(["decided_at"]).to_pylist(), aside, taken.messages, taken.position


def lies(n: int, seed: int = 0) -> list[bytes]:
    """What brokers do: duplicates, a message sent again with other content, another order, and poison."""
    rng = np.random.default_rng(seed)
    rows = messages(n)
    rows += [rows[at] for at in rng.integers(0, n, n // 10)]
    rows += [rows[at].replace(b'"a": ', b'"a": 1') for at in rng.integers(0, n, 5)]
    order = np.argsort(np.arange(len(rows)) + rng.uniform(0, 60, len(rows)))
    rows = [rows[at] for at in order]
    for at in rng.integers(150, len(rows), 8):
        rows.insert(int(at), bytes(rng.choice([b"", b"{", b"[1]", b"\xff\xfe", b'{"id": "x", "label": "good"}'])))
    return rows


def killed(address: str, tmp_path: Path, kills: int, *options: object, seed: int = 1) -> None:
    assert child(address, tmp_path / "calm", *options) == 0
    expected = outcome(tmp_path / "calm")
    rng, died, state = np.random.default_rng(seed), 0, tmp_path / "shaken-0"
    while died < kills:
        code = child(address, state, *options, *moment(rng))
        died += code == -9
        if code == 0:  # finished before the kill: begin another
            assert outcome(state) == expected
            state = tmp_path / f"shaken-{rng.integers(1 << 30)}"
    assert child(address, state, *options) == 0
    assert outcome(state) == expected


def moment(rng: np.random.Generator) -> list[object]:
    """When to die: while it starts, or a moment after one of the next deliveries."""
    count = int(rng.integers(0, 5))
    return ["--deliveries", count, "--after", rng.uniform(0, 0.2 if count else 0.4)]


@pytest.fixture
def redis(tmp_path: Path) -> Any:
    with redis_server(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def kafka() -> Any:
    with kafka_cluster() as cluster:
        yield cluster


def test_redis_three_kills(redis: Redis, tmp_path: Path) -> None:
    redis.add("rows", lies(900))
    killed(f"{redis.url}/rows", tmp_path, 3)


def test_kafka_three_kills(kafka: Kafka, tmp_path: Path) -> None:
    kafka.add("rows", lies(900), partitions=3)
    killed(f"kafka://{kafka.servers}/rows", tmp_path, 3)


def test_folder_three_kills(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for at in range(4):
        rows = [json.loads(row) for row in messages(230, start=230 * at)]
        flat = [{"rid": row["id"], "label": row["label"], "city": row["source"], **row["features"]} for row in rows]
        pacsv.write_csv(pa.Table.from_pylist(flat), folder / f"part-{at}.csv")
    (folder / "part-2b.parquet").write_bytes(b"PAR1 but not whole")
    killed(f"folder://{folder}", tmp_path, 3)


def test_killed_while_messages_still_come(redis: Redis, tmp_path: Path) -> None:
    """Batches by rows of one stream: what a batch holds does not hang on when it was read."""
    rows = messages(960)
    redis.add("calm", rows)
    assert child(f"{redis.url}/calm", tmp_path / "calm") == 0

    def produce() -> None:
        for start in range(0, len(rows), 24):
            redis.add("rows", rows[start : start + 24])
            time.sleep(0.15)

    producer = threading.Thread(target=produce)
    producer.start()
    rng = np.random.default_rng(5)
    for _ in range(2):
        child(f"{redis.url}/rows", tmp_path / "live", "--until", len(rows), *moment(rng))
    assert child(f"{redis.url}/rows", tmp_path / "live", "--until", len(rows)) == 0
    producer.join()
    assert outcome(tmp_path / "live")[0] == outcome(tmp_path / "calm")[0]


def test_a_group_through_kills_has_each_row_once(redis: Redis, tmp_path: Path) -> None:
    """A consumer group delivers again what was not acknowledged: each row is in the ledger once all the same."""
    rows = lies(600)
    redis.add("rows", rows)
    address, state = f"{redis.url}/rows?group=cleaners&consumer=one", tmp_path / "group"
    rng, died = np.random.default_rng(2), 0
    while died < 3 and child(address, state, *moment(rng)) == -9:
        died += 1
    assert child(address, state) == 0
    export, aside, _, _ = outcome(state)
    ids = [row["id"] for row in export]
    assert sorted(ids) == sorted({f"r{i}" for i in range(600)})
    unnamed = [name for _, _, name, _ in aside if name.startswith("rows@")]
    assert unnamed and len(set(unnamed)) == len(unnamed)
    assert redis.client.xpending("rows", "cleaners")["pending"] == 0


@pytest.mark.soak
def test_redis_fifty_kills(redis: Redis, tmp_path: Path) -> None:
    redis.add("rows", lies(3000))
    killed(f"{redis.url}/rows", tmp_path, 50, seed=3)


@pytest.mark.soak
def test_kafka_fifty_kills(kafka: Kafka, tmp_path: Path) -> None:
    kafka.add("rows", lies(3000), partitions=3)
    killed(f"kafka://{kafka.servers}/rows", tmp_path, 50, seed=4)
