"""The NumPy tier: the same verdicts as the project's own learners, without their libraries, in little memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, RidgeClassifier

import labelwright
from labelwright.errors import DataError, SettingsError
from labelwright.learners import Learners, as_learner
from labelwright.learners.kernel import OneVsRestSVC
from labelwright.loop import System
from labelwright.selection import QualityOnly, RadDuo, Slim
from labelwright.trust import tier
from labelwright.types import Answers, Batch, Corrections, Rows, row_keys

ROOT = str(Path(labelwright.__file__).parents[1])


def blobs(classes: int, n: int = 400, d: int = 6, seed: int = 0) -> tuple[Any, Any, Any]:
    """Rows around K centres, their classes, and labels of which a fifth are wrong."""
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=n)
    X = (3 * np.random.default_rng(99).normal(size=(classes, d))[y] + 2 * rng.normal(size=(n, d))).astype(np.float32)
    return X, y, np.where(rng.random(n) < 0.2, rng.integers(classes, size=n), y)


def network(seed: int) -> Any:
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    from labelwright.learners.torch_classifier import TorchClassifier

    return TorchClassifier("mlp", epochs=2, random_state=seed, precision="float32", average=0.9 * seed)


MAKE = {
    "logistic": lambda seed: LogisticRegression(C=1.0 + seed),
    "ridge": lambda seed: RidgeClassifier(alpha=1.0 + seed),
    "rbf": lambda seed: OneVsRestSVC(C=1.0 + seed),
    "linear svm": lambda seed: OneVsRestSVC("linear", C=1.0 + seed),
    "network": network,
}


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("kind", MAKE)
def test_models_judge_as_what_they_were_made_of(kind: str, classes: int) -> None:
    X, y, _ = blobs(classes)
    learner = as_learner(MAKE[kind](1), classes=classes)
    learner.partial_fit(Rows(X, y, row_keys(0, len(y))))
    model = tier.read(tier.write(tier.of_estimator(learner.estimator)))[0]
    fresh = blobs(classes, seed=5)[0]
    for mine, theirs in zip(model.judge(fresh), learner.judge(fresh), strict=True):
        assert mine.shape == theirs.shape
        np.testing.assert_allclose(mine, theirs, rtol=2e-4, atol=2e-4)
        assert (mine.argmax(axis=1) == theirs.argmax(axis=1)).all()


@pytest.mark.parametrize(("name", "selector"), [("rad-duo", RadDuo), ("q-only", QualityOnly), ("slim", Slim)])
@pytest.mark.parametrize("kinds", [("logistic", "rbf"), ("ridge", "network")])
def test_verdicts_are_those_of_the_loop_and_of_its_selectors(name: str, selector: Any, kinds: tuple[str, str]) -> None:
    """Against the loop's selector over scikit-learn's and torch's own models: equal verdicts, chunk after chunk; against the selector
    over the same models: equal to the bit, posterior and noise matrix too."""
    X, y, _ = blobs(3)
    both = [as_learner(MAKE[kind](1), classes=3) for kind in kinds]
    for learner in both:
        learner.partial_fit(Rows(X, y, row_keys(0, len(y))))
    theirs = selector(Learners(*both))
    models = [tier.of_estimator(learner.estimator) for learner in both]
    same = selector(Learners(*map(tier.Fixed, models)))  # type: ignore[arg-type]
    judge = tier.Judge(*models, selector=name)
    seen = set()
    for number in range(4):
        fresh, _, given = blobs(3, n=300, seed=number + 7)
        batch = Batch.of(number, fresh, given)
        judged = judge.judge(number, fresh, given)
        for other in (theirs, same):
            split = other.split(batch)
            other.update(split, Answers.none(6), Corrections.none(6))
            assert (split.verdict == judged.verdict).all()
            np.testing.assert_allclose(split.label_score, judged.score, atol=2e-4)
        assert (split.label_score == judged.score).all() and (same.noise.counts == judge.noise.counts).all()
        seen |= set(judged.verdict.tolist())
    assert len(seen) >= 2


def test_it_fits_the_main_path_too() -> None:
    X, y, given = blobs(3)
    model = tier.of_estimator(LogisticRegression().fit(X, y))
    learners = Learners(tier.Fixed(model), tier.Fixed(model))  # type: ignore[arg-type]
    split = System(RadDuo(learners), learners).step(Batch.of(0, X, given))
    assert (split.verdict == tier.Judge(model, model).judge(0, X, given).verdict).all()


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y, _ = blobs(3)
    model = tier.of_estimator(OneVsRestSVC().fit(X, y))
    whole = model.judge(X)[0]
    monkeypatch.setattr("labelwright.trust.tier.models.BLOCK", 5000)
    np.testing.assert_allclose(model.judge(X)[0], whole, rtol=1e-5, atol=1e-6)


MEASURE = """
import json, sys
import numpy as np
from labelwright.trust import tier
rng = np.random.default_rng(0)
L = tier.read(tier.write(tier.Linear(rng.normal(size=(64, 10)).astype(np.float32), np.zeros(10, np.float32), True)))[0]
C = tier.Network([(rng.normal(size=(32, 64)).astype(np.float32), np.zeros(32, np.float32)),
                  (rng.normal(size=(10, 32)).astype(np.float32), np.zeros(10, np.float32))], np.ones(64), np.zeros(64))
judge = tier.Judge(L, C)
for number in range(10):
    judge.judge(number, rng.normal(size=(4096, 64)).astype(np.float32), rng.integers(10, size=4096))
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) << 10
print(json.dumps([peak, sorted({"torch", "sklearn", "scipy", "pandas", "pyarrow", "sqlalchemy"} & set(sys.modules))]))
"""


def test_the_tier_imports_nothing_heavy_and_stays_small() -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([ROOT, *(p for p in sys.path if p)]),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    peak, heavy = json.loads(done.stdout)
    assert heavy == [] and peak < 60 << 20, peak


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "no model"),
        (b"\x80\x04pickle", "no model"),
        (tier.write(tier.Linear(np.eye(3), np.zeros(2))), "do not fit"),
        (
            tier.write(tier.Network([(np.eye(3), np.zeros(3)), (np.eye(2), np.zeros(2))], np.ones(3), np.zeros(3))),
            "do not fit",
        ),
        (tier.write(tier.Machine(np.eye(3), np.zeros((3, 2)), np.zeros(2), -1.0)), "do not fit"),
    ],
)
def test_files_that_are_no_model_are_refused(content: bytes, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        tier.read(content)


@settings(max_examples=300, deadline=2000)
@given(st.integers(0, 300), st.integers(0, 255), st.integers(0, 400))
def test_no_altered_file_gives_a_traceback(at: int, byte: int, cut: int) -> None:
    content = bytearray(tier.write(tier.Linear(np.eye(3), np.zeros(3))))
    content[at % len(content)] = byte
    for bent in (bytes(content), bytes(content[: cut % len(content)])):
        try:
            tier.read(bent)
        except SettingsError as error:
            assert str(error)


def test_models_and_rows_that_do_not_fit_are_named() -> None:
    two, three = tier.Linear(np.eye(2), np.zeros(2)), tier.Linear(np.eye(3), np.zeros(3))
    with pytest.raises(SettingsError, match="2 classes of 2 features and the classifier 3 of 3"):
        tier.Judge(two, three)
    with pytest.raises(SettingsError, match="unknown; expected one of rad-duo"):
        tier.Judge(two, two, selector="guess")
    with pytest.raises(DataError, match="labels from 0 to 2; expected 0 to 1"):
        tier.Judge(two, two).judge(0, np.zeros((2, 2)), np.array([0, 2]))
    with pytest.raises(DataError, match="the model reads 2 numbers"):
        tier.Judge(two, two).judge(0, np.zeros((2, 3)), np.array([0, 1]))
    with pytest.raises(SettingsError, match="no place in the NumPy tier"):
        tier.of_estimator(object())
