"""The one-vs-rest SVM against scikit-learn's OneVsRestClassifier(SVC) on digits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sklearn.svm
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.metrics.pairwise import linear_kernel, rbf_kernel
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from labelwright.learners.kernel import Gram, OneVsRestSVC, _solve

X, Y = load_digits(return_X_y=True)
X = X / 16.0
TRAIN, TEST = slice(0, 600), slice(600, 1000)


def reference(kernel: str, C: float = 1.0) -> Any:
    return OneVsRestClassifier(SVC(kernel=kernel, gamma="scale", C=C)).fit(X[TRAIN], Y[TRAIN])


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
@pytest.mark.parametrize("C", [1.0, 10.0])
def test_decision_values_equal_scikit_learns(kernel: str, C: float) -> None:
    """Within 2e-3: libsvm stops when its optimality gap is below 1e-3, on either side."""
    expected = reference(kernel, C).decision_function(X[TEST])
    own = OneVsRestSVC(kernel, C=C).fit(X[TRAIN], Y[TRAIN])
    np.testing.assert_allclose(own.decision_function(X[TEST]), expected, atol=2e-3)
    assert own.predict(X[TEST]).tolist() == own.classes_[expected.argmax(axis=1)].tolist()


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_gram_gives_the_same_values(kernel: str) -> None:
    """With row numbers for features; 32-bit kernels, so within 5e-3."""
    numbers = np.arange(len(X))[:, None].astype(float)
    gram = Gram(X, train=600)
    own = OneVsRestSVC(kernel, gram=gram).fit(numbers[TRAIN], Y[TRAIN])
    np.testing.assert_allclose(
        own.decision_function(numbers[TEST]), reference(kernel).decision_function(X[TEST]), atol=5e-3
    )
    assert own.gamma_ == pytest.approx(1 / (64 * X[TRAIN].var()), rel=1e-9)


def test_gram_kernels_are_scikit_learns() -> None:
    gram = Gram(X[:60], train=40)
    left, right = np.array([59, 3, 3]), np.array([0, 39, 7, 3])
    np.testing.assert_allclose(gram.kernel(left, right, "rbf", 0.05), rbf_kernel(X[left], X[right], 0.05), rtol=1e-5)
    np.testing.assert_allclose(gram.kernel(left, right, "linear", 0.0), linear_kernel(X[left], X[right]), rtol=1e-5)
    assert gram.scale(np.arange(40)) == pytest.approx(1 / (64 * X[:40].var()))
    assert gram.kernel(np.array([5]), np.array([5]), "rbf", 9.0) == 1.0  # no negative distance from rounding


def test_two_classes_fold_into_one_column() -> None:
    rows = np.flatnonzero(Y[:400] < 2)
    own = OneVsRestSVC().fit(X[rows], np.array(["no", "yes"])[Y[rows]])
    expected = SVC().fit(X[rows], Y[rows])
    np.testing.assert_allclose(own.decision_function(X[:50]), expected.decision_function(X[:50]), atol=2e-3)
    assert set(own.predict(X[:50])) == {"no", "yes"}


@pytest.mark.parametrize("positives_first", [True, False])
def test_solve_equals_its_own_fallback(monkeypatch: pytest.MonkeyPatch, positives_first: bool) -> None:
    """libsvm meets the positive class first or last: the signs are the same."""
    order = np.argsort(Y[:300] == 3, kind="stable")
    order = order[::-1] if positives_first else order
    K, positive = rbf_kernel(X[order], gamma=0.1), Y[order] == 3
    assert positive[0] == positives_first
    coef, intercept = _solve(K, positive, 2.0)
    asked = []

    class Changed:
        """The binding as another release may have it."""

        def set_verbosity_wrap(self, level: int) -> None:
            asked.append(level)
            raise TypeError("another signature")

    monkeypatch.setattr(sklearn.svm, "_libsvm", Changed())
    slow_coef, slow_intercept = _solve(K, positive, 2.0)
    assert asked == [0]  # the first result was the fast path's, this one SVC's
    np.testing.assert_allclose(coef, slow_coef, atol=1e-12)
    assert intercept == pytest.approx(slow_intercept, abs=1e-12)


def test_arguments_are_checked_and_kept() -> None:
    gram = Gram(X[:10])
    own = OneVsRestSVC("linear", C=3.0, gamma=0.5, gram=gram)
    assert own.get_params() == {"kernel": "linear", "C": 3.0, "gamma": 0.5, "gram": gram}
    assert clone(OneVsRestSVC(C=3.0)).C == 3.0
    with pytest.raises(ValueError, match="expected 'rbf' or 'linear'"):
        OneVsRestSVC("poly").fit(X[TRAIN], Y[TRAIN])
    with pytest.raises(ValueError, match="two classes"):
        OneVsRestSVC().fit(X[:3], np.zeros(3))
    assert OneVsRestSVC(gamma=0.5).fit(X[TRAIN], Y[TRAIN]).gamma_ == 0.5


@parametrize_with_checks([OneVsRestSVC(), OneVsRestSVC("linear")])
def test_scikit_learn_checks(estimator: Any, check: Any) -> None:
    check(estimator)
