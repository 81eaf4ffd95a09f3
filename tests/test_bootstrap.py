"""Cross-validated probabilities against scikit-learn's own."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.naive_bayes import GaussianNB

from labelwright.bootstrap import cross_validated
from labelwright.errors import TooFewRowsError
from labelwright.types import Rows

X, Y = load_iris(return_X_y=True)


def rows(y: np.ndarray) -> Rows:
    return Rows(X[: len(y)], y, np.arange(len(y)))


@pytest.mark.parametrize("estimator", [GaussianNB(), LogisticRegression(max_iter=1000)])
@pytest.mark.parametrize("folds", [3, 5])
def test_equals_cross_val_predict(estimator: object, folds: int) -> None:
    splits = StratifiedKFold(folds, shuffle=True, random_state=4)
    expected = cross_val_predict(estimator, X, Y, cv=splits, method="predict_proba")
    got = cross_validated(estimator, rows(Y), 3, folds=folds, seed=4)
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    assert not hasattr(estimator, "classes_")  # a clone was fitted


def test_absent_classes_get_no_probability_and_folds_shrink_to_the_rarest() -> None:
    y = np.where(np.arange(105) < 99, 0, 2)  # 6 rows of class 2, none of 1 and 3
    got = cross_validated(GaussianNB(), rows(y), 4, folds=10)
    splits = StratifiedKFold(6, shuffle=True, random_state=0)
    expected = cross_val_predict(GaussianNB(), X[:105], y, cv=splits, method="predict_proba")
    np.testing.assert_allclose(got[:, [0, 2]], expected, rtol=1e-6)
    assert (got[:, [1, 3]] == 0).all()


@pytest.mark.parametrize(
    ("y", "message"), [(np.zeros(20, int), "hold 1 class"), (np.repeat([0, 1], [16, 4]), "only 4 rows; .* at least 5")]
)
def test_too_few_rows_says_what_to_do(y: np.ndarray, message: str) -> None:
    with pytest.raises(TooFewRowsError, match=message) as error:
        cross_validated(GaussianNB(), rows(y), 2)
    assert "clean rows" in str(error.value)
