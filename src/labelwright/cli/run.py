"""run and demo: the commands that learn."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from labelwright.cli.app import app, log, say
from labelwright.cli.common import DataDir, Json, LedgerUrl, Ray, Seed, Workers, folder
from labelwright.errors import SettingsError
from labelwright.runner import Run, Settings
from labelwright.scale import open_mapper
from labelwright.streams import Columns
from labelwright.streams.address import is_stream
from labelwright.streams.intake import UNKNOWN_CLASS
from labelwright.tables import TableSource, open_source

_WORDS = ("trusted", "rescued", "asked", "corrected", "rejected", "buffered", "quarantined", "set_aside")
_REASONS, _MANY = 10, 0.05


def progress_bar() -> Progress:
    """A bar on stderr, on terminals only."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)


def source_of(name: str, data_dir: str | None, *, unlabelled: bool = False) -> TableSource:
    """A file, a folder, or a benchmark data set by name. unlabelled: as of :func:`~labelwright.tables.open_source`."""
    from labelwright.datasets import LOADERS, load
    from labelwright.streams import as_table

    if Path(name).exists():
        return open_source(name, unlabelled=unlabelled)
    if name in LOADERS:
        data = load(name, data_dir)
        source = open_source(as_table(data.X, data.y))
        source.name = name
        return source
    from labelwright.images import LOADERS as IMAGE_SETS

    if name in IMAGE_SETS:
        from labelwright.images import load_images
        from labelwright.images.table import image_source

        return image_source(load_images(name, data_dir))
    return open_source(name)


@app.command(
    epilog="Example: labelwright run reviews.csv --label sentiment --id review_id --budget 20 --state reviews\n\n"
    "Answers: labelwright serve --state STATE; or fill in the label column of STATE/questions.csv and save it as "
    "STATE/answers.csv. Run again to merge them.\n\n"
    "A stream: labelwright run redis://localhost:6379/0/reviews --follow --batch-seconds 30 --state reviews; Ctrl-C ends it after "
    "the batch in hand"
)
def run(
    source: Annotated[
        str,
        typer.Argument(
            help="CSV, Parquet or npz file, folder of them or of pictures by class, a data set's name, redis://… or kafka://…"
        ),
    ],
    label: Annotated[
        str | None, typer.Option(help="column of the given labels; of messages and pictures: label")
    ] = None,
    state: Annotated[Path, typer.Option(help="folder for the ledger and the models")] = Path("state"),
    id: Annotated[str | None, typer.Option(help="column that names each row; default: its place")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="rows a batch")] = 1000,
    first_batch: Annotated[int | None, typer.Option(min=1, help="rows of the first batch, if different")] = None,
    clean_rows: Annotated[int, typer.Option(min=0, help="you vouch for the labels of the first N rows")] = 0,
    trusted_column: Annotated[str | None, typer.Option(help="column that marks rows whose label you vouch for")] = None,
    classes: Annotated[
        str | None, typer.Option(help="all labels, comma-separated; default: those of the first batch")
    ] = None,
    drop: Annotated[str | None, typer.Option(help="columns that models must not see, comma-separated")] = None,
    selector: Annotated[str, typer.Option(help="rad-duo, quality-only, slim or none")] = "rad-duo",
    classifier: Annotated[
        str,
        typer.Option(
            help="auto, linear, sgd, forest, boosted, bayes, svm; for pictures network, resnet20, vgg6, cnn12"
        ),
    ] = "auto",
    quality: Annotated[
        str,
        typer.Option(help="the model that judges labels first; same names; auto: linear, for pictures a small network"),
    ] = "auto",
    budget: Annotated[int, typer.Option(min=0, help="questions a batch")] = 0,
    budget_total: Annotated[int | None, typer.Option(min=0, help="questions in all, never exceeded")] = None,
    dynamic: Annotated[bool, typer.Option(help="spend the total where the models are unsure")] = False,
    measure: Annotated[str, typer.Option(help="margin, least-distance, entropy, cent or random")] = "margin",
    expert: Annotated[
        str, typer.Option(help="people (page and CSV), none; with --truth also oracle, fallible")
    ] = "people",
    overlap: Annotated[int, typer.Option(min=1, help="how many people answer each question")] = 1,
    wait: Annotated[float, typer.Option(min=0, help="seconds to wait after each batch for people to answer")] = 0.0,
    error_rate: Annotated[float, typer.Option(min=0, max=1, help="of a fallible expert")] = 0.1,
    answers: Annotated[Path | None, typer.Option(help="CSV with id,label; default STATE/answers.csv")] = None,
    truth: Annotated[
        str | None, typer.Option(help="column of true labels: for simulated experts and the report only")
    ] = None,
    test: Annotated[
        str | None, typer.Option(help="file with true labels, to measure accuracy after every batch")
    ] = None,
    source_column: Annotated[str | None, typer.Option(help="column that says who labelled a row")] = None,
    watch_sources: Annotated[
        bool | None,
        typer.Option(help="judge a source of labels that turns bad by its own mistakes; default: for streams"),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="a folder that grows, or a broker: wait for more rows")
    ] = False,
    batch_seconds: Annotated[
        float | None, typer.Option(min=0.1, help="a stream's batch ends so long after its first row, full or not")
    ] = None,
    buffer: Annotated[int, typer.Option(min=0, help="rejected rows that wait for another look")] = 1000,
    correct: Annotated[float, typer.Option(help="relabel when this sure, 0.5 to 1; 0: never")] = 0.95,
    max_rows: Annotated[int, typer.Option(min=10, help="most rows remembered for refitting")] = 20_000,
    poison: Annotated[
        str, typer.Option(help="against planted labels: off, alarm, or quarantine what an alarm names")
    ] = "alarm",
    strict: Annotated[bool, typer.Option("--strict", help="stop at the first bad row")] = False,
    workers: Workers = None,
    ray: Ray = None,
    ledger: LedgerUrl = None,
    data_dir: DataDir = None,
    seed: Seed = 0,
    report: Annotated[bool, typer.Option(help="write STATE/report.html")] = True,
    json: Json = False,
) -> None:
    """Clean a stream of labelled rows: judge, ask, correct, learn, and write every decision down.

    Run it again with the same --state to go on: rows the ledger has are skipped.
    """
    stream = is_stream(source) or follow
    if dynamic and budget_total is None:
        raise SettingsError("--dynamic needs the questions in all; give --budget-total N")
    opened = None if stream else source_of(source, data_dir)
    if opened is not None and label is None:
        label, id = opened.label, id or opened.id
    label, id, source_column = columns_of(source, label, id, source_column)
    columns = Columns(label, id, trusted_column, truth, source_column, listed(drop))
    place = folder(state, ledger)
    expected = place.expected_batches(opened.num_rows if opened else None, batch_size) if dynamic else 20
    settings = Settings(
        columns, batch_size, first_batch, clean_rows, listed(classes) or None, selector, quality, classifier,
        budget, budget_total, dynamic, expected, measure, expert, error_rate, 1.0, buffer,
        correct if correct > 0 else None, max_rows, seed, overlap, poison,
        stream if watch_sources is None else watch_sources,
    )  # fmt: skip
    tested = source_of(test, data_dir) if test else None
    job: Run
    with open_mapper(workers, ray, threads=True) as mapper:
        if opened is None:
            from labelwright.cli.stream import through

            job, notes = through(
                source,
                settings,
                place,
                tested,
                follow=follow,
                seconds=batch_seconds,
                strict=strict,
                wait=wait,
                answers=answers,
                mapper=mapper,
            )
            summary = finish(job, notes, report=report)
        else:
            job = Run(settings, place, strict=strict, answers_file=answers, wait=wait, mapper=mapper)
            to_the_end(job, opened, tested)
            summary = finish(job, opened.notes, skipped=opened.skipped_lines, report=report)
    say(summary, as_json=json, text="")
    if not json:
        show(summary)


def listed(text: str | None) -> tuple[str, ...]:
    """The parts of a list with commas, each once."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip())) if text else ()


def columns_of(
    source: str, label: str | None, id: str | None, source_column: str | None
) -> tuple[str, str | None, str | None]:
    """The columns of label, id and source: messages have fields for them."""
    if is_stream(source) and not source.startswith("folder:"):
        return label or "label", id or "id", source_column or "source"
    if label is None:
        raise SettingsError("which column holds the given labels? give --label COLUMN")
    return label, id, source_column


def to_the_end(job: Run, source: TableSource, test: TableSource | None = None) -> None:
    """Run to the end, showing progress."""
    with progress_bar() as bar:
        task = bar.add_task("rows", total=source.num_rows)
        for moment in job.over(source, test=test):
            bar.advance(task, moment.rows)
            log.info("batch %s: %s, noise rate %.3f", moment.batch, moment.counts, moment.noise)
            if moment.note:
                log.info(moment.note)


def finish(job: Run, notes: Iterable[str], *, skipped: int = 0, report: bool) -> dict[str, Any]:
    """Leave questions and report in the state folder; say what happened. notes: what the source has to say."""
    from labelwright.exports import write_questions

    history, state = job.state.history(), job.state
    asked = write_questions(history, state.path / "questions.csv")
    summary = summary_of(history, state.path)
    summary |= {"delivered_again": job.repeated, "skipped_lines": skipped, "open_questions": asked}
    summary["assumed"] = [
        *job.intake.encoder.describe(),
        *(f"{n}: {c} values did not fit" for n, c in job.intake.drift.items()),
        *notes,
    ]
    if job.ledger.migrated:
        summary["assumed"].append("the ledger of an older version was migrated")
    if report:
        from labelwright.report import write_report

        summary["report"] = str(write_report(state))
    return summary


def summary_of(history: Any, state: Path) -> dict[str, Any]:
    """What a ledger holds, in figures."""
    batches = history.batches()
    noise = batches[-1]["body"]["noise"] if batches else {"rate": None, "interval": None}
    measures = history.entries("measure")
    return {
        "state": str(state),
        **history.totals(),
        "noise_rate": noise["rate"],
        "noise_interval": noise["interval"],
        "notes": [entry["body"]["note"] for entry in batches if entry["body"]["note"]],
        "test_accuracy": measures[-1]["body"]["test_accuracy"] if measures else None,
        "classes": list(history.classes),
        "alarms": history.alarms(),
        "set_aside_reasons": history.reasons(),
    }


def show(summary: dict[str, Any]) -> None:
    """The summary for a person."""
    console = Console()
    for note in summary["notes"]:
        console.print(f"[yellow]![/yellow] {note}")
    if summary.get("assumed"):
        console.print("Columns: " + "; ".join(summary["assumed"]) + ".")
    for alarm in summary["alarms"]:
        console.print(f"[{'bold red' if alarm['attack'] else 'yellow'}]![/] {escape(alarm['sentence'])}")
    table = Table(title=f"{summary['batches']} batches", title_justify="left")
    table.add_column("verdict")
    table.add_column("rows", justify="right")
    for word in _WORDS:
        table.add_row(word.replace("_", " "), f"{summary[word]:,}")
    console.print(table)
    _show_aside(summary, console)
    if summary["noise_rate"] is not None:
        low, high = summary["noise_interval"]
        rate = summary["noise_rate"]
        console.print(
            f"About {100 * rate:.1f} % of the labels look wrong (95 % interval {100 * low:.1f} to {100 * high:.1f} %; where the "
            "models err in one direction, the truth lies outside it)."
        )
    if summary["test_accuracy"] is not None:
        console.print(f"Accuracy on the test rows: {100 * summary['test_accuracy']:.2f} %.")
    state = summary["state"]
    if summary.get("open_questions"):
        console.print(
            f"{summary['open_questions']} open questions: labelwright serve --state {state}; or answer {state}/questions.csv, "
            f"save it as {state}/answers.csv."
        )
    if summary.get("report"):
        console.print(f"Report: {summary['report']}")
    console.print(f"Next: labelwright export --state {state} --output clean.parquet")


def _show_aside(summary: dict[str, Any], console: Console) -> None:
    """Why rows could not be used, and what to do where many hold a label that is no class."""
    reasons: dict[str, int] = summary["set_aside_reasons"]
    for reason, count in list(reasons.items())[:_REASONS]:
        console.print(f"set aside: {count:,} × {reason}", markup=False, highlight=False, soft_wrap=True)
    unknown = sum(count for reason, count in reasons.items() if UNKNOWN_CLASS in reason)
    if unknown > _MANY * sum(summary[word] for word in _WORDS):
        console.print(
            f"[yellow]![/yellow] {unknown:,} rows hold a label that is no class. If the rows are sorted by label, mix "
            "them; else name all classes with --classes, or take a larger --first-batch. Then run into a new --state folder."
        )


@app.command(epilog="Example: labelwright demo --output demo")
def demo(
    output: Annotated[Path, typer.Option(help="folder for the report, the clean data and the ledger")] = Path("demo"),
    data_dir: DataDir = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Clean pendigits at 60 % wrong labels in under a minute, and compare with the baselines of the paper."""
    from labelwright.bench.demo import run_demo

    with progress_bar() as bar:
        task = bar.add_task("demo", total=None)
        result = run_demo(output, seed=seed, progress=lambda done, total: bar.update(task, completed=done, total=total))
    if json:
        say(result, as_json=True)
        return
    table = Table(title=result["title"], title_justify="left")
    for column in ("method", "test accuracy", "questions"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for name, row in result["methods"].items():
        style = "bold" if name == "ours" else ""
        table.add_row(row["label"], f"{row['accuracy']:.2f} %", str(row["questions"]), style=style)
    console = Console()
    console.print(table)
    for line in result["says"]:
        console.print(line, soft_wrap=True)
