"""Judging a first batch that nobody vouches for: out-of-sample probabilities by cross-validation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from labelwright.errors import TooFewRowsError
from labelwright.scale import InProcess, Mapper
from labelwright.types import Floats, Ints, Rows

MIN_ROWS_PER_CLASS = 5


@dataclass(frozen=True)
class Fold:
    """One partition of a cross-validation. name: for messages. train, test: positions of rows."""

    name: str
    train: Ints
    test: Ints


def cross_validated(
    estimator: Any, rows: Rows, classes: int, *, folds: int = 5, seed: int = 0, mapper: Mapper | None = None
) -> Floats:
    """(n, K) probabilities for each row by a model that never saw it.

    estimator: any scikit-learn classifier; it is cloned. mapper: what fits the folds, but for networks, which use all cores
    one after another.
    Raises TooFewRowsError when a class has fewer than :data:`MIN_ROWS_PER_CLASS` rows, or there is one class only.

    >>> from sklearn.naive_bayes import GaussianNB
    >>> X = np.repeat([[0.0], [5.0]], 10, axis=0) + np.linspace(0, 1, 20)[:, None]
    >>> rows = Rows(X, np.repeat([0, 1], 10), np.arange(20))
    >>> cross_validated(GaussianNB(), rows, 2).argmax(axis=1).tolist() == rows.y.tolist()
    True
    """
    from sklearn.base import clone
    from sklearn.model_selection import StratifiedKFold

    counts = np.bincount(rows.y, minlength=classes)
    present = counts[counts > 0]
    if len(present) < 2:
        raise TooFewRowsError(
            f"the first {len(rows)} rows hold {len(present)} class; labels can be judged only with at least 2. "
            "Start with a larger or mixed first batch, or give clean rows (--clean-rows or --trusted-column)"
        )
    if present.min() < MIN_ROWS_PER_CLASS:
        raise TooFewRowsError(
            f"the first {len(rows)} rows hold a class with only {present.min()} rows; without clean rows at least "
            f"{MIN_ROWS_PER_CLASS} of each class are needed to judge labels. Start with a larger first batch, "
            "or give clean rows (--clean-rows or --trusted-column)"
        )
    cut = StratifiedKFold(min(folds, int(present.min())), shuffle=True, random_state=seed).split(rows.X, rows.y)
    parts = [Fold(f"fold {i}", train, test) for i, (train, test) in enumerate(cut, 1)]
    shared = clone(estimator), rows, classes, seed
    out = np.empty((len(rows), classes))
    if getattr(estimator, "uses_all_cores", False):
        found: Iterable[Floats] = (_one_fold(shared, part) for part in parts)
    else:
        found = (mapper or InProcess()).map(_one_fold, parts, shared=shared)
    for part, proba in zip(parts, found, strict=True):
        out[part.test] = proba
    return out


def _one_fold(shared: tuple[Any, Rows, int, int], part: Fold) -> Floats:
    from sklearn.base import clone

    from labelwright.learners import Refit

    estimator, rows, classes, seed = shared
    learner = Refit(clone(estimator), classes=classes, max_rows=len(rows), seed=seed)
    learner.partial_fit(rows.take(part.train))
    return learner.proba(rows.X[part.test])
