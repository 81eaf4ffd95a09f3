"""QAL (methods section 3) on digits: the stream, the budgets, and the same curves from plain scikit-learn loops."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import t
from sklearn.datasets import load_digits
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import SVC

from labelwright.bench import qal
from labelwright.errors import SettingsError
from labelwright.types import Floats

X, Y = load_digits(return_X_y=True)
X = X / 16.0
STARTS = [0, *range(150, 1050 + 1, 50)]


def accuracy_curve(kind: str, noise: float, repeat: int) -> list[float]:
    trial = qal.draw(X, Y, noise, repeat)
    test, out = trial.test[:, None].astype(float), []
    system = qal.systems(trial, "rbf")[kind]()
    for batch in trial.batches:
        system.step(batch)
        out.append(100 * float((system.predict(test) == trial.y[trial.test]).mean()))
    return out


def plain_loop(noise: float, repeat: int, *, asks: int = 0, perfect: bool = False) -> list[float]:
    """The paper's pseudocode with scikit-learn alone; only the drawn rows and noise are taken from the trial."""
    trial = qal.draw(X, Y, noise, repeat)
    order = np.random.default_rng([0, repeat]).permutation(len(Y))[: 1050 + 2000]
    features, y, given = X[order], Y[order], trial.given
    assert (y == trial.y).all()

    def svm(rows: list[int], labels: list[int]) -> OneVsRestClassifier:
        return OneVsRestClassifier(SVC(kernel="rbf", gamma="scale")).fit(features[rows], labels)

    rows, labels = list(range(150)), given[:150].tolist()
    model = svm(rows, labels)
    curve = [100 * float(model.score(features[1050:], y[1050:]))]
    for start, stop in pairwise(STARTS[1:]):
        batch = np.arange(start, stop)
        score: Floats = model.decision_function(features[batch])
        agrees = y[batch] == given[batch] if perfect else score.argmax(axis=1) == given[batch]
        doubted = batch[~agrees]
        best = np.sort(score[~agrees], axis=1)
        asked = doubted[np.argsort(best[:, -1] - best[:, -2], kind="stable")[:asks]]
        rows += [*batch[agrees], *asked]
        labels += [*given[batch[agrees]], *y[asked]]
        model = svm(rows, labels)
        curve.append(100 * float(model.score(features[1050:], y[1050:])))
    return curve


@pytest.mark.parametrize(
    ("name", "options"), [("q-only", {}), ("qal-margin", {"asks": 5}), ("opt-sel", {"perfect": True})]
)
def test_curves_equal_a_plain_scikit_learn_loop(name: str, options: dict[str, int]) -> None:
    own = accuracy_curve(name, 0.6, 0)
    assert len(own) == 19 and own == pytest.approx(plain_loop(0.6, 0, **options), abs=1e-9)  # type: ignore[arg-type]


def test_full_clean_ends_as_one_fit_on_the_truth() -> None:
    trial = qal.draw(X, Y, 0.8, 3)
    order = np.random.default_rng([0, 3]).permutation(len(Y))
    model = OneVsRestClassifier(SVC(gamma="scale")).fit(X[order[:1050]], Y[order[:1050]])
    assert accuracy_curve("full-clean", 0.8, 3)[-1] == 100 * model.score(X[order[1050:]], Y[order[1050:]])
    assert len(trial.test) == len(Y) - 1050


@pytest.mark.parametrize(("noise", "wrong"), [(0.6, 30), (0.8, 40), (0.29, 14), (0.0, 0)])
def test_exactly_the_floor_of_each_batch_is_wrong(noise: float, wrong: int) -> None:
    trial = qal.draw(X, Y, noise, 1)
    batches = list(trial.batches)
    assert [len(b) for b in batches] == [150] + [50] * 18 and batches[0].clean.all()
    assert not any(b.clean.any() for b in batches[1:])
    flips = [int((b.given != trial.truth.of(b.keys)).sum()) for b in batches]
    assert flips == [0] + [wrong] * 18
    seen = np.concatenate([b.X[:, 0] for b in batches])
    assert seen.tolist() == list(range(1050)) and not set(seen) & set(trial.test)


def test_a_trial_is_a_function_of_seed_and_repeat() -> None:
    one, again, other = (qal.draw(X, Y, 0.6, r) for r in (4, 4, 5))
    assert one.given.tolist() == again.given.tolist() != other.given.tolist()
    assert qal.draw(X, Y, 0.6, 4, seed=1).given.tolist() != one.given.tolist()


def test_no_method_asks_more_than_its_budget_and_any_number_of_workers_agrees() -> None:
    def cell(workers: int, methods: tuple[str, ...]) -> dict[str, object]:
        return qal.run_cell("digits", 0.6, repeats=2, workers=workers, methods=methods)

    methods = ("no-sel", "q-only", "al-only", "qal", "qal-margin", "qal-dynamic", "qal-margin-2")
    whole = cell(1, methods)
    used = whole["queries_used"]
    assert isinstance(used, dict)
    assert used == {**used, "no-sel": 0, "q-only": 0, "al-only": 90, "qal": 90, "qal-margin": 90, "qal-margin-2": 36}
    assert 0 < used["qal-dynamic"] <= 90
    two = cell(2, ("q-only", "qal-margin"))["methods"]
    assert isinstance(two, dict) and isinstance(whole["methods"], dict)
    assert two == {name: whole["methods"][name] for name in two}


def test_dynamic_budget_starts_at_its_share() -> None:
    trial = qal.draw(X, Y, 0.8, 0)
    system = qal.systems(trial, "rbf")["qal-dynamic"]()
    batches = trial.batches
    system.step(next(batches))
    assert system.budget.spent == 0
    system.step(next(batches))
    assert system.budget.spent == 5  # 90 / 18, D0 is none of the 18


def test_summary_by_hand() -> None:
    got = qal.summary([[50.0, 90.0], [60.0, 94.0], [70.0, 98.0]])
    half = t.ppf(0.975, 2) * 4 / np.sqrt(3)  # last points 90, 94, 98: standard deviation 4
    assert got == {"mean": 94.0, "ci95": round(half, 3), "curve": [60.0, 94.0]}
    assert qal.summary([[50.0, 90.0]])["ci95"] is None


def test_unknown_kernel_is_refused() -> None:
    with pytest.raises(SettingsError, match="expected rbf or linear"):
        qal.run_cell("digits", 0.6, kernel="poly")
