"""Speed and memory, each against a named rival in the same run: ``make bench``, or one by name.

    python benchmarks/run.py [judge|ledger|memory|qal|import ...] [--json FILE]

Ratios are the result; the absolute figures depend on the machine and on what else runs there.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402


def seconds(work: Callable[[], Any], repeats: int = 5) -> float:
    """Median wall-clock seconds of a call, after one that is not counted."""
    work()
    found = []
    for _ in range(repeats):
        gc.collect()
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def judge() -> dict[str, Any]:
    """Rows judged per second (verdict, posterior and score of every row, RAD Duo), against the same models' bare
    predict in scikit-learn."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.tree import DecisionTreeClassifier

    from labelwright.learners import Learners, Refit
    from labelwright.selection import RadDuo
    from labelwright.types import Batch

    rng = np.random.default_rng(0)
    centres = rng.normal(size=(5, 20)) * 1.5
    y = rng.integers(5, size=60_000)
    X = (centres[y] + rng.normal(size=(len(y), 20))).astype(np.float32)
    given = np.where(rng.random(len(y)) < 0.3, rng.integers(5, size=len(y)), y)
    out: dict[str, Any] = {}
    for kind, make in (
        ("linear", lambda: LogisticRegression(max_iter=200)),
        ("small tree", lambda: DecisionTreeClassifier(max_depth=8, random_state=0)),
    ):
        learners = Learners(Refit(make(), classes=5), Refit(make(), classes=5))
        selector = RadDuo(learners)
        clean = Batch.of(0, X[:10_000], y[:10_000], clean=True)
        learners.partial_fit(clean.rows)
        batch = Batch.of(1, X[10_000:], given[10_000:])
        quality, classifier = learners.quality.estimator, learners.classifier.estimator

        def ours(selector: Any = selector, batch: Any = batch) -> Any:
            split = selector.split(batch)
            return split.label_score

        def bare(quality: Any = quality, classifier: Any = classifier, batch: Any = batch) -> Any:
            return quality.predict_proba(batch.X), classifier.predict_proba(batch.X[: len(batch) // 3])

        t, r = seconds(ours), seconds(bare)
        out[kind] = {
            "rows_per_second": round(len(batch) / t),
            "wanted": 100_000,
            "rival": "scikit-learn predict_proba of the same models alone",
            "rival_rows_per_second": round(len(batch) / r),
            "time_ratio_to_rival": round(t / r, 2),
        }
    return out


def ledger() -> dict[str, Any]:
    """Verdicts written per second on SQLite (hash-chained, one transaction a batch), against sqlite3's bare executemany
    of the same columns, and against pandas' to_sql."""
    import sqlite3

    import pandas as pd

    from labelwright.ledger import SqlLedger
    from labelwright.ledger.sql import _verdict_columns
    from labelwright.posterior import NoiseModel
    from labelwright.types import Batch, Queries, Split, Verdict

    n, rng = 200_000, np.random.default_rng(0)
    given = rng.integers(10, size=n)
    proba = rng.dirichlet(np.ones(10), size=n)
    verdict = np.where(rng.random(n) < 0.7, int(Verdict.TRUSTED), int(Verdict.REJECTED))

    def split_of(number: int) -> tuple[Batch, Split]:
        batch = Batch.of(number, np.zeros((n, 1), np.float32), given)
        words = {Verdict.TRUSTED: "quality model", Verdict.REJECTED: "quality model and classifier"}
        noise = NoiseModel.start(10)
        split = Split(batch.rows, verdict, given, batch.clean, proba, proba, noise, words)
        _ = split.posterior
        return batch, split

    with tempfile.TemporaryDirectory() as folder:
        book = SqlLedger(f"sqlite:///{folder}/ledger.db", settings={}, classes=[str(k) for k in range(10)])
        times, bare, frames = [], [], []
        for number in range(4):
            batch, split = split_of(number)
            start = time.perf_counter()
            book.record(batch, split, Queries.none(1))
            times.append(time.perf_counter() - start)
            book._recorded = None
            columns = _verdict_columns(batch, split)
            rows = list(zip(*(c.tolist() if isinstance(c, np.ndarray) else c for c in columns.values()), strict=True))
            plain = sqlite3.connect(f"{folder}/plain{number}.db")
            plain.execute("PRAGMA journal_mode=WAL")
            plain.execute(f"CREATE TABLE v ({', '.join(columns)})")
            start = time.perf_counter()
            with plain:
                plain.executemany(f"INSERT INTO v VALUES ({','.join('?' * len(columns))})", rows)
            bare.append(time.perf_counter() - start)
            start = time.perf_counter()
            pd.DataFrame(dict(columns)).to_sql("w", plain, index=False)
            frames.append(time.perf_counter() - start)
            plain.close()
    ours, theirs, frame = (statistics.median(x[1:]) for x in (times, bare, frames))
    return {
        "verdicts_per_second": round(n / ours),
        "wanted": 100_000,
        "rival": "sqlite3 executemany of the same columns, no index, no chain",
        "rival_rows_per_second": round(n / theirs),
        "time_ratio_to_rival": round(ours / theirs, 2),
        "time_ratio_to_pandas_to_sql": round(ours / frame, 2),
    }


MEMORY = """
import json, resource, sys, tempfile
import numpy as np, psutil
from labelwright.runner import Run, Settings, StateFolder
from labelwright.streams import Columns
from labelwright.tables import open_source, write_tables, vector_column
import pyarrow as pa
batches, size = int(sys.argv[1]), 100
rng = np.random.default_rng(0)
centres = rng.normal(size=(4, 16)) * 2
def parts():
    for start in range(0, batches * size, 10_000):
        n = min(10_000, batches * size - start)
        y = rng.integers(4, size=n)
        g = np.where(rng.random(n) < 0.3, rng.integers(4, size=n), y)
        X = (centres[y] + rng.normal(size=(n, 16))).astype(np.float32)
        yield pa.table({"x": vector_column(X), "label": g, "true": y})
folder = tempfile.mkdtemp()
write_tables(parts(), folder + "/s.parquet")
s = Settings(Columns("label", truth="true"), batch_size=size, quality="sgd", classifier="bayes", budget=1, expert="oracle",
             buffer=200, max_rows=500)
run, process, out = Run(s, StateFolder(folder + "/st")), psutil.Process(), {}
for moment in run.over(open_source(folder + "/s.parquet")):
    if moment.number + 1 in (10, 100, batches):
        out[moment.number + 1] = round(process.memory_info().rss / 2**20, 1)
print(json.dumps(out))
"""


def memory() -> dict[str, Any]:
    """Resident memory after batch 10 and batch 1,000 of one stream through the whole run (ledger, experts, models),
    against a plain scikit-learn loop that keeps the rows it has seen."""
    done = subprocess.run([sys.executable, "-c", MEMORY, "1000"], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    first, last = found["10"], found["1000"]
    kept = 1000 * 100 * (16 * 4 + 8) / 2**20
    return {
        "mib_after_batch": found,
        "growth_percent": round(100 * (last / first - 1), 1),
        "wanted": "within 10 % between batch 10 and batch 1,000",
        "rival": "a loop that keeps all rows it has seen",
        "rival_growth_mib": round(kept, 1),
    }


def qal() -> dict[str, Any]:
    """The QAL experiment (one repeat of each method) against the plain nested scikit-learn loop in one process.

    Work saved and cores are told apart: first one process against one process, then all cores.
    """
    from plain_qal import plain_cell

    from labelwright.bench.qal import METHODS, run_cell

    cores = len(os.sched_getaffinity(0))
    out: dict[str, Any] = {}
    for dataset in ("pendigits", "optdigits"):
        repeats = 2
        start = time.perf_counter()
        plain = plain_cell(dataset, 0.6, repeats=repeats)
        rival = time.perf_counter() - start
        start = time.perf_counter()
        one = run_cell(dataset, 0.6, repeats=repeats, methods=METHODS)
        ours = time.perf_counter() - start
        start = time.perf_counter()
        many = run_cell(dataset, 0.6, repeats=repeats * cores, methods=METHODS, workers=cores)
        parallel = (time.perf_counter() - start) / cores
        worst = max(abs(one["methods"][m]["mean"] - plain[m]) for m in METHODS)
        out[dataset] = {
            "rival": "nested scikit-learn loop, OneVsRestClassifier(SVC()), one process",
            "rival_seconds_per_repeat": round(rival / repeats, 1),
            "seconds_per_repeat_one_process": round(ours / repeats, 2),
            "seconds_per_repeat_all_cores": round(parallel / repeats, 2),
            "speedup_work_saved": round(rival / ours, 1),
            "speedup_with_cores": round(rival / parallel, 1),
            "wanted": 5,
            "cores": cores,
            "largest_difference_in_points": round(worst, 3),
            "repeats": many["repeats"],
        }
    return out


def imports() -> dict[str, Any]:
    """Seconds of ``import labelwright`` in a fresh process, against ``import sklearn``."""

    def once(module: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
        return time.perf_counter() - start

    ours, theirs = (statistics.median(once(m) for _ in range(5)) for m in ("labelwright", "sklearn"))
    return {
        "seconds": round(ours, 2),
        "wanted": "under 1",
        "rival": "import sklearn",
        "rival_seconds": round(theirs, 2),
    }


ALL = {"import": imports, "judge": judge, "ledger": ledger, "memory": memory, "qal": qal}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="which; default all")
    parser.add_argument("--json", type=Path, help="write the results here too")
    options = parser.parse_args()
    from labelwright.bench.provenance import provenance

    results: dict[str, Any] = {}
    for name in options.names or ALL:
        results[name] = ALL[name]()
        print(name, json.dumps(results[name], indent=1), flush=True)
    if options.json:
        options.json.write_text(json.dumps({**results, "provenance": provenance("make bench")}, indent=1))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
