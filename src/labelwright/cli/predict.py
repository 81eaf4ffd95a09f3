"""predict: the command that uses what was learned, on as many cores or machines as there are."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from labelwright.cli.app import app, say
from labelwright.cli.common import DataDir, Json, LedgerUrl, Ray, Seed, State, Workers, folder
from labelwright.cli.run import progress_bar, source_of
from labelwright.judging import BLOCK, Judge, judge_of, predict_into, predictions
from labelwright.runner import reopened
from labelwright.scale import Mapper, checked, cores, open_mapper
from labelwright.tables import CSV_SUFFIXES, PARQUET_SUFFIXES, TableSource

_FEW = 20 * BLOCK
_JUDGED = ("predicted_label", "probability", "verdict", "label_score", "likely_label")


@app.command(
    epilog="Example: labelwright predict new.csv --state reviews --output predicted.csv\n\n"
    "Example: labelwright predict pictures/ --state animals --output predicted.csv\n\n"
    "Example: labelwright predict rows.parquet --state reviews --judge --workers 8 --output judged/\n\n"
    "Example: labelwright predict /shared/rows --state reviews --ray auto --output /shared/judged"
)
def predict(
    source: Annotated[str, typer.Argument(help="rows to classify, with the columns that 'run' saw")],
    state: State = Path("state"),
    output: Annotated[
        Path | None,
        typer.Option(
            help="CSV or Parquet file, or a new folder: each worker writes its part; default: CSV on the terminal"
        ),
    ] = None,
    judge: Annotated[
        bool, typer.Option("--judge", help="judge the given labels, too: verdict, label_score, likely_label")
    ] = False,
    workers: Workers = None,
    ray: Ray = None,
    ledger: LedgerUrl = None,
    data_dir: DataDir = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Classify rows with the trained classifier: label, probability, and the probability of every class."""
    checked(workers)
    job, opened = reopened(folder(state, ledger)), source_of(source, data_dir, unlabelled=True)
    if judge:
        opened.require(job.settings.columns.label)
    learned, id_column = judge_of(job, labels=judge), job.settings.columns.id
    with open_mapper(_worth(workers, ray, opened), ray) as mapper:
        if output is not None:
            start = time.perf_counter()
            summary = _written(learned, opened, output, mapper)
            seconds = time.perf_counter() - start
            say(summary, as_json=json, text=f"wrote {output} in {seconds:.1f} s")
        elif json:
            for part in _counted(
                predictions(learned, opened, mapper=mapper, columns=lambda name: _told(name, id_column))
            ):
                for row in part.to_pylist():
                    say(row, as_json=True)
        else:
            _print(_counted(predictions(learned, opened, mapper=mapper)))


def _worth(workers: int | None, ray: str | None, source: TableSource) -> int | None:
    """By default no more processes than the rows are worth, each takes a second or two to start: one for files that must be
    read here in any case."""
    if workers is not None or ray is not None:
        return workers
    return max(1, min(cores(), (source.num_rows or 0) // _FEW)) if source.files else 1


def _written(judge: Judge, source: TableSource, output: Path, mapper: Mapper) -> dict[str, Any]:
    from labelwright.tables import write_tables

    with progress_bar() as bar:
        task = bar.add_task("rows", total=source.num_rows)
        if not output.name.lower().endswith((*CSV_SUFFIXES, *PARQUET_SUFFIXES)):
            counts = []
            for rows in predict_into(judge, source, output, mapper=mapper):
                counts.append(rows)
                bar.advance(task, rows)
            return {"output": str(output), "rows": sum(counts), "parts": len(counts)}

        def parts() -> Iterator[Any]:
            for part in _counted(predictions(judge, source, mapper=mapper)):
                yield part
                bar.advance(task, part.num_rows)

        write_tables(parts(), output)
    return {"output": str(output)}


def _told(name: str, id_column: str | None) -> bool:
    return name == id_column or name in _JUDGED or name.startswith("proba_")


def _counted(parts: Iterator[Any]) -> Iterator[Any]:
    """The same parts; at the end the rows without a prediction are told on stderr."""
    lost = 0
    for part in parts:
        lost += part["predicted_label"].null_count
        yield part
    if lost:
        have = "1 row has" if lost == 1 else f"{lost:,} rows have"
        print(f"{have} no prediction: a picture that does not decode, or a vector that is none", file=sys.stderr)


def _print(parts: Iterator[Any]) -> None:
    import pyarrow.csv as csv

    from labelwright.tables.write import as_text

    for place, part in enumerate(parts):
        kinds = {field.name: str(field.type) for field in part.schema}
        names = [name for name, kind in kinds.items() if not kind.startswith(("fixed_size_list", "list"))]
        csv.write_csv(as_text(part.select(names)), sys.stdout.buffer, csv.WriteOptions(include_header=place == 0))
