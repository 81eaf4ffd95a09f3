"""The same ledger on a real PostgreSQL server, started here."""

from __future__ import annotations

from pathlib import Path

import pytest

from labelwright.exports import export_parts
from labelwright.ledger import verify
from labelwright.runner import Run, Settings, StateFolder, reopened
from labelwright.streams import Columns
from labelwright.tables import open_source

pytestmark = pytest.mark.postgres


@pytest.fixture
def server(postgres: str) -> str:
    return postgres


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


def test_the_page_and_the_loop_share_a_database_there(server: str, tmp_path: Path) -> None:
    pytest.importorskip("fastapi", reason="the page needs the extra 'web'")
    from fastapi.testclient import TestClient
    from helpers import call_cli
    from pages import write_digits

    from labelwright.web.app import create_app
    from labelwright.web.desk import Desk

    write_digits(tmp_path / "digits.parquet", 300)
    models = ("--quality", "linear", "--classifier", "linear", "--ledger", server, "--state", tmp_path / "state")
    options = ("--label", "label", "--truth", "true", "--batch-size", 150, "--first-batch", 150, "--budget", 9)
    assert call_cli("run", tmp_path / "digits.parquet", *options, *models).returncode == 0
    state = StateFolder(tmp_path / "state", ledger_url=server)
    client = TestClient(create_app(Desk(state)), base_url="http://localhost", headers={"x-expert": "ann"})
    item, said = client.get("/api/next").json()["item"], {}
    while item:
        told = client.post("/api/answer", json={"key": item["key"], "label": "seven"}).json()
        said[item["key"]], item = told["message"], told["item"]
    assert len(said) >= 9 and set(said.values()) == {"Saved: seven."}
    for path in ("/", "/grid", "/corrections", "/board", "/disputes", "/guidelines"):
        assert client.get(path).status_code == 200, path
    assert call_cli("run", tmp_path / "digits.parquet", *options, *models).returncode == 0
    answered = {q["key"] for q in state.history().questions() if q["answer"] is not None}
    assert answered == set(said)
