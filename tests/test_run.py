"""Runs over users' data: what comes again, what comes late, what cannot be used; nothing is lost or counted twice."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import call_cli, write_reviews
from sqlalchemy import func, select

from labelwright.errors import BadRowError, DataError, LabelwrightError, LedgerError, SettingsError, TooFewRowsError
from labelwright.exports import export, export_parts
from labelwright.judging import judge_of, predictions
from labelwright.ledger import verify
from labelwright.ledger.schema import metadata
from labelwright.runner import Run, Settings, StateFolder, reopened
from labelwright.streams import Columns
from labelwright.tables import open_source, vector_column

REVIEWS = Columns("label", id="rid", drop=("true",))
NO_ID = Columns("label", drop=("true", "rid"))


def quick(columns: Columns, **options: object) -> Settings:
    defaults: dict[str, object] = {"batch_size": 100, "classifier": "bayes", "quality": "sgd"}
    return Settings(columns, **{**defaults, **options})  # type: ignore[arg-type]


def go(source: object, state: Path, settings: Settings, **options: object) -> Run:
    run = Run(settings, StateFolder(state), **options)  # type: ignore[arg-type]
    for _ in run.over(open_source(source)):  # type: ignore[arg-type]
        pass
    assert verify(run.ledger.engine)[2] == []
    return run


def sizes(run: Run) -> dict[str, int]:
    with run.ledger.engine.connect() as connection:
        return {
            table.name: int(connection.execute(select(func.count()).select_from(table)).scalar() or 0)
            for table in metadata.sorted_tables
        }


def outcome(run: Run) -> list[dict[str, Any]]:
    parts = [part.drop_columns(["decided_at"]) for part in export_parts(run.history, everything=True)]
    return [row for part in parts for row in part.to_pylist()]


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines(keepends=True)


def two_blobs(n: int = 200, k: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(k, size=n)
    return (rng.normal(size=(n, 4)) + 4 * y[:, None]).astype(np.float32), y


# ---------------------------------------------------------------- what comes again


@pytest.mark.parametrize("columns", [REVIEWS, NO_ID], ids=["id", "no id"])
def test_two_files_delivered_twice_change_nothing(tmp_path: Path, columns: Columns) -> None:
    """Also without an id column, where rows are named by place: the second file's row 0 is not the first's."""
    write_reviews(tmp_path / "a.csv", 200)
    write_reviews(tmp_path / "b.csv", 150, start=200)
    settings = quick(columns, clean_rows=50)
    for name in ("a.csv", "b.csv"):
        first = go(tmp_path / name, tmp_path / "s", settings)
    before, head = sizes(first), first.ledger.head
    for name in ("b.csv", "a.csv", "b.csv"):
        again = go(tmp_path / name, tmp_path / "s", settings)
    assert (sizes(again), again.ledger.head, again.repeated) == (before, head, 150)
    assert before["aside"] == 0 and before["rows"] == 350
    assert len({row["id"] for row in outcome(again)}) == 350
    owned = [row["rid"] for row in outcome(again) if row["decided_by"] == "owner"]
    assert owned == [f"r{i}" for i in range(50)], "only the stream's first rows are vouched for"


def test_repeated_ids_with_the_same_content_count_once_even_when_strict(tmp_path: Path) -> None:
    write_reviews(tmp_path / "a.csv", 100)
    lines = lines_of(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("".join([*lines, *lines[1:21]]))
    run = go(tmp_path / "b.csv", tmp_path / "s", quick(REVIEWS, batch_size=150), strict=True)
    assert (run.repeated, sizes(run)["rows"], sizes(run)["aside"]) == (20, 100, 0)


def test_the_same_row_is_known_whatever_its_column_was_read_as(tmp_path: Path) -> None:
    """A price of 20 is 20.0 in a column of decimals; a column without values is text."""
    head = "rid,a,b,label\n"
    rows = [f"r{i},{i / 4 if i else 20},{'' if i == 0 else i % 7},{'xy'[i % 2]}\n" for i in range(60)]
    (tmp_path / "a.csv").write_text(head + "".join(rows))
    (tmp_path / "b.csv").write_text(head + rows[0])
    settings = quick(Columns("label", id="rid"), clean_rows=60)
    go(tmp_path / "a.csv", tmp_path / "s", settings)
    run = go(tmp_path / "b.csv", tmp_path / "s", settings, strict=True)
    assert (run.repeated, len(run.history.set_aside())) == (1, 0)


def test_bad_rows_of_a_growing_file_are_all_counted_once(tmp_path: Path) -> None:
    """The last chunk comes again, longer; a bad row before a changed one in a chunk has a place of its own."""
    write_reviews(tmp_path / "all.csv", 200)
    lines = lines_of(tmp_path / "all.csv")
    lines[131] = (
        lines[131].replace(",good,", ",splendid,").replace(",bad,", ",splendid,").replace(",meh,", ",splendid,")
    )
    lines[171] = "r170,some words,3,Oslo,horrid,good\n"
    lines[172] = lines[1].replace("r0,", "r0,other words and ")
    (tmp_path / "g.csv").write_text("".join(lines[:151]))
    go(tmp_path / "g.csv", tmp_path / "s", quick(REVIEWS))
    (tmp_path / "g.csv").write_text("".join(lines))
    for _ in range(2):
        run = go(tmp_path / "g.csv", tmp_path / "s", quick(REVIEWS))
        aside = {bad["id"]: bad["reason"] for bad in run.history.set_aside()}
        assert sorted(aside) == ["r0", "r130", "r170"] and len(run.history.set_aside()) == 3
        assert "splendid" in aside["r130"] and "horrid" in aside["r170"] and "other content" in aside["r0"]
    assert sizes(run)["rows"] == 197


# ---------------------------------------------------------------- stops


def test_a_batch_cut_short_is_finished_as_it_was_recorded(tmp_path: Path) -> None:
    """Stopped between record and commit; then another file comes, or the same one, longer."""
    write_reviews(tmp_path / "a.csv", 250)
    write_reviews(tmp_path / "b.csv", 100, start=250)
    calm = go(tmp_path / "a.csv", tmp_path / "calm", quick(REVIEWS))
    calm = go(tmp_path / "b.csv", tmp_path / "calm", quick(REVIEWS))
    cut = Run(quick(REVIEWS), StateFolder(tmp_path / "s"))
    stream = cut.over(open_source(tmp_path / "a.csv"))
    next(stream), next(stream)

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    cut.ledger.commit = stop  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        next(stream)
    shaken = go(tmp_path / "b.csv", tmp_path / "s", quick(REVIEWS))
    assert outcome(shaken) == outcome(calm)
    again = go(tmp_path / "a.csv", tmp_path / "s", quick(REVIEWS))
    assert again.repeated == 250 and again.ledger.head == shaken.ledger.head


def test_a_start_that_came_to_nothing_binds_nobody(tmp_path: Path) -> None:
    """The remedy in the message must work with the same state folder."""
    X, y = two_blobs()
    labels = [f"c{c}" for c in y]
    labels[:3] = ["rare"] * 3
    table = pa.table({"x": vector_column(X), "label": labels})
    for settings, error in (
        (quick(Columns("label"), selector="magic"), SettingsError),
        (quick(Columns("label"), expert="oracle"), SettingsError),
        (quick(Columns("label")), TooFewRowsError),
    ):
        with pytest.raises(error):
            go(table, tmp_path / "s", settings)
    run = go(table, tmp_path / "s", quick(Columns("label"), clean_rows=100))
    assert run.ledger.classes == ("c0", "c1", "rare") and len(outcome(run)) == 200
    with pytest.raises(SettingsError, match="clean_rows: 100 then, 30 now"):
        go(table, tmp_path / "s", quick(Columns("label"), clean_rows=30))


# ---------------------------------------------------------------- people's answers


def test_answers_are_merged_without_new_rows(tmp_path: Path, reviews: Path) -> None:
    """Run, answer questions.csv, run the same command again; as a spreadsheet saves it, with a byte order mark."""
    command = (
        "run",
        reviews,
        "--label",
        "label",
        "--id",
        "rid",
        "--drop",
        "true",
        "--budget",
        5,
        "--no-report",
        "--json",
    )
    quickly = ("--classifier", "bayes", "--quality", "sgd", "--batch-size", 200, "--state", tmp_path / "s")
    first = call_cli(*command, *quickly)
    assert first.returncode == 0 and json.loads(first.stdout)["open_questions"] == 15, first.stderr
    truth = {row["rid"]: row["true"] for row in csv.DictReader(reviews.open())}
    with (tmp_path / "s" / "questions.csv").open() as file:
        asked = list(csv.DictReader(file))
    assert "true" in asked[0], "dropped columns are shown to people; only --truth is not"
    said = "".join(f"{q['id']},{truth[q['id']]}\n" for q in asked[1:])
    (tmp_path / "s" / "answers.csv").write_text("﻿id,label\n" + said + f"{asked[0]['id']},unsure\n", encoding="utf-8")
    scores = {row["id"]: row["label_score"] for row in outcome(reopened(StateFolder(tmp_path / "s")))}
    second = json.loads(call_cli(*command, *quickly).stdout)
    assert (second["answers"], second["open_questions"], second["questions"]) == (15, 0, 15)
    run = reopened(StateFolder(tmp_path / "s"))
    rows = {row["id"]: row for row in outcome(run)}
    assert all(rows[q["id"]]["final_label"] == truth[q["id"]] for q in asked[1:])
    assert rows[asked[0]["id"]]["final_label"] is None
    assert all(rows[q["id"]]["label_score"] == scores[q["id"]] for q in asked), "an answer does not change the score"
    learned = run.system.learners.classifier.memory.rows
    keys = {run.history.find(q["id"])[0] for q in asked[1:]}
    assert keys <= set(learned.keys.tolist())
    entries = run.ledger.seq
    third = json.loads(call_cli(*command, *quickly).stdout)
    assert third["answers"] == 15 and reopened(StateFolder(tmp_path / "s")).ledger.seq == entries
    assert verify(run.ledger.engine)[2] == []


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"id,label\nr1,sp\xe9cial\n", "UTF-8"), (b"id;label\nr1;good\n", "expected 'id' and 'label'")],
)
def test_answers_that_cannot_be_read(tmp_path: Path, reviews: Path, content: bytes, says: str) -> None:
    go(reviews, tmp_path / "s", quick(REVIEWS, budget=2, batch_size=300))
    (tmp_path / "s" / "answers.csv").write_bytes(content)
    with pytest.raises(DataError, match=says):
        go(reviews, tmp_path / "s", quick(REVIEWS, budget=2, batch_size=300))


def test_answers_by_place_go_to_the_right_file(tmp_path: Path) -> None:
    """Without an id column, row 5 of the second file is another row than row 5 of the first."""
    write_reviews(tmp_path / "a.csv", 200)
    write_reviews(tmp_path / "b.csv", 200, start=200)
    settings = quick(NO_ID, budget=4)
    go(tmp_path / "a.csv", tmp_path / "s", settings)
    run = go(tmp_path / "b.csv", tmp_path / "s", settings)
    asked = [q["id"] for q in run.history.questions()]
    assert len(set(asked)) == len(asked) == 16 and any(a.startswith("b.csv:") for a in asked)


# ---------------------------------------------------------------- data of all kinds


@pytest.mark.parametrize("kind", ["int", "float", "bool", "text"])
def test_labels_of_any_type_and_two_classes(tmp_path: Path, kind: str) -> None:
    X, y = two_blobs()
    labels = {
        "int": y.tolist(),
        "float": y.astype(float).tolist(),
        "bool": (y > 0).tolist(),
        "text": [f" c{c}" for c in y],
    }
    run = go(pa.table({"x": vector_column(X), "label": labels[kind]}), tmp_path / "s", quick(Columns("label")))
    names = {"int": ("0", "1"), "float": ("0", "1"), "bool": ("false", "true"), "text": ("c0", "c1")}
    assert run.ledger.classes == names[kind]
    part = next(predictions(judge_of(run), open_source(pa.table({"x": vector_column(X)}))))
    assert (np.array(part.column("predicted_label").to_pylist()) == np.array(names[kind])[y]).mean() > 0.97


@pytest.mark.parametrize("classifier", ["linear", "sgd", "svm"])
def test_every_classifier_goes_on_after_a_stop(tmp_path: Path, classifier: str) -> None:
    X, y = two_blobs(300, k=3)
    table = pa.table({"x": vector_column(X), "label": y.tolist()})
    settings = quick(Columns("label"), classifier=classifier, quality="sgd")
    calm = go(table, tmp_path / "calm", settings)
    stream = Run(settings, StateFolder(tmp_path / "s")).over(open_source(table))
    next(stream)
    stream.close()
    shaken = go(table, tmp_path / "s", settings)
    assert outcome(shaken) == outcome(calm)
    probe = X[:50]
    assert (
        reopened(StateFolder(tmp_path / "s")).system.learners.classifier.proba(probe)
        == calm.system.learners.classifier.proba(probe)
    ).all()


def test_a_column_that_changes_its_type_can_be_exported_and_resumed(tmp_path: Path) -> None:
    """Numbers in the first file, words among them in the second, and one column more."""
    X, y = two_blobs()
    rows = [f"r{i},{X[i, 0]:.3f},{i},{'ab'[y[i]]}\n" for i in range(200)]
    (tmp_path / "a.csv").write_text("rid,v,w,label\n" + "".join(rows[:100]))
    late = [f"{row.strip()},new\n" for row in rows[100:]]
    late[3] = f"r103,{X[103, 0]:.3f},unknown,{'ab'[y[103]]},new\n"
    (tmp_path / "b.csv").write_text("rid,v,w,label,extra\n" + "".join(late))
    settings = quick(Columns("label", id="rid"), classifier="linear")
    for name in ("a.csv", "b.csv", "b.csv"):
        run = go(tmp_path / name, tmp_path / "s", settings)
    assert run.repeated == 100
    for suffix in ("parquet", "csv"):
        assert export(run.history, tmp_path / f"out.{suffix}", everything=True) == 200
        table = pa.concat_tables(open_source(tmp_path / f"out.{suffix}").chunks(500))
        assert table.column_names[:6] == ["rid", "v", "w", "label", "extra", "id"]
        assert table.column("w")[103].as_py() == "unknown" and str(table.column("w")[5].as_py()) == "5"
        assert table.column("extra").null_count == 100


def test_infinite_numbers_and_ragged_lines(tmp_path: Path) -> None:
    X, y = two_blobs()
    rows = [f"r{i},{X[i, 0]:.3f},{X[i, 1]:.3f},{'ab'[y[i]]}\n" for i in range(200)]
    rows[50], rows[60], rows[70] = "r50,inf,1,a\n", "r60,1,2\n", f"r70,nan,{X[70, 1]:.3f},{'ab'[y[70]]}\n"
    (tmp_path / "a.csv").write_text("rid,v,w,label\n" + "".join(rows))
    command = ("run", tmp_path / "a.csv", "--label", "label", "--id", "rid", "--classifier", "bayes", "--no-report")
    done = call_cli(*command, "--state", tmp_path / "s", "--json")
    summary = json.loads(done.stdout)
    assert (summary["set_aside"], summary["skipped_lines"]) == (1, 1), done.stderr
    assert call_cli(*command, "--state", tmp_path / "strict", "--strict").stderr.startswith("labelwright: row 'r50' ")


def test_wrong_widths_and_nan_vectors_from_parquet_and_npz(tmp_path: Path) -> None:
    X, y = two_blobs()
    rows: list[Any] = X.tolist()
    rows[110], rows[120], rows[130] = [1.0, 2.0], None, [1.0, 2.0, 3.0, float("inf")]
    pq.write_table(pa.table({"x": rows, "label": y}), tmp_path / "a.parquet")
    run = go(tmp_path / "a.parquet", tmp_path / "p", quick(Columns("label")))
    assert [bad["id"] for bad in run.history.set_aside()] == ["110", "120", "130"]
    X[110, 2] = np.nan
    np.savez(tmp_path / "a.npz", X=X, y=y)
    run = go(tmp_path / "a.npz", tmp_path / "n", quick(Columns("label")))
    assert [bad["id"] for bad in run.history.set_aside()] == ["110"]
    raw = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(LabelwrightError, match="not a complete Parquet file"):
        go(tmp_path / "cut.parquet", tmp_path / "c", quick(Columns("label")))


def test_a_missing_mark_is_no_vouching(tmp_path: Path) -> None:
    X, y = two_blobs()
    marks = [1.0 if i % 4 == 0 else float("nan") if i % 4 == 1 else None if i % 4 == 2 else 0.0 for i in range(200)]
    table = pa.table({"x": vector_column(X), "label": y, "sure": marks})
    run = go(table, tmp_path / "s", quick(Columns("label", trusted="sure")))
    assert [row["id"] for row in outcome(run) if row["decided_by"] == "owner"] == [str(i) for i in range(0, 200, 4)]


def test_nothing_to_learn_from(tmp_path: Path) -> None:
    _, y = two_blobs()
    table = pa.table({"same": ["one"] * 200, "label": y})
    with pytest.raises(DataError, match="No column can be used"):
        go(table, tmp_path / "s", quick(Columns("label")))
    with pytest.raises(DataError, match="at least"):
        go(pa.table({"x": [1.0] * 50, "label": [None] * 50}), tmp_path / "n", quick(Columns("label")))


def test_a_test_file_without_a_known_class(tmp_path: Path) -> None:
    X, y = two_blobs()
    run = Run(quick(Columns("label")), StateFolder(tmp_path / "s"))
    source = open_source(pa.table({"x": vector_column(X), "label": y}))
    wrong = open_source(pa.table({"x": vector_column(X), "label": ["other"] * 200}))
    with pytest.raises(DataError, match="no row of the table has one of the classes"):
        next(run.over(source, test=wrong))


@pytest.mark.parametrize("state", ["/proc/labelwright", "file/below"])
def test_state_folders_that_cannot_be_written(tmp_path: Path, reviews: Path, state: str) -> None:
    (tmp_path / "file").write_text("a file")
    with pytest.raises(LedgerError, match="cannot be written"):
        go(reviews, tmp_path / state, quick(REVIEWS))


def test_strict_names_the_row_and_loses_nothing(tmp_path: Path) -> None:
    write_reviews(tmp_path / "a.csv", 200)
    lines = lines_of(tmp_path / "a.csv")
    (tmp_path / "bad.csv").write_text("".join([*lines[:150], lines[1].replace("r0,", "r0,changed "), *lines[150:]]))
    with pytest.raises(BadRowError, match=r"row 'r0' \(bad.csv#1, position 49\).*other content"):
        go(tmp_path / "bad.csv", tmp_path / "s", quick(REVIEWS), strict=True)
    assert len(StateFolder(tmp_path / "s").history().batches()) == 1
    assert len(outcome(go(tmp_path / "bad.csv", tmp_path / "s", quick(REVIEWS)))) == 200


def test_a_dynamic_budget_goes_on_with_a_file_of_another_length(tmp_path: Path) -> None:
    for name, n, start in (("a", 300, 0), ("b", 100, 300)):
        write_reviews(tmp_path / f"{name}.csv", n, start=start)
        table = pa.concat_tables(open_source(tmp_path / f"{name}.csv").chunks(500))
        pq.write_table(table, tmp_path / f"{name}.parquet")
    options = ("--label", "label", "--id", "rid", "--truth", "true", "--expert", "oracle", "--dynamic")
    quickly = ("--budget-total", 9, "--batch-size", 100, "--classifier", "bayes", "--no-report", "--json")
    for name in ("a", "b"):
        done = call_cli("run", tmp_path / f"{name}.parquet", *options, *quickly, "--state", tmp_path / "s")
        assert done.returncode == 0, done.stderr
    assert 0 < json.loads(done.stdout)["questions"] <= 9


def test_class_order_does_not_depend_on_chance() -> None:
    from labelwright.streams import class_names

    assert class_names(["1.0", "1", "01", "2"]) == ("01", "1", "1.0", "2")
    assert class_names(["nan", "2", "10"]) == ("10", "2", "nan")
