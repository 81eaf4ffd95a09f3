"""A live run: ``labelwright run`` on a stream of noisy pictures, ``labelwright serve`` beside it, and a scripted person who answers
in a browser by the keyboard. Compared with the same run without answers, and with as many about rows chosen at random.

The stream is the paper's (section III-B): 50 rows to begin with, vouched for, then 18 batches of 50 with 60 % wrong labels, 5 questions
a batch. The person is simulated from the true labels: alone wrong once in twenty rows; who is shown a suggestion takes it instead of
erring, and is talked into one wrong suggestion out of ten.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from labelwright.bench.pieces import USUAL, How, Job, Tick, cells, mean_and_interval, run_all, written
from labelwright.bench.provenance import provenance
from labelwright.datasets import load
from labelwright.errors import LabelwrightError, SettingsError
from labelwright.ledger import History
from labelwright.noise import symmetric
from labelwright.types import NO_LABEL

FIRST, BATCH, BATCHES, QUESTIONS, RATE, TEST = 50, 50, 18, 5, 0.6, 2000
ERRS, SWAYED = 0.05, 0.1
NONE = "no answers"
METHODS = (NONE, "margin, suggestion shown", "margin, blind", "random, suggestion shown", "random, blind")
PATIENCE = 300
MAIN = "from labelwright.cli import main; main()"
BROWSER = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def make_stream(folder: Path, dataset: str, seed: int, data_dir: str | None) -> list[str]:
    """Write stream.parquet (image, label) and test.parquet; returns the stream's true labels, in order."""
    data, rng = load(dataset, data_dir), np.random.default_rng([seed, 8])
    order = rng.permutation(len(data.y))
    n = FIRST + BATCH * BATCHES
    stream, test = order[:n], order[n : n + TEST]
    given = data.y[stream].copy()
    given[FIRST:] = symmetric(RATE, classes=int(data.y.max()) + 1)(given[FIRST:], None, rng)
    _write(folder / "stream.parquet", data.X[stream], given)
    _write(folder / "test.parquet", data.X[test], data.y[test])
    return [str(label) for label in data.y[stream]]


def _write(path: Path, X: Any, y: Any) -> None:
    import io

    from PIL import Image

    side = round(X.shape[1] ** 0.5)
    low, high = float(X.min()), float(X.max())
    pixels = np.round((X.reshape(-1, side, side) - low) * (255 / (high - low))).astype(np.uint8)
    cells_ = []
    for picture in pixels:
        out = io.BytesIO()
        Image.fromarray(picture).save(out, "PNG")
        cells_.append({"bytes": out.getvalue(), "path": None})
    pq.write_table(pa.table({"image": pa.array(cells_), "label": [str(label) for label in y]}), path)


class Person:
    """Who answers. truth: of the rows, in order. classes: names."""

    def __init__(self, truth: list[str], classes: list[str], seed: int):
        self.truth, self.classes, self.seed = truth, classes, seed
        self.answers = self.wrong = 0

    def choose(self, row: int, suggestion: str | None) -> str:
        """The class named for a row; depends on the seed, the row and the suggestion alone."""
        rng = np.random.default_rng([self.seed, row])
        true = self.truth[row]
        errs, swayed = rng.random() < ERRS, rng.random() < SWAYED
        other = str(rng.choice([name for name in self.classes if name != true]))
        alone = other if errs else true
        said = alone if suggestion is None else suggestion if errs or (swayed and suggestion != true) else alone
        self.answers += 1
        self.wrong += said != true
        return said


def _started(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", MAIN, *map(str, arguments)], text=True, env=environment, **options)


@contextmanager
def _page(state: Path, *, blind: bool) -> Any:
    """The experts' page of the run, open in a browser."""
    from playwright.sync_api import sync_playwright

    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        raise SettingsError("the live run needs a browser: Debian's package chromium")
    server = _started("serve", "--state", state, "--port", 0, "--json", "--blind", int(blind), stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        if not line:
            raise SettingsError(f"the server of {state} did not start")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=found, args=BROWSER)
            page = browser.new_page()
            page.goto(json.loads(line)["url"])
            page.wait_for_function("() => window.htmx !== undefined")  # scripts come after the first paint
            yield page
            browser.close()
    finally:
        server.terminate()
        server.wait()


def _answer(page: Any, person: Person) -> bool:
    """Answer the question on the page by the keyboard; False when there is none."""
    if not page.locator("form.say").count():
        return False
    row = int(page.locator(".id").inner_text())
    shown = page.locator("button.accept span")
    suggestion = shown.inner_text() if shown.count() else None
    said = person.choose(row, suggestion)
    key = (
        "Enter"
        if said == suggestion
        else page.locator(f".choices button:has(span:text-is('{said}'))").get_attribute("data-key")
    )
    with page.expect_response(lambda answer: answer.request.method == "POST"):
        page.keyboard.press(key)
    page.wait_for_function(
        "() => !document.getElementById('desk')?.dataset.busy && !document.querySelector('.htmx-request')"
    )
    return True


def _has_begun(state: Path) -> bool:
    try:
        return (state / "ledger.db").exists() and bool(History(f"sqlite:///{state}/ledger.db").entries("commit"))
    except LabelwrightError:
        return False


def live(job: Job, folder: Path, dataset: str, data_dir: str | None) -> dict[str, Any]:
    """One run. Raises SettingsError when it ends with an error."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    truth = make_stream(folder, dataset, job.seed, data_dir)
    state, asks = folder / "state", job.method != NONE
    options = ["--budget", QUESTIONS, "--measure", job.method.partition(",")[0], "--wait", PATIENCE]
    run = _started(
        "run", folder / "stream.parquet", "--label", "label", "--test", folder / "test.parquet", "--state", state, "--batch-size",
        BATCH, "--first-batch", FIRST, "--clean-rows", FIRST, "--selector", "quality-only", "--quality", "svm", "--classifier", "svm",
        "--correct", 0, "--buffer", 0, "--seed", job.seed, "--json", *(options if asks else ["--expert", "none"]),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    person = Person(truth, [str(c) for c in range(10)], job.seed)
    if asks:
        while run.poll() is None and not _has_begun(state):
            time.sleep(0.2)
        with _page(state, blind="blind" in job.method) as page:
            while run.poll() is None:
                if not _answer(page, person):
                    page.wait_for_timeout(200)
    _, problem = run.communicate()
    if run.returncode:
        raise SettingsError(f"the run ended with {run.returncode}: {problem.strip()[-300:]}")
    return {**curve(state), "answers": person.answers, "wrong_answers": person.wrong}


def curve(state: Path) -> dict[str, Any]:
    """Accuracy in percent after every batch, and how many answers the models had learned from by then."""
    history = History(f"sqlite:///{state}/ledger.db")
    taken, accuracy, answers = 0, list[float](), list[int]()
    for entry in history.entries("commit", "measure"):
        if entry["kind"] == "commit":
            taken += int(entry["body"]["answers"])
        elif "test_accuracy" in entry["body"]:
            accuracy.append(100 * float(entry["body"]["test_accuracy"]))
            answers.append(taken)
    found = [q for q in history.questions() if q["answer"] not in (None, NO_LABEL)]
    return {
        "curve": accuracy,
        "learned_from": answers,
        "wrong_labels_found": sum(q["answer"] != q["given"] for q in found),
    }


def run_live(dataset: str = "mnist", how: How = USUAL) -> dict[str, Any]:
    """Every method on the same streams; finished pieces are not run again. device and workers are not
    used: the models are SVMs, one after the other.

    Writes ``live-<dataset>-<profile>.json`` and ``.png`` into ``output``, pieces into ``output/pieces``, and the report of the first
    seed's run with suggestions, compared with the others, as ``live-<dataset>-<profile>.html``.
    """
    seeds = how.range(3)
    folder = how.pieces(f"live-{dataset}")
    jobs = [Job(s, "live", method) for s in seeds for method in METHODS]

    def piece(job: Job, path: Path, tick: Tick) -> dict[str, Any]:
        record = live(job, path.with_suffix(""), dataset, how.data_dir)
        path.write_text(json.dumps(record))
        tick(job.method)
        return record

    settings = f"{FIRST} {BATCH} {BATCHES} {QUESTIONS} {RATE} {TEST} {ERRS} {SWAYED}"
    found = run_all(jobs, piece, folder=folder, steps=1, settings=settings, progress=how.progress)
    rows = {method: _row(found["live", method]) for method in METHODS}
    result: dict[str, Any] = {
        "experiment": "live",
        "dataset": dataset,
        "profile": how.profile,
        "seeds": len(seeds),
        "rows": rows,
        **provenance(how.command("live", dataset, len(seeds))),
    }
    name = how.file(f"live-{dataset}")
    written(result, name, figure)
    _report(folder / f"seed-{how.seed}", found, name.with_suffix(".html"))
    return result


def _row(runs: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "accuracy": mean_and_interval([run["curve"][-1] for run in runs]),
        "mean_over_batches": mean_and_interval([float(np.mean(run["curve"])) for run in runs]),
        "answers": [run["answers"] for run in runs],
        "wrong_answers": [run["wrong_answers"] for run in runs],
        "wrong_labels_found": [run["wrong_labels_found"] for run in runs],
        "curves": [run["curve"] for run in runs],
        "learned_from": [run["learned_from"] for run in runs],
    }


def _report(folder: Path, found: Mapping[tuple[str, str], list[dict[str, Any]]], to: Path) -> None:
    """The report of the run by margin with suggestions, with the others' curves beside its own."""
    from labelwright.report import write_report
    from labelwright.settings import StateFolder

    ours = METHODS[1]
    state = folder / f"live-{ours}".replace(" ", "-") / "state"
    if not state.exists():
        return
    told = {
        "ours" if method == ours else method: {
            "label": method,
            "curve": run[0]["curve"],
            "answers": run[0]["learned_from"],
        }
        for (_, method), run in found.items()
    }
    (state / "comparison.json").write_text(json.dumps({"methods": told}))
    shutil.copy(write_report(StateFolder(state)), to)


def figure(result: Mapping[str, Any], path: Path) -> None:
    """Accuracy against answers learned from, mean over seeds; without answers, against batches as the others had them."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(7.5, 4.2), layout="constrained")
    axis = drawn.add_subplot()
    styles = {
        NONE: ("#5a6474", ":"),
        METHODS[1]: ("#2f6aa8", "-"),
        METHODS[2]: ("#2f6aa8", "--"),
        METHODS[3]: ("#a76d02", "-"),
        METHODS[4]: ("#a76d02", "--"),
    }
    asked = np.mean(result["rows"][METHODS[1]]["learned_from"], axis=0)
    for method, row in result["rows"].items():
        x = asked if method == NONE else np.mean(row["learned_from"], axis=0)
        axis.plot(
            x, np.mean(row["curves"], axis=0), color=styles[method][0], ls=styles[method][1], label=method, lw=1.8
        )
    axis.set(xlabel="answers that the models have learned from", ylabel="test accuracy, %")
    axis.set_title(
        f"{result['dataset']}, {100 * RATE:.0f} % wrong labels, {result['seeds']} seed(s)", loc="left", fontsize=10
    )
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    drawn.savefig(path, dpi=140)


def table(result: Mapping[str, Any]) -> list[list[str]]:
    """The result as rows of text, head first."""
    rows = [["method", "last batch", "±", "mean over batches", "±", "answers", "of them wrong", "wrong labels found"]]
    for method, row in result["rows"].items():
        counts = [f"{np.mean(row[name]):.0f}" for name in ("answers", "wrong_answers", "wrong_labels_found")]
        rows.append([method, *cells(row["accuracy"]), *cells(row["mean_over_batches"]), *counts])
    return rows
