"""The selectors that hold the truth: one drops the wrong labels, one repairs them."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.naive_bayes import GaussianNB

from labelwright.baselines.omniscient import FullClean, OptSel
from labelwright.learners import Learners, Refit
from labelwright.loop import System, training_rows
from labelwright.truth import Truth
from labelwright.types import Answers, Batch, Corrections, Floats, Verdict

TRUTH = Truth({0: np.array([0, 1, 2]), 1: np.array([2, 1, 0, 1])})
GIVEN = np.array([2, 0, 0, 2])


class Silent:
    """A learner that would trust nothing: what the truth says must not depend on it."""

    classes, fitted = 3, True

    def judge(self, X: Floats) -> tuple[Floats, Floats]:
        out = np.full((len(X), 3), 1 / 3)
        return out, out


def learners() -> Any:
    return Learners(Silent(), Silent())  # type: ignore[arg-type]


def trained_on(split: Any) -> tuple[list[int], list[int]]:
    rows = training_rows(split, Answers.none(1), Corrections.none(1))
    return (rows.keys & 0xFFFFFFFF).tolist(), rows.y.tolist()


def test_opt_sel_drops_exactly_the_wrong_labels() -> None:
    split = OptSel(learners(), TRUTH).split(Batch.of(1, np.zeros((4, 1)), GIVEN))
    assert [Verdict(v).word for v in split.verdict] == ["trusted", "rejected", "trusted", "rejected"]
    assert trained_on(split) == ([0, 2], [2, 0])


def test_full_clean_repairs_exactly_the_wrong_labels() -> None:
    split = FullClean(learners(), TRUTH).split(Batch.of(1, np.zeros((4, 1)), GIVEN))
    assert [Verdict(v).word for v in split.verdict] == ["trusted", "corrected", "trusted", "corrected"]
    assert split.given.tolist() == GIVEN.tolist()
    assert trained_on(split) == ([0, 1, 2, 3], [2, 1, 0, 1])
    assert split.deciders[Verdict.CORRECTED] == "truth"


def test_full_clean_learns_as_if_no_label_were_wrong() -> None:
    rng = np.random.default_rng(0)
    true = [rng.integers(0, 3, 60) for _ in range(3)]
    features = [rng.normal(size=(60, 2)) + y[:, None] for y in true]
    learner = Refit(GaussianNB(), classes=3)
    both = Learners(learner, learner)
    system = System(FullClean(both, Truth(dict(enumerate(true)))), both)
    for number in range(3):
        given = true[number] if number == 0 else (true[number] + rng.integers(0, 3, 60)) % 3
        system.step(Batch.of(number, features[number], given, clean=number == 0))
    direct = GaussianNB().fit(np.concatenate(features), np.concatenate(true))
    X = np.concatenate(features)
    np.testing.assert_allclose(learner.proba(X), direct.predict_proba(X))
    assert system.predict(X).tolist() == direct.predict(X).tolist()
