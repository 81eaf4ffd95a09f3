"""A real one-vs-rest SVM that computes its kernel matrix once for all K classes.

scikit-learn's ``SVC(decision_function_shape="ovr")`` returns one-vs-one votes, not distances; the paper's "distance
to the nearest of the K boundaries" needs this one. The K binary problems are solved by libsvm on a shared
precomputed kernel, so the scores equal ``OneVsRestClassifier(SVC(...))``'s at a fraction of the time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.svm import SVC
from sklearn.utils.multiclass import unique_labels
from sklearn.utils.validation import check_is_fitted, validate_data

from labelwright.types import Floats, Ints


class Gram:
    """Inner products of a fixed set of rows, computed once and shared by every fit that uses a part of them.

    X: (n, d). With it, an SVM's "features" are row numbers into X, shape (m, 1).
    train: only the first ``train`` rows are ever trained on (all, if None).

    >>> gram = Gram(np.array([[0.0], [2.0]]))
    >>> gram.kernel(np.array([0]), np.array([1]), "rbf", 0.25).astype(float).round(4).tolist()
    [[0.3679]]
    """

    def __init__(self, X: Floats, *, train: int | None = None):
        X = np.asarray(X, float)
        self.width = X.shape[1]
        self._sum, self._square = X.sum(axis=1), (X**2).sum(axis=1)
        inner = X @ X[:train].T
        self.inner = inner.astype(np.float32)
        inner *= -2
        inner += self._square[:, None]
        inner += self._square[None, :train]
        self.distance = np.maximum(inner, 0.0, dtype=np.float32, casting="same_kind")

    def scale(self, rows: Ints) -> float:
        """scikit-learn's ``gamma="scale"`` on these rows: 1 / (d * variance of all their entries)."""
        count = len(rows) * self.width
        mean = self._sum[rows].sum() / count
        variance = self._square[rows].sum() / count - mean**2
        return float(1.0 / (self.width * variance)) if variance > 0 else 1.0

    def kernel(self, left: Ints, right: Ints, kind: str, gamma: float) -> Floats:
        """(len(left), len(right)) kernel values."""
        whole = self.inner if kind == "linear" else self.distance
        part = whole[left].take(right, axis=1)
        if kind == "rbf":
            part *= np.float32(-gamma)
            np.exp(part, out=part)
        return part


def _solve(K: Floats, positive: Any, C: float) -> tuple[Floats, float]:
    """(n,) signed dual coefficients and the intercept of one binary machine on the kernel matrix K, by libsvm.

    Calls scikit-learn's libsvm binding itself: SVC's own checks of an n x n kernel, ten times a fit, cost more than
    solving. Falls back to SVC where the binding is not as expected; a test holds the two equal.
    """
    coef = np.zeros(len(K))
    try:
        from sklearn.svm import _libsvm

        _libsvm.set_verbosity_wrap(0)
        found = _libsvm.fit(K, positive.astype(float), svm_type=0, kernel="precomputed", C=C, cache_size=50.0)
        support, dual, intercept = found[0], found[3], found[4]
        # libsvm signs by the class it met first, SVC by the second of the sorted classes
        coef[support] = -dual[0]
        return coef, -float(intercept[0])
    except (ImportError, TypeError, IndexError):
        machine = SVC(kernel="precomputed", C=C).fit(K, positive)
        coef[machine.support_] = machine.dual_coef_[0]
        return coef, float(machine.intercept_[0])


class OneVsRestSVC(ClassifierMixin, BaseEstimator):
    """One-vs-rest support vector classifier.

    kernel: "rbf" or "linear". C: penalty, > 0. gamma: "scale" or a number > 0 (rbf only).
    gram: a :class:`Gram`; when given, X holds row numbers into it, (n, 1), instead of features.

    ``decision_function`` is (n, K), the signed score of each class against the rest (two columns for two classes
    are folded into one, as scikit-learn users expect).

    >>> X = np.array([[0.0], [0.1], [1.0], [1.1], [2.0], [2.1]])
    >>> OneVsRestSVC(C=10.0).fit(X, [0, 0, 1, 1, 2, 2]).predict([[0.05], [2.05]]).tolist()
    [0, 2]
    """

    def __init__(self, kernel: str = "rbf", *, C: float = 1.0, gamma: float | str = "scale", gram: Gram | None = None):
        self.kernel = kernel
        self.C = C
        self.gamma = gamma
        self.gram = gram

    def fit(self, X: Any, y: Any) -> OneVsRestSVC:
        """Fit K binary machines on one kernel matrix."""
        X, y = validate_data(self, X, y)
        from sklearn.utils.multiclass import check_classification_targets

        check_classification_targets(y)
        self.classes_ = unique_labels(y)
        if len(self.classes_) < 2:
            raise ValueError("OneVsRestSVC needs at least two classes; got 1 class")
        rows = self._rows(X)
        self.gamma_ = self._gamma(X, rows)
        K = self._kernel(rows, rows, X, X).astype(float)
        targets = self.classes_[1:] if len(self.classes_) == 2 else self.classes_
        coef = np.zeros((len(X), len(targets)))
        intercept = np.empty(len(targets))
        for column, target in enumerate(targets):
            coef[:, column], intercept[column] = _solve(K, y == target, self.C)
        used = np.flatnonzero(np.any(coef != 0, axis=1))
        self.support_, self.dual_coef_, self.intercept_ = used, coef[used], intercept
        self.support_vectors_ = X[used]
        return self

    def decision_function(self, X: Any) -> Floats:
        """(n, K) scores, or (n,) with two classes."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        K = self._kernel(self._rows(X), self._rows(self.support_vectors_), X, self.support_vectors_)
        scores = K @ self.dual_coef_.astype(K.dtype) + self.intercept_
        return scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X: Any) -> Any:
        """(n,) the class with the highest score."""
        scores = self.decision_function(X)
        return self.classes_[(scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)]

    def _rows(self, X: Floats) -> Ints:
        return X[:, 0].astype(np.int64) if self.gram is not None else np.empty(0, np.int64)

    def _gamma(self, X: Floats, rows: Ints) -> float:
        if self.kernel not in ("rbf", "linear"):
            raise ValueError(f"kernel={self.kernel!r} is unknown; expected 'rbf' or 'linear'")
        if not isinstance(self.gamma, str):
            return float(self.gamma)
        if self.gram is not None:
            return self.gram.scale(rows)
        variance = float(X.var())
        return 1.0 / (X.shape[1] * variance) if variance > 0 else 1.0

    def _kernel(self, left: Ints, right: Ints, X: Floats, Z: Floats) -> Floats:
        if self.gram is not None:
            return self.gram.kernel(left, right, self.kernel, self.gamma_)
        if self.kernel == "linear":
            return np.asarray(X @ Z.T)
        from sklearn.metrics.pairwise import rbf_kernel

        return np.asarray(rbf_kernel(X, Z, gamma=self.gamma_))
