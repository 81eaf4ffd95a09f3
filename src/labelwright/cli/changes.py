"""Commands that change one's mind on the record: revert, erase."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated

import typer

from labelwright.cli.app import app, say
from labelwright.cli.common import Json, LedgerUrl, State, folder
from labelwright.exports import write_questions
from labelwright.ledger import SqlLedger, erase_rows
from labelwright.ledger import revert as take_back


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "user"


@app.command(epilog="Example: labelwright revert --state reviews --decider posterior --class positive")
def revert(
    state: State = Path("state"),
    row: Annotated[str | None, typer.Option(help="this row")] = None,
    label: Annotated[str | None, typer.Option("--class", help="rows relabelled to this class")] = None,
    batch: Annotated[str | None, typer.Option(help="rows of this batch")] = None,
    decider: Annotated[str | None, typer.Option(help="what this decider changed, e.g. posterior or oracle")] = None,
    drop: Annotated[
        bool, typer.Option("--drop", help="leave the rows without a label instead of the given one")
    ] = False,
    ledger: LedgerUrl = None,
    json: Json = False,
) -> None:
    """Take back corrections; the rows get their given label back. Filters combine. Refitted models forget the rows."""
    place = folder(state, ledger)
    history = place.history()
    place.claim()
    try:
        book = SqlLedger(place.url, settings=history.settings)
        found = take_back(book, row=row, label=label, batch=batch, decider=decider, drop=drop, who=_who())
    finally:
        place.release()
    say({"reverted": found}, as_json=json, text=f"took back {len(found)} corrections")


@app.command(epilog="Example: labelwright erase r17 r18 --state reviews")
def erase(
    rows: Annotated[list[str], typer.Argument(help="ids of the rows to forget")],
    state: State = Path("state"),
    ledger: LedgerUrl = None,
    json: Json = False,
) -> None:
    """Erase the content of rows (a person's right); the chain of decisions stays whole."""
    place = folder(state, ledger)
    history = place.history()
    place.claim()
    try:
        count = erase_rows(SqlLedger(place.url, settings=history.settings), rows, who=_who())
        if (place.path / "questions.csv").exists():
            write_questions(place.history(), place.path / "questions.csv")
    finally:
        place.release()
    left = [str(path) for path in (place.path / "report.html", place.path / "answers.csv") if path.exists()]
    told = f"; what {' and '.join(left)} tell of them is yours to remove" if left else ""
    say({"erased": count, "left": left}, as_json=json, text=f"erased the content of {count} rows{told}")
