"""RobustClassifier where test_robust_classifier.py does not look: seeds, names, damaged files, types of labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import SGDClassifier

from labelwright import RobustClassifier, load
from labelwright.errors import LabelwrightError

SMALL = ExtraTreesClassifier(10, random_state=0)


def flipped(rate: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    X, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(y))
    X, y = X[order], y[order]
    given = y.copy()
    wrong = rng.choice(len(y), int(rate * len(y)), replace=False)
    given[wrong] = (given[wrong] + rng.integers(1, 10, len(wrong))) % 10
    return X, y, given


def test_thirty_percent_flips_against_the_same_trees() -> None:
    """The honest control: the same classifier with the same seed on the same noisy rows."""
    X, y, given = flipped(0.3)
    control = ExtraTreesClassifier(30, random_state=0).fit(X[:1000], given[:1000]).score(X[1000:], y[1000:])
    model = RobustClassifier(ExtraTreesClassifier(30, random_state=0), random_state=0).fit(X[:1000], given[:1000])
    assert model.score(X[1000:], y[1000:]) > control
    low, high = model.noise_interval_
    assert low < 0.3 < high or abs(model.noise_rate_ - 0.3) < 0.05


def test_equal_seeds_give_equal_results_batch_by_batch() -> None:
    X, _, given = flipped(0.3)
    models = [RobustClassifier(SMALL, random_state=5, buffer=50) for _ in range(2)]
    for start in range(0, 900, 300):
        for model in models:
            model.partial_fit(X[start : start + 300], given[start : start + 300], classes=range(10))
    assert (models[0].predict_proba(X) == models[1].predict_proba(X)).all()
    assert models[0].verdict_.tolist() == models[1].verdict_.tolist() and len(models[0].verdict_) == 300


@pytest.mark.parametrize(
    "classifier", [SMALL, SGDClassifier(loss="log_loss", random_state=0)], ids=["refit", "incremental"]
)
@pytest.mark.parametrize("selector", ["rad-duo", "slim", "quality-only", "none"])
def test_loading_goes_on_as_if_never_stopped(tmp_path: Path, classifier: object, selector: str) -> None:
    X, _, given = flipped(0.3)
    model = RobustClassifier(classifier, selector=selector, random_state=3).partial_fit(X[:400], given[:400])
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert (model.predict_proba(X[700:]) == again.predict_proba(X[700:])).all()
    for other in (model, again):
        other.partial_fit(X[400:700], given[400:700])
    assert (model.predict_proba(X[700:]) == again.predict_proba(X[700:])).all()
    assert model.verdict_.tolist() == again.verdict_.tolist() and model.noise_rate_ == again.noise_rate_


def test_columns_have_names_after_loading_too(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    X, _, given = flipped(0.1)
    frame = pd.DataFrame(X[:300], columns=[f"pixel {i}" for i in range(64)])
    RobustClassifier(SMALL, random_state=0).fit(frame, given[:300]).save(tmp_path / "model")
    again = load(tmp_path / "model")
    again.predict(frame)
    assert not recwarn.list and list(again.feature_names_in_)[:2] == ["pixel 0", "pixel 1"]
    with pytest.raises(ValueError, match="feature names"):
        again.predict(frame.rename(columns={"pixel 0": "other"}))


@pytest.mark.parametrize(
    "labels", [np.array([True, False]), np.array([-1.0, 1.0]), np.array(["b", "a"]), np.array([7, 3])]
)
def test_labels_of_any_type_come_back(tmp_path: Path, labels: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=200)
    X = rng.normal(size=(200, 2)) + 4 * y[:, None]
    model = RobustClassifier(SMALL, random_state=0).fit(X, labels[y])
    model.save(tmp_path / "model")
    for one in (model, load(tmp_path / "model")):
        assert one.predict(X).dtype == labels.dtype and (one.predict(X) == labels[y]).mean() > 0.98


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9, 0.999])
def test_a_damaged_file_is_said_in_a_sentence(tmp_path: Path, place: float) -> None:
    X, _, given = flipped(0.1)
    RobustClassifier(SMALL, random_state=0).fit(X[:200], given[:200]).save(tmp_path / "model")
    raw = (tmp_path / "model").read_bytes()
    (tmp_path / "cut").write_bytes(raw[: int(place * len(raw))])
    with pytest.raises(LabelwrightError, match="no saved RobustClassifier"):
        load(tmp_path / "cut")


def test_repeated_classes_are_one_class() -> None:
    X, _, given = flipped(0.1)
    model = RobustClassifier(SMALL, random_state=0).partial_fit(X[:200], given[:200], classes=[*range(10), 3, 3])
    assert model.classes_.tolist() == list(range(10)) and model.predict_proba(X[:5]).shape == (5, 10)
