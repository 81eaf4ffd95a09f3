"""Many sites' vectors into one that a few bad ones cannot move far.

Each function takes (m, P), a row a site, and returns (P,). None of them believes what a site says of its own size: a
weight that a site claims is a lever for a liar.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from labelwright.errors import SettingsError
from labelwright.types import Floats

TRIM = 0.2
Rule = Callable[[Floats], Floats]


def bad_allowed(sites: int, share: float = TRIM) -> int:
    """How many of ``sites`` may be bad: ``share`` of them, at least one from three on, never half.

    >>> [bad_allowed(n) for n in (1, 2, 3, 8, 10)]
    [0, 0, 1, 1, 2]
    """
    return min(max(int(share * sites), 1), (sites - 1) // 2) if sites >= 3 else 0


def mean(vectors: Floats) -> Floats:
    """(P,) the plain mean: one bad site moves it anywhere.

    >>> mean(np.array([[1.0], [3.0]])).tolist()
    [2.0]
    """
    return np.asarray(vectors.mean(axis=0))


def median(vectors: Floats) -> Floats:
    """(P,) the coordinate-wise median: stands up to nearly half bad, loses most of what the others know.

    Source: Yin, Chen, Ramchandran, Bartlett, *Byzantine-Robust Distributed Learning*, ICML 2018, definition 1.

    >>> median(np.array([[1.0], [3.0], [1e9]])).tolist()
    [3.0]
    """
    return np.asarray(np.median(vectors, axis=0))


def trimmed(vectors: Floats) -> Floats:
    """(P,) the mean of each coordinate without its :func:`bad_allowed` highest and lowest values.

    Source: Yin et al. 2018, definition 2.

    >>> trimmed(np.array([[1.0], [3.0], [5.0], [1e9]])).tolist()
    [4.0]
    """
    cut = bad_allowed(len(vectors))
    if cut == 0:
        return mean(vectors)
    return np.asarray(np.sort(vectors, axis=0)[cut : len(vectors) - cut].mean(axis=0))


def krum(vectors: Floats) -> Floats:
    """(P,) the one vector whose nearest m - f - 2 others are nearest, f of :func:`bad_allowed`.

    Source: Blanchard, El Mhamdi, Guerraoui, Stainer, *Machine Learning with Adversaries*, NeurIPS 2017, section 4.
    It needs m >= 2f + 3 for its proof, and is the dearest in accuracy: it learns from one site a round.

    >>> krum(np.array([[1.0], [1.2], [1.3], [1.5], [9.0]])).tolist()
    [1.2]
    """
    m = len(vectors)
    if m < 3:
        return mean(vectors)
    near = max(m - bad_allowed(m) - 2, 1)
    flat = np.asarray(vectors, np.float64)
    square = (flat**2).sum(axis=1)
    distance = np.maximum(square[:, None] + square[None] - 2 * flat @ flat.T, 0.0)
    np.fill_diagonal(distance, np.inf)
    score = np.sort(distance, axis=1)[:, :near].sum(axis=1)
    return np.array(vectors[int(score.argmin())])


def nearest(vectors: Floats) -> Floats:
    """(P,) the mean without the :func:`bad_allowed` vectors that are farthest from the coordinate-wise median.

    A site that teaches something else stands out in many coordinates together, though in none by itself; it goes as a whole.
    The default.

    >>> nearest(np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [3.0, 3.0]])).round(2).tolist()
    [0.33, 0.33]
    """
    flat = np.asarray(vectors, np.float64)
    far = np.linalg.norm(flat - np.median(flat, axis=0), axis=1)
    return np.asarray(flat[np.argsort(far, kind="stable")[: len(flat) - bad_allowed(len(flat))]].mean(axis=0))


RULES: Mapping[str, Rule] = {"nearest": nearest, "trimmed": trimmed, "median": median, "krum": krum, "mean": mean}


def rule(name: str) -> Rule:
    """The rule of this name. Raises SettingsError for another."""
    if name not in RULES:
        raise SettingsError(f"there is no aggregation {name!r}; expected one of {', '.join(RULES)}")
    return RULES[name]


def outliers(vectors: Floats, centre: Floats, *, factor: float) -> list[int]:
    """Rows whose distance from ``centre`` is more than ``factor`` times the median distance; needs three rows.

    >>> outliers(np.array([[1.0], [1.2], [0.8], [100.0]]), np.zeros(1), factor=10)
    [3]
    """
    if len(vectors) < 3:
        return []
    far = np.linalg.norm(np.asarray(vectors, np.float64) - centre, axis=1)
    usual = float(np.median(far))
    return [int(at) for at in np.flatnonzero(far > factor * max(usual, 1e-9))]
