"""One changed byte anywhere in the ledger is found, and its batch named."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from helpers import run_cli, write_reviews

from labelwright.errors import LedgerError
from labelwright.exports import export_parts
from labelwright.ledger import SqlLedger, erase_rows, revert, verify
from labelwright.ledger.schema import metadata, open_engine
from labelwright.runner import Run, Settings, StateFolder, reopened
from labelwright.streams import Columns
from labelwright.tables import open_source

COLUMNS = [(table.name, column.name) for table in metadata.sorted_tables for column in table.columns]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with every kind of entry; its ledger in one file."""
    folder = tmp_path_factory.mktemp("written")
    write_reviews(folder / "r.csv", 500)
    with (folder / "r.csv").open("a") as file:
        file.write("r900,some words,3,Oslo,splendid,good\n")
    columns = Columns("label", id="rid", truth="true")
    settings = Settings(columns, batch_size=100, budget=2, expert="oracle", classifier="linear", buffer=20)
    run = Run(settings, StateFolder(folder / "s"))
    for _ in run.over(open_source(folder / "r.csv")):
        pass
    run.ledger.engine.dispose()
    with sqlite3.connect(folder / "s" / "ledger.db") as plain:
        plain.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        plain.execute("PRAGMA journal_mode=DELETE")
    return folder / "s"


@pytest.fixture
def copy(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "s"))


def findings(state: Path, head: str | None = None) -> list[Any]:
    return verify(open_engine(f"sqlite:///{state / 'ledger.db'}"), head=head)[2]


def test_untouched_is_whole(written: Path) -> None:
    assert findings(written) == []


@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_every_column_is_covered(table: str, column: str, copy: Path) -> None:
    with sqlite3.connect(copy / "ledger.db") as plain:
        rowid = "seq" if table in ("verdicts", "merged", "aside") else "key" if table == "rows" else "rowid"
        (value,) = plain.execute(f"SELECT {column} FROM {table} ORDER BY {rowid} DESC LIMIT 1").fetchone()
        changed: Any = "x" if value is None else value + "x" if isinstance(value, str) else value
        if isinstance(value, bytes):
            changed = value[:-9] + bytes([value[-9] ^ 1]) + value[-8:]
        elif isinstance(value, int | float):
            changed = value + 1
        plain.execute(
            f"UPDATE {table} SET {column} = ? WHERE {rowid} = (SELECT MAX({rowid}) FROM {table}) AND {column} IS ?",
            (changed, value),
        )
        assert plain.total_changes >= 1
    found = findings(copy)
    assert found
    if (table, column) in (
        ("verdicts", "label"),
        ("questions", "value"),
        ("payloads", "data"),
        ("payloads", "digests"),
        ("aside", "reason"),
    ):
        assert any(f.batch and f.batch.startswith("r.csv#") for f in found), found


@pytest.mark.parametrize(
    "table", [table.name for table in metadata.sorted_tables if table.name not in ("snapshots", "payloads")]
)
def test_deleted_rows_are_found(table: str, copy: Path) -> None:
    with sqlite3.connect(copy / "ledger.db") as plain:
        name = "key" if table == "rows" else "seq"
        plain.execute(f"DELETE FROM {table} WHERE {name} = (SELECT MIN({name}) FROM {table})")
    assert findings(copy)


def test_one_byte_of_the_file(copy: Path) -> None:
    path = copy / "ledger.db"
    raw = bytearray(path.read_bytes())
    at = raw.rfind(b"quality model")
    raw[at] ^= 1
    path.write_bytes(bytes(raw))
    done = run_cli("verify", "--state", copy)
    assert done.returncode == 1 and "batch 'r.csv#" in done.stdout and "Traceback" not in done.stderr


def test_a_cut_end_is_found_by_the_noted_head(copy: Path) -> None:
    head = verify(open_engine(f"sqlite:///{copy / 'ledger.db'}"))[1]
    with sqlite3.connect(copy / "ledger.db") as plain:
        (last,) = plain.execute("SELECT MAX(seq) FROM entries").fetchone()
        for table in metadata.sorted_tables:
            plain.execute(f"DELETE FROM {table.name} WHERE seq = ?", (last,))
    assert findings(copy) == []
    assert "cut off" in str(findings(copy, head)[0])


def test_revert_by_decider_and_models_forget(copy: Path) -> None:
    place = StateFolder(copy)
    before = place.history().corrections(decider="posterior")
    assert before
    keys = {c["key"] for c in before}
    assert keys & set(reopened(place).system.learners.classifier.memory.rows.keys.tolist())
    ledger = SqlLedger(place.url, settings=place.history().settings)
    assert len(revert(ledger, decider="posterior", who="ann")) == len(before)
    assert place.history().corrections(decider="posterior") == []
    assert not keys & set(reopened(place).system.learners.classifier.memory.rows.keys.tolist())
    rows = {
        r["id"]: r
        for part in export_parts(place.history())
        for r in part.select(["id", "given_label", "final_label", "decided_by"]).to_pylist()
    }
    assert all(
        rows[c["id"]]["final_label"] == c["given_label"] and rows[c["id"]]["decided_by"] == "revert by ann"
        for c in before
    )
    assert findings(copy) == []


def test_erased_content_is_gone_and_the_chain_holds(copy: Path) -> None:
    place = StateFolder(copy)
    number = place.history().find("r7")[0] >> 32
    assert place.history().table(number).to_pylist()[7]["review"] is not None
    assert erase_rows(SqlLedger(place.url, settings=place.history().settings), ["r7"]) == 1
    assert set(place.history().table(number).to_pylist()[7].values()) == {None}
    assert findings(copy) == []
    assert reopened(place).system.learners.fitted


def test_an_older_ledger_is_migrated_and_a_newer_one_refused(copy: Path) -> None:
    with sqlite3.connect(copy / "ledger.db") as plain:
        plain.execute("DROP INDEX ix_entries_batch")
        plain.execute("UPDATE alembic_version SET version_num = 'r0001'")
    settings = StateFolder(copy).history().settings
    assert SqlLedger(StateFolder(copy).url, settings=settings).migrated
    assert not SqlLedger(StateFolder(copy).url, settings=settings).migrated
    assert findings(copy) == []
    with sqlite3.connect(copy / "ledger.db") as plain:
        plain.execute("UPDATE alembic_version SET version_num = 'r9999'")
    with pytest.raises(LedgerError, match="newer version"):
        SqlLedger(StateFolder(copy).url, settings=settings)
