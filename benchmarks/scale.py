"""Judging on one core, on two, and on Ray: rows of a data set, repeated to a large Parquet file, judged by the default models.

    python benchmarks/scale.py [--json FILE] [--dataset pendigits] [--rows 600000] [--repeats 3]

Each contestant judges all rows (prediction, verdict and posterior of each, written as Parquet by whoever judged them) with workers
that have started; they take turns, and the median of the turns' ratios is told. "loop" is what two workers gain in the same turn on an
empty loop, where there is nothing to share but the cores: what the machine gives, with what else runs on it. "cpu" is the CPU seconds of
this process and of each worker; "by_cpu_time" compares the caller and the busiest worker together, as if each had a core of its own. The
files that all write are compared, too.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402

from labelwright.bench.provenance import provenance  # noqa: E402
from labelwright.datasets import load  # noqa: E402
from labelwright.judging import Judge, judge_of, predict_into  # noqa: E402
from labelwright.runner import Run, Settings, StateFolder, reopened  # noqa: E402
from labelwright.scale import InProcess, Mapper, OnRay, Processes  # noqa: E402
from labelwright.streams import Columns  # noqa: E402
from labelwright.tables import TableSource, open_source, vector_column, write_tables  # noqa: E402

GROUP = 60_000


def learned(folder: Path, X: Any, given: Any) -> Judge:
    """The judge of a run over the data set with the default models."""
    source = open_source(pa.table({"x": vector_column(X), "label": given}))
    run = Run(Settings(Columns("label"), batch_size=2000), StateFolder(folder))
    for _ in run.over(source):
        pass
    return judge_of(reopened(run.state), labels=True)


def repeated(file: Path, X: Any, given: Any, rows: int) -> TableSource:
    """So many rows, in row groups of 60,000."""

    def parts() -> Any:
        for start in range(0, rows, GROUP):
            at = np.arange(start, min(start + GROUP, rows)) % len(X)
            yield pa.table({"x": vector_column(X[at]), "label": given[at]})

    write_tables(parts(), file)
    return open_source(file)


def used(_: None, seconds: float) -> tuple[int, float]:
    """(which process, CPU seconds it has used so far); keeps a worker busy for a while, so that each of them is asked."""

    import labelwright.judging  # noqa: F401  (what it will need)

    time.sleep(seconds)
    return os.getpid(), time.process_time()


def cpu(team: Mapper) -> dict[int, float]:
    """Process -> CPU seconds so far, of this process and of all workers."""
    return {**dict(team.map(used, [0.5] * team.workers, shared=None)), os.getpid(): time.process_time()}


def loop(_: None, rounds: int) -> int:
    """Work that needs nothing but a core."""
    return sum(range(rounds))


def cores_worth(one: Mapper, two: Mapper) -> float:
    """How much faster two workers run two empty loops than one does: what the machine gives, with what else runs on it."""
    seconds = []
    for team in (one, two):
        begun = time.perf_counter()
        list(team.map(loop, [30_000_000] * 2, shared=None))
        seconds.append(time.perf_counter() - begun)
    return round(seconds[0] / seconds[1], 2)


def measured(judge: Judge, source: TableSource, folder: Path, repeats: int, fields: tuple[str, ...]) -> dict[str, Any]:
    """Seconds of each contestant, by turns."""
    with ExitStack() as open_:
        teams: dict[str, Mapper] = {
            "in_process": InProcess(),
            "one_process": open_.enter_context(Processes(1)),
            "two_processes": open_.enter_context(Processes(2)),
        }
        if "ray" in fields:
            teams["ray_two_actors"] = open_.enter_context(OnRay("local", 2))
        started = {}
        for name, team in teams.items():
            begun = time.perf_counter()
            cpu(team)
            started[name] = round(time.perf_counter() - begun - 0.5, 2)
        seconds: dict[str, list[float]] = {name: [] for name in teams}
        work: dict[str, list[list[float]]] = {name: [] for name in teams}
        content: dict[str, list[bytes]] = {}
        empty: list[float] = []
        for turn in range(repeats):
            empty.append(cores_worth(teams["one_process"], teams["two_processes"]))
            for name in list(teams)[turn % len(teams) :] + list(teams)[: turn % len(teams)]:
                target = folder / name
                shutil.rmtree(target, ignore_errors=True)
                before = cpu(teams[name])
                begun = time.perf_counter()
                rows = sum(predict_into(judge, source, target, mapper=teams[name]))
                seconds[name].append(round(time.perf_counter() - begun, 3))
                after = cpu(teams[name])
                work[name].append([round(after[pid] - before.get(pid, 0.0), 2) for pid in sorted(after, key=_here)])
                content[name] = [file.read_bytes() for file in sorted(target.iterdir())]
                print(turn, name, rows, seconds[name][-1], work[name][-1], flush=True)
    same = all(held == content["in_process"] for held in content.values())
    return {
        "started_in_seconds": started,
        "seconds": seconds,
        "cpu": work,
        "loop": empty,
        "same_to_the_bit": same,
    }


def _here(pid: int) -> tuple[bool, int]:
    return pid != os.getpid(), pid


def ratio(over: list[float], under: list[float]) -> float:
    """Median of the turns' ratios: contestants of one turn met the same machine."""
    return round(statistics.median(a / b for a, b in zip(over, under, strict=True)), 2)


def longest(turns: list[list[float]]) -> list[float]:
    """CPU seconds of the caller and of the busiest worker, by turn: how long it takes where every process has a core."""
    return [turn[0] + max(turn[1:], default=0.0) for turn in turns]


def result(found: dict[str, Any], rows: int) -> dict[str, Any]:
    """Rows a second, and the ratios."""
    seconds, work = found["seconds"], {name: longest(turns) for name, turns in found["cpu"].items()}
    none, one, two = (seconds[name] for name in ("in_process", "one_process", "two_processes"))
    out: dict[str, Any] = {
        "rows_per_second": {name: round(rows / statistics.median(times)) for name, times in seconds.items()},
        "speedup_two_processes_to_one": ratio(one, two),
        "speedup_two_processes_to_none": ratio(none, two),
        "speedup_two_processes_to_none_by_cpu_time": ratio(work["in_process"], work["two_processes"]),
        "speedup_of_an_empty_loop": statistics.median(found["loop"]),
        "wanted_speedup": 1.8,
    }
    if "ray_two_actors" in seconds:
        out["time_ratio_ray_to_pool"] = ratio(seconds["ray_two_actors"], two)
        out["time_ratio_ray_to_pool_by_cpu_time"] = ratio(work["ray_two_actors"], work["two_processes"])
        out["wanted_time_ratio_ray_to_pool"] = "1.15 at most"
    return {**out, "rival": "the same judging in one process, on one core", **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--dataset", default="pendigits")
    parser.add_argument("--rows", type=int, default=600_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-ray", action="store_true")
    options = parser.parse_args()
    data, rng = load(options.dataset), np.random.default_rng(0)
    X, y = np.asarray(data.X, np.float32), np.asarray(data.y)
    given = np.where(rng.random(len(y)) < 0.2, rng.permutation(y), y)
    with tempfile.TemporaryDirectory() as place:
        judge = learned(Path(place) / "state", X, given)
        source = repeated(Path(place) / "rows.parquet", X, given, options.rows)
        fields = () if options.no_ray else ("ray",)
        found = measured(judge, source, Path(place), options.repeats, fields)
    out = {"dataset": options.dataset, "rows": options.rows, **result(found, options.rows)}
    print(json.dumps(out, indent=1))
    if options.json:
        out["provenance"] = provenance("python benchmarks/scale.py")
        options.json.write_text(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
