"""Commands that only read: status, questions, export, report, verify, explain, corrections."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from labelwright.cli.app import app, say
from labelwright.cli.common import Json, LedgerUrl, Seed, State, folder
from labelwright.cli.run import show, summary_of


@app.command(epilog="Example: labelwright status --state reviews")
def status(state: State = Path("state"), ledger: LedgerUrl = None, json: Json = False) -> None:
    """What has been decided so far, and what is open."""
    from labelwright.exports import open_questions

    history = folder(state, ledger).history()
    summary = summary_of(history, state)
    summary["open_questions"] = len(open_questions(history))
    from labelwright.streaming import standing

    stream = standing(folder(state, ledger))
    if stream is not None:
        summary["stream"] = stream
    if json:
        say(summary, as_json=True)
        return
    show(summary)
    if stream is not None:
        from labelwright.cli.stream import show_stream

        show_stream(stream)


@app.command(epilog="Example: labelwright questions --state reviews --output questions.csv")
def questions(
    state: State = Path("state"),
    output: Annotated[
        Path | None, typer.Option(help="write them to be answered: .csv, .parquet, or .json for Label Studio")
    ] = None,
    ledger: LedgerUrl = None,
    json: Json = False,
) -> None:
    """The rows whose label an expert is asked for and has not given yet."""
    from labelwright.exports import open_questions, write_questions

    history = folder(state, ledger).history()
    if output is not None:
        if output.suffix.lower() == ".json":
            from labelwright.answers import hidden_columns
            from labelwright.interchange import write_tasks

            count = write_tasks(history, output, hidden=hidden_columns(history))
        else:
            count = write_questions(history, output)
        say({"questions": count, "output": str(output)}, as_json=json, text=f"wrote {count} questions to {output}")
        return
    asked = [{k: v for k, v in q.items() if k not in ("key", "label")} for q in open_questions(history)]
    lines = [
        f"{q['id']}: given {q['given_label']!r}, models say {q['suggestion']!r} ({q['confidence']:.2f})" for q in asked
    ]
    say(asked, as_json=json, text="\n".join(lines) or "no open questions")


@app.command(epilog="Example: labelwright export --state reviews --output clean.parquet")
def export(
    output: Annotated[Path, typer.Option(help="Parquet or CSV, by suffix")],
    state: State = Path("state"),
    all: Annotated[
        bool, typer.Option("--all", help="rejected and waiting rows too, with an empty final_label")
    ] = False,
    ledger: LedgerUrl = None,
    json: Json = False,
) -> None:
    """Write the clean data set: your columns, then id, given_label, final_label, verdict, label_score, decided_by, decided_at."""
    from labelwright.exports import export as write

    count = write(folder(state, ledger).history(), output, everything=all)
    say({"rows": count, "output": str(output)}, as_json=json, text=f"wrote {count:,} rows to {output}")


@app.command(epilog="Example: labelwright report --state reviews")
def report(
    state: State = Path("state"),
    output: Annotated[Path | None, typer.Option(help="HTML file; default STATE/report.html")] = None,
    ledger: LedgerUrl = None,
    json: Json = False,
) -> None:
    """Write the report: one self-contained HTML file, and its figures as PNG and SVG."""
    from labelwright.report import report_data, write_report

    place = folder(state, ledger)
    path = write_report(place, output)
    say({**report_data(place), "report": str(path)}, as_json=json, text=f"wrote {path}") if json else print(
        f"wrote {path}"
    )


@app.command(epilog="Example: labelwright verify --state reviews")
def verify(
    state: State = Path("state"),
    head: Annotated[str | None, typer.Option(help="chain head noted earlier: shows that nothing was cut off")] = None,
    ledger: LedgerUrl = None,
    json: Json = False,
) -> None:
    """Check the ledger's hash chain; any edit is found and its batch named (exit code 1)."""
    from labelwright.ledger import verify as check

    count, tip, findings = check(folder(state, ledger).history_engine(), head=head)
    found = [{"entry": f.seq, "batch": f.batch, "what": f.what} for f in findings]
    lines = [f"{count} entries, chain head {tip}", *(str(f) for f in findings)]
    lines.append("EDITED: the ledger is not as it was written" if findings else "whole: nothing was edited")
    say({"entries": count, "head": tip, "whole": not findings, "findings": found}, as_json=json, text="\n".join(lines))
    if findings:
        raise typer.Exit(1)


@app.command(epilog="Example: labelwright explain r17 --state reviews")
def explain(
    row: Annotated[str, typer.Argument(help="the row's id")],
    state: State = Path("state"),
    ledger: LedgerUrl = None,
    json: Json = False,
) -> None:
    """Tell a row's whole story in plain words."""
    from labelwright.exports import explain as tell
    from labelwright.exports import story_json

    history = folder(state, ledger).history()
    say(story_json(history, row) if json else None, as_json=json, text="\n".join(tell(history, row)))


@app.command(epilog="Example: labelwright corrections --state reviews --class positive")
def corrections(
    state: State = Path("state"),
    row: Annotated[str | None, typer.Option(help="only this row")] = None,
    label: Annotated[str | None, typer.Option("--class", help="only rows relabelled to this class")] = None,
    batch: Annotated[str | None, typer.Option(help="only this batch")] = None,
    decider: Annotated[str | None, typer.Option(help="only what this decider changed, e.g. posterior")] = None,
    ledger: LedgerUrl = None,
    json: Json = False,
) -> None:
    """List the rows whose label was changed, for review; 'revert' takes the same filters."""
    found = folder(state, ledger).history().corrections(row=row, label=label, batch=batch, decider=decider)
    if json:
        say(found, as_json=True)
        return
    table = Table()
    for name in ("id", "batch", "given_label", "final_label", "probability", "decided_by"):
        table.add_column(name.replace("_", " "))
    for f in found:
        cells = (f["id"], f["batch"], f["given_label"], f["final_label"], f"{f['probability']:.3f}", f["decided_by"])
        table.add_row(*map(str, cells))
    Console(width=max(80, shutil.get_terminal_size().columns)).print(table)
    print(f"{len(found)} corrections")


__all__ = ["Seed"]
