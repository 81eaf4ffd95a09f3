"""What people hand to the audit, and what it must not do with it."""

from __future__ import annotations

import json
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers import call_cli

import labelwright
from labelwright.auditing.crossval import _fitting_memory
from labelwright.auditing.duplicates import near_duplicates
from labelwright.errors import DataError, LabelwrightError, SettingsError
from labelwright.tables import open_source

QUICK = ("--classifier", "bayes", "--folds", 3, "--no-report", "--json")


def made(n: int = 400, k: int = 3, noise: float = 0.1, seed: int = 0) -> tuple[Any, Any, Any, Any]:
    """(true, given, probabilities, features)."""
    rng = np.random.default_rng(seed)
    y = rng.integers(k, size=n)
    given = np.where(rng.random(n) < noise, (y + 1) % k, y)
    proba = rng.dirichlet(np.ones(k) * 0.3, size=n) * 0.3
    proba[np.arange(n), y] += 0.7
    X = rng.normal(size=(n, 4))
    X[np.arange(n), y % 4] += 4
    return y, given, proba, X


def frame(n: int = 400, **more: Any) -> pd.DataFrame:
    _, given, _, X = made(n, **more)
    return pd.DataFrame(X, columns=list("abcd")).assign(y=np.array(["cat", "dog", "emu"])[given])


def audited(*arguments: object) -> dict[str, Any]:
    done = call_cli("audit", *arguments, *QUICK)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refused(*arguments: object) -> str:
    done = call_cli("audit", *arguments, *QUICK)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, (done.returncode, done.stderr)
    return done.stderr


# ------------------------------------------------------------ columns that are no features


@pytest.mark.parametrize("name", ["", "row", "counter"])
def test_a_column_that_numbers_the_rows_is_no_feature(tmp_path: Path, name: str) -> None:
    table = frame(600).sort_values("y").reset_index(drop=True)
    table.to_csv(tmp_path / "plain.csv", index=False)
    table.to_csv(tmp_path / "numbered.csv", index_label=name)
    found = [audited(tmp_path / f"{kind}.csv", "--label", "y") for kind in ("plain", "numbered")]
    assert found[0]["label_issues"] == found[1]["label_issues"] > 40


def test_the_audit_of_an_audit_is_the_same(tmp_path: Path) -> None:
    frame().to_csv(tmp_path / "0.csv", index=False)
    counts = []
    for turn in range(3):
        told = audited(tmp_path / f"{turn}.csv", "--label", "y", "--output", tmp_path / f"{turn + 1}.csv")
        counts.append(told["label_issues"])
    assert len(set(counts)) == 1 and counts[0] > 20
    assert any("earlier audit" in note for note in told["notes"])
    names = pd.read_csv(tmp_path / "3.csv").columns
    assert len(set(names)) == len(names) and not any(name.endswith(".1") for name in names)


def test_features_that_tell_nothing_or_the_label_itself_are_said() -> None:
    rng = np.random.default_rng(0)
    nothing = labelwright.audit(rng.integers(3, size=400), X=rng.normal(size=(400, 5)), classifier="bayes")
    assert any("tell nothing about the labels" in note for note in nothing.notes)
    table = frame()
    copied = labelwright.audit(table.y, X=table.drop(columns="y").assign(copy=table.y), classifier="linear")
    assert any("a column holds the label itself" in note for note in copied.notes)
    fair = labelwright.audit(table.y, X=table.drop(columns="y"), classifier="bayes")
    assert not any("the features tell" in note for note in fair.notes)


def test_probabilities_of_a_forest_on_its_own_rows_are_recognised() -> None:
    from sklearn.ensemble import RandomForestClassifier

    _, given, _, X = made(3000)
    proba = RandomForestClassifier(30, random_state=0).fit(X, given).predict_proba(X)
    proba[np.arange(3000), given] += 1e-3  # a label or two are outvoted with so few trees
    proba /= proba.sum(axis=1, keepdims=True)
    seen = proba.argmax(axis=1) == given
    with pytest.warns(UserWarning, match="look in-sample"):
        labelwright.audit(given[seen], proba[seen])


def test_numbers_far_from_zero_are_told_apart() -> None:
    y = (np.arange(1000) // 25) % 2
    near = np.random.default_rng(0).permutation(1000.0 + np.arange(1000.0))[:, None]
    y = ((near[:, 0] - 1000) // 25 % 2).astype(int)
    found = [labelwright.audit(y, X=values, classifier="auto").flagged.sum() for values in (near, near + 1.7e9)]
    assert found[0] == found[1] < 60
    spread = np.random.default_rng(0).normal(size=(200, 3))
    np.testing.assert_array_equal(near_duplicates(spread), near_duplicates(spread + 1e9))


# ------------------------------------------------------------ digits that are names


def test_digits_that_are_names_stay_as_they_are_written(tmp_path: Path) -> None:
    n = 60
    lines = [f"{at:05d},{10**19 + at},{'01' if at % 3 else '1'},{at % 3 + at / 100}" for at in range(n)]
    (tmp_path / "t.csv").write_text("zip,long,y,x\n" + "\n".join(lines) + "\n")
    table = next(open_source(tmp_path / "t.csv").chunks(100)).to_pydict()
    assert table["zip"][37] == "00037" and len(set(table["long"])) == n and set(table["y"]) == {"01", "1"}
    assert isinstance(table["x"][0], float)
    (tmp_path / "a.csv").write_text("id,label\n00005,1\n")
    told = audited(tmp_path / "t.csv", "--label", "y", "--id", "zip", "--answers", tmp_path / "a.csv",
                   "--output", tmp_path / "o.csv")  # fmt: skip
    assert told["classes"] == 2 and told["answers"] == 1
    assert (tmp_path / "o.csv").read_text().splitlines()[6].startswith('"00005"')


# ------------------------------------------------------------ what was handed out, and what is handed in


def test_a_frame_that_was_sorted_is_nobody_elses() -> None:
    _, given, proba, _ = made()
    found = labelwright.audit(given, proba)
    before = found.questions(3)
    found.issues.sort_values("label_score", inplace=True)
    frame = found.issues
    frame.sort_values("label_score", ascending=False, inplace=True)
    pd.testing.assert_frame_equal(found.questions(3), before)


def test_names_that_contradict_the_columns_are_refused() -> None:
    _, given, proba, _ = made()
    names = ["c", "a", "b"]
    labels = np.array(names)[given]
    table = pd.DataFrame(proba, columns=names)
    with pytest.raises(DataError, match="in its order"):
        labelwright.audit(labels, table, classes=["a", "b", "c"])
    for wrong in ("abc", {"a", "b", "c"}):
        with pytest.raises(DataError, match="no list of names"):
            labelwright.audit(labels, proba, classes=wrong)
    assert labelwright.audit(labels, table, classes=names).flagged.sum() > 20


def test_numbers_as_pandas_holds_them(tmp_path: Path) -> None:
    _, given, proba, _ = made()
    table = pd.DataFrame(proba, columns=list("abc"))
    wanted = labelwright.audit(np.array(list("abc"))[given], table).flagged
    table.iloc[np.argsort(given)].to_parquet(tmp_path / "p.PARQUET")
    for form in (table.astype("Float64"), tmp_path / "p.PARQUET"):
        order = np.argsort(given) if isinstance(form, Path) else np.arange(len(given))
        flags = labelwright.audit(np.array(list("abc"))[given][order], form).flagged
        np.testing.assert_array_equal(flags, wanted[order])


def test_a_date_that_is_none_is_no_class() -> None:
    _, given, proba, _ = made(k=2)
    days = np.array(["2024-01-01", "2024-01-02"], "datetime64[D]")[given]
    days[:5] = np.datetime64("NaT")
    assert (labelwright.audit(days, proba).labels.codes[:5] == -1).all()


@pytest.mark.parametrize(
    "call",
    [
        lambda g, p: labelwright.audit(g, p, random_state=-1),
        lambda g, p: labelwright.audit(g, p, ids=[[1]] * len(g)),
        lambda g, p: labelwright.audit(g, p, sources={"a": 1}),
        lambda g, p: labelwright.audit(g, p, answers=3),
        lambda g, p: labelwright.audit(g, p, answers=[(3, 0), (3, 1)]),
        lambda g, p: labelwright.audit([[1, 2], [3]], p),
        lambda g, p: labelwright.audit(np.array([b"\xff", b"a"] * (len(g) // 2)), p),
        lambda g, p: labelwright.audit(g, p).questions(2.5),
        lambda g, p: labelwright.audit(g, p).to_label_studio(count=-1),
        lambda g, p: labelwright.audit(g, p).running().tell(0, -1),
        lambda g, p: labelwright.audit(g, p).running().tell(-1, 0),
        lambda g, p: labelwright.audit(g, p).running().tell(0, "a"),
        lambda g, p: labelwright.audit(g, p, features=np.array([["a"]] * len(g))).questions(2),
        lambda g, p: near_duplicates(np.zeros((5, 0))),
        lambda g, p: labelwright.find_label_issues(g, p, frac_noise=0.1),
        lambda g, p: labelwright.find_label_issues(g, p, filter_by="nonsense"),
        lambda g, p: labelwright.get_label_quality_scores(g, p, foo=3),
        lambda g, p: labelwright.get_label_quality_scores(g, p, method="nonsense"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(call: Any) -> None:
    _, given, proba, _ = made()
    with pytest.raises(LabelwrightError) as caught:
        call(given, proba)
    assert "\n" not in str(caught.value)


def test_what_makes_sense_is_taken() -> None:
    _, given, proba, X = made()
    assert labelwright.audit([2**70 if g else 1 for g in given], X=X, classifier="bayes").judge.classes == 2
    assert labelwright.audit(given, proba, random_state=np.random.RandomState(0)).flagged.any()
    usual = {"multi_label": False, "confident_joint": None, "rank_by_kwargs": {}, "frac_noise": 1.0, "n_jobs": 1}
    assert labelwright.find_label_issues(given, proba, **usual).sum() > 20
    texts = pd.Series(np.array(["red cat", "blue dog", "green emu"])[given] + " here")
    assert labelwright.audit(given, X=texts).judge.classes == 3


def test_pipelines_read_frames_and_texts_by_themselves() -> None:
    from sklearn.compose import make_column_transformer
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    table = frame()
    columns = make_column_transformer((StandardScaler(), ["a", "b", "c"]))
    found = labelwright.audit(
        table.y, X=table.drop(columns="y"), classifier=make_pipeline(columns, LogisticRegression())
    )
    assert found.flagged.sum() > 20
    texts = [f"{word} here" for word in np.array(["red", "blue", "green"])[made()[0]]]
    found = labelwright.audit(made()[1], X=texts, classifier=make_pipeline(TfidfVectorizer(), LogisticRegression()))
    assert found.flagged.sum() > 20


def test_ids_of_several_kinds_are_written(tmp_path: Path) -> None:
    _, given, proba, _ = made()
    labelwright.audit(given, proba, ids=pd.Series([1, "a"] * 200, dtype=object)).to_csv(tmp_path / "o.csv")
    assert (tmp_path / "o.csv").read_text().count("\n") == 401


def test_an_audit_that_was_loaded_warns_too(tmp_path: Path) -> None:
    _, given, proba, _ = made()
    labelwright.audit(given, proba).save(tmp_path / "s.json")
    loaded = labelwright.load_audit(tmp_path / "s.json")
    with pytest.warns(UserWarning, match="tell nothing"):
        loaded.audit(given, np.random.default_rng(1).permutation(proba))
    some = given.astype(object)
    some[0] = None
    assert "1 row has no label" in loaded.audit(some, proba).notes[0]
    state = json.loads((tmp_path / "s.json").read_text())
    for broken in ({**state, "classes": None}, {**state, "judge": {**state["judge"], "offset": None}}):
        (tmp_path / "b.json").write_text(json.dumps(broken))
        with pytest.raises(SettingsError, match="no state of an audit"):
            labelwright.load_audit(tmp_path / "b.json")


# ------------------------------------------------------------ files


def test_nothing_that_is_read_is_written_over(tmp_path: Path) -> None:
    frame().to_csv(tmp_path / "t.csv", index=False)
    (tmp_path / "questions.csv").write_text("id,label\n3,cat\n")
    given = (tmp_path / "t.csv", "--label", "y")
    assert "would overwrite the file" in refused(*given, "--output", tmp_path / "t.csv")
    questions = ("--questions", 5, "--questions-file", tmp_path / "questions.csv")
    assert "would overwrite --answers" in refused(*given, "--answers", tmp_path / "questions.csv", *questions)
    twice = ("--output", tmp_path / "o.csv", "--label-studio", tmp_path / "o.csv")
    assert "would overwrite --output" in refused(*given, *twice)
    (tmp_path / "a.csv").write_text("id,label\n5,cat\n5,dog\n")
    assert "answers row '5' twice" in refused(*given, "--answers", tmp_path / "a.csv")


def test_a_seed_that_is_none_is_said(tmp_path: Path) -> None:
    frame().to_csv(tmp_path / "t.csv", index=False)
    done = call_cli("audit", tmp_path / "t.csv", "--label", "y", "--seed", -1, *QUICK)
    assert done.returncode == 2 and "Traceback" not in done.stderr


def test_lists_with_gaps_are_written_as_text(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = frame()
    lists = [["x", None] if at % 2 else None for at in range(len(table))]
    pq.write_table(pa.Table.from_pandas(table).append_column("l", pa.array(lists)), tmp_path / "t.parquet")
    audited(tmp_path / "t.parquet", "--label", "y", "--output", tmp_path / "o.csv")
    assert ',"x ",' in (tmp_path / "o.csv").read_text()


# ------------------------------------------------------------ time and memory


def test_copies_of_few_points_are_grouped_at_once() -> None:
    rows = np.random.default_rng(0).integers(0, 2, size=(60_000, 3)).astype(np.float32)
    start = time.perf_counter()
    groups = near_duplicates(rows)
    assert len(np.unique(groups)) == 8 and (groups >= 0).all()
    assert time.perf_counter() - start < 5  # seconds for what took minutes: a bound of kind, not of speed


@pytest.mark.parametrize(("rows", "classes"), [(5000, 10), (4000, 400), (10_000, 1000), (50_000, 10_000)])
def test_a_forest_remembers_no_more_than_there_is_room_for(rows: int, classes: int) -> None:
    chosen = _fitting_memory(rows, classes)
    leaves = chosen["max_leaf_nodes"] or rows // 2
    assert chosen["n_estimators"] * 2 * leaves * classes * 8 <= 1.1e9
    assert (chosen == {"n_estimators": 200, "max_leaf_nodes": None}) == (classes == 10)


def test_no_warning_is_left_over() -> None:
    _, given, proba, _ = made()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        labelwright.audit(given, proba)
