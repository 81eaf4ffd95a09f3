"""Bad input to an audit: one clear sentence that says what was got, what was expected and what to do."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from audit_data import made
from sklearn.linear_model import LinearRegression

import labelwright
from labelwright import audit
from labelwright.errors import DataError, SettingsError, SourceError, TooFewRowsError

DATA = made(240, 3, 0.15, 0, sharp=0.15)
Y, P = DATA.given, DATA.proba
NAMES = np.array(["cat", "dog", "eel"])


def with_row(*values: float) -> Any:
    out = P.copy()
    out[5] = values
    return out


def with_gap(place: tuple[int, int]) -> Any:
    out = P.copy()
    out[place] = np.nan
    return out


BAD: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    # probabilities
    "sum": (lambda: audit(Y, with_row(0.5, 0.5, 0.1)), DataError, "row 5 .* sums to 1.1, expected 1; .*softmax"),
    "percent": (lambda: audit(Y, 100 * P), DataError, "row 0 .* sums to 100, expected 1"),
    "negative": (lambda: audit(Y, with_row(1.2, -0.1, -0.1)), DataError, "row 5 .* -0.1, a negative number; .*softmax"),
    "NaN": (lambda: audit(Y, with_gap((5, 0))), DataError, "row 5 .* NaN or infinity; give finite"),
    "infinity": (lambda: audit(Y, with_row(np.inf, 0, 0)), DataError, "row 5 .* NaN or infinity; give finite"),
    "late row": (lambda: audit(np.tile(Y, 9), np.r_[np.tile(P, (8, 1)), with_gap((7, 1))]), DataError, "row 1927 "),
    "width": (lambda: audit(Y, np.full((240, 2), 0.5)), DataError, "2 columns but the labels name 3 .*classes="),
    "transposed": (lambda: audit(Y, P.T), DataError, r"240 labels .* \(3, 240\); .*transposed: pass pred_probs.T"),
    "one-dimensional": (lambda: audit(Y > 0, P[:, 0]), DataError, r"one number a row; .*numpy.stack\(\[1 - p, p\]"),
    "three-dimensional": (
        lambda: audit(Y, P[:, :, None]),
        DataError,
        r"shape \(240, 3, 1\); expected \(rows, classes\)",
    ),
    "one column": (lambda: audit(Y, np.ones((240, 1))), DataError, "1 column; at least 2"),
    "text": (lambda: audit([0, 1], [["a", "b"], ["c", "d"]]), DataError, "type <U1, expected numbers"),
    "ragged": (lambda: audit([0, 1], [[0.1, 0.9], [1.0]]), DataError, "no table of numbers"),
    "nothing": (lambda: audit(Y), SettingsError, "needs pred_probs, or X"),
    "frame with an id": (lambda: audit(Y, pd.DataFrame(P).assign(id="x")), DataError, "type object, expected numbers"),
    # labels
    "too few labels": (lambda: audit(Y[:-1], P), DataError, r"239 labels .* \(240, 3\); expected \(239, K\)"),
    "no labels": (lambda: audit([], np.empty((0, 3))), DataError, "no labels; give one a row"),
    "all missing": (lambda: audit([None] * 240, P), DataError, "all 240 labels are missing; give"),
    "one-hot labels": (lambda: audit(np.eye(3)[Y], P), DataError, r"shape \(240, 3\); expected one label a row"),
    "infinite label": (lambda: audit(np.where(Y == 2, np.inf, Y), P), DataError, "a label is infinite; expected"),
    "unknown class": (
        lambda: audit(NAMES[Y], P, classes=["cat", "dog", "fox"]),
        DataError,
        r"label 'eel' is none of the columns .*\(cat, dog, fox\); give",
    ),
    "unknown number": (lambda: audit(Y + 1, P, classes=[0, 1, 2]), DataError, r"label 3 is none .*\(0, 1, 2\)"),
    "classes missing": (lambda: audit(Y, P, classes=["cat", "dog"]), DataError, "2 class names .* 3 columns"),
    "a class twice": (lambda: audit(NAMES[Y], P, classes=["cat", "dog", "cat"]), DataError, "named 'cat'; give each"),
    "fewer names than columns": (
        lambda: audit(NAMES[np.minimum(Y, 1)], P),
        DataError,
        r"3 columns but the labels name 2 classes \(cat, dog\); .*classes=",
    ),
    # features
    "X with NaN": (lambda: audit(Y, X=with_gap((4, 1))), DataError, "row 4 of X holds NaN .*DataFrame, whose gaps"),
    "X too short": (lambda: audit(Y, X=P[:-1]), DataError, "240 labels but X has 239 rows"),
    "frame too short": (lambda: audit(Y, X=pd.DataFrame(P[:-1])), DataError, "240 labels but X has 239 rows"),
    "texts too few": (lambda: audit(Y, X=["a b"] * 7), DataError, "240 labels but X has 7 rows"),
    "X beside probabilities": (lambda: audit(Y, P, X=P[:-1]), DataError, "240 labels but X has 239 rows"),
    "one class": (lambda: audit(["cat"] * 240, X=P), DataError, "all labels are 'cat'; .*one other class"),
    "two rows": (lambda: audit([0, 1], X=P[:2]), TooFewRowsError, "two or more rows: 0; .*2 or more"),
    "folds": (lambda: audit(Y, X=P, folds=1), SettingsError, "1 folds .* needs 2 or more"),
    "an unknown classifier": (
        lambda: audit(Y, X=P, classifier="swm"),
        SettingsError,
        "the classifier 'swm' is unknown",
    ),
    "a regressor": (
        lambda: audit(Y, X=P, classifier=LinearRegression()),
        SettingsError,
        "expected fit and predict_proba",
    ),
    "features with NaN": (
        lambda: audit(Y, P, features=with_gap((9, 0))).near_duplicates,
        DataError,
        "row 9 of the features",
    ),
    "no features": (lambda: audit(Y, P).near_duplicates, SettingsError, "give features= or X="),
    # the rest
    "sources": (lambda: audit(Y, P, sources=["anna"]), DataError, "240 labels but 1 sources; give one a row"),
    "ids": (lambda: audit(Y, P, ids=["r1", "r2"]), DataError, "240 labels but 2 ids; give one a row"),
    "features": (lambda: audit(Y, P, features=P[:7]), DataError, "240 labels but 7 features; give one a row"),
    "answer beyond": (lambda: audit(Y, P, answers={500: 1}), DataError, "row 500, but there are rows 0 to 239; give"),
    "answer before": (lambda: audit(Y, P, answers={-1: 1}), DataError, "row -1, but there are rows 0 to 239"),
    "answer by id": (lambda: audit(Y, P, answers={"r5": 1}), DataError, "row r5, .*give the row's position"),
    "answer between": (lambda: audit(Y, P, answers={2.5: 1}), DataError, "row 2.5, .*give the row's position"),
    "answer unknown": (
        lambda: audit(Y, P, answers={5: "fox"}),
        DataError,
        "row 5 is 'fox', expected one of 0, 1, 2; correct",
    ),
    "answer empty": (lambda: audit(Y, P, answers={5: None}), DataError, "row 5 is None, expected .*leave it out"),
    "answers too few": (
        lambda: audit(Y, P, answers=[1, 2]),
        DataError,
        "2 answers were given for 240 rows; give pairs",
    ),
    "more answers": (lambda: audit(Y, P).answered({0: 9}), DataError, "row 0 is 9, expected one of 0, 1, 2"),
    "predictions": (lambda: audit(Y, P).accuracy([1, 2]), DataError, r"\(2,\) predictions .* 240 rows"),
    "predicted class": (lambda: audit(Y, P).accuracy(Y + 1), DataError, "predicts 3, which is none"),
    "no question": (lambda: audit(Y, P).questions(0), SettingsError, "0 questions .*give 1 or more"),
    "strange option": (
        lambda: labelwright.find_label_issues(Y, P, depth=3),
        SettingsError,
        "option 'depth' is unknown",
    ),
    "strange ranking": (
        lambda: labelwright.find_label_issues(Y, P, return_indices_ranked_by="beauty"),
        SettingsError,
        "'beauty' is unknown; expected one of self_confidence",
    ),
}


@pytest.mark.filterwarnings("ignore:the probabilities:UserWarning")
@pytest.mark.parametrize("name", BAD)
def test_one_sentence(name: str) -> None:
    attempt, kind, says = BAD[name]
    with pytest.raises(kind) as caught:
        attempt()
    message = str(caught.value)
    assert re.search(says, message), message
    assert "\n" not in message and len(message) < 300 and "np." not in message


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "gone.npy": (lambda path: None, "no file .*; check the path"),
    "short.npy": (lambda path: cut(path, 100), "not a whole .npy file .*ended early"),
    "header.npy": (lambda path: cut(path, 2900), "not a whole .npy file .*ended early"),
    "empty.npy": (lambda path: path.write_bytes(b""), "not a whole .npy file .*ended early"),
    "objects.npy": (
        lambda path: np.save(path, np.array([{1: 2}] * 240, dtype=object), allow_pickle=True),
        "Python objects, which are never unpickled; save plain numbers",
    ),
    "pickle.npy": (lambda path: path.write_bytes(pickle.dumps(Trap(path.parent))), "no .npy file; save one array"),
    "several.npz": (lambda path: np.savez(path, a=P), "no .npy file; save one array"),
    "table.csv": (lambda path: path.write_text("a,b,c\n0.2,0.3,0.5\n" * 9), "no .npy file; save one array"),
    "short.parquet": (lambda path: cut(path, 60), "not a whole Parquet file .*write it again"),
    "empty.parquet": (lambda path: path.write_bytes(b""), "not a whole Parquet file"),
    "gone.parquet": (lambda path: None, "no file .*; check the path"),
}


class Trap:
    """Unpickled, it would leave a file behind."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self) -> Any:
        return Path.touch, (self.folder / "sprung",)


def cut(path: Path, missing: int) -> None:
    """P as a file of which the last bytes are missing."""
    if path.suffix == ".npy":
        np.save(path, P)
    else:
        pd.DataFrame(P, columns=list("abc")).to_parquet(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - missing])


@pytest.mark.parametrize("name", FILES)
def test_files_that_cannot_be_read(name: str, tmp_path: Path) -> None:
    write, says = FILES[name]
    path = tmp_path / name
    write(path)
    with pytest.raises(SourceError) as caught:
        audit(Y, path)
    message = str(caught.value)
    assert re.search(says, message) and str(path) in message and "\n" not in message, message
    assert not (tmp_path / "sprung").exists()  # no pickle is ever loaded
    if name.endswith(".npy"):
        with pytest.raises(SourceError):
            audit(path, P)


@pytest.mark.parametrize("cut_at", range(1, 130, 8))
def test_npy_may_end_anywhere(cut_at: int, tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", P)
    whole = (tmp_path / "p.npy").read_bytes()
    (tmp_path / "p.npy").write_bytes(whole[:cut_at])
    with pytest.raises(SourceError, match="ended early"):
        audit(Y, tmp_path / "p.npy")


def test_a_parquet_file_of_something_else(tmp_path: Path) -> None:
    frame = pd.DataFrame(P.copy(), columns=NAMES)
    frame.assign(id="x").to_parquet(tmp_path / "id.parquet")
    with pytest.raises(DataError, match=r"column 'id' .* type .*string; expected one column of numbers a class"):
        audit(NAMES[Y], tmp_path / "id.parquet")
    frame.loc[3, "dog"] = np.nan
    frame.to_parquet(tmp_path / "gap.parquet")
    with pytest.raises(DataError, match=r"row 3 .* NaN"):
        audit(NAMES[Y], tmp_path / "gap.parquet")


def test_probabilities_of_a_model_trained_on_the_labels_are_warned_of() -> None:
    inside = (0.997 * np.eye(3)[Y] + 0.001).astype(np.float32)
    with pytest.warns(UserWarning, match=r"look in-sample: .*0\.998 and 100\.0 % .*use cross-validated") as caught:
        found = audit(Y, inside)
    assert caught[0].filename == __file__  # it points at the user's line
    assert found.notes == (str(caught[0].message),)


def test_probabilities_in_another_order_are_warned_of() -> None:
    """Rows shuffled, or columns swapped: the class of a row gets no more than any row gives it."""
    shuffled = np.random.default_rng(0).permutation(240)
    for proba in (P[shuffled], P[:, [1, 2, 0]]):
        with pytest.warns(UserWarning, match="tell nothing about the labels: .*rows, and the columns"):
            audit(Y, proba)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        audit(Y, P)
        audit(DATA.true, P)


def test_a_loaded_audit_refuses_what_does_not_fit(tmp_path: Path) -> None:
    audit(NAMES[Y], P).save(tmp_path / "a.json")
    loaded = labelwright.load_audit(tmp_path / "a.json")
    with pytest.raises(DataError, match="2 columns but the audit was of 3 classes"):
        loaded.audit(["cat"], [[0.5, 0.5]])
    with pytest.raises(DataError, match="named eel, cat, dog, but the audit was of cat, dog, eel; give"):
        loaded.audit(NAMES[Y], pd.DataFrame(P[:, [2, 0, 1]], columns=NAMES[[2, 0, 1]]))
    with pytest.raises(DataError, match="label 'fox' is none"):
        loaded.audit(["fox"], P[:1])
    with pytest.raises(DataError, match=r"2 labels .* \(3, 3\)"):
        loaded.audit(["cat", "dog"], P[:3])
    np.testing.assert_array_equal(
        loaded.audit(NAMES[Y], pd.DataFrame(P, columns=NAMES)).flagged, loaded.audit(NAMES[Y], P).flagged
    )


@pytest.mark.parametrize(
    ("content", "kind", "says"),
    [
        (None, SourceError, "cannot be read .*check the path"),
        (b'{"classes": ["a"', SourceError, "not whole JSON .*save the audit again"),
        (b"\xff\xfe\x00", SourceError, "not whole JSON"),
        (b"[1, 2]", SettingsError, "no state of an audit"),
        (b'{"classes": [1, 2], "judge": {}}', SettingsError, "no state of an audit"),
        (b'{"classes": [1, 2], "judge": {"format": 7}}', SettingsError, "format 7, expected 1; audit again"),
        (b'{"classes": [1, 2], "judge": null}', SettingsError, "no state of an audit"),
    ],
)
def test_states_that_are_none(content: bytes | None, kind: type[Exception], says: str, tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(kind, match=says):
        labelwright.load_audit(path)
