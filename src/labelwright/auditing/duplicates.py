"""Rows that are nearly the same: groups of them, and how far rows stand apart."""

from __future__ import annotations

from typing import Any

import numpy as np

from labelwright.auditing.evidence import exact_content
from labelwright.errors import DataError
from labelwright.types import Floats, Ints

_SHARE = 0.13
_DIMENSIONS = 12
_NEIGHBOURS = 6
_FAR = 1000.0


def dense_rows(features: Any) -> Floats:
    """(n, d) float32; a sparse matrix becomes its leading 50 components."""
    if hasattr(features, "tocsr"):
        from sklearn.decomposition import TruncatedSVD

        width = min(50, min(features.shape) - 1)
        if width < 1:
            return np.asarray(features.todense(), np.float32)
        return np.asarray(TruncatedSVD(width, random_state=0).fit_transform(features), np.float32)
    try:
        array = np.asarray(features, float)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"the features are no numbers ({error}); give (n, d) embeddings, or leave features= out"
        ) from error
    array = array.reshape(len(array), -1)
    if not array.shape[1]:
        raise DataError("the features have no column; give (n, d) embeddings, or leave features= out")
    array = centred(array)
    if not np.isfinite(array).all():
        bad = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise DataError(f"row {bad} of the features holds NaN or infinity; fill it, or leave features= out")
    return array


def centred(array: Floats) -> Floats:
    """(n, d) float32. Columns so far from 0 that float32 would not tell their values apart (times, coordinates) are moved there."""
    if (array.dtype.kind == "f" and array.dtype.itemsize <= 4) or not array.size:
        return np.ascontiguousarray(array, np.float32)
    wide = np.asarray(array, float)
    low, high = wide.min(axis=0), wide.max(axis=0)
    far = (high > low) & (np.maximum(np.abs(low), np.abs(high)) > _FAR * (high - low))
    return np.ascontiguousarray(np.where(far, wide - low, wide) if far.any() else wide, np.float32)


def near_duplicates(features: Any, *, share: float = _SHARE) -> Ints:
    """(n,) number of each row's group of near-duplicates, -1 for rows that stand alone.

    Two rows belong together when they are closer than ``share`` times the median distance to a nearest neighbour
    (exact copies not counted in it). Neighbours are sought along the leading principal components, then measured in full.

    >>> near_duplicates(np.array([[0.0], [0.001], [1.0], [2.0], [3.0], [4.5]])).tolist()
    [0, 0, -1, -1, -1, -1]
    """
    X = dense_rows(features)
    n = len(X)
    alone = np.full(n, -1, np.int64)
    if n < 2:
        return alone
    scale = X.std(axis=0)
    X = (X - X.mean(axis=0)) / np.where(scale > 0, scale, 1.0) if X.shape[1] <= 64 else X - X.mean(axis=0)
    with np.errstate(over="ignore"):
        _, once, copy_of = np.unique(exact_content(X), return_index=True, return_inverse=True)
    group = _near_groups(X[once], share)[copy_of]  # a tree of many copies of a point would be slow
    size = np.bincount(group)
    kept = size[group] > 1
    first: dict[int, int] = {}
    alone[kept] = [first.setdefault(int(g), len(first)) for g in group[kept]]
    return alone


def _near_groups(X: Floats, share: float) -> Ints:
    """(n,) number of the group of each of n different rows."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    n = len(X)
    if n < 2:
        return np.zeros(n, np.int64)
    low = _leading(X)
    _, near = cKDTree(low).query(low, k=min(_NEIGHBOURS, n), workers=-1)
    pairs = np.stack([np.repeat(np.arange(n), near.shape[1] - 1), near[:, 1:].ravel()], axis=1)
    pairs = pairs[(pairs[:, 0] != pairs[:, 1]) & (pairs[:, 1] < n)]
    apart = np.sqrt(((X[pairs[:, 0]] - X[pairs[:, 1]]) ** 2).sum(axis=1))
    nearest = np.full(n, np.inf)
    some = apart > 0
    np.minimum.at(nearest, pairs[some, 0], apart[some])
    limit = share * float(np.median(nearest[np.isfinite(nearest)])) if np.isfinite(nearest).any() else 0.0
    close = pairs[apart <= limit]
    links = coo_matrix((np.ones(len(close)), (close[:, 0], close[:, 1])), shape=(n, n))
    return np.asarray(connected_components(links, directed=False)[1], np.int64)


def _leading(X: Floats) -> Floats:
    """(n, 12 or fewer) coordinates along the leading principal components."""
    if X.shape[1] <= _DIMENSIONS:
        return X
    some = X[np.linspace(0, len(X) - 1, min(len(X), 5000)).astype(int)]
    _, basis = np.linalg.eigh(some.T @ some) if X.shape[1] <= 2000 else (None, _random_basis(X.shape[1]))
    return X @ basis[:, -_DIMENSIONS:]


def _random_basis(width: int) -> Floats:
    return np.random.default_rng(0).normal(size=(width, _DIMENSIONS)).astype(np.float32)


def spread_out(order: Ints, where: Floats, count: int) -> Ints:
    """The first ``count`` of ``order`` that do not stand almost on top of one taken before.

    where: (len(order), d) places of the rows. "Almost on top": nearer than half the median distance to the nearest other
    in the list. Where that leaves too few, those passed over follow in their order.

    >>> spread_out(np.array([7, 8, 9]), np.array([[0.0], [0.0], [5.0]]), 2).tolist()
    [7, 9]
    """
    from scipy.spatial import cKDTree

    if len(order) <= 1 or count >= len(order):
        return order[:count]
    nearest = cKDTree(where).query(where, k=2)[0][:, 1]
    limit = max(0.5 * float(np.median(nearest)), 1e-9)
    taken: list[int] = []
    passed: list[int] = []
    for place in range(len(order)):
        if len(taken) == count:
            break
        if taken and float(np.sqrt(((where[taken] - where[place]) ** 2).sum(axis=1)).min()) < limit:
            passed.append(place)
        else:
            taken.append(place)
    return order[np.array((taken + passed)[:count], int)]
