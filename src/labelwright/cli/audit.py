"""audit: which labels of a whole data set are wrong, in one go."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labelwright.cli.app import app, say
from labelwright.cli.common import DataDir, Json, Ray, Seed, Workers
from labelwright.cli.run import listed, progress_bar, source_of
from labelwright.errors import DataError, SettingsError
from labelwright.scale import Mapper, open_mapper
from labelwright.streams import Columns
from labelwright.tables import CSV_SUFFIXES, PARQUET_SUFFIXES

if TYPE_CHECKING:
    from labelwright.auditing import Audit
    from labelwright.auditing.files import Given

REPORT = Path("audit-report.html")
_FOLDS = 5


@app.command(
    epilog="Example: labelwright audit reviews.csv --label sentiment --id review_id --output issues.csv --questions 20\n\n"
    "Example: labelwright audit --labels y.npy --pred-probs p.npy --output issues.parquet\n\n"
    "Example: labelwright audit test.csv --label y --predictions model_says --fail-above 0.02\n\n"
    "Answers: fill in the label column of questions.csv, save it as answers.csv, and add --answers answers.csv."
)
def audit(
    file: Annotated[
        str | None,
        typer.Argument(help="CSV, Parquet or npz file, folder of them or of pictures by class, or a data set's name"),
    ] = None,
    label: Annotated[str | None, typer.Option(help="column of the given labels")] = None,
    id: Annotated[str | None, typer.Option(help="column that names each row; default: its place")] = None,
    source_column: Annotated[str | None, typer.Option(help="column that says who labelled a row")] = None,
    drop: Annotated[str | None, typer.Option(help="columns that models must not see, comma-separated")] = None,
    labels: Annotated[Path | None, typer.Option(help="instead of FILE: .npy file of the given labels")] = None,
    pred_probs: Annotated[
        Path | None, typer.Option(help=".npy or Parquet of a model's out-of-sample probabilities, one column a class")
    ] = None,
    classifier: Annotated[
        str,
        typer.Option(
            help="auto (a network for pictures where torch is installed), linear, sgd, forest, boosted, bayes or svm; for "
            "pictures network, network-small, resnet20, resnet44, vgg6 or cnn12"
        ),
    ] = "auto",
    folds: Annotated[int, typer.Option(min=2, help="folds of the cross-validation")] = _FOLDS,
    answers: Annotated[Path | None, typer.Option(help="CSV with id,label: what experts answered")] = None,
    questions: Annotated[int | None, typer.Option(min=1, help="write the N rows worth asking an expert about")] = None,
    ask_to: Annotated[
        str, typer.Option(help="find: the likeliest errors; measure: rows that narrow precision and recall")
    ] = "find",
    questions_file: Annotated[Path, typer.Option(help="where to write them")] = Path("questions.csv"),
    output: Annotated[
        Path | None, typer.Option(help="CSV or Parquet: your columns and the audit's, for every row")
    ] = None,
    label_studio: Annotated[Path | None, typer.Option(help="JSON: the doubted rows as Label Studio tasks")] = None,
    report: Annotated[Path | None, typer.Option(help="HTML report; with FILE audit-report.html by default")] = None,
    no_report: Annotated[bool, typer.Option("--no-report", help="write no report")] = False,
    save_state: Annotated[Path | None, typer.Option(help="JSON: what was fitted, to judge later rows by")] = None,
    state: Annotated[Path | None, typer.Option(help="judge by an earlier audit's --save-state; fits nothing")] = None,
    predictions: Annotated[
        str | None, typer.Option(help="column of what a model predicts: its accuracy, if doubted labels are judged")
    ] = None,
    fail_above: Annotated[
        float | None, typer.Option(min=0, max=1, help="exit code 1 when a larger share of the labels looks wrong")
    ] = None,
    workers: Workers = None,
    ray: Ray = None,
    data_dir: DataDir = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Find the wrong labels of a whole data set, say what they should be, and how far that can be believed."""
    start = time.perf_counter()
    if report is None and file is not None and not no_report:
        report = REPORT
    columns = Columns(label or "", id, None, None, source_column, listed(drop))
    places = Places(output, label_studio, None if no_report else report, save_state, questions_file, questions, ask_to)
    asked = Asked(file, labels, pred_probs, columns, predictions, answers, state, classifier, folds, seed)
    asked.check()
    places.check(asked)
    with open_mapper(workers, ray, threads=True) as mapper:
        given, found = judged(asked, mapper, data_dir)
    written = places.write(found, given, title=f"Label audit of {Path(file).name}" if file else "")
    summary = summary_of(found, given, written, time.perf_counter() - start)
    if json:
        say(summary, as_json=True)
    else:
        from labelwright.cli.audit_show import show

        show(found, summary, asked.again(), questions_asked=questions, answers=answers)
    if fail_above is not None and summary["issue_share"] > fail_above:
        if not json:
            print(f"Exit code 1: more than {100 * fail_above:g} % of the labels look wrong.")
        raise typer.Exit(1)


@dataclass(frozen=True)
class Asked:
    """What is to be audited, by its names on the command line."""

    file: str | None
    labels: Path | None
    pred_probs: Path | None
    columns: Columns
    predictions: str | None
    answers: Path | None
    state: Path | None
    classifier: str
    folds: int
    seed: int

    def check(self) -> None:
        """Raise SettingsError where options contradict each other."""
        if self.file is None and self.labels is None:
            raise SettingsError(
                "there is nothing to audit; give a file and --label COLUMN, or --labels y.npy and --pred-probs p.npy"
            )
        if self.file is not None and self.labels is not None:
            raise SettingsError(
                f"labels were given twice, in {self.file} and by --labels; leave one out (--label names a column of the file)"
            )
        if self.labels is not None and self.pred_probs is None:
            raise SettingsError(
                "--labels alone tells nothing about the rows; give --pred-probs p.npy, or a file and --label"
            )
        if self.state is not None and self.pred_probs is None:
            raise SettingsError(
                "--state judges probabilities of the same model as before; give them with --pred-probs p.npy"
            )
        if self.pred_probs is not None and self.classifier != "auto":
            raise SettingsError(
                f"--classifier {self.classifier} makes probabilities, but --pred-probs gives them; leave one of them out"
            )
        named = {
            "--label": self.columns.label,
            "--id": self.columns.id,
            "--source-column": self.columns.source,
            "--drop": self.columns.drop,
            "--predictions": self.predictions,
        }
        for option, value in named.items():
            if self.file is None and value:
                raise SettingsError(f"{option} names a column of a file, but only --labels were given; give the file")

    def again(self) -> str:
        """The command so far, to be run again with more options."""
        import shlex

        parts = ["labelwright", "audit"]
        options = {
            "--label": self.columns.label,
            "--id": self.columns.id,
            "--source-column": self.columns.source,
            "--drop": ",".join(self.columns.drop),
            "--labels": self.labels,
            "--pred-probs": self.pred_probs,
            "--predictions": self.predictions,
            "--state": self.state,
            "--classifier": None if self.classifier == "auto" else self.classifier,
            "--folds": None if self.folds == _FOLDS else self.folds,
            "--seed": self.seed or None,
            "--answers": self.answers,
        }
        parts += [self.file] if self.file is not None else []
        parts += [str(part) for option, value in options.items() if value for part in (option, value)]
        return shlex.join(parts)


@dataclass(frozen=True)
class Places:
    """Where results are to be written; None: nowhere."""

    output: Path | None
    label_studio: Path | None
    report: Path | None
    save_state: Path | None
    questions_file: Path
    questions: int | None
    ask_to: str

    def check(self, asked: Asked) -> None:
        """Say before the work that a file cannot be written, or is one that is read. Raises SettingsError."""
        from labelwright.auditing.files import check_places

        if self.ask_to not in ("find", "measure"):
            raise SettingsError(f"--ask-to {self.ask_to} is unknown; expected find or measure")
        questions = self.questions_file if self.questions else None
        check_places(
            {
                "--output": self.output,
                "--label-studio": self.label_studio,
                "--report": self.report,
                "--save-state": self.save_state,
                "--questions-file": questions,
            },
            {
                "the file": None if asked.file is None else Path(asked.file),
                "--labels": asked.labels,
                "--pred-probs": asked.pred_probs,
                "--answers": asked.answers,
                "--state": asked.state,
            },
        )
        endings = (*CSV_SUFFIXES, *PARQUET_SUFFIXES)
        if self.output is not None and not self.output.name.lower().endswith(endings):
            raise SettingsError(f"--output {self.output} is of an unknown kind; end its name in .csv or .parquet")

    def write(self, found: Audit, given: Given, *, title: str = "") -> dict[str, str]:
        """Write what was asked for; what -> path."""
        from labelwright.auditing.files import write_audit_questions, write_result

        written = {}
        if self.output is not None:
            write_result(found, given, self.output)
            written["output"] = str(self.output)
        if self.label_studio is not None:
            found.to_label_studio(self.label_studio)
            written["label_studio"] = str(self.label_studio)
        if self.questions is not None:
            write_audit_questions(found, self.questions, self.questions_file, self.ask_to)
            written["questions"] = str(self.questions_file)
        if self.save_state is not None:
            found.save(self.save_state)
            written["state"] = str(self.save_state)
        if self.report is not None:
            written["report"] = str(found.report(self.report, title=title))
        return written


def judged(asked: Asked, workers: Mapper, data_dir: str | None) -> tuple[Given, Audit]:
    """Read what there is, and audit it."""
    from labelwright.auditing import audit as audit_all
    from labelwright.auditing import load_audit
    from labelwright.auditing.files import without_bad_pictures
    from labelwright.settings import make_classifier

    if asked.classifier != "auto":
        make_classifier(asked.classifier, asked.seed)  # says before the work that it cannot be had
    given = _read(asked, data_dir)
    if asked.pred_probs is None:
        given = without_bad_pictures(given)
    if asked.pred_probs is None and given.features is None:
        raise SettingsError(
            f"{asked.file} has no column left to learn from beside the named ones; give --pred-probs, or drop fewer columns"
        )
    more: dict[str, Any] = {"answers": _answers(asked, given), "sources": given.sources, "ids": given.ids}
    notes = list(given.notes)
    with warnings.catch_warnings(), progress() as tell:
        warnings.filterwarnings("ignore", "the probabilities ")  # a note says the same
        if asked.pred_probs is not None:
            more["features"] = _features(given, notes)
        if asked.state is not None:
            found = load_audit(asked.state).audit(given.labels, asked.pred_probs, **more)
        else:
            X = given.features if asked.pred_probs is None else None
            more |= {"X": X, "classifier": asked.classifier, "folds": asked.folds}
            more |= {"workers": workers, "random_state": asked.seed}
            found = audit_all(given.labels, asked.pred_probs, progress=tell, **more)
    counted = len(found) - found.whole.rows == len(given.aside)  # they were named above; nobody left their labels out
    told = [note for note in found.notes if not (counted and given.aside and note.endswith("not judged"))]
    return given, replace(found, rows=given.shown, notes=(*notes, *told))


def _features(given: Given, notes: list[str]) -> Any:
    """Features to find near-duplicates by, beside probabilities that were given; None where there are none to be had."""
    from labelwright.auditing.crossval import read_features
    from labelwright.report.audit_data import MANY

    if given.features is None or given.features.num_rows > MANY:
        return None
    try:
        return read_features(given.features, given.features.num_rows).X
    except DataError as error:
        notes.append(f"near-duplicates were not looked for: {error}")
        return None


def _read(asked: Asked, data_dir: str | None) -> Given:
    from labelwright.auditing.files import Given, read_given

    if asked.file is None:
        return Given(asked.labels)
    source = source_of(asked.file, data_dir)
    if not asked.columns.label and source.label:
        asked = replace(asked, columns=replace(asked.columns, label=source.label, id=asked.columns.id or source.id))
    if not asked.columns.label:
        names = ", ".join(repr(name) for name in source.columns[:8]) + (", …" if len(source.columns) > 8 else "")
        raise SettingsError(f"which column holds the labels? give --label COLUMN; {source.name} has {names}")
    return read_given(source, asked.columns, predictions=asked.predictions)


def _answers(asked: Asked, given: Given) -> dict[int, str] | None:
    if asked.answers is None:
        return None
    from labelwright.auditing.files import read_answers_file
    from labelwright.auditing.reading import load_npy

    values = load_npy(given.labels) if isinstance(given.labels, Path) else given.labels
    classes = {str(value) for value in values if str(value).lower() == "unsure"}
    return read_answers_file(asked.answers, given.ids, len(values), classes)


@contextmanager
def progress() -> Iterator[Any]:
    """A function of (stage, done, total) that moves bars on stderr, on terminals only."""
    with progress_bar() as bar:
        tasks: dict[str, Any] = {}

        def tell(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done, total=total)

        yield tell


def summary_of(found: Audit, given: Given, written: dict[str, str], seconds: float) -> dict[str, Any]:
    """What was found, as JSON values."""
    from labelwright.report.audit_data import conflicts

    summary: dict[str, Any] = {**found.summary(), "files": written}
    groups = conflicts(found)
    summary["conflicting_duplicates"] = None if groups is None else len(groups)
    if given.predictions is not None:
        told = found.accuracy(given.predictions)
        summary["accuracy"] = {
            name: {"value": float(value), "low": value.low, "high": value.high}
            for name, value in (("before", told.before), ("after", told.after))
        } | {"says": str(told)}
    summary["seconds"] = round(seconds, 2)
    return summary
