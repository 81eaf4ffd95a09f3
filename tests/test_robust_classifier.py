"""The estimator: scikit-learn's checks, saving, and that it earns its keep against the same model without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from labelwright import RobustClassifier, load
from labelwright.errors import SettingsError, SourceError
from labelwright.packing import pack, unpack

SMALL = ExtraTreesClassifier(10, random_state=0)


@pytest.mark.filterwarnings("ignore::UserWarning")
@parametrize_with_checks(
    [
        RobustClassifier(SMALL, random_state=0),
        RobustClassifier(LogisticRegression(), selector="quality-only", correct=None, random_state=0),
    ]
)
def test_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


def flipped(rate: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    X, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(y))
    X, y = X[order], y[order]
    wrong = rng.choice(len(y), int(rate * len(y)), replace=False)
    given = y.copy()
    given[wrong] = (given[wrong] + rng.integers(1, 10, len(wrong))) % 10
    return X, y, given


def test_better_than_the_same_trees_without_it() -> None:
    """Half of the labels wrong; the honest control is the same classifier on the same rows."""
    X, y, given = flipped(0.5)
    control = ExtraTreesClassifier(100, random_state=0).fit(X[:1200], given[:1200]).score(X[1200:], y[1200:])
    model = RobustClassifier(ExtraTreesClassifier(100, random_state=0), random_state=0).fit(X[:1200], given[:1200])
    assert model.score(X[1200:], y[1200:]) > control + 0.01
    assert abs(model.noise_rate_ - 0.5) < 0.05
    kept = np.array([label is not None for label in model.final_label_])
    assert (model.final_label_[kept].astype(int) == y[:1200][kept]).mean() > 0.93  # 0.5 of the given ones are right
    assert model.label_score_.shape == model.verdict_.shape == (1200,)


def test_stopping_and_loading_changes_nothing(tmp_path: Path) -> None:
    X, _, given = flipped(0.3)
    names = np.array([f"digit {k}" for k in range(10)], dtype=object)
    model = RobustClassifier(SMALL, random_state=3).partial_fit(X[:400], names[given[:400]], classes=names)
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    for other in (model, again):
        other.partial_fit(X[400:700], names[given[400:700]])
    assert (model.predict_proba(X[700:]) == again.predict_proba(X[700:])).all()
    assert set(again.predict(X[700:])) <= set(names)
    assert again.get_params()["random_state"] == 3 and again.noise_rate_ == model.noise_rate_


def test_only_known_types_are_loaded(tmp_path: Path) -> None:
    X, _, given = flipped(0.1)
    RobustClassifier(SMALL, random_state=0).fit(X[:200], given[:200]).save(tmp_path / "model")
    state = unpack((tmp_path / "model").read_bytes())
    from skops.io import dumps

    state["params"]["classifier"] = {"skops": np.frombuffer(dumps(Path("x")), np.uint8)}
    (tmp_path / "bad").write_bytes(pack(state))
    with pytest.raises(SettingsError, match="pathlib"):
        load(tmp_path / "bad")
    (tmp_path / "noise").write_bytes(b"no model at all")
    with pytest.raises(SourceError, match="no saved RobustClassifier"):
        load(tmp_path / "noise")
    with pytest.raises(SourceError, match="cannot be read"):
        load(tmp_path / "nowhere")


def test_in_a_pipeline_and_a_search() -> None:
    X, _, given = flipped(0.2)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), RobustClassifier(SMALL, random_state=0)),
        {"robustclassifier__correct": [None, 0.9]},
        cv=2,
    )
    assert search.fit(X[:300], given[:300]).best_params_["robustclassifier__correct"] in (None, 0.9)


def test_tiny_data_are_taken_as_they_are_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="taken as they are"):
        model = RobustClassifier(SMALL, random_state=0).fit([[0.0], [0.1], [1.0]], ["a", "a", "b"])
    assert model.predict([[0.05]]).tolist() == ["a"]


def test_an_unknown_selector_or_class_is_said_plainly() -> None:
    X, _, given = flipped(0.1)
    with pytest.raises(SettingsError, match="rad-duo"):
        RobustClassifier(selector="magic").fit(X[:100], given[:100])
    model = RobustClassifier(SMALL, random_state=0).partial_fit(X[:200], given[:200] % 5)
    with pytest.raises(ValueError, match="none of the classes"):
        model.partial_fit(X[200:300], given[200:300])
