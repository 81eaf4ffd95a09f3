"""Data as users have it: any kind of labels, probabilities, features and answers; what comes out reads back."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from audit_data import blobs, made
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.naive_bayes import GaussianNB

import labelwright
from labelwright.auditing.crossval import read_features
from labelwright.auditing.duplicates import near_duplicates
from labelwright.auditing.reading import read_answers, read_labels, read_probabilities
from labelwright.errors import SettingsError
from labelwright.types import NO_LABEL, Ints

DATA = made(240, 3, 0.15, 0, sharp=0.15)
Y, P = DATA.given, DATA.proba
NAMES = np.array(["cat", "dog", "eel"])
FLAGGED = labelwright.audit(Y, P).flagged

# ---------------------------------------------------------------- labels

LABELS: dict[str, tuple[Callable[[Ints], Any], list[Any]]] = {
    "integers": (lambda y: y, [0, 1, 2]),
    "a list": (lambda y: y.tolist(), [0, 1, 2]),
    "one to K": (lambda y: y + 1, [1, 2, 3]),
    "tens": (lambda y: 10 * (y + 1), [10, 20, 30]),
    "with negative ones": (lambda y: y - 1, [-1, 0, 1]),
    "whole floats": (lambda y: y.astype(float), [0, 1, 2]),
    "fractions": (lambda y: y / 4, [0.0, 0.25, 0.5]),
    "strings": (lambda y: NAMES[y], ["cat", "dog", "eel"]),
    "objects": (lambda y: NAMES[y].astype(object), ["cat", "dog", "eel"]),
    "bytes": (lambda y: NAMES[y].astype("S"), ["cat", "dog", "eel"]),
    "a column": (lambda y: y[:, None], [0, 1, 2]),
    "a Series with an index of its own": (
        lambda y: pd.Series(NAMES[y], index=np.arange(240)[::-1]),
        ["cat", "dog", "eel"],
    ),
    "a Categorical": (lambda y: pd.Categorical(NAMES[y], categories=["eel", "cat", "dog"]), ["cat", "dog", "eel"]),
    "nullable integers": (lambda y: pd.Series(y, dtype="Int64"), [0, 1, 2]),
    "pandas strings": (lambda y: pd.Series(NAMES[y], dtype="string"), ["cat", "dog", "eel"]),
    "Arrow": (lambda y: pa.array(NAMES[y]), ["cat", "dog", "eel"]),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_any_kind_are_judged_alike(kind: str) -> None:
    given_as, names = LABELS[kind]
    found = labelwright.audit(given_as(Y), P)
    np.testing.assert_array_equal(found.flagged, FLAGGED)
    assert found.labels.names.tolist() == names
    assert found.issues.given_label.tolist() == [names[y] for y in Y]


MISSING: dict[str, Callable[[list[str]], Any]] = {
    "None": lambda y: [None if i == 7 else v for i, v in enumerate(y)],
    "nothing written": lambda y: ["" if i == 7 else v for i, v in enumerate(y)],
    "blanks": lambda y: np.array(["  " if i == 7 else v for i, v in enumerate(y)]),
    "NaN among text": lambda y: [float("nan") if i == 7 else v for i, v in enumerate(y)],
    "NA": lambda y: pd.Series(y, dtype="string").where(np.arange(240) != 7),
    "no category": lambda y: pd.Categorical([None if i == 7 else v for i, v in enumerate(y)]),
}


@pytest.mark.parametrize("kind", MISSING)
def test_a_missing_label_gets_its_likeliest_class(kind: str) -> None:
    found = labelwright.audit(MISSING[kind](NAMES[Y].tolist()), P)
    row = found.issues.iloc[7]
    assert not row.is_label_issue and row.given_label is None and np.isnan(row.label_score)
    assert row.predicted_label == NAMES[P[7].argmax()] and row.probability == pytest.approx(P[7].max())
    assert len(found.ranking) == 239 and 7 not in found.ranking
    assert any(note.startswith("1 row") and "no label" in note for note in found.notes)
    rest = np.arange(240) != 7
    alone = labelwright.audit(NAMES[Y[rest]], P[rest])
    np.testing.assert_allclose(found.label_score[rest], alone.label_score, atol=1e-4)


def test_missing_numbers() -> None:
    y = Y.astype(float)
    y[[3, 9]] = np.nan
    for labels in (y, y.tolist(), pd.Series(Y, dtype="Int64").where(~np.isin(np.arange(240), [3, 9]))):
        found = labelwright.audit(labels, P)
        assert found.labels.names.tolist() == [0, 1, 2]
        assert np.flatnonzero(found.labels.codes == NO_LABEL).tolist() == [3, 9]


def test_yes_and_no() -> None:
    data = made(200, 2, 0.2, 1)
    answer = data.given.astype(bool)
    plain = labelwright.audit(data.given, data.proba)
    for labels in (answer, answer.tolist(), answer.astype(object)):
        found = labelwright.audit(labels, data.proba)
        np.testing.assert_array_equal(found.flagged, plain.flagged)
        assert found.labels.names.tolist() == [False, True]
    assert found.accuracy(answer).before == 1.0
    turned = pd.DataFrame(data.proba[:, ::-1], columns=[True, False])  # the columns say which is which
    np.testing.assert_array_equal(labelwright.audit(answer, turned).flagged, plain.flagged)
    assert labelwright.audit(answer, data.proba, answers={4: True, 5: False}).known[3:6].tolist() == [-1, 1, 0]


@pytest.mark.parametrize("names", [["eel", "cat", "dog"], [2, 0, 1], ["2", "0", "1"], [2.0, 0.0, 1.0]])
@pytest.mark.parametrize("as_text", [False, True])
def test_columns_are_found_by_name(names: list[Any], as_text: bool) -> None:
    """Columns eel, cat, dog (or 2, 0, 1) of a frame, an Arrow table, or named by ``classes``; labels as numbers or text."""
    labels: Any = NAMES[Y] if names[0] == "eel" else Y.astype(str) if as_text else Y
    frame = pd.DataFrame(P[:, [2, 0, 1]], columns=names)
    table = pa.table({str(name): P[:, i] for name, i in zip(names, (2, 0, 1), strict=True)})
    for found in (
        labelwright.audit(labels, frame),
        labelwright.audit(labels, P[:, [2, 0, 1]], classes=names),
        labelwright.audit(labels, table) if names[0] != 2.0 else None,
    ):
        if found is not None:
            np.testing.assert_array_equal(found.flagged, FLAGGED)
            assert [str(name) for name in found.issues.given_label] == [str(label) for label in labels]


def test_more_than_ten_numbered_columns() -> None:
    """Text labels "0" to "11" and columns named so: "10" is the column "10", not the third in alphabetical order."""
    data = made(600, 12, 0.1, 2, sharp=0.05)
    frame = pd.DataFrame(data.proba, columns=[str(i) for i in range(12)])
    expected = labelwright.audit(data.given, data.proba).flagged
    assert 0 < expected.mean() < 0.3
    np.testing.assert_array_equal(labelwright.audit(data.given.astype(str), frame).flagged, expected)
    np.testing.assert_array_equal(labelwright.audit(data.given, frame).flagged, expected)


def test_a_class_that_is_never_given() -> None:
    proba = np.c_[P * 0.96, np.full(240, 0.04)].astype(np.float32)
    found = labelwright.audit(Y, proba)
    assert found.labels.names.tolist() == [0, 1, 2, 3] and 3 not in found.classes.index
    assert found.transition.shape == (4, 4)
    np.testing.assert_allclose(found.transition.sum(axis=1), 1.0)
    assert (found.flagged != FLAGGED).mean() < 0.05
    proba[0] = [0.002, 0.002, 0.002, 0.994]  # and yet a row may be of it
    row = labelwright.audit(Y, proba).issues.iloc[0]
    assert row.is_label_issue and row.predicted_label == 3


# ---------------------------------------------------------------- sizes


def test_two_rows() -> None:
    found = labelwright.audit([0, 1], [[0.9, 0.1], [0.2, 0.8]])
    assert not found.flagged.any() and found.noise_rate.high - found.noise_rate.low > 0.5
    assert len(found.questions(20)) == 2 and found.transition.shape == (2, 2)


def test_one_row() -> None:
    found = labelwright.audit(["a"], [[0.9, 0.1]], classes=["a", "b"])
    assert not found.flagged[0] and found.issues.predicted_label[0] == "a"


def test_one_class_given() -> None:
    found = labelwright.audit(np.zeros(100, int), np.tile([0.9, 0.1], (100, 1)))
    assert not found.flagged.any() and found.labels.names.tolist() == [0, 1]


def test_more_classes_than_rows() -> None:
    proba = 0.9 * np.eye(12)[[3, 7, 1, 11]] + 0.1 / 12
    found = labelwright.audit([3, 7, 1, 11], proba)
    assert not found.flagged.any() and found.labels.names.tolist() == list(range(12))
    np.testing.assert_array_equal(found.issues.predicted_label, [3, 7, 1, 11])


def rare(seed: int, noise: float) -> tuple[Any, Ints, Ints]:
    """(X, true, given) of 2,000 rows of four classes, and five rows, correctly labelled, of a fifth that lies apart."""
    X, true, given_ = blobs(2000, 4, noise, seed)
    rng = np.random.default_rng(seed + 1000)
    X = np.c_[X, rng.normal(size=2000)].astype(np.float32)
    X[:5] = 0.7 * rng.normal(size=(5, 7))
    X[:5, -1] += 7
    true[:5] = given_[:5] = 4
    return X, true, given_


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.2])
@pytest.mark.parametrize("seed", range(4))
def test_a_rare_class_is_not_swallowed(seed: int, noise: float) -> None:
    X, true, given_ = rare(seed, noise)
    proba = cross_val_predict(LogisticRegression(max_iter=300), X, given_, cv=5, method="predict_proba")
    found = labelwright.audit(given_, proba)
    assert found.flagged[:5].sum() <= 1
    if noise:
        bad = true != given_
        assert found.flagged[bad].mean() > 0.9  # and the others are found all the same


def test_a_rare_class_is_not_swallowed_by_trees() -> None:
    X, true, given_ = rare(0, 0.1)
    found = labelwright.audit(given_, X=X, random_state=0)
    assert found.flagged[:5].sum() <= 1 and found.flagged[true != given_].mean() > 0.9


def test_ten_thousand_classes_need_no_square() -> None:
    """20,000 x 10,000 probabilities (a view: each row is the one before, moved by one column). 10,000 x 10,000 numbers of
    eight bytes would be 800 MB; the audit needs 200 MB of its own at most, and finds the moved labels."""
    program = """
import json, tracemalloc
import numpy as np
import labelwright
k, n = 10_000, 20_000
row = np.full(k, 0.2 / (k - 2), np.float32); row[0] = 0.6; row[1] = 0.2
proba = np.lib.stride_tricks.as_strided(np.tile(row, 3), (n, k), (4, 4))
true = (-np.arange(n)) % k
assert (proba[::999].argmax(axis=1) == true[::999]).all()
given = true.copy(); bad = np.arange(0, n, 10); given[bad] = (given[bad] + 5000) % k
tracemalloc.start()
found = labelwright.audit(given, proba)
found.summary(), found.transition, found.questions(5)
wrong = np.zeros(n, bool); wrong[bad] = True
print(json.dumps([tracemalloc.get_traced_memory()[1] / 1e6, bool((found.flagged == wrong).all()), list(found.transition.columns)]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=250, check=True)
    peak, right, columns = json.loads(done.stdout)
    assert peak < 200 and right and columns == ["true", "given", "probability", "low", "high"]


# ---------------------------------------------------------------- files


def test_mapped_files(tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", P)
    np.save(tmp_path / "y.npy", NAMES[Y])
    found = labelwright.audit(tmp_path / "y.npy", tmp_path / "p.npy")
    assert isinstance(found.proba.array, np.memmap)
    np.testing.assert_array_equal(found.flagged, FLAGGED)
    np.testing.assert_array_equal(labelwright.audit(Y, str(tmp_path / "p.npy")).flagged, FLAGGED)


@pytest.mark.parametrize("columns", [["eel", "cat", "dog"], ["2", "0", "1"]])
def test_parquet(tmp_path: Path, columns: list[str]) -> None:
    pd.DataFrame(P[:, [2, 0, 1]], columns=columns).to_parquet(tmp_path / "p.parquet", row_group_size=50)
    found = labelwright.audit(NAMES[Y] if "cat" in columns else Y, tmp_path / "p.parquet")
    np.testing.assert_array_equal(found.flagged, FLAGGED)


# ---------------------------------------------------------------- features


def frame_of(true: Ints, seed: int) -> pd.DataFrame:
    """Text, a category, a number with gaps and a date."""
    rng = np.random.default_rng(seed)
    words = np.array([["purring", "whiskers"], ["barking", "leash"], ["swimming", "slippery"]])
    return pd.DataFrame(
        {
            "story": [" ".join([*rng.permutation(words[t]), "on day", str(rng.integers(10**6))]) for t in true],
            "size": pd.Categorical(np.array(["small", "large", "long"])[true]),
            "weight": np.where(rng.random(len(true)) < 0.2, np.nan, 5.0 * true + rng.normal(size=len(true))),
            "born": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(900, size=len(true)), unit="D"),
        }
    )


def features(kind: str, true: Ints) -> Any:
    from scipy.sparse import csr_matrix

    rng = np.random.default_rng(0)
    numbers = (6 * np.eye(3)[true][:, :2] + rng.normal(size=(len(true), 2))).astype(np.float32)
    if kind == "images":
        pictures = rng.integers(0, 60, size=(len(true), 6, 6)).astype(np.uint8)
        pictures[np.arange(len(true)), true] = 220
        return pictures
    return {
        "numbers": numbers,
        "a list of rows": numbers.tolist(),
        "a frame": frame_of(true, 0),
        "an Arrow table": pa.Table.from_pandas(frame_of(true, 0)),
        "texts": frame_of(true, 0).story.tolist(),
        "a sparse matrix": csr_matrix(np.round(np.maximum(numbers, 0), 1)),
    }[kind]


@pytest.mark.parametrize(
    "kind", ["numbers", "a list of rows", "a frame", "an Arrow table", "texts", "a sparse matrix", "images"]
)
def test_features_of_any_kind(kind: str) -> None:
    """Six of 150 labels are wrong; all are found, and hardly another."""
    true = np.repeat([0, 1, 2], 50)
    given_ = true.copy()
    bad = [3, 20, 60, 77, 110, 149]
    given_[bad] = (given_[bad] + 1) % 3
    found = labelwright.audit(NAMES[given_], X=features(kind, true), random_state=0)
    assert set(bad) <= set(np.flatnonzero(found.flagged).tolist()) and found.flagged.sum() <= 9
    assert found.issues.predicted_label[bad].tolist() == NAMES[true[bad]].tolist()
    assert found.notes[0].startswith("probabilities: ") and "5-fold" in found.notes[0]
    again = labelwright.audit(NAMES[given_], X=features(kind, true), random_state=0, workers=1)
    np.testing.assert_array_equal(again.whole.score, found.whole.score)


def test_a_classifier_of_ones_own_is_not_touched() -> None:
    X, _, given_ = blobs(200, 3, 0.1, 0)
    for model in (GaussianNB(), LogisticRegression()):
        found = labelwright.audit(given_, X=X, classifier=model, folds=3)
        assert not hasattr(model, "classes_") and type(model).__name__ in found.notes[0] and "3-fold" in found.notes[0]
        np.testing.assert_allclose(found.proba.array.sum(axis=1), 1.0, rtol=1e-5)


def test_rows_without_label_are_predicted_from_features() -> None:
    X, true, given_ = blobs(200, 3, 0.0, 0)
    labels = given_.astype(float)
    labels[:20] = np.nan
    found = labelwright.audit(labels, X=X, classifier=GaussianNB())
    assert (found.issues.predicted_label[:20] == true[:20]).mean() > 0.9


def test_progress_is_told() -> None:
    told: list[tuple[str, int, int]] = []
    X, _, given_ = blobs(200, 3, 0.1, 0)
    labelwright.audit(given_, X=X, classifier=GaussianNB(), progress=lambda *at: told.append(at))
    assert [at for at in told if at[0] == "cross-validation"] == [("cross-validation", i, 5) for i in range(1, 6)]
    assert told[-1] == ("judging", 200, 200)


# ---------------------------------------------------------------- answers


@pytest.mark.parametrize(
    "answers",
    [
        {3: "dog", 9: "eel"},
        {np.int64(3): np.str_("dog"), 9: "eel"},
        [(3, "dog"), (9, "eel")],
        np.array([(3, "dog"), (9, "eel")]),
        pd.DataFrame({"row": [3, 9], "label": ["dog", "eel"]}),
        pd.Series({3: "dog", 9: "eel"}),
        [None] * 3 + ["dog"] + [None] * 5 + ["eel"] + [""] * 230,
        np.array([""] * 3 + ["dog"] + [""] * 5 + ["eel"] + [""] * 230),
    ],
    ids=["dict", "NumPy dict", "pairs", "array", "frame", "Series", "one a row", "array, one a row"],
)
def test_answers_of_any_kind(answers: Any) -> None:
    known = read_answers(answers, read_labels(NAMES[Y], None, 3))
    assert np.flatnonzero(known != NO_LABEL).tolist() == [3, 9] and known[[3, 9]].tolist() == [1, 2]


def test_answers_in_numbers() -> None:
    labels = read_labels(10 * (Y + 1), None, 3)
    one_a_row = np.full(240, np.nan)
    one_a_row[5] = 20
    for answers in ({5: 20}, {5: 20.0}, {5: "20"}, [(5, 20)], one_a_row, np.array([[5.0, 20.0]])):
        known = read_answers(answers, labels)
        assert np.flatnonzero(known != NO_LABEL).tolist() == [5] and known[5] == 1
    minus = np.where(np.arange(240) == 5, 2, NO_LABEL)  # -1 is the house's word for "none"
    assert np.flatnonzero(read_answers(minus, read_labels(Y, None, 3)) == 2).tolist() == [5]


def test_an_expert_may_name_a_row_without_label() -> None:
    labels = [None, *NAMES[Y[1:]].tolist()]
    other = NAMES[(P[0].argmax() + 1) % 3]
    row = labelwright.audit(labels, P, answers={0: other}).issues.iloc[0]
    assert row.predicted_label == other and row.probability == 1.0 and not row.is_label_issue


# ---------------------------------------------------------------- sources, ids, near-duplicates, questions


def test_sources_are_compared() -> None:
    """carla mislabels 40 %, the others 5 %."""
    rng = np.random.default_rng(0)
    data = made(1200, 4, 0.0, 3, sharp=0.05)
    who = rng.choice(["anna", "ben", "carla"], size=1200).astype(object)
    wrong = rng.random(1200) < np.where(who == "carla", 0.4, 0.05)
    given_ = np.where(wrong, (data.true + 1) % 4, data.true)
    who[:7] = None
    table = labelwright.audit(given_, data.proba, sources=who).sources
    assert table is not None and table.index[0] == "carla" and set(table.index) == {"anna", "ben", "carla", "(unknown)"}
    for name, rate in (("carla", 0.4), ("anna", 0.05), ("ben", 0.05)):
        row = table.loc[name]
        assert row["rows"] == (who == name).sum() and row["error_rate"] == pytest.approx(
            wrong[who == name].mean(), abs=0.05
        )
        assert row["low"] - 0.02 < wrong[who == name].mean() < row["high"] + 0.02, rate
    assert labelwright.audit(Y, P).sources is None


def test_ids_name_the_rows() -> None:
    ids = [f"r{i}" for i in range(240)]
    found = labelwright.audit(Y, P, ids=pd.Series(ids, index=np.arange(240)[::-1]))
    assert found.issues.index.tolist() == ids and found.issues.index.name == "id"
    asked = found.questions(3)
    assert asked.index.tolist() == [f"r{i}" for i in asked.position]


def test_near_duplicates_with_conflicting_labels() -> None:
    X, _, _ = blobs(240, 3, 0.0, 0)
    X[10], X[20] = X[11] + 1e-4, X[21]
    X[30] = X[31]
    labels: list[Any] = NAMES[Y].tolist()
    labels[10], labels[11], labels[20], labels[21], labels[30], labels[31] = "cat", "dog", "eel", "eel", None, "dog"
    for found in (labelwright.audit(labels, P, features=X), labelwright.audit(labels, P, X=X)):
        table = found.near_duplicates
        groups = {tuple(g.position): bool(g.conflict.all()) for _, g in table.groupby("group")}
        assert {(10, 11): True, (20, 21): False, (30, 31): False}.items() <= groups.items()
        assert table.position[:2].tolist() == [10, 11] and table.given_label[:2].tolist() == ["cat", "dog"]


def test_many_copies_are_one_group() -> None:
    X = np.random.default_rng(0).normal(size=(60, 20))
    X[5:45] = X[5]
    group = near_duplicates(X)
    assert (group[5:45] == 0).all() and (np.delete(group, np.arange(5, 45)) == -1).all()


def test_questions_do_not_repeat_a_row() -> None:
    """The worst three rows come five times more: of ten questions each is asked about once."""
    worst = labelwright.audit(Y, P).ranking[:3]
    rows = np.r_[np.arange(240), np.repeat(worst, 5)]
    X = np.random.default_rng(0).normal(size=(240, 3)).astype(np.float32)
    for features in (None, X[rows]):
        found = labelwright.audit(Y[rows], P[rows], features=features)
        assert len(set(rows[found.ranking[:10]])) < 10  # else there would be nothing to avoid
        asked = found.questions(10)
        assert len(set(rows[asked.position])) == 10 and asked.position.iloc[0] == found.ranking[0]
        settled = found.answered({int(row): 0 for row in asked.position})
        assert not set(settled.questions(10).position) & set(asked.position)
    assert len(found.questions(1000)) == 255


# ---------------------------------------------------------------- accuracy, keeping, handing on


def test_accuracy_before_and_after() -> None:
    """A model that is right on nearly all of the test rows, of whose labels 20 in 100 are wrong, seems right on fewer."""
    X, true, given_ = blobs(3000, 4, 0.2, 0, apart=3.0)
    said = GaussianNB().fit(X[:1000], true[:1000]).predict(X[1000:])
    X, true, given_ = X[1000:], true[1000:], given_[1000:]
    proba = cross_val_predict(LogisticRegression(), X, given_, cv=5, method="predict_proba")
    found = labelwright.audit(given_, proba)
    told = found.accuracy(said)
    assert float(told.before) == pytest.approx((said == given_).mean())
    right = (said == true).mean()
    assert right - told.before > 0.15 and abs(told.after - right) < 0.02
    assert told.after.low <= right <= told.after.high and told.flagged == found.flagged.sum()
    assert "No label was changed" in str(told) and (found.labels.codes == given_).all()
    all_known = found.answered(dict(enumerate(true.tolist())))
    assert float(all_known.accuracy(said).after) == pytest.approx(right)


def test_accuracy_sees_no_row_by_its_own_label() -> None:
    """Of predictions equal to the labels, as many are right as the audit expects of the labels themselves."""
    found = labelwright.audit(Y, P)
    rates = [float(c.dense().trace()) / len(Y) for c in found.whole.counts]
    w = found.judge.weight
    assert float(found.accuracy(Y).after) == pytest.approx(w * rates[0] + (1 - w) * rates[1], abs=1e-4)


def test_what_was_fitted_is_kept_and_judges_another_batch(tmp_path: Path) -> None:
    data = made(2000, 4, 0.2, 0, sharp=0.1)
    names = np.array(["ash", "birch", "cedar", "elm"])
    found = labelwright.audit(names[data.given], data.proba, classes=names)
    found.save(tmp_path / "audit.json")
    loaded = labelwright.load_audit(tmp_path / "audit.json")
    assert loaded.classes == names.tolist()
    again = loaded.audit(names[data.given], data.proba)
    assert np.abs(again.label_score - found.label_score).mean() < 0.02
    assert (again.flagged == found.flagged).mean() > 0.98
    fresh = made(300, 4, 0.2, 1, sharp=0.1)
    batch = loaded.audit(
        names[fresh.given], fresh.proba, ids=pd.Series(range(300), index=range(300, 0, -1)), sources=["x"] * 300
    )
    alone = labelwright.audit(names[fresh.given], fresh.proba, classes=names)
    assert (batch.flagged == alone.flagged).mean() > 0.9
    assert fresh.bad[batch.flagged].mean() > 0.8 and batch.flagged[fresh.bad].mean() > 0.8
    one = loaded.audit(["elm"], [[0.0, 0.98, 0.01, 0.01]])
    assert one.flagged[0] and one.issues.predicted_label[0] == "birch"
    assert batch.to_label_studio(count=1)[0]["data"]["id"] == int(batch.ranking[0])


def test_many_classes_are_kept(tmp_path: Path) -> None:
    data = made(1500, 300, 0.1, 0, sharp=0.01)
    found = labelwright.audit(data.given, data.proba)
    found.save(tmp_path / "audit.json")
    again = labelwright.load_audit(tmp_path / "audit.json").audit(data.given, data.proba)
    np.testing.assert_allclose(again.label_score, found.label_score, atol=1e-4)
    np.testing.assert_array_equal(again.whole.predicted, found.whole.predicted)


def test_tables_read_back(tmp_path: Path) -> None:
    labels: list[Any] = NAMES[Y].tolist()
    labels[0] = None
    found = labelwright.audit(labels, P, ids=[f"r{i}" for i in range(240)])
    found.to_parquet(tmp_path / "issues.parquet")
    found.to_csv(tmp_path / "issues.csv")
    back = pq.read_table(tmp_path / "issues.parquet").to_pandas()
    pd.testing.assert_frame_equal(back, found.issues.reset_index(), check_dtype=False)
    text = pd.read_csv(tmp_path / "issues.csv")
    assert text.columns.tolist() == back.columns.tolist()
    assert text["id"].tolist() == back["id"].tolist() and text.is_label_issue.tolist() == back.is_label_issue.tolist()
    np.testing.assert_allclose(text.label_score, back.label_score, rtol=1e-5)
    labelwright.audit(Y, P).to_csv(tmp_path / "plain.csv")
    assert pd.read_csv(tmp_path / "plain.csv")["id"].tolist() == list(range(240))


def test_label_studio_tasks_read_back(tmp_path: Path) -> None:
    frame = frame_of(DATA.true, 0)
    found = labelwright.audit(NAMES[Y], P, X=frame)
    returned = found.to_label_studio(tmp_path / "tasks.json")
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    assert tasks == returned and len(tasks) == FLAGGED.sum()
    scores = [task["data"]["label_score"] for task in tasks]
    assert scores == sorted(scores) and scores[-1] < 0.5
    for task in tasks:
        row, (prediction,) = task["data"]["id"], task["predictions"]
        assert task["data"]["given_label"] == NAMES[Y[row]]
        assert prediction["result"][0]["value"]["choices"] == [found.issues.predicted_label[row]]
        assert prediction["result"][0]["value"]["choices"] != [NAMES[Y[row]]]
    assert len(found.to_label_studio(count=2)) == 2


def test_summary_is_json() -> None:
    told = json.loads(json.dumps(labelwright.audit(NAMES[Y], P, answers={1: "cat"}).summary()))
    assert (told["rows"], told["classes"], told["answers"]) == (240, 3, 1)
    assert told["noise_rate"]["low"] <= told["noise_rate"]["value"] <= told["noise_rate"]["high"]


def test_inputs_are_not_changed() -> None:
    X, _, given_ = blobs(200, 3, 0.1, 0)
    proba = made(200, 3, 0.1, 0).proba
    labels = [None, *given_[1:].tolist()]
    before = X.copy(), proba.copy(), list(labels)
    found = labelwright.audit(labels, proba, features=X, answers={3: 1})
    found.questions(), found.near_duplicates, found.accuracy(given_), found.summary()
    labelwright.audit(labels, X=X, classifier=GaussianNB())
    np.testing.assert_array_equal(X, before[0])
    np.testing.assert_array_equal(proba, before[1])
    assert labels == before[2]


def test_features_and_probabilities_are_read_as_they_come() -> None:
    assert read_probabilities(P).array is P  # never copied whole
    images = np.zeros((4, 5, 6), np.uint8)
    assert read_features(images, 4).X.shape == (4, 30)
    assert read_features(frame_of(DATA.true, 0).story.tolist(), 240).text


def test_questions_that_measure_come_from_both_sides_of_the_line() -> None:
    data = made(1500, 4, 0.2, 3)
    found = labelwright.audit(data.given, data.proba)
    asked = found.questions(40, purpose="measure")
    assert len(asked) == 40 and asked.is_label_issue.sum() == 20
    again = labelwright.audit(data.given, data.proba).questions(40, purpose="measure")
    assert again.position.tolist() == asked.position.tolist()
    with pytest.raises(SettingsError, match="'find' or 'measure'"):
        found.questions(5, purpose="guess")


def test_answers_that_measure_narrow_precision_more_than_answers_that_find() -> None:
    data = made(3000, 4, 0.2, 5)
    found = labelwright.audit(data.given, data.proba)
    width = {}
    for purpose in ("find", "measure"):
        at = found.questions(60, purpose=purpose).position
        told = found.answered({int(i): int(data.true[i]) for i in at})
        width[purpose] = told.precision.high - told.precision.low
    assert width["measure"] < width["find"] < found.precision.high - found.precision.low


def test_a_loaded_judge_stays_when_answers_come(tmp_path: Path) -> None:
    data, batch = made(2000, 4, 0.2, 1), made(60, 4, 0.2, 2)
    labelwright.audit(data.given, data.proba).save(tmp_path / "audit.json")
    told = labelwright.load_audit(tmp_path / "audit.json").audit(batch.given, batch.proba)
    worst = int(told.ranking[0])
    after = told.answered({worst: int(batch.true[worst])})
    assert after.judge is told.judge and after.known[worst] == batch.true[worst]
    others = np.arange(60) != worst
    assert np.array_equal(after.label_score[others], told.label_score[others])
