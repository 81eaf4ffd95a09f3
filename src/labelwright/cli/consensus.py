"""consensus: what several people who labelled the same rows mean together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from labelwright.cli.app import app, say
from labelwright.cli.common import Json
from labelwright.errors import DataError

if TYPE_CHECKING:
    from labelwright.consensus import Consensus, Ratings


@app.command(
    epilog="Example: labelwright consensus ratings.csv --row id --rater who --label label --output agreed.csv\n\n"
    "Example: labelwright consensus ratings.parquet --row id --rater who --label label --model one-coin --json"
)
def consensus(
    file: Annotated[Path, typer.Argument(help="CSV or Parquet with a line for each answer")],
    row: Annotated[str, typer.Option(help="column that names the row an answer is about")] = "id",
    rater: Annotated[str, typer.Option(help="column that says who answered")] = "expert",
    label: Annotated[str, typer.Option(help="column of the answers; empty or 'unsure': could not say")] = "label",
    model: Annotated[
        str, typer.Option(help="dawid-skene (each rater's confusions), one-coin (how often each is right) or majority")
    ] = "dawid-skene",
    output: Annotated[
        Path | None, typer.Option(help="CSV or Parquet: each row's label, probability, agreement, answers")
    ] = None,
    disputed: Annotated[int, typer.Option(min=0, help="how many of the least settled rows to show")] = 5,
    json: Json = False,
) -> None:
    """Agree on one label a row from several people's answers, and say how good each of them is. No truth is needed."""
    import numpy as np
    import pyarrow as pa

    from labelwright.tables import write_tables

    ratings = _read(file, row, rater, label)
    found = ratings.consensus(model)
    if output is not None:
        columns = {
            row: list(ratings.rows),
            label: found.label.tolist(),
            "probability": found.probability,
            "agreement": found.agreement,
            "answers": np.bincount(ratings.row, minlength=len(ratings.rows)),
        }
        write_tables(iter([pa.table(columns)]), output)
    told = _told(found, model, disputed) | {"written": None if output is None else str(output)}
    if json:
        say(told, as_json=True)
    else:
        _show(told)


def _read(file: Path, row: str, rater: str, label: str) -> Ratings:
    """The answers in a file."""
    import pyarrow as pa

    from labelwright.consensus import Ratings
    from labelwright.streams import label_text
    from labelwright.tables import open_source

    source = open_source(str(file))
    for column in (row, rater, label):
        source.require(column)
    table = pa.concat_tables(list(source.chunks(100_000)), promote_options="permissive")
    if not table.num_rows:
        raise DataError(
            f"{file} holds no answers; expected a line for each, with columns {row!r}, {rater!r}, {label!r}"
        )
    rows, raters, labels = (label_text(table.column(name)) for name in (row, rater, label))
    said = [None if text is not None and text.lower() == "unsure" else text for text in labels]
    return Ratings.of(rows, raters, said)


def _told(found: Consensus, model: str, disputed: int) -> dict[str, Any]:
    """What is printed."""
    ratings = found.ratings
    low, high = found.skill_interval()
    return {
        "rows": len(ratings.rows),
        "answers": len(ratings.row),
        "model": model,
        "raters": [
            {
                "name": name,
                "answers": int(n),
                "skill": round(float(s), 4),
                "low": round(float(a), 4),
                "high": round(float(b), 4),
            }
            for name, n, s, a, b in zip(ratings.raters, found.answers, found.skill, low, high, strict=True)
        ],
        "disputed": [
            {
                "row": ratings.rows[at],
                "label": str(found.label[at]),
                "probability": round(float(found.probability[at]), 4),
            }
            for at in found.disputed(disputed)
        ],
    }


def _show(told: Mapping[str, Any]) -> None:
    print(
        f"{told['answers']:,} answers of {len(told['raters'])} people about {told['rows']:,} rows, by {told['model']}."
    )
    table = Table("who", "answers", "right", "between", box=box.SIMPLE_HEAD, pad_edge=False)
    for one in sorted(told["raters"], key=lambda one: one["skill"]):
        between = f"{100 * one['low']:.0f} and {100 * one['high']:.0f} %"
        table.add_row(str(one["name"]), f"{one['answers']:,}", f"{100 * one['skill']:.0f} %", between)
    Console().print(table)
    for one in told["disputed"]:
        print(f"least settled: {one['row']}, perhaps {one['label']} ({100 * one['probability']:.0f} %)")
    if told["written"]:
        print(f"wrote {told['written']}")
