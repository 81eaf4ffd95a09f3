"""The command line where test_commands.py does not look: help, order of columns, stops, pipes, JSON on failure."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from helpers import call_cli, write_reviews

from labelwright.exports import ADDED
from labelwright.streams.intake import content
from labelwright.tables import open_source

QUICK = ("--classifier", "bayes", "--quality", "sgd", "--batch-size", 100, "--no-report")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a.csv, whose own columns have names that export adds, and the state of a run in ``s``."""
    folder = tmp_path_factory.mktemp("cli")
    write_reviews(folder / "a.csv", 300)
    text = (folder / "a.csv").read_text().splitlines()
    text[0] = "id,review,verdict,decided_by,label,true"
    text.append("r900,some words,3,Oslo,splendid,good")
    (folder / "a.csv").write_text("\n".join(text) + "\n")
    options = (
        "--label",
        "label",
        "--id",
        "id",
        "--truth",
        "true",
        "--budget",
        2,
        "--expert",
        "fallible",
        "--error-rate",
        0.5,
    )
    done = call_cli("run", folder / "a.csv", *options, *QUICK, "--state", folder / "s", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert len(done.stdout.splitlines()) == 1 and (summary["batches"], summary["set_aside"]) == (3, 1)
    return folder


@pytest.mark.parametrize(
    "command",
    ["run", "demo", "status", "questions", "export", "report", "verify", "explain", "corrections", "revert", "erase",
     "predict", "bench qal", "bench fig4", "bench fig5", "bench radduo"],
)  # fmt: skip
def test_help_has_an_example(command: str) -> None:
    done = call_cli(*command.split(), "--help")
    assert done.returncode == 0 and f"Example: labelwright {command}" in done.stdout


@pytest.mark.parametrize("suffix", ["csv", "parquet", "csv.gz"])
def test_export_keeps_the_users_columns_of_added_names(folder: Path, tmp_path: Path, suffix: str) -> None:
    assert call_cli("export", "--state", folder / "s", "--output", tmp_path / f"c.{suffix}", "--all").returncode == 0
    table = pa.concat_tables(open_source(tmp_path / f"c.{suffix}").chunks(1000))
    own = ["id", "review", "verdict_original", "decided_by_original", "label", "true"]
    assert table.column_names == [*own, *(name for name in ADDED if name != "id")]
    assert table.num_rows == 300 and all(at.startswith("20") for at in map(str, table.column("decided_at").to_pylist()))


def test_explain_tells_a_correction_and_a_revert(folder: Path, tmp_path: Path) -> None:
    changed = [c for c in json.loads(call_cli("corrections", "--state", folder / "s", "--json").stdout)]
    one = next(c for c in changed if c["decided_by"] == "posterior")
    told = call_cli("explain", one["id"], "--state", folder / "s").stdout
    assert f"corrected by the posterior from '{one['given_label']}' to '{one['final_label']}'" in told
    assert call_cli("revert", "--row", one["id"], "--state", folder / "s").stdout == "took back 1 corrections\n"
    told = call_cli("explain", one["id"], "--state", folder / "s").stdout
    assert "took the correction back" in told and told.rstrip().endswith(f"Now: trusted, label '{one['given_label']}'.")
    again = call_cli("revert", "--row", one["id"], "--state", folder / "s", "--json")
    assert again.returncode == 2 and "no correction matches" in json.loads(again.stdout)["error"]


def test_status_tells_why_rows_were_set_aside(folder: Path) -> None:
    reasons = json.loads(call_cli("status", "--state", folder / "s", "--json").stdout)["set_aside_reasons"]
    assert list(reasons.values()) == [1] and "'splendid' is none of the classes" in next(iter(reasons))
    assert "set aside: 1 ×" in call_cli("status", "--state", folder / "s").stdout


def test_rows_that_are_sorted_by_label_are_said_to_be(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=400), np.repeat(["a", "b", "c", "d"], 100)
    lines = [f"{value + ord(label):.3f},{label}" for value, label in zip(x, y, strict=True)]
    (tmp_path / "sorted.csv").write_text("x,label\n" + "\n".join(lines))
    command = ("run", tmp_path / "sorted.csv", "--label", "label", "--first-batch", 200, "--no-report")
    told = call_cli(*command, "--state", tmp_path / "s").stdout
    assert "set aside: 100 × label 'c' is none of the classes ['a', 'b']" in told
    assert "200 rows hold a label that is no class. If the rows are sorted by label, mix" in " ".join(told.split())
    mixed = [lines[at] for at in rng.permutation(400)]
    (tmp_path / "mixed.csv").write_text("x,label\n" + "\n".join([*mixed, "70.0,e"]))
    told = call_cli("run", tmp_path / "mixed.csv", *command[2:], "--state", tmp_path / "t").stdout
    assert "set aside: 1 × label 'e'" in told and "sorted by label" not in told


def test_a_row_set_aside_tells_pictures_by_their_size() -> None:
    table = pa.table({"image": [{"bytes": bytes(2048), "path": "a.png"}], "raw": [b"12"], "label": ["cat"]})
    assert content(table, 0) == "image={'bytes': '2,048 bytes', 'path': 'a.png'}, raw='2 bytes', label='cat'"


def test_predict_writes_a_file_even_with_json(folder: Path, tmp_path: Path) -> None:
    done = call_cli("predict", folder / "a.csv", "--state", folder / "s", "--output", tmp_path / "p.parquet", "--json")
    assert json.loads(done.stdout) == {"output": str(tmp_path / "p.parquet")}
    rows = next(open_source(tmp_path / "p.parquet").chunks(1000)).to_pylist()
    assert len(rows) == 301 and all(abs(sum(r[f"proba_{c}"] for c in ("bad", "good", "meh")) - 1) < 1e-6 for r in rows)
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    lacking = call_cli("predict", tmp_path / "other.csv", "--state", folder / "s")
    assert lacking.returncode == 2 and "lacks 'review'" in lacking.stderr


def test_the_noted_head_shows_a_cut(folder: Path) -> None:
    head = json.loads(call_cli("verify", "--state", folder / "s", "--json").stdout)["head"]
    assert call_cli("verify", "--state", folder / "s", "--head", head).returncode == 0
    done = call_cli("verify", "--state", folder / "s", "--head", "0" * 63 + "1")
    assert done.returncode == 1 and "cut off" in done.stdout


def test_usage_errors_are_two(tmp_path: Path) -> None:
    for command in (
        ("run",),
        ("run", "a.csv"),
        ("nothing",),
        ("export",),
        ("run", "a.csv", "--label", "y", "--budget", "-1"),
    ):
        done = call_cli(*command)
        assert done.returncode == 2 and "Traceback" not in done.stderr, command
    for options, says in (
        (("--correct", "0.3"), "0.3"),
        (("--dynamic",), "--budget-total"),
        (("--measure", "magic"), "magic"),
        (("--expert", "magic"), "magic"),
        (("--classes", "good"), "at least 2"),
    ):
        write_reviews(tmp_path / "a.csv", 100)
        done = call_cli("run", tmp_path / "a.csv", "--label", "label", *QUICK, *options, "--state", tmp_path / "s")
        assert done.returncode == 2 and says in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def test_control_c_ends_with_130_and_the_run_goes_on(tmp_path: Path) -> None:
    write_reviews(tmp_path / "a.csv", 6000)
    options = ["--label", "label", "--id", "rid", "--drop", "true", *map(str, QUICK), "--state", str(tmp_path / "s")]
    program = [
        sys.executable,
        "-c",
        "from labelwright.cli import main; main()",
        "run",
        str(tmp_path / "a.csv"),
        *options,
    ]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        log = tmp_path / "s" / "ledger.db-wal"
        for _ in range(600):
            if log.exists() and log.stat().st_size > 500_000:
                break
            time.sleep(0.1)
        running.send_signal(signal.SIGINT)
        _, stderr = running.communicate(timeout=60)
    assert running.returncode == 130 and "Traceback" not in stderr and "run the same command to go on" in stderr, stderr
    done = call_cli("status", "--state", tmp_path / "s", "--json")
    assert 0 < json.loads(done.stdout)["batches"] < 60
    assert call_cli("verify", "--state", tmp_path / "s").returncode == 0


def test_control_c_while_a_connection_goes_back_shows_no_traceback(tmp_path: Path) -> None:
    """The database library logs what interrupts the reset of a connection, traceback and all, before it raises it again."""
    write_reviews(tmp_path / "a.csv", 100)
    program = (
        "import sqlalchemy.event as event\n"
        "from sqlalchemy.pool import Pool\n"
        "def interrupted(*_): raise KeyboardInterrupt\n"
        "event.listen(Pool, 'reset', interrupted)\n"
        "from labelwright.cli import main; main()"
    )
    options = ["--label", "label", "--id", "rid", "--drop", "true", *map(str, QUICK), "--state", str(tmp_path / "s")]
    command = [sys.executable, "-c", program, "run", str(tmp_path / "a.csv"), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 130 and len(done.stderr.splitlines()) == 1 and "Traceback" not in done.stderr, done.stderr


def test_a_closed_pipe_is_no_error(folder: Path) -> None:
    program = "from labelwright.cli import main; main()"
    command = [sys.executable, "-c", program, "predict", str(folder / "a.csv"), "--state", str(folder / "s"), "--json"]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=100)
    os.close(writing)
    assert done.stderr == "" and done.returncode != 0


def test_a_long_value_in_an_error_is_cut(tmp_path: Path) -> None:
    done = call_cli("status", "--state", tmp_path / ("x" * 200) / ("y" * 200) / ("z" * 4000))
    assert done.returncode == 2 and 900 < len(done.stderr) < 1100 and " … " in done.stderr
