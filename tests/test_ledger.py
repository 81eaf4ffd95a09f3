"""The ledger under attack, and what may be changed on the record: every edit is found, erasing leaves the chain whole."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import call_cli, write_reviews

from labelwright.errors import DataError
from labelwright.exports import explain, export_parts, open_questions, write_questions
from labelwright.judging import judge_of, predictions
from labelwright.ledger import SqlLedger, erase_rows, revert, verify
from labelwright.ledger.schema import metadata, open_engine
from labelwright.runner import Run, Settings, StateFolder, reopened
from labelwright.streams import Columns
from labelwright.tables import open_source

SETTINGS = Settings(
    Columns("label", id="rid", truth="true"),
    batch_size=100, budget=2, expert="oracle", classifier="linear", quality="sgd", buffer=20,
)  # fmt: skip
SECRET = "Zaphod Beeblebrox"


def go(csv: Path, state: Path) -> Run:
    run = Run(SETTINGS, StateFolder(state))
    for _ in run.over(open_source(csv)):
        pass
    return run


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with r.csv and, in ``s``, the state of a run with questions, buffer, corrections, rows set aside, a
    revert and an erased row; its ledger is in one file."""
    folder = tmp_path_factory.mktemp("ledger")
    write_reviews(folder / "r.csv", 400)
    with (folder / "r.csv").open("a") as file:
        file.write(f"r900,{SECRET} one,3,Oslo,splendid,good\nr901,other words,4,Oslo,horrid,good\n")
    run = go(folder / "r.csv", folder / "s")
    assert revert(run.ledger, batch="r.csv#1", decider="posterior") and erase_rows(run.ledger, ["r3"]) == 1
    run.ledger.engine.dispose()
    with sqlite3.connect(folder / "s" / "ledger.db") as plain:
        plain.execute("PRAGMA journal_mode=DELETE")
    return folder


@pytest.fixture
def state(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written / "s", tmp_path / "s"))


def findings(state: Path, head: str | None = None) -> list[Any]:
    return verify(open_engine(f"sqlite:///{state / 'ledger.db'}"), head=head)[2]


def sql(state: Path, *statements: str) -> int:
    with sqlite3.connect(state / "ledger.db") as plain:
        for statement in statements:
            plain.execute(statement)
        return plain.total_changes


def test_an_honest_ledger_is_whole(written: Path) -> None:
    assert findings(written / "s") == []
    history = StateFolder(written / "s").history()
    assert len(history.set_aside()) == 2 and history.totals()["questions"] == 8


EDITS = {
    "rows": ("id = id || 'x'", "key"),
    "verdicts": ("score = score + 0.001", "seq"),
    "questions": ("why = 'other'", "seq"),
    "answers": ("label = 1 - label", "seq"),
    "merged": ("answer = answer + 1000", "seq"),
    "aside": ("reason = 'none'", "seq"),
    "entries": ("body = replace(body, 'rows', 'rowz')", "seq"),
    "snapshots": ("data = data || x'00'", "seq"),
    "payloads": ("data = substr(data, 1, length(data) - 20)", "seq"),
}


@pytest.mark.parametrize("table", EDITS)
def test_an_edit_names_its_batch(table: str, state: Path) -> None:
    """An edited row of every table, one that belongs to a batch."""
    change, order = EDITS[table]
    wanted = "kind IN ('batch', 'commit', 'answer', 'aside')"
    seqs = f"(SELECT {order} FROM {table} WHERE seq IN (SELECT seq FROM entries WHERE {wanted}) ORDER BY {order} DESC LIMIT 1)"
    if table == "entries":
        seqs = "(SELECT max(seq) FROM entries WHERE kind = 'batch')"
    assert sql(state, f"UPDATE {table} SET {change} WHERE {order} IN {seqs}") >= 1
    found = findings(state)
    assert found and any(f.batch and f.batch.startswith("r.csv#") for f in found), found


@pytest.mark.parametrize("table", [table.name for table in metadata.sorted_tables])
def test_every_deleted_row_is_found(table: str, state: Path) -> None:
    """One by one, with the newest and the oldest row: the encoder and either kept snapshot too."""
    copy = state.parent / "copy"
    for which in ("min", "max"):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(state, copy)
        assert sql(copy, f"DELETE FROM {table} WHERE seq = (SELECT {which}(seq) FROM {table})") >= 1
        if (table, which) != ("entries", "max"):  # a cut end needs the noted head, see test_tamper
            assert findings(copy), which


ADDED = {
    "rows": "(12345678901234, 'x', {seq})",
    "verdicts": "({seq}, 1, 0, 0, 0, 0.5, 0.5, 'me')",
    "questions": "({seq}, 1, 0.1, 0, 0.5, 'margin')",
    "answers": "({other}, 1, 0, 'me', 1.0)",
    "merged": "({seq}, 99999)",
    "aside": "({seq}, 99, 'x', 'y', 'z')",
    "snapshots": "({seq}, x'00')",
    "payloads": "(77, {seq}, x'00', x'00')",
    "entries": "({next}, 'note', NULL, NULL, '2020', '{{}}', '', 'abc')",
}


@pytest.mark.parametrize("table", ADDED)
@pytest.mark.parametrize("seq", ["SELECT max(seq) FROM entries WHERE kind = 'batch'", "SELECT 9999"])
def test_every_added_row_is_found(table: str, seq: str, state: Path) -> None:
    values = ADDED[table].format(seq=f"({seq})", other=f"({seq})", next="(SELECT max(seq) + 1 FROM entries)")
    assert sql(state, f"INSERT INTO {table} SELECT * FROM (VALUES {values})") == 1
    assert findings(state)


@pytest.mark.parametrize(("table", "column"), [("payloads", "data"), ("payloads", "digests"), ("snapshots", "data")])
@pytest.mark.parametrize("place", [0.0, 0.5, 0.999])
def test_one_byte_of_a_blob(table: str, column: str, place: float, state: Path) -> None:
    with sqlite3.connect(state / "ledger.db") as plain:
        number, raw = plain.execute(f"SELECT seq, {column} FROM {table} ORDER BY seq DESC LIMIT 1").fetchone()
        at = int(place * len(raw))
        plain.execute(
            f"UPDATE {table} SET {column} = ? WHERE seq = ?", (raw[:at] + bytes([raw[at] ^ 4]) + raw[at + 1 :], number)
        )
    assert findings(state)


def test_bytes_of_text_in_the_file(state: Path) -> None:
    path = state / "ledger.db"
    whole = path.read_bytes()
    for word in (b"splendid", b"oracle", b"margin", b"r399", b"quality model", b'"temperature"'):
        raw = bytearray(whole)
        at = raw.rfind(word)
        assert at > 0, word
        raw[at] ^= 1
        path.write_bytes(bytes(raw))
        assert findings(state), word


def test_revert_by_row_class_and_batch_and_drop(state: Path, tmp_path: Path) -> None:
    place = StateFolder(state)
    ledger = SqlLedger(place.url, settings=place.history().settings)
    changed = place.history().corrections()
    one = changed[0]
    assert [c["id"] for c in revert(ledger, row=one["id"], who="ann")] == [one["id"]]
    assert "ann took the correction back" in " ".join(explain(place.history(), one["id"]))
    rest = place.history().corrections()
    by_class = [c["id"] for c in rest if c["final_label"] == "good"]
    assert by_class and [c["id"] for c in revert(ledger, label="good", drop=True)] == by_class
    rows = {row["id"]: row for part in export_parts(place.history(), everything=True) for row in part.to_pylist()}
    assert {rows[i]["verdict"] for i in by_class} == {"rejected"} and {rows[i]["final_label"] for i in by_class} == {
        None
    }
    batch = place.history().corrections()[0]["batch"]
    assert {c["batch"] for c in revert(ledger, batch=batch)} == {batch}
    assert all(c["batch"] != batch for c in place.history().corrections())
    with pytest.raises(DataError, match="no correction matches"):
        revert(ledger, batch=batch)
    with pytest.raises(DataError, match="nothing says what to revert"):
        revert(ledger)
    assert findings(state) == []


def test_models_forget_what_was_reverted_when_the_run_goes_on(state: Path, tmp_path: Path) -> None:
    place = StateFolder(state)
    ledger = SqlLedger(place.url, settings=place.history().settings)
    gone = {c["key"] for c in revert(ledger, decider="posterior")}
    write_reviews(tmp_path / "more.csv", 100, start=400)
    run = go(tmp_path / "more.csv", state)
    for learner in run.system.learners:
        assert not gone & set(learner.memory.rows.keys.tolist())
    assert findings(state) == [] and len(run.history.batches()) == 5


def test_erased_content_leaves_no_byte_behind(written: Path, tmp_path: Path) -> None:
    """A judged row, a question's row and a row that was set aside; nothing of them is left in any file of the state."""
    write_reviews(tmp_path / "r.csv", 200)
    lines = (tmp_path / "r.csv").read_text().splitlines()
    lines[5] = f"r4,{SECRET} two,3,Oslo,good,good"
    lines += [f"r900,{SECRET} three,3,Oslo,splendid,good"]
    (tmp_path / "r.csv").write_text("\n".join(lines) + "\n")
    run = go(tmp_path / "r.csv", tmp_path / "s")
    head = run.ledger.head
    assert erase_rows(run.ledger, ["r4", "r900"]) == 2
    held = b"".join(path.read_bytes() for path in sorted((tmp_path / "s").iterdir()))
    assert SECRET.encode() not in held
    assert verify(run.ledger.engine, head=head)[2] == []
    assert run.history.set_aside()[0]["content"] == "(erased)"
    number = run.history.find("r4")[0] >> 32
    assert set(run.history.table(number).to_pylist()[4].values()) == {None}
    rows = {row["id"]: row for part in export_parts(run.history, everything=True) for row in part.to_pylist()}
    assert rows["r4"]["review"] is None and rows["r4"]["given_label"] == "good" and rows["r5"]["review"]
    again = go(tmp_path / "r.csv", tmp_path / "s")  # the erased rows come again and are not taken in again
    assert again.repeated == 200 and SECRET.encode() not in (tmp_path / "s" / "ledger.db").read_bytes()
    write_reviews(tmp_path / "more.csv", 100, start=300)
    run = go(tmp_path / "more.csv", tmp_path / "s")
    assert (
        next(predictions(judge_of(reopened(StateFolder(tmp_path / "s"))), open_source(tmp_path / "more.csv"))).num_rows
        == 100
    )
    assert verify(run.ledger.engine)[2] == []
    with pytest.raises(DataError, match="none of the rows"):
        erase_rows(run.ledger, ["nobody"])


def test_nobody_is_asked_about_an_erased_row(tmp_path: Path) -> None:
    write_reviews(tmp_path / "r.csv", 100)
    run = Run(
        Settings(Columns("label", id="rid"), batch_size=100, budget=4, classifier="bayes"), StateFolder(tmp_path / "s")
    )
    for _ in run.over(open_source(tmp_path / "r.csv")):
        pass
    asked = [q["id"] for q in open_questions(run.history)]
    write_questions(run.history, tmp_path / "s" / "questions.csv")
    assert len(asked) == 4 and call_cli("erase", asked[0], "--state", tmp_path / "s").returncode == 0
    assert [q["id"] for q in open_questions(run.history)] == asked[1:]
    assert f"{asked[0]}," not in (tmp_path / "s" / "questions.csv").read_text()


def test_what_was_erased_cannot_be_slipped_in_again(state: Path) -> None:
    """The content of a row set aside: changed, erased on the record, and changed after that."""
    place = StateFolder(state)
    erase_rows(SqlLedger(place.url, settings=place.history().settings), ["r900"])
    assert findings(state) == []
    sql(state, "UPDATE aside SET content = 'forged' WHERE id = 'r900'")
    assert any(f.batch == "r.csv#4" for f in findings(state))


def test_migration_is_told_and_a_newer_ledger_refused(state: Path, written: Path) -> None:
    sql(state, "DROP INDEX ix_entries_batch", "UPDATE alembic_version SET version_num = 'r0001'")
    options = ("--label", "label", "--id", "rid", "--truth", "true", "--batch-size", 100, "--budget", 2, "--expert", "oracle",
               "--classifier", "linear", "--quality", "sgd", "--buffer", 20, "--no-report", "--state", state)  # fmt: skip
    done = call_cli("run", written / "r.csv", *options, "--json")
    assert done.returncode == 0, done.stderr
    assert any("older version was migrated" in line for line in json.loads(done.stdout)["assumed"])
    sql(state, "UPDATE alembic_version SET version_num = 'r9999'")
    done = call_cli("run", written / "r.csv", *options)
    assert done.returncode == 2 and "newer version" in done.stderr and len(done.stderr.splitlines()) == 1


def test_two_processes_do_not_write_at_once(state: Path, written: Path) -> None:
    code = (
        f"from labelwright.settings import StateFolder; place = StateFolder({str(state)!r}); place.claim(); "
        "print('has it', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin and other.stdout and other.stdout.readline() == "has it\n"
        for command in (("revert", "--decider", "oracle"), ("erase", "r5")):
            done = call_cli(*command, "--state", state)
            assert done.returncode == 2 and "another labelwright writes" in done.stderr, done.stderr
        assert call_cli("status", "--state", state).returncode == 0, "reading is always possible"
        other.stdin.write("\n")
        other.stdin.close()


def test_a_password_is_never_shown() -> None:
    done = call_cli("status", "--ledger", "nosuchdatabase://ann:secret@host/db")
    assert done.returncode == 2 and "secret" not in done.stderr and "ann:***@host" in done.stderr


def test_a_damaged_file_is_one_sentence(state: Path) -> None:
    (state / "ledger.db").write_bytes(os.urandom(5000))
    for command in ("status", "export", "verify", "report"):
        options = ("--output", state / "x.csv") if command == "export" else ()
        done = call_cli(command, "--state", state, *options)
        assert done.returncode in (1, 2) and "Traceback" not in done.stderr, command
        assert "not a database" in done.stderr + done.stdout, done.stderr


def test_open_questions_come_back_as_they_were_put(tmp_path: Path) -> None:
    """Questions about rows that had waited in the buffer are about earlier batches than those put with them."""
    write_reviews(tmp_path / "r.csv", 600, noise=0.3)
    settings = replace(SETTINGS, expert="file", buffer=60, batch_size=60, budget=6)
    run = Run(settings, StateFolder(tmp_path / "s"))
    for _ in run.over(open_source(tmp_path / "r.csv")):
        pass
    before = run.ledger.outstanding()
    keys = before.rows.keys
    assert (keys[1:] < keys[:-1]).any(), "no question about an earlier row follows one about a later"
    run.ledger.resume(run.fetch)  # as after a stop
    after = run.ledger.outstanding()
    for name in ("keys", "X", "y"):
        np.testing.assert_array_equal(getattr(after.rows, name), getattr(before.rows, name))
    for name in ("value", "suggestion", "confidence"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
