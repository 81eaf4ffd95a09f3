"""Sites as users run them: the command line in processes of their own, kills, and network namespaces cut in two."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import run_cli

from labelwright.bench.sites_world import free_ports, namespaces_work, together
from labelwright.datasets import load
from labelwright.errors import LabelwrightError
from labelwright.noise import symmetric
from labelwright.settings import StateFolder
from labelwright.sites import Member, Plan
from labelwright.sites.records import told
from labelwright.tables import vector_column
from labelwright.types import Floats, Ints


def digits(count: int, rows: int) -> tuple[Floats, Ints, Ints, Floats, Ints]:
    """(X, y, given) of each site, (X, y) of the test."""
    data = load("digits")
    order = np.random.default_rng(0).permutation(len(data))
    X, y = data.X[order] / 16, data.y[order]
    mine = np.arange(count * rows).reshape(count, rows)
    given = np.stack(
        [symmetric(0.2 + 0.1 * at, classes=10)(y[one], None, np.random.default_rng(at)) for at, one in enumerate(mine)]
    )
    return X[mine], y[mine], given, X[count * rows :], y[count * rows :]


def tables(folder: Path, X: Floats, given: Ints) -> list[str]:
    names = [f"s{at}" for at in range(len(X))]
    for name, rows, labels in zip(names, X, given, strict=True):
        ids = [f"{name}-{at}" for at in range(len(labels))]
        table = pa.table({"id": ids, "x": vector_column(rows), "label": [str(k) for k in labels]})
        pq.write_table(table, folder / f"{name}.parquet")
    return names


def start(folder: Path, name: str, *more: object) -> subprocess.Popen[str]:
    words = [
        "sites",
        "join",
        f"{name}.parquet",
        "--plan",
        "plan",
        "--name",
        name,
        "--state",
        name,
        "--json",
        *map(str, more),
    ]
    command = [sys.executable, "-c", "from labelwright.cli import main; main()", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


@pytest.mark.soak
def test_three_sites_by_the_command_line_through_kills(tmp_path: Path) -> None:
    X, y, given, X_test, y_test = digits(3, 150)
    names = tables(tmp_path, X, given)
    ports = free_ports(3)
    members = [word for name, port in zip(names, ports, strict=True) for word in ("--site", f"{name}=127.0.0.1:{port}")]
    made = run_cli(
        "sites", "plan", "plan", "s0.parquet", "--id", "id", "--rounds", 15, *members, "--json", cwd=tmp_path
    )
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["bytes_per_neighbour_per_round"] == 584 + 4 * (1001 * 10 + 100 + 30)
    assert run_cli("sites", "plan", "plan", "s0.parquet", *members, cwd=tmp_path).returncode == 2  # no plan is lost
    options = ("--gather", 60, "--patience", 30, "--pause", 0.2)  # the others wait until it is back
    jobs = {name: start(tmp_path, name, *options) for name in names}
    for kill, round_ in enumerate((3, 8)):  # s1 dies twice and comes back
        until(lambda to=round_: rounds(tmp_path / "s1") >= to, jobs["s1"], what=f"round {round_} before kill {kill}")
        jobs["s1"].send_signal(signal.SIGKILL)
        jobs["s1"].wait()
        jobs["s1"] = start(tmp_path, "s1", *options)
    for name, job in jobs.items():
        out, err = job.communicate(timeout=200)
        assert job.returncode == 0, err
        said = json.loads(out)
        assert said["rounds"] == 15 and said["judged"] and said["site"] == name
        assert run_cli("verify", "--state", name, cwd=tmp_path).returncode == 0
    story = run_cli("explain", "s1-5", "--state", "s1", cwd=tmp_path).stdout
    assert "sites' model" in story
    assert "3 sites learned together" in run_cli("status", "--state", "s1", cwd=tmp_path).stdout.replace("\n", " ")
    assert run_cli("export", "--state", "s1", "--output", "clean.parquet", cwd=tmp_path).returncode == 0
    clean = pq.read_table(tmp_path / "clean.parquet").to_pylist()
    true = dict(zip((f"s1-{at}" for at in range(150)), map(str, y[1]), strict=True))
    before = (given[1] == y[1]).mean()
    assert len(clean) > 100 and np.mean([row["final_label"] == true[row["id"]] for row in clean]) > before + 0.15
    pq.write_table(pa.table({"x": vector_column(X_test)}), tmp_path / "new.parquet")
    assert (
        run_cli("sites", "predict", "new.parquet", "--state", "s1", "--output", "p.parquet", cwd=tmp_path).returncode
        == 0
    )
    predicted = pq.read_table(tmp_path / "p.parquet").column("predicted_label").to_pylist()
    assert np.mean([int(p) == k for p, k in zip(predicted, y_test, strict=True)]) > 0.88


def rounds(state: Path) -> int:
    try:
        return int(told(StateFolder(state))["rounds"])
    except LabelwrightError:
        return 0


def until(ready: Any, job: subprocess.Popen[str], *, what: str) -> None:
    end = time.monotonic() + 120
    while not ready():
        assert time.monotonic() < end and job.poll() is None, (
            f"{what}: {job.communicate() if job.poll() else 'too slow'}"
        )
        time.sleep(0.05)


@pytest.mark.soak
@pytest.mark.skipif(not namespaces_work(), reason="network namespaces need root and the bridge module")
def test_a_partition_that_heals_costs_nothing() -> None:
    X, _, given, X_test, y_test = digits(4, 150)
    plan = Plan(tuple("0123456789"), 64, id="id", bandwidth=1 / (64 * float(X.var())), features=500, rounds=40,
                members={f"site-{at}": Member("h:1") for at in range(4)})  # fmt: skip
    scores = []
    for cut in (None, (4, 14)):
        found = together(plan, X, given, range(4), cut=cut)
        F = plan.make_features()(X_test)
        scores.append(np.mean([((F @ found.weights(at)).argmax(axis=1) == y_test).mean() for at in range(4)]))
    assert min(found.cut["healed"]["rounds"]) - max(found.cut["cut"]["rounds"]) >= 8
    assert scores[1] > scores[0] - 0.01 and scores[0] > 0.88
    for one in found.said.values():
        assert not one["absent"]  # they met again
