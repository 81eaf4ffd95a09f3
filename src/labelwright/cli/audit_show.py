"""What ``labelwright audit`` prints for a person."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from labelwright.report.audit import scored
from labelwright.report.audit_data import confused_pairs, headline, second_line
from labelwright.report.rows import shortened
from labelwright.report.words import count, percent

if TYPE_CHECKING:
    from labelwright.auditing import Audit

CLASSES, PAIRS, SOURCES, DOUBTED = 5, 5, 8, 5
_LEAST_CONTENT = 8
WORDS = {
    "output": "all rows",
    "label_studio": "Label Studio tasks",
    "questions": "questions",
    "state": "state",
    "report": "report",
}


def show(
    found: Audit, summary: dict[str, Any], again: str, *, questions_asked: int | None, answers: Path | None
) -> None:
    """The summary of an audit for a person. again: the command so far, for what to do next. answers: the file of those read."""
    console = Console(markup=False, highlight=False)
    console.print(headline(found), style="bold", soft_wrap=True)
    console.print(second_line(found), soft_wrap=True)
    if "accuracy" in summary:
        console.print(f"The model's {summary['accuracy']['says']}.", soft_wrap=True)
    console.print()
    for table in (_classes(found), _pairs(found), _sources(found), _doubted(found, console.width)):
        if table is not None:
            console.print(table)
    groups = summary["conflicting_duplicates"]
    if groups:
        word = "has" if groups == 1 else "have"
        console.print(f"{count(groups, 'group')} of near-duplicates {word} labels that contradict each other.")
    for note in found.notes:
        console.print(f"· {plain(note, 600)}", style="dim", soft_wrap=True)
    files = [f"{WORDS[what]} in {path}" for what, path in summary["files"].items()]
    if files:
        console.print("Wrote " + "; ".join(files) + f" ({summary['seconds']:.1f} s).", soft_wrap=True)
    console.print(_next(found, summary, again, questions_asked, answers), soft_wrap=True)


def plain(value: object, limit: int = 80) -> str:
    """A user's value for the terminal: one line, and nothing that a terminal would take for a command.

    >>> plain("a\\x1b[31mb"), plain(None)
    ('a [31mb', '(missing)')
    """
    text = shortened(value, limit)
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _table(title: str, *columns: str) -> Table:
    """Columns that begin with ``>`` stand to the right."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in columns:
        table.add_column(name.removeprefix(">"), justify="right" if name[0] == ">" else "left", header_style="dim")
    return table


def _classes(found: Audit) -> Table | None:
    frame = found.classes
    table = _table(
        "Classes, the worst first", "class", ">labels", ">look wrong", ">estimated wrong", "most often really"
    )
    for name, row in zip(frame.index[:CLASSES], frame.head(CLASSES).to_dict("records"), strict=True):
        other = row["most_confused_with"]
        cells = (plain(name, 40), f"{row['rows']:,}", f"{row['issues']:,}", _rate(row))
        table.add_row(*cells, "–" if other is None or row["confused_share"] < 0.0005 else plain(other, 40))
    left = len(frame) - CLASSES
    return _spaced(table, f"and {left:,} more" if left > 0 else "")


def _pairs(found: Audit) -> Table | None:
    if found.judge.classes < 3:
        return None
    table = _table("Most confused", "really", "came as", ">labels, about", ">of that class")
    for pair in confused_pairs(found, PAIRS):
        table.add_row(
            plain(pair["true"], 40), plain(pair["given"], 40), f"{pair['rows']:,.0f}", percent(pair["probability"])
        )
    return _spaced(table) if table.row_count else None


def _sources(found: Audit) -> Table | None:
    frame = found.sources
    if frame is None:
        return None
    table = _table("Who labelled, the worst first", "source", ">labels", ">look wrong", ">estimated wrong")
    for name, row in zip(frame.index[:SOURCES], frame.head(SOURCES).to_dict("records"), strict=True):
        table.add_row(plain(name, 40), f"{row['rows']:,}", f"{row['issues']:,}", _rate(row))
    left = len(frame) - SOURCES
    return _spaced(table, f"and {left:,} more" if left > 0 else "")


def _doubted(found: Audit, width: int) -> Table | None:
    """width: of the terminal; a narrow one cuts the content, and nothing else."""
    worst = found.ranking[(found.flagged & (found.known < 0))[found.ranking]][:DOUBTED]
    if not len(worst):
        return None
    table = _table("Most doubtful", "row", "label", "looks like", ">sure", ">score")
    rows = [None] * len(worst) if found.rows is None else found.rows.take(worst).to_pylist()
    cells: list[tuple[str, ...]] = []
    for at in worst.tolist():
        name = at if found.ids is None else found.ids[at]
        given, suggested = (found.labels.names[code] for code in (found.labels.codes[at], found.whole.predicted[at]))
        numbers = (percent(float(found.whole.probability[at])), scored(float(found.label_score[at])))
        cells.append((plain(name, 24), plain(given, 20), plain(suggested, 20), *numbers))
    taken = 0
    for column, texts in zip(table.columns, zip(*cells, strict=True), strict=True):
        column.no_wrap, column.min_width = True, max(len(str(text)) for text in (column.header, *texts))
        taken += column.min_width + 2
    left = width - taken
    if found.rows is not None and left >= _LEAST_CONTENT:
        table.add_column("content", no_wrap=True, overflow="ellipsis", header_style="dim", max_width=left)
        cells = [(*row, _content(shown)) for row, shown in zip(cells, rows, strict=True)]
    for row in cells:
        table.add_row(*row)
    return _spaced(table)


def _content(row: Mapping[str, Any]) -> str:
    """A row in short; of a picture the name of its file."""
    cells = [
        value.get("path") or "(image)" if isinstance(value, dict) and "bytes" in value else value
        for value in row.values()
    ]
    return "; ".join(plain(value, 40) for value in cells if value is not None)


def _rate(row: Mapping[Any, Any]) -> str:
    low, high = percent(row["low"]).removesuffix(" %"), percent(row["high"])
    return f"{percent(row['error_rate'])} ({low} to {high})"


def _spaced(table: Table, caption: str = "") -> Table:
    """With an empty line below."""
    table.caption, table.caption_justify, table.caption_style = caption or " ", "left", "dim"
    return table


def _next(found: Audit, summary: dict[str, Any], again: str, questions_asked: int | None, answers: Path | None) -> str:
    """What to do next, in a sentence."""
    if questions_asked is not None:
        path = summary["files"]["questions"]
        if answers is not None:
            return f"Next: fill in the column 'label' of {path}, add its rows to {answers}, then: {again}"
        return (
            f"Next: fill in the column 'label' of {path}, save it as answers.csv, then: {again} --answers answers.csv"
        )
    if summary["answers"]:
        wide = found.precision.high - found.precision.low
        if wide < 0.2 or not summary["label_issues"]:
            return f"Next: {again} --output audited.csv writes every row with its verdict"
    return f"Next: {again} --questions 20 writes the rows worth asking an expert about"
