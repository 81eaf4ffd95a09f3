"""How typical a row is of its class, and how far-fetched a label is, by geometry that a few wrong labels cannot bend.

A linear discriminant on (a fixed random projection of) the features, with the classes that the models believe in. The models' own
margins will not do: they were learned from the labels in question, and are lowest just where labels were flipped.
"""

from __future__ import annotations

import numpy as np

from labelwright.types import Floats, Ints

MOST_DIMENSIONS = 64


def discriminant(X: Floats, believed: Ints, classes: int) -> Floats:
    """(n, K) linear discriminant scores of rows (n, d), by the means of the believed classes and one shared covariance.

    Equal class weights; a class without rows scores lowest. Scores grow with the log-odds of the class.

    >>> X = np.array([[0.0], [1.0], [4.0], [5.0]])
    >>> discriminant(X, np.array([0, 0, 1, 1]), 2).argmax(axis=1).tolist()
    [0, 0, 1, 1]
    """
    Z = projected(X)
    held = np.bincount(believed, minlength=classes)
    sums = np.zeros((classes, Z.shape[1]))
    np.add.at(sums, believed, Z)
    means = sums / np.maximum(held, 1)[:, None]
    rest = Z - means[believed]
    spread = rest.T @ rest / max(len(Z) - 1, 1)
    spread += np.eye(len(spread)) * (0.05 * np.trace(spread) / len(spread) + 1e-9)
    weights = np.linalg.solve(spread, means.T)
    scores = Z @ weights - 0.5 * np.einsum("kd,dk->k", means, weights)
    scores[:, held == 0] = scores.min(initial=0.0) - 1.0
    return np.asarray(scores)


def projected(X: Floats) -> Floats:
    """(n, at most 64) the features, centred; by a fixed random projection when there are more."""
    Z = np.asarray(X, np.float32)
    if Z.shape[1] > MOST_DIMENSIONS:
        mix = np.random.default_rng(Z.shape[1]).standard_normal((Z.shape[1], MOST_DIMENSIONS), np.float32)
        Z = Z @ (mix / np.float32(np.sqrt(Z.shape[1])))
    return np.asarray(Z - Z.mean(axis=0), float)


def depths(scores: Floats, believed: Ints) -> Floats:
    """(n,) in (0, 1): rank of each row's margin among the rows believed to be of its class; ties share theirs.

    >>> depths(np.array([[3.0, 0.0], [1.0, 0.0]]), np.array([0, 0])).tolist()
    [0.75, 0.25]
    """
    from scipy.stats import rankdata

    others = scores.copy()
    own = np.arange(len(scores)), believed
    others[own] = -np.inf
    margin = scores[own] - others.max(axis=1, initial=-np.inf)
    out = np.empty(len(scores))
    for code in np.unique(believed):
        here = np.flatnonzero(believed == code)
        out[here] = (rankdata(margin[here]) - 0.5) / len(here)
    return out


def far_fetched(scores: Floats, believed: Ints, given: Ints) -> Floats:
    """(n,) in [0, 1]: place of the given label among all but the believed one, 0 the most plausible, 1 the least.

    >>> far_fetched(np.array([[3.0, 1.0, 0.0]] * 2), np.array([0, 0]), np.array([1, 2])).tolist()
    [0.0, 1.0]
    """
    others = scores.copy()
    own = np.arange(len(scores)), believed
    others[own] = -np.inf
    above = (others > scores[np.arange(len(scores)), given][:, None]).sum(axis=1)
    return np.asarray(above / max(scores.shape[1] - 2, 1), float)
