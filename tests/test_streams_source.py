"""Sources: how deliveries are cut, growing folders, brokers that go away and come back."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from helpers import call_cli
from stream_help import kafka_cluster, messages, redis_server

from labelwright.errors import DataError, SettingsError, SourceError
from labelwright.runner import Settings, StateFolder
from labelwright.streaming import Going, StreamRun, standing
from labelwright.streams import Columns
from labelwright.streams.address import open_stream, shown
from labelwright.streams.folder import FolderSource
from labelwright.streams.kafka import KafkaSource
from labelwright.streams.redis import RedisSource
from labelwright.streams.source import Delivery, Lag, Piece, Position, deliveries


class Listed:
    """A source of rows that come in given portions."""

    name = "listed"

    def __init__(self, portions: Sequence[Sequence[bytes]], *, forever: bool = False):
        self.portions, self.forever, self.asked, self.at = [*portions], forever, list[int](), 0

    def open(self, position: Position, *, follow: bool) -> None: ...

    def fetch(self, limit: int, wait: float) -> list[Piece]:
        self.asked.append(limit)
        if not self.portions:
            return []
        rows = list(self.portions.pop(0))
        self.at += len(rows)
        places = range(self.at - len(rows) + 1, self.at + 1)
        return [Piece("p", places, [f"p@{place - 1}" for place in places], rows)]

    def ended(self) -> bool:
        return not self.portions and not self.forever

    def lag(self) -> Lag:
        return Lag(sum(map(len, self.portions)))

    def done(self, pieces: Sequence[Piece]) -> None: ...

    def notes(self) -> list[str]:
        return []

    def close(self) -> None: ...


def sizes(found: Sequence[Delivery]) -> list[int]:
    return [len(delivery) for delivery in found]


def test_deliveries_are_cut_by_rows_however_they_come() -> None:
    for portions in ([[b"x"] * 25], [[b"x"]] * 25, [[b"x"] * 7, [b"x"] * 18]):
        found = list(deliveries(Listed(portions), rows=lambda: 10))
        assert sizes(found) == [10, 10, 5]
        assert [d.position for d in found] == [{"p": 10}, {"p": 20}, {"p": 25}]


def test_deliveries_are_cut_by_seconds() -> None:
    clock = iter(range(1000))
    source = Listed([[b"x"], [b"x"], [b"x"]], forever=True)
    first = next(deliveries(source, rows=lambda: 10, seconds=3, clock=lambda: float(next(clock))))
    assert 1 <= len(first) < 10


def test_deliveries_are_cut_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labelwright.streams.source.MOST_BYTES", 100)
    for portions in ([[b"x" * 40] * 5], [[b"x" * 40]] * 5):
        assert sizes(list(deliveries(Listed(portions), rows=lambda: 10))) == [2, 2, 1]
    assert sizes(list(deliveries(Listed([[b"x" * 400] * 2]), rows=lambda: 10))) == [1, 1], "a huge message alone"


def test_never_more_is_asked_for_than_a_batch_holds() -> None:
    source = Listed([[b"x"] * 4] * 5)
    list(deliveries(source, rows=lambda: 10))
    assert max(source.asked) == 10 and 6 in source.asked


def test_a_stop_leaves_what_is_no_whole_delivery_with_the_source() -> None:
    source, stop = Listed([[b"x"] * 10, [b"x"] * 4], forever=True), False
    found = deliveries(source, rows=lambda: 10, stop=lambda: stop)
    assert len(next(found)) == 10
    stop = True
    assert list(found) == []


# ------------------------------------------------------------ folders


def rows_of(n: int, start: int = 0) -> pa.Table:
    told = [json.loads(row) for row in messages(n, start=start)]
    return pa.Table.from_pylist(
        [{"rid": t["id"], "label": t["label"], "city": t["source"], **t["features"]} for t in told]
    )


def fetched(source: Any, rows: int, seconds: float = 5.0) -> list[str]:
    """Names of the rows that come, until there are so many or nothing more comes in time."""
    names, end = list[str](), time.monotonic() + seconds
    while len(names) < rows and time.monotonic() < end and not source.ended():
        for piece in source.fetch(rows - len(names), 0.05):
            names += piece.names[: len(piece)]
    return names


def test_a_folder_grows(tmp_path: Path) -> None:
    source = FolderSource(tmp_path, settle=0.05, patience=0.4)
    source.open({}, follow=True)
    assert source.fetch(10, 0.0) == []
    pq.write_table(rows_of(3), tmp_path / "b.parquet")
    pacsv.write_csv(rows_of(2), tmp_path / ".hidden.csv")
    pacsv.write_csv(rows_of(2), tmp_path / "c.csv.tmp")
    assert fetched(source, 3) == ["b.parquet:0", "b.parquet:1", "b.parquet:2"]
    (tmp_path / "c.csv.tmp").rename(tmp_path / "c.csv")
    pacsv.write_csv(rows_of(1), tmp_path / "a.csv")
    assert sorted(fetched(source, 3)) == ["a.csv:0", "c.csv:0", "c.csv:1"], "also names that come before those read"
    with (tmp_path / "c.csv").open("ab") as file:
        pacsv.write_csv(rows_of(2, start=2), file, pacsv.WriteOptions(include_header=False))
    assert fetched(source, 2) == ["c.csv:2", "c.csv:3"], "a file that grows is read on"


def test_a_half_written_file_waits_and_is_set_aside_in_the_end(tmp_path: Path) -> None:
    whole = tmp_path / "w"
    pq.write_table(rows_of(50), whole)
    data = whole.read_bytes()
    source = FolderSource(tmp_path, settle=0.05, patience=1.0)
    source.open({}, follow=True)
    (tmp_path / "a.parquet").write_bytes(data[: len(data) // 2])
    (tmp_path / "b.csv").write_text("rid,label\nr1,good\nr2,ba")
    assert fetched(source, 1, seconds=0.4) == []
    (tmp_path / "a.parquet").write_bytes(data)
    (tmp_path / "b.csv").write_text("rid,label\nr1,good\nr2,bad\n")
    assert len(fetched(source, 52)) == 52
    (tmp_path / "d.parquet").write_bytes(b"PAR1 never whole")
    end = time.monotonic() + 5
    while not (pieces := source.fetch(5, 0.1)) and time.monotonic() < end:
        pass
    ((_, name, reason, _),) = pieces[0].bad
    assert name == "d.parquet" and "is not a complete Parquet file" in reason
    assert source.fetch(5, 0.1) == [], "once"
    pq.write_table(rows_of(2), tmp_path / "d.parquet")
    assert fetched(source, 2) == ["d.parquet:0", "d.parquet:1"], "mended"


def test_a_folder_goes_on_after_its_position(tmp_path: Path) -> None:
    pq.write_table(rows_of(10), tmp_path / "a.parquet")
    pq.write_table(rows_of(10, start=10), tmp_path / "b.parquet")
    source = FolderSource(tmp_path)
    source.open({}, follow=False)
    found = list(deliveries(source, rows=lambda: 7))
    assert sizes(found) == [7, 7, 6]
    for read in range(4):
        position: Position = {}
        for delivery in found[:read]:
            position |= delivery.position
        again = FolderSource(tmp_path)
        again.open(json.loads(json.dumps(position)), follow=False)
        assert again.lag().rows == 20 - min(7 * read, 20)
        assert fetched(again, 20, seconds=1) == [n for d in found[read:] for p in d.pieces for n in p.names]


# ------------------------------------------------------------ brokers


def run_of(state: Path, parse: Any, batch: int = 50) -> StreamRun:
    columns = Columns("label", id="id", source="source", drop=("true",))
    settings = Settings(columns, batch, quality="bayes", classifier="bayes", expert="none", watch_sources=True)
    return StreamRun(settings, StateFolder(state), parse=parse)


def until_taken(run: StreamRun, messages: int) -> None:
    """Wait until the run has taken so many."""
    end = time.monotonic() + 60
    while time.monotonic() < end and not (hasattr(run, "taken") and run.taken.messages >= messages):
        time.sleep(0.05)
    time.sleep(0.3)


def followed(address: str, state: Path, until: int, *, meanwhile: Any) -> StreamRun:
    """Follow a stream until so many messages were taken; ``meanwhile`` runs beside it."""
    source, parse = open_stream(address)
    run, end = run_of(state, parse), time.monotonic() + 60
    beside = threading.Thread(target=lambda: (until_taken(run, 200), meanwhile()))
    beside.start()
    going = Going(True, stop=lambda: time.monotonic() > end or (hasattr(run, "taken") and run.taken.messages >= until))
    for _ in run.through(source, going):
        pass
    beside.join()
    assert run.taken.messages == until
    return run


def test_redis_goes_and_comes_back(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis") as redis:
        redis.add("rows", messages(200))

        def trouble() -> None:
            redis.stop()
            time.sleep(1.0)
            redis.start()
            redis.add("rows", messages(200, start=200))

        followed(f"{redis.url}/rows", tmp_path / "state", 400, meanwhile=trouble)
        told = standing(StateFolder(tmp_path / "state"))
        assert told is not None and told["messages"] == 400 and told["behind"] == 0
        assert any("Redis cannot be reached" in note for note in told["notes"])
        assert any("Redis is back" in note for note in told["notes"])


def test_kafka_is_frozen_and_thaws(tmp_path: Path) -> None:
    with kafka_cluster() as kafka:
        kafka.add("rows", messages(200), partitions=2)

        def trouble() -> None:
            kafka.freeze()
            time.sleep(2.0)
            kafka.thaw()
            kafka.add("rows", messages(200, start=200), partitions=2)

        followed(f"kafka://{kafka.servers}/rows", tmp_path / "state", 400, meanwhile=trouble)


def test_a_stream_made_anew_is_refused_and_deleted_entries_are_told(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis") as redis:
        redis.add("rows", messages(100))
        source = RedisSource(redis.url, "rows")
        source.open({}, follow=False)
        position = {"redis:rows": source.fetch(30, 0.1)[0].places[-1]}
        redis.client.xtrim("rows", maxlen=50, approximate=False)
        source = RedisSource(redis.url, "rows")
        source.open(position, follow=False)
        assert source.notes() == ["20 entries of the stream 'rows' were deleted before they were read; trim it later"]
        assert len(fetched(source, 100, seconds=1)) == 50
        with pytest.raises(SourceError, match="was made anew or came back without its latest entries"):
            RedisSource(redis.url, "rows").open({"redis:rows": ["9999999999999-0", 100]}, follow=False)
        with pytest.raises(SourceError, match="there is no stream 'none' at this Redis"):
            RedisSource(redis.url, "none").open({}, follow=False)
    with pytest.raises(SourceError, match=r"Redis cannot be reached .* check that it runs"):
        RedisSource(redis.url, "rows", patience=0.2).open({}, follow=False)


def test_kafka_that_is_not_there_or_was_made_anew() -> None:
    with kafka_cluster() as kafka:
        kafka.add("rows", messages(20))
        source = KafkaSource(kafka.servers, "rows")
        source.open({"kafka:rows[0]": 15}, follow=False)
        assert fetched(source, 20, seconds=20) == [f"rows[0]@{at}" for at in range(15, 20)]
        source.close()
        with pytest.raises(SourceError, match="but the ledger has read up to 99: the topic was made anew"):
            KafkaSource(kafka.servers, "rows").open({"kafka:rows[0]": 99}, follow=False)
    with pytest.raises(SourceError, match="check that the brokers run"):
        KafkaSource(kafka.servers, "rows", connect=0.3).open({}, follow=False)


def test_addresses() -> None:
    for address, reason in (
        ("redis://localhost:6379/", "names no stream"),
        ("redis://localhost/x/y", "names no stream"),
        ("kafka://localhost:9092/", "names no topic"),
        ("kafka://localhost:9092/t?colour=red", "unknown option 'colour'"),
        ("kafka://localhost:9092/t?format=xml", "the format 'xml' is unknown"),
        ("kafka://localhost:9092/t?config=/nowhere", "cannot be read"),
        ("folder:///tmp?settle=soon", "no number of seconds"),
    ):
        with pytest.raises(SettingsError, match=reason):
            open_stream(address)
    assert "secret" not in shown("redis://:secret@host:6379/0/rows")


# ------------------------------------------------------------ the command line


def test_run_status_and_a_graceful_end(tmp_path: Path) -> None:
    state, folder = tmp_path / "state", tmp_path / "in"
    folder.mkdir()
    pq.write_table(rows_of(300).append_column("extra", pa.array(range(300))), folder / "a.parquet")
    pq.write_table(rows_of(100, start=300), folder / "b.parquet")
    pq.write_table(rows_of(5, start=400).drop_columns(["label"]), folder / "c.parquet")
    options = ["--label", "label", "--id", "rid", "--source-column", "city", "--drop", "true", "--batch-size", "100"]
    options += ["--expert", "none", "--quality", "bayes", "--classifier", "bayes", "--state", str(state)]
    options += ["--no-report", "--batch-seconds", "1", "--follow", f"folder://{folder}?settle=0.1"]
    code = "from labelwright.cli import main; main()"
    child = subprocess.Popen(
        [sys.executable, "-c", code, "run", *options], stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    end = time.monotonic() + 60
    while time.monotonic() < end:
        told = standing(StateFolder(state)) if (state / "ledger.db").exists() else None
        if told and told["messages"] == 405:
            break
        time.sleep(0.2)
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 0, err.decode()
    answer = json.loads(call_cli("status", "--state", state, "--json").stdout)
    assert answer["set_aside"] == 5 and answer["trusted"] + answer["rescued"] + answer["rejected"] <= 400
    stream = answer["stream"]
    assert (stream["state"], stream["messages"], stream["behind"], stream["source"]) == ("stopped", 405, 0, "in")
    assert "column 'extra' is missing: empty" in stream["notes"]
    assert set(stream["sources"]) == {"s0", "s1", "s2"}
    text = call_cli("status", "--state", state).stdout
    assert "405 messages taken, behind by 0 rows" in text and "no column 'label'" in text


def test_an_empty_stream_and_one_of_poison_only(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match="holds no rows"):
        list(run_of(tmp_path / "a", None).through(FolderSource(tmp_path / "in"), Going()))
    with pytest.raises(DataError, match="no usable row among the first 2: message: not JSON"):
        list(run_of(tmp_path / "b", open_stream("redis://h/0/s")[1]).through(Listed([[b"?", b"!"]]), Going()))
