"""labelwright audit: what it writes can be read back, what it refuses it says in one sentence."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import call_cli, run_cli, write_reviews

from labelwright.auditing.files import ADDED, read_answers_file
from labelwright.cli.audit import progress
from labelwright.errors import DataError
from labelwright.tables import open_source

QUICK = ("--classifier", "bayes", "--folds", 3)
NAMED = ("--label", "label", "--id", "rid", "--drop", "true")


def whole(path: Path) -> dict[str, list[Any]]:
    table: dict[str, list[Any]] = next(open_source(path).chunks(10**6)).to_pydict()
    return table


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """reviews.csv, its audit's files beside it; y.npy and p.npy of 300 rows, 3 classes, 20 labels wrong."""
    folder = tmp_path_factory.mktemp("audit")
    write_reviews(folder / "reviews.csv", 400, noise=0.1)
    lines = (folder / "reviews.csv").read_text().splitlines()
    lines[1] = lines[1].replace(",good,", ",,").replace(",bad,", ",,").replace(",meh,", ",,")  # a row without a label
    (folder / "reviews.csv").write_text("\n".join(lines) + "\n")
    y = np.arange(300) % 3
    p = np.full((300, 3), 0.05)
    p[np.arange(300), y] = 0.9
    y[:20] = (y[:20] + 1) % 3
    np.save(folder / "y.npy", y)
    np.save(folder / "p.npy", p)
    done = call_cli(
        "audit", folder / "reviews.csv", *NAMED, "--source-column", "city", *QUICK, "--json",
        "--output", folder / "all.csv", "--label-studio", folder / "tasks.json", "--report", folder / "r.html",
        "--questions", 7, "--questions-file", folder / "questions.csv", "--save-state", folder / "state.json",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    (folder / "summary.json").write_text(done.stdout)
    return folder


def test_json_is_one_object_with_everything(folder: Path) -> None:
    text = (folder / "summary.json").read_text()
    found = json.loads(text)
    assert len(text.splitlines()) == 1
    keys = {"rows", "unlabelled", "classes", "label_issues", "issue_share", "noise_rate", "precision", "recall", "answers",
            "worst_classes", "notes", "files", "conflicting_duplicates", "seconds"}  # fmt: skip
    assert keys <= set(found)
    assert (found["rows"], found["unlabelled"], found["classes"], found["answers"]) == (400, 1, 3, 0)
    assert set(found["files"]) == {"output", "label_studio", "report", "questions", "state"}
    assert all(Path(path).stat().st_size for path in found["files"].values())
    assert found["notes"][0].startswith("probabilities: GaussianNB, 3-fold")
    assert not any("rid" in note or "true" in note for note in found["notes"])  # no features


def test_every_row_is_written_with_its_own_columns(folder: Path) -> None:
    told, came = whole(folder / "all.csv"), whole(folder / "reviews.csv")
    assert list(told) == ["rid", "review", "price", "city", "label", "true", *ADDED]
    assert told["id"] == told["rid"] == came["rid"] and told["review"] == came["review"]
    assert told["given_label"] == told["label"] == came["label"] and told["given_label"][0] is None
    assert sum(told["is_label_issue"]) == json.loads((folder / "summary.json").read_text())["label_issues"]
    wrong = [label is not None and label != true for label, true in zip(came["label"], came["true"])]
    assert np.mean(np.array(wrong) == np.array(told["is_label_issue"])) > 0.95
    assert all((score < 0.5) == issue for score, issue in zip(told["label_score"][1:], told["is_label_issue"][1:]))


def test_tasks_hold_the_doubted_rows(folder: Path) -> None:
    tasks = json.loads((folder / "tasks.json").read_text())
    summary = json.loads((folder / "summary.json").read_text())
    assert len(tasks) == summary["label_issues"]
    assert {"review", "price", "city", "id", "given_label", "label_score"} <= set(tasks[0]["data"])


def test_questions_are_answered_by_file(folder: Path) -> None:
    with (folder / "questions.csv").open() as file:
        asked = list(csv.DictReader(file))
    assert list(asked[0])[:6] == ["id", "label", "given_label", "suggestion", "confidence", "review"]
    assert len(asked) == 7 and all(row["label"] == "" and row["given_label"] != row["suggestion"] for row in asked)
    answers = folder / "answers.csv"
    answers.write_text(
        "id,label\n" + "".join(f"{row['id']},{row['suggestion']}\n" for row in asked[:5]) + "r9,unsure\n"
    )
    done = call_cli(
        "audit", folder / "reviews.csv", *NAMED, *QUICK, "--answers", answers, "--no-report", "--json",
        "--questions", 7, "--questions-file", folder / "more.csv", "--output", folder / "settled.parquet",
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert found["answers"] == 5 and set(found["files"]) == {"output", "questions"}
    assert not {row["id"] for row in asked[:5]} & set(whole(folder / "more.csv")["id"])
    told = pq.read_table(folder / "settled.parquet").to_pylist()
    settled = {row["rid"]: row for row in told if row["rid"] in {a["id"] for a in asked[:5]}}
    assert all(settled[a["id"]]["predicted_label"] == a["suggestion"] for a in asked[:5])
    assert all(row["label_score"] == 0 and row["is_label_issue"] for row in settled.values())


def test_answers_about_unknown_or_doubled_rows(tmp_path: Path) -> None:
    file = tmp_path / "answers.csv"
    file.write_text("id,label\n1,cat\n2,\n3,unsure\n")
    assert read_answers_file(file, None, 2) == {1: "cat"}
    assert read_answers_file(file, ["3", "1"], 2, {"unsure"}) == {1: "cat", 0: "unsure"}
    with pytest.raises(DataError, match="answers row '1', which is not among the rows"):
        read_answers_file(file, ["a", "b"], 2)
    with pytest.raises(DataError, match="several rows have that id"):
        read_answers_file(file, ["1", "1"], 2)
    file.write_text("row,label\n1,cat\n")
    with pytest.raises(DataError, match="expected 'id' and 'label'"):
        read_answers_file(file, None, 2)


def test_arrays_alone_and_exit_codes(folder: Path) -> None:
    arrays = ("audit", "--labels", folder / "y.npy", "--pred-probs", folder / "p.npy")
    out = folder / "issues.parquet"
    done = call_cli(*arrays, "--output", out, "--json", "--fail-above", 0.07)
    found = json.loads(done.stdout)
    assert (done.returncode, found["label_issues"], found["files"]) == (0, 20, {"output": str(out)})
    told = pq.read_table(out)
    assert told.column_names == list(ADDED) and told["id"].to_pylist() == list(range(300))
    assert told["is_label_issue"].to_pylist() == [True] * 20 + [False] * 280
    over = call_cli(*arrays, "--fail-above", 0.02)
    assert over.returncode == 1 and "Exit code 1: more than 2 % of the labels look wrong." in over.stdout
    assert json.loads(call_cli(*arrays, "--fail-above", 0.02, "--json").stdout)["issue_share"] > 0.02


def test_an_earlier_audit_judges_new_rows(folder: Path) -> None:
    arrays = ("audit", "--labels", folder / "y.npy", "--pred-probs", folder / "p.npy", "--json")
    first = json.loads(call_cli(*arrays, "--save-state", folder / "s.json").stdout)
    again = json.loads(call_cli(*arrays, "--state", folder / "s.json").stdout)
    assert again["label_issues"] == first["label_issues"] == 20


def test_a_file_with_probabilities_and_predictions(folder: Path) -> None:
    y, p = np.load(folder / "y.npy"), np.load(folder / "p.npy")
    table = pa.table({"key": range(300), "y": y, "said": p.argmax(axis=1), "note": ["[red]\x1b[31mx"] * 300})
    pq.write_table(table, folder / "t.parquet")
    pq.write_table(pa.table({str(c): p[:, c] for c in range(3)}), folder / "p.parquet")
    command = ("audit", folder / "t.parquet", "--label", "y", "--id", "key", "--predictions", "said")
    done = call_cli(*command, "--pred-probs", folder / "p.parquet", "--no-report", "--json")
    told = json.loads(done.stdout)["accuracy"]
    assert told["before"]["value"] == pytest.approx(280 / 300) and told["after"]["value"] > told["before"]["value"]
    text = call_cli(*command, "--pred-probs", folder / "p.parquet", "--no-report").stdout
    assert "The model's accuracy 93.33 % against the labels as given" in text
    assert "[red] [31mx" in text and "\x1b" not in text  # as it is, but no command to the terminal


def test_the_terminal_says_what_was_found_and_what_to_do(folder: Path, tmp_path: Path) -> None:
    done = run_cli("audit", folder / "reviews.csv", *NAMED, "--source-column", "city", *QUICK, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    parts = [" of 399 labels look wrong (", "estimated noise", "are really wrong", "Classes, the worst first"]
    parts += ["Most confused", "Who labelled, the worst first", "Most doubtful", "· probabilities: GaussianNB"]
    parts += [
        "report in audit-report.html",
        "--source-column city --drop true --classifier bayes --folds 3 --questions 20",
    ]
    for part in parts:
        assert part in done.stdout, part
    assert (tmp_path / "audit-report.html").stat().st_size > 10_000


def test_help_has_examples_and_stands_after_demo() -> None:
    done = call_cli("audit", "--help")
    assert done.returncode == 0 and "Example: labelwright audit" in done.stdout
    names = [line.split()[1] for line in call_cli("--help").stdout.splitlines() if line.startswith("│ ")]
    assert names.index("run") < names.index("demo") < names.index("audit") < names.index("status")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ((), "there is nothing to audit"),
        (("reviews.csv",), "which column holds the labels? give --label COLUMN"),
        (("reviews.csv", "--label", "labl"), "has no column 'labl', only 'rid'"),
        (("reviews.csv", "--label", "label", "--drop", "nope"), "has no column 'nope'"),
        (("reviews.csv", "--label", "label", "--labels", "y.npy"), "labels were given twice"),
        (("reviews.csv", "--label", "label", "--state", "state.json"), "give them with --pred-probs"),
        (("reviews.csv", "--label", "label", "--classifier", "magic"), "the classifier 'magic' is unknown"),
        (("reviews.csv", "--label", "label", "--drop", "rid,review,price,city,true"), "no column left to learn from"),
        (("reviews.csv", "--label", "label", "--output", "all.txt"), "end its name in .csv or .parquet"),
        (("reviews.csv", "--label", "label", "--output", "no/all.csv"), "is in a folder that does not exist"),
        (("reviews.csv", "--label", "label", "--pred-probs", "p.npy"), "there are 400 labels but"),
        (("none.csv", "--label", "label"), "There is no file or folder"),
        (("--labels", "y.npy"), "--labels alone tells nothing"),
        (("--labels", "y.npy", "--pred-probs", "p.npy", "--id", "rid"), "--id names a column of a file"),
        (("--labels", "y.npy", "--pred-probs", "p.npy", "--classifier", "svm"), "--pred-probs gives them"),
        (("--labels", "y.npy", "--pred-probs", "p.npy", "--state", "tasks.json"), "no state of an audit"),
        (("--labels", "y.npy", "--pred-probs", "turned.npy"), "It looks transposed"),
        (("--labels", "y.npy", "--pred-probs", "negative.npy"), "row 7 of the probabilities holds -0.1, a negative number"),
        (("--labels", "y.npy", "--pred-probs", "nan.npy"), "row 7 of the probabilities holds NaN or infinity"),
        (("--labels", "y.npy", "--pred-probs", "half.npy"), "row 0 of the probabilities sums to 0.5"),
        (("--labels", "y.npy", "--pred-probs", "cut.npy"), "cut.npy is not a whole .npy file"),
        (("--labels", "cut.npy", "--pred-probs", "p.npy"), "cut.npy is not a whole .npy file"),
        (("--labels", "objects.npy", "--pred-probs", "p.npy"), "holds Python objects, which are never unpickled"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(
    folder: Path, options: tuple[str, ...], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    if not Path("cut.npy").exists():
        p = np.load("p.npy")
        np.save("turned.npy", p.T)
        np.save("half.npy", p / 2)
        for name, value in (("negative", -0.1), ("nan", np.nan)):
            bad = p.copy()
            bad[7] = [value, 0.1, 1.0]
            np.save(f"{name}.npy", bad)
        Path("cut.npy").write_bytes(Path("p.npy").read_bytes()[:200])
        np.save("objects.npy", np.array([{}, 1], object))
    done = call_cli("audit", *options, "--no-report")
    assert done.returncode == 2 and done.stdout == ""
    assert sentence in done.stderr and done.stderr.startswith("labelwright: ") and len(done.stderr.splitlines()) == 1


def test_a_named_data_set() -> None:
    done = call_cli("audit", "digits", "--label", "label", *QUICK, "--json", "--no-report")
    found = json.loads(done.stdout)
    assert (done.returncode, found["rows"], found["classes"], found["files"]) == (0, 1797, 10, {})


def test_a_terminal_sees_bars_on_stderr() -> None:
    with progress() as tell:
        tell("cross-validation", 1, 5)  # not a terminal: nothing is drawn, nothing fails
        tell("cross-validation", 5, 5)


def test_options_may_stand_in_a_config_file(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(
        '[audit]\nlabel = "label"\nno-report = true\nclassifier = "bayes"\nfail-above = 0.0\n'
    )
    done = call_cli("--config", tmp_path / "c.toml", "audit", folder / "reviews.csv", "--json")
    assert done.returncode == 1 and json.loads(done.stdout)["files"] == {}
