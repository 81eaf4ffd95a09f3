"""Audits of pictures: a network makes the probabilities where torch is installed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import call_cli
from test_torch_classifier import bars

torch = pytest.importorskip("torch")

import labelwright  # noqa: E402
from labelwright.auditing import crossval  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def pictures() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(pictures, given labels, which are wrong)."""
    X, y = bars(240)
    given, wrong = y.copy(), np.zeros(240, bool)
    wrong[np.random.default_rng(1).permutation(240)[:24]] = True
    given[wrong] = (given[wrong] + 1) % 3
    return X, given, wrong


def test_an_array_of_pictures_is_judged_by_a_network(pictures) -> None:
    X, given, wrong = pictures
    found = labelwright.audit(given, X=X, folds=3, random_state=0)
    assert "probabilities: TorchClassifier, 3-fold cross-validation, calibrated" in found.notes
    doubted = found.issues.is_label_issue.to_numpy()
    assert (doubted & wrong).sum() >= 20 and (doubted & ~wrong).sum() <= 4
    again = labelwright.audit(given, X=X, folds=3, random_state=0)
    assert found.issues.equals(again.issues)


def test_a_folder_of_pictures_is_judged_by_a_network(pictures, tmp_path: Path) -> None:
    from PIL import Image

    X, given, _ = pictures
    for at, (square, label) in enumerate(zip(X, given, strict=True)):
        folder = tmp_path / "photos" / f"class{label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(square).save(folder / f"{at:03d}.png")
    command = ("audit", str(tmp_path / "photos"), "--label", "label", "--no-report")
    done = call_cli(*command, "--json", "--folds", "3")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert any("TorchClassifier" in note for note in summary["notes"])
    assert 20 <= summary["label_issues"] <= 28
    done = call_cli(*command, "--classifier", "netwrok")
    assert done.returncode == 2 and "the classifier 'netwrok' is unknown" in done.stderr


def test_what_stands_for_auto() -> None:
    def name(X: np.ndarray, **more) -> str:
        return type(crossval.chosen_classifier("auto", crossval.read_features(X, len(X)), 0, 2)).__name__

    assert name(np.zeros((4, 16, 16, 3), np.uint8)) == "TorchClassifier"
    assert name(np.zeros((4, 16, 16), np.uint8)) == "TorchClassifier"
    assert name(np.zeros((4, 16, 16))) == "ExtraTreesClassifier"  # perhaps a series
    assert name(np.zeros((4, 6, 6, 3), np.uint8)) == "ExtraTreesClassifier"  # too small for convolutions
    assert name(np.zeros((4, 16))) == "ExtraTreesClassifier"
    assert name(np.zeros((4, 3000))) == "LogisticRegression"


def test_few_pictures_are_looked_at_more_often() -> None:
    def epochs(n: int) -> int:
        read = crossval.Features(np.zeros((n, 768), np.float32), False, (), (16, 16, 3))
        return crossval.chosen_classifier("auto", read, 0, 2).epochs

    assert epochs(50) == 60 and epochs(100_000) == 15 and 15 < epochs(3000) < 60


def test_a_name_does_for_a_classifier(pictures) -> None:
    X, given, _ = pictures
    flat = X.reshape(len(X), -1)[:, ::8]
    assert any("GaussianNB" in note for note in labelwright.audit(given, X=flat, classifier="bayes").notes)
