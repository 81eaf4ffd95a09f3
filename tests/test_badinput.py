"""Bad input: one clear sentence with the remedy, exit code 2, nothing lost, no traceback."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from helpers import run_cli, write_reviews

from labelwright.errors import BadRowError, BusyError, DataError, LabelwrightError, SettingsError, TooFewRowsError
from labelwright.exports import export_parts
from labelwright.runner import Run, Settings, StateFolder
from labelwright.streams import Columns
from labelwright.tables import open_source, vector_column

REVIEWS = Columns("label", id="rid", drop=("true",))


def quick(columns: Columns, **options: object) -> Settings:
    defaults: dict[str, object] = {"batch_size": 100, "classifier": "bayes", "quality": "sgd"}
    return Settings(columns, **{**defaults, **options})  # type: ignore[arg-type]


def go(source: object, state: Path, settings: Settings, **options: object) -> Run:
    run = Run(settings, StateFolder(state), **options)  # type: ignore[arg-type]
    for _ in run.over(open_source(source)):  # type: ignore[arg-type]
        pass
    return run


def vectors(n: int = 200, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=n)
    return (rng.normal(size=(n, 4)) + 3 * y[:, None]).astype(np.float32), ["ab"[k] for k in y]


FILES: dict[str, tuple[bytes, str]] = {
    "empty.csv": (b"", "empty|no rows|no columns"),
    "header.csv": (b"x,label\n", "no complete row"),
    "one-class.csv": (b"x,label\n" + b"1,a\n" * 30, "at least"),
    "broken.parquet": (b"PAR1 this is no parquet file", "cannot|Parquet|truncated"),
    "binary.csv": (b"\xff\xfe\x00x,label\n\x80\x81,a\n" * 9, "UTF-8|column|read"),
    "all-different.csv": (b"x,label\n" + b"".join(b"%d,c%d\n" % (i, i) for i in range(60)), "no class label"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_cannot_be_used(name: str, tmp_path: Path) -> None:
    content, says = FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LabelwrightError, match=says):
        go(tmp_path / name, tmp_path / "state", quick(Columns("label")))


def test_the_command_line_says_one_sentence(tmp_path: Path, reviews: Path) -> None:
    for arguments in (
        ("run", reviews, "--label", "nothing"),
        ("run", tmp_path / "no.csv", "--label", "label"),
        ("run", reviews, "--label", "label", "--classifier", "magic"),
        ("run", reviews, "--label", "label", "--state", reviews / "below"),
        ("status", "--state", tmp_path / "nowhere"),
        ("--config", tmp_path / "no.toml", "status"),
    ):
        done = run_cli(*arguments, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        assert done.stderr.startswith("labelwright: ") and len(done.stderr.splitlines()) == 1, done.stderr


def test_bad_rows_are_set_aside_and_the_run_goes_on(tmp_path: Path) -> None:
    X, labels = vectors()
    rows = [list(map(float, x)) for x in X]
    rows[120], rows[121], labels[122], labels[123] = [1.0], [float("nan")] * 4, "zebra", ""
    ids = [f"r{i}" for i in range(200)]
    ids[150] = "r149"
    table = pa.table({"id": ids, "x": rows, "label": labels})
    run = go(table, tmp_path / "s", quick(Columns("label", id="id")))
    aside = {bad["id"]: bad["reason"] for bad in run.history.set_aside()}
    assert set(aside) == {"r120", "r121", "r122", "r123", "r149"}
    for row_id, word in (
        ("r120", "width|values|numbers"),
        ("r121", "NaN|nan"),
        ("r122", "zebra"),
        ("r123", "no label"),
        ("r149", "other"),
    ):
        assert any(w in aside[row_id] for w in word.split("|")), aside[row_id]
    assert sum(part.num_rows for part in export_parts(run.history, everything=True)) == 195
    with pytest.raises(BadRowError, match=r"r120|r121"):
        go(table, tmp_path / "strict", quick(Columns("label", id="id")), strict=True)


def test_delivered_twice_changes_nothing(tmp_path: Path, reviews: Path) -> None:
    for columns in (REVIEWS, Columns("label", drop=("rid", "true"))):
        state = tmp_path / f"s-{columns.id}"
        first = go(reviews, state, quick(columns))
        entries, head = first.ledger.seq, first.ledger.head
        again = go(reviews, state, quick(columns))
        assert (again.ledger.seq, again.ledger.head, again.repeated) == (entries, head, 600)


def test_a_repeated_id_with_other_content_is_set_aside(tmp_path: Path, reviews: Path) -> None:
    go(reviews, tmp_path / "s", quick(REVIEWS))
    text = reviews.read_text().splitlines()
    changed = tmp_path / "changed.csv"
    changed.write_text("\n".join([text[0], text[1].replace("r0,", "r0,other words and "), text[2]]) + "\n")
    run = go(changed, tmp_path / "s", quick(REVIEWS))
    assert [(bad["id"], "other content" in bad["reason"]) for bad in run.history.set_aside()] == [("r0", True)]
    assert run.repeated == 1 and len(run.history.batches()) == 6


def test_a_growing_file_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "grow.csv"
    write_reviews(path, 250)
    go(path, tmp_path / "s", quick(REVIEWS))
    more = tmp_path / "more.csv"
    write_reviews(more, 100, start=250)
    path.write_text(path.read_text() + "".join(more.read_text().splitlines(keepends=True)[1:]))
    run = go(path, tmp_path / "s", quick(REVIEWS))
    ids = [row for part in export_parts(run.history, everything=True) for row in part.column("id").to_pylist()]
    assert sorted(ids, key=lambda i: int(i[1:])) == [f"r{i}" for i in range(350)]


def test_other_settings_and_a_second_writer_are_refused(tmp_path: Path, reviews: Path) -> None:
    go(reviews, tmp_path / "s", quick(REVIEWS))
    with pytest.raises(SettingsError, match="batch_size"):
        go(reviews, tmp_path / "s", quick(REVIEWS, batch_size=50))
    holder = StateFolder(tmp_path / "s")
    holder.claim()
    with pytest.raises(BusyError, match="another"):
        go(reviews, tmp_path / "s", quick(REVIEWS))
    holder.release()


def test_too_few_rows_without_clean_ones(tmp_path: Path) -> None:
    X, labels = vectors(40)
    labels[:3] = ["rare"] * 3
    table = pa.table({"x": vector_column(X), "label": labels})
    with pytest.raises(TooFewRowsError, match="only 3 rows"):
        go(table, tmp_path / "s", quick(Columns("label")))
    go(table, tmp_path / "clean", quick(Columns("label"), clean_rows=40))


def test_clean_rows_and_trusted_column_are_trusted(tmp_path: Path) -> None:
    X, labels = vectors(200)
    labels[0], labels[150] = ("b" if labels[0] == "a" else "a"), ("b" if labels[150] == "a" else "a")
    vouched = [i == 150 for i in range(200)]
    table = pa.table({"x": vector_column(X), "label": labels, "sure": vouched})
    run = go(table, tmp_path / "s", quick(Columns("label", trusted="sure"), clean_rows=10))
    stories = {row: run.history.story(row)["verdicts"][-1] for row in ("0", "150")}
    assert {v["decider"] for v in stories.values()} == {"owner"} and {v["verdict"] for v in stories.values()} == {0}


@pytest.mark.parametrize("dynamic", [False, True])
def test_the_budget_is_never_exceeded(tmp_path: Path, reviews: Path, dynamic: bool) -> None:
    columns = Columns("label", id="rid", truth="true")
    run = go(
        reviews,
        tmp_path / "s",
        quick(columns, budget=5, budget_total=13, dynamic=dynamic, expert="oracle", expected_batches=6),
    )
    totals = run.history.totals()
    assert 0 < totals["questions"] <= 13 and totals["answers"] == totals["questions"]


def test_people_answer_by_file(tmp_path: Path) -> None:
    write_reviews(tmp_path / "a.csv", 300)
    write_reviews(tmp_path / "b.csv", 100, start=300)
    settings, state = quick(REVIEWS, budget=4), tmp_path / "s"
    first = go(tmp_path / "a.csv", state, settings)
    asked = [q["id"] for q in first.history.questions()]
    assert len(asked) == 12 and all(q["answer"] is None for q in first.history.questions())
    lines = [f"{row},{'unsure' if i == 0 else 'good'}" for i, row in enumerate(asked)]
    (state / "answers.csv").write_text("id,label\n" + "\n".join(lines) + "\n")
    second = go(tmp_path / "b.csv", state, settings)
    found = {q["id"]: q["answer"] for q in second.history.questions()}
    assert [found[row] for row in asked] == [-1] + [second.ledger.classes.index("good")] * 11
    assert len(found) == len(second.history.questions()) == 16
    (state / "answers.csv").write_text("id,label\n" + "\n".join(f"{row},splendid" for row in found) + "\n")
    write_reviews(tmp_path / "c.csv", 100, start=400)
    with pytest.raises(DataError, match="splendid"):
        go(tmp_path / "c.csv", state, settings)


def small_disk() -> None:
    """The process may write files of at most 200 kB."""
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))


def outcome(state: Path) -> list[dict[str, object]]:
    parts = list(export_parts(StateFolder(state).history(), everything=True))
    return pa.concat_tables(parts).drop_columns(["decided_at"]).to_pylist()


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    write_reviews(path, 3000)
    command = (
        "run",
        path,
        "--label",
        "label",
        "--id",
        "rid",
        "--classifier",
        "bayes",
        "--quality",
        "sgd",
        "--batch-size",
        300,
        "--no-report",
    )
    full: Callable[[], None] = small_disk
    stopped = run_cli(*command, "--state", tmp_path / "s", preexec_fn=full)
    assert stopped.returncode == 2 and "Traceback" not in stopped.stderr, stopped.stderr
    assert "ledger" in stopped.stderr or "space" in stopped.stderr, stopped.stderr
    assert run_cli(*command, "--state", tmp_path / "s").returncode == 0
    assert run_cli(*command, "--state", tmp_path / "calm").returncode == 0
    assert outcome(tmp_path / "s") == outcome(tmp_path / "calm")
