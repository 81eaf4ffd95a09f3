"""The same ledger on a real PostgreSQL server, started here."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from labelwright.exports import export_parts
from labelwright.ledger import verify
from labelwright.runner import Run, Settings, StateFolder, reopened
from labelwright.streams import Columns
from labelwright.tables import open_source

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
pytestmark = [
    pytest.mark.postgres,
    pytest.mark.skipif(not BINARIES, reason="no PostgreSQL server is installed"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of its own on a free port, as the user postgres when run by root (the server refuses root)."""
    folder = Path("/tmp") / f"labelwright-pg-{os.getpid()}"
    folder.mkdir(mode=0o777)
    as_user = []
    if os.geteuid() == 0:
        as_user = ["runuser", "-u", "postgres", "--"]
        shutil.chown(folder, "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data, binary = folder / "data", BINARIES[-1]
    subprocess.run(
        [*as_user, binary / "initdb", "-D", data, "-U", "tester", "-A", "trust"], check=True, capture_output=True
    )
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    subprocess.run(
        [*as_user, binary / "pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", options, "start"], check=True
    )
    yield f"postgresql+psycopg://tester@127.0.0.1:{port}/postgres"
    subprocess.run([*as_user, binary / "pg_ctl", "-D", data, "-m", "immediate", "stop"], check=True)
    shutil.rmtree(folder)


def test_same_as_sqlite(server: str, reviews: Path, tmp_path: Path) -> None:
    columns = Columns("label", id="rid", truth="true")
    settings = Settings(columns, batch_size=150, budget=3, expert="oracle", classifier="bayes", quality="sgd")
    exports = []
    for state in (StateFolder(tmp_path / "pg", ledger_url=server), StateFolder(tmp_path / "lite")):
        stream = Run(settings, state).over(open_source(reviews))
        next(stream), next(stream)
        stream.close()  # stopped in the middle; the next run goes on
        run = Run(settings, state)
        for _ in run.over(open_source(reviews)):
            pass
        entries = run.ledger.seq
        assert run.repeated == 300
        count, _, findings = verify(run.ledger.engine)
        assert (count, findings) == (entries, [])
        parts = [
            part.drop_columns(["decided_at"]).to_pylist() for part in export_parts(state.history(), everything=True)
        ]
        exports.append((parts, reopened(state).system.learners.classifier.memory.rows.keys.tolist()))
    assert exports[0] == exports[1]


def test_the_queue_serves_nobody_the_same_item_there_either(server: str) -> None:
    import threading

    import numpy as np

    from labelwright.ledger.queue import ExpertQueue
    from labelwright.types import Queries, Rows

    rows = Rows(np.random.default_rng(0).normal(size=(120, 4)), np.zeros(120, np.int64), np.arange(120))
    queries = Queries(rows, np.arange(120.0), np.ones(120, np.int64), np.full(120, 0.7))
    list(ExpertQueue(server, classes=3).ask(queries))
    answered: list[int] = []

    def work(name: str) -> None:
        mine = ExpertQueue(server, classes=3)
        while items := mine.serve(name, 2):
            for item in items:
                assert mine.say(name, item.key, label=item.key % 3) == "taken"
                answered.append(item.key)

    people = [threading.Thread(target=work, args=(f"person {at}",)) for at in range(4)]
    for one in people:
        one.start()
    for one in people:
        one.join()
    assert sorted(answered) == list(range(120))
    assert len(list(ExpertQueue(server, classes=3).collect(queries))) == 120
