"""Judging on one core, on two, and on Ray: rows of a data set, repeated to a large Parquet file, judged by the default models.

    python benchmarks/scale.py [--json FILE] [--dataset pendigits] [--rows 400000] [--repeats 5]

Each contestant judges all rows (prediction, verdict and posterior of each, written as Parquet by whoever judged them) with workers
that have started; they take turns, and the medians are compared. "load" is what else kept the cores busy at the start of each
turn: two workers cannot be twice as fast on cores that others keep busy. "cpu" tells what does not depend on that: the CPU seconds of
this process and of each worker; "by_cpu_time" compares the caller and the busiest worker together, as if each had a core of its own.
The files that all write are compared, too.
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
import psutil  # noqa: E402
import pyarrow as pa  # noqa: E402

from labelwright.bench.provenance import provenance  # noqa: E402
from labelwright.datasets import load  # noqa: E402
from labelwright.judging import Judge, judge_of, predict_into  # noqa: E402
from labelwright.runner import Run, Settings, StateFolder, reopened  # noqa: E402
from labelwright.scale import InProcess, Mapper, OnRay, Processes  # noqa: E402
from labelwright.streams import Columns  # noqa: E402
from labelwright.tables import TableSource, open_source, vector_column, write_tables  # noqa: E402

GROUP = 50_000


def learned(folder: Path, X: Any, given: Any) -> Judge:
    """The judge of a run over the data set with the default models."""
    source = open_source(pa.table({"x": vector_column(X), "label": given}))
    run = Run(Settings(Columns("label"), batch_size=2000), StateFolder(folder))
    for _ in run.over(source):
        pass
    return judge_of(reopened(run.state), labels=True)


def repeated(file: Path, X: Any, given: Any, rows: int) -> TableSource:
    """So many rows, in row groups of 50,000."""

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


def busy() -> float:
    """Share of all cores that was busy in the last half second, while we were not."""
    return round(psutil.cpu_percent(0.5) / 100, 2)


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
        load: dict[str, list[float]] = {name: [] for name in teams}
        work: dict[str, list[list[float]]] = {name: [] for name in teams}
        content: dict[str, list[bytes]] = {}
        for turn in range(repeats):
            for name in list(teams)[turn % len(teams) :] + list(teams)[: turn % len(teams)]:
                target = folder / name
                shutil.rmtree(target, ignore_errors=True)
                load[name].append(busy())
                before = cpu(teams[name])
                begun = time.perf_counter()
                rows = sum(predict_into(judge, source, target, mapper=teams[name]))
                seconds[name].append(round(time.perf_counter() - begun, 3))
                after = cpu(teams[name])
                work[name].append([round(after[pid] - before.get(pid, 0.0), 2) for pid in sorted(after, key=_here)])
                content[name] = [file.read_bytes() for file in sorted(target.iterdir())]
                print(turn, name, rows, seconds[name][-1], load[name][-1], work[name][-1], flush=True)
    same = all(held == content["in_process"] for held in content.values())
    return {"started_in_seconds": started, "seconds": seconds, "load": load, "cpu": work, "same_to_the_bit": same}


def _here(pid: int) -> tuple[bool, int]:
    return pid != os.getpid(), pid


def longest(turns: list[list[float]]) -> float:
    """CPU seconds of the caller and of the busiest worker, the median turn: how long it takes where every process has a core."""
    return statistics.median(turn[0] + max(turn[1:], default=0.0) for turn in turns)


def result(found: dict[str, Any], rows: int) -> dict[str, Any]:
    """The ratios of the medians."""
    median = {name: statistics.median(times) for name, times in found["seconds"].items()}
    two, ray = median["two_processes"], median.get("ray_two_actors")
    return {
        "rows_per_second": {name: round(rows / value) for name, value in median.items()},
        "speedup_two_processes_to_one": round(median["one_process"] / two, 2),
        "speedup_two_processes_to_none": round(median["in_process"] / two, 2),
        "speedup_two_processes_to_none_by_cpu_time": round(
            longest(found["cpu"]["in_process"]) / longest(found["cpu"]["two_processes"]), 2
        ),
        "wanted_speedup": 1.8,
        "ray_to_pool_percent": None if ray is None else round(100 * (ray / two - 1), 1),
        "ray_to_pool_percent_by_cpu_time": None
        if ray is None
        else round(100 * (longest(found["cpu"]["ray_two_actors"]) / longest(found["cpu"]["two_processes"]) - 1), 1),
        "wanted_ray_to_pool_percent": "15 at most",
        "rival": "the same judging in one process, on one core",
        **found,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--dataset", default="pendigits")
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--repeats", type=int, default=5)
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
