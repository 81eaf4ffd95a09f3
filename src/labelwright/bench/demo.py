"""The demo: QAL on pendigits at 60 % wrong labels through the command line's own run, with the baselines beside it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from labelwright.bench.qal import BATCH, BATCHES, CLEAN, QUERIES, Trial, draw, rows_of, systems
from labelwright.exports import export, write_questions
from labelwright.runner import Run, Settings, StateFolder
from labelwright.streams import Columns
from labelwright.tables import TableSource, open_source, vector_column

NOISE = 0.6
SHOWN = {
    "no-sel": "No-Sel: train on everything",
    "q-only": "Q-only: the quality model filters",
    "ours": "labelwright: filter, and 5 questions a batch",
    "opt-sel": "Opt-Sel: a perfect filter",
    "full-clean": "all labels right",
}


def run_demo(
    output: Path, *, seed: int = 0, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """Run the demo into a folder, replacing an earlier one there: ledger, report, figures, clean data set, questions.

    Returns the table and the sentences to print.
    """
    start = time.perf_counter()
    output = Path(output)
    for name in ("ledger.db", "ledger.db-wal", "ledger.db-shm", "comparison.json"):
        (output / name).unlink(missing_ok=True)
    shutil.rmtree(output / "figures", ignore_errors=True)
    trial = draw(*rows_of("pendigits", None), NOISE, 0, seed=seed)
    total = len(SHOWN) * (BATCHES + 1)
    curves, asked = _baselines(trial, lambda done: progress(done, total))
    columns = Columns("label", id="id", truth="true_label")
    settings = Settings(
        columns, BATCH, CLEAN, CLEAN, None, "quality-only", "svm", "svm", QUERIES, QUERIES * BATCHES,
        expert="oracle", buffer=0, correct=None, seed=seed,
    )  # fmt: skip
    state = StateFolder(output)
    job = Run(settings, state)
    stream, test = tables(trial)
    for moment in job.over(stream, test=test):
        progress((len(SHOWN) - 1) * (BATCHES + 1) + moment.number + 1, total)
    history = state.history()
    curves["ours"] = [100 * entry["body"]["test_accuracy"] for entry in history.entries("measure")]
    asked["ours"] = history.totals()["questions"]
    comparison = {"x": "batches", "methods": {name: {"label": SHOWN[name], "curve": curves[name]} for name in SHOWN}}
    (output / "comparison.json").write_text(json.dumps(comparison))
    return _result(output, state, curves, asked, time.perf_counter() - start)


def _baselines(trial: Trial, progress: Callable[[int], None]) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Accuracy in percent after each batch, and questions, of every method but ours: same rows, model and test."""
    makers = systems(trial, "rbf")
    test, truth = trial.test[:, None].astype(float), trial.y[trial.test]
    curves: dict[str, list[float]] = {}
    asked: dict[str, int] = {}
    for name in (n for n in SHOWN if n != "ours"):
        system, curves[name] = makers[name](), []
        for batch in trial.batches:
            system.step(batch)
            curves[name].append(100.0 * float((system.predict(test) == truth).mean()))
            progress(sum(map(len, curves.values())))
        asked[name] = system.budget.spent
    return curves, asked


def tables(trial: Trial) -> tuple[TableSource, TableSource]:
    """The trial's stream and test rows as a user would hold them."""
    need = CLEAN + BATCH * BATCHES

    def table(part: slice, labels: Any) -> pa.Table:
        ids = [f"pen-{i}" for i in range(len(trial.y))[part]]
        columns = {"id": ids, "strokes": vector_column(trial.X[part].astype("float32"))}
        return pa.table(columns | {"label": labels[part], "true_label": trial.y[part]})

    stream, test = open_source(table(slice(0, need), trial.given)), open_source(table(slice(need, None), trial.y))
    stream.name, test.name = "pendigits", "pendigits-test"
    return stream, test


def _result(
    output: Path, state: StateFolder, curves: dict[str, list[float]], asked: dict[str, int], seconds: float
) -> dict[str, Any]:
    from labelwright.ledger import verify
    from labelwright.report import write_report

    history = state.history()
    rows = export(history, output / "clean.parquet")
    write_questions(history, output / "questions.csv")
    report = write_report(state)
    entries, head, findings = verify(history.engine)
    methods = {n: {"label": SHOWN[n], "accuracy": curves[n][-1], "questions": asked[n]} for n in SHOWN}
    return {
        "title": f"pendigits, {100 * NOISE:.0f} % wrong labels: 150 clean rows, then 18 batches of 50",
        "methods": methods,
        "report": str(report),
        "clean": str(output / "clean.parquet"),
        "ledger": state.url,
        "whole": not findings,
        "says": [
            f"report      {report}",
            f"clean data  {output / 'clean.parquet'} ({rows} of {CLEAN + BATCH * BATCHES} rows, each with who decided and why)",
            f"ledger      {output / 'ledger.db'} ({entries} entries, {'whole' if not findings else 'EDITED'}, head {head[:12]})",
            f"a row's story: labelwright explain pen-200 --state {output}",
            f"took {seconds:.0f} s",
        ],
    }
