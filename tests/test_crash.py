"""SIGKILL at random moments, then resume: as if it had not happened, and nothing is asked twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from helpers import write_reviews

from labelwright.exports import export_parts
from labelwright.judging import judge_of, predictions
from labelwright.ledger import verify
from labelwright.runner import StateFolder, reopened
from labelwright.tables import open_source

CHILD = Path(__file__).parent / "crash_child.py"


def child(csv: Path, state: Path, log: Path, *options: object) -> int:
    command = [sys.executable, str(CHILD), str(csv), str(state), str(log), *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, timeout=250).returncode


def outcome(state: Path, csv: Path) -> tuple[list[dict[str, object]], list[list[float]]]:
    """The export less its timestamps, and the classifier's probabilities."""
    table = pa.concat_tables(list(export_parts(StateFolder(state).history(), everything=True)))
    job = reopened(StateFolder(state))
    part = next(predictions(judge_of(job), open_source(csv)))
    names = [name for name in part.column_names if name.startswith("proba_")]
    return table.drop_columns(["decided_at"]).to_pylist(), [part.column(name).to_pylist() for name in names]


def killed_and_resumed(tmp_path: Path, kills: int, classifier: str) -> None:
    csv = tmp_path / "reviews.csv"
    write_reviews(csv, 900)
    assert child(csv, tmp_path / "calm", tmp_path / "calm.log", "--classifier", classifier) == 0
    expected = outcome(tmp_path / "calm", csv)
    state, log = tmp_path / "shaken", tmp_path / "shaken.log"
    rng = np.random.default_rng(7)
    assert child(csv, state, log, "--at-question", 5, "--classifier", classifier) == -9, (
        "dies between asking and answering"
    )
    died = 1
    while died < kills:
        code = child(csv, state, log, "--after", rng.uniform(0.01, 1.2), "--classifier", classifier)
        assert code in (0, -9)
        died += code == -9
        if code == 0:  # finished before the kill: begin another
            compare(state, csv, expected, log)
            state, log = tmp_path / f"shaken-{died}", tmp_path / f"shaken-{died}.log"
    assert child(csv, state, log, "--classifier", classifier) == 0
    compare(state, csv, expected, log)


def compare(state: Path, csv: Path, expected: object, log: Path) -> None:
    assert outcome(state, csv) == expected
    heard = log.read_text().split()
    assert len(heard) == len(set(heard)), "a question was asked twice"
    history = StateFolder(state).history()
    asked = history.questions()
    assert len({q["key"] for q in asked}) == len(asked) == 3 * len(history.batches())
    assert all(q["answer"] is not None for q in asked)
    assert verify(history.engine)[2] == []


@pytest.mark.parametrize("classifier", ["bayes", "linear"])
def test_five_kills(tmp_path: Path, classifier: str) -> None:
    """Both ways of keeping a model: skops bytes (bayes, incremental) and refitting from the ledger (linear)."""
    killed_and_resumed(tmp_path, 3 if classifier == "linear" else 5, classifier)


@pytest.mark.soak
def test_fifty_kills(tmp_path: Path) -> None:
    killed_and_resumed(tmp_path, 50, "bayes")
