"""Labels made wrong on purpose (methods section 7, "Attacks")."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from labelwright.errors import DataError
from labelwright.noise.checks import Corruption, another_label, check_rate, checked_labels, exact_count, flat_features
from labelwright.noise.models import asymmetric
from labelwright.types import Floats, Ints


def far_first(rate: float, margin: Floats | Callable[[Floats], Floats], *, classes: int) -> Corruption:
    """Flip the floor(rate * n) rows furthest inside their own class: the errors that bend a model most.

    margin: (n,) distance of each row to the surrogate's decision boundary, or a function X -> (n, K) scores;
    then the margin is the score of the true class minus the best other score. Ties fall at random.
    Targets: the class with the lowest score, or a uniform other class when only margins are known.
    Source: methods section 7, "Attacks". Raises SettingsError for a bad rate, DataError when shapes differ.

    >>> flip = far_first(0.5, np.array([0.1, 9.0]), classes=2)
    >>> flip(np.array([0, 0]), None, np.random.default_rng(0)).tolist()
    [0, 1]
    """
    return _by_margin(rate, margin, classes, far=True)


def near_first(rate: float, margin: Floats | Callable[[Floats], Floats], *, classes: int) -> Corruption:
    """Flip the floor(rate * n) rows nearest to the boundary: the errors that are hardest to see.

    Arguments and errors as :func:`far_first`; with scores the target is the runner-up class.

    >>> flip = near_first(0.5, np.array([0.1, 9.0]), classes=2)
    >>> flip(np.array([0, 0]), None, np.random.default_rng(0)).tolist()
    [1, 0]
    """
    return _by_margin(rate, margin, classes, far=False)


def targeted(rate: float, source: int, target: int) -> Corruption:
    """Flip exactly floor(rate * n_source) rows of class ``source`` to ``target``, all else clean.

    >>> targeted(1.0, 1, 0)(np.array([0, 1, 2]), None, np.random.default_rng(0)).tolist()
    [0, 0, 2]
    """
    return asymmetric(rate, {source: target})


def poisoned_source(corruption: Corruption, sources: npt.ArrayLike, poisoned: object) -> Corruption:
    """Apply ``corruption`` to the rows of one labeller among several, the others stay honest.

    sources: (n,) who labelled each row. poisoned: the one who lies.
    Raises DataError when ``sources`` has another length than the labels, or never names ``poisoned``.

    >>> flip = poisoned_source(targeted(1.0, 0, 1), ["ann", "bob"], "bob")
    >>> flip(np.array([0, 0]), None, np.random.default_rng(0)).tolist()
    [0, 1]
    """
    names = np.asarray(sources)

    def apply(y: Ints, X: Floats | None, rng: np.random.Generator) -> Ints:
        given = checked_labels(y)
        if len(names) != len(given):
            raise DataError(f"There are {len(names)} sources for {len(given)} rows; give one source per row.")
        rows = np.flatnonzero(names == poisoned)
        if not len(rows):
            raise DataError(
                f"No row comes from {poisoned!r}, only from {sorted(set(names.tolist()))}; name one of them."
            )
        given[rows] = corruption(given[rows], None if X is None else X[rows], rng)
        return given

    return apply


def _by_margin(rate: float, margin: Floats | Callable[[Floats], Floats], classes: int, *, far: bool) -> Corruption:
    check_rate(rate, classes)

    def apply(y: Ints, X: Floats | None, rng: np.random.Generator) -> Ints:
        given = checked_labels(y, classes)
        n = len(given)
        scores: Floats | None = None
        if callable(margin):
            scores = np.array(margin(_same_rows(X, n)), np.float64)
            _check_shape("scores", scores.shape, (n, classes))
            own = np.arange(n), given
            others = scores.copy()
            others[own] = -np.inf
            distance = scores[own] - others.max(axis=1)
        else:
            distance = np.asarray(margin, np.float64)
            _check_shape("margins", distance.shape, (n,))
        shuffled = rng.permutation(n)
        order = np.argsort(-distance[shuffled] if far else distance[shuffled], kind="stable")
        rows = shuffled[order[: exact_count(rate, n)]]
        given[rows] = (
            another_label(given[rows], classes, rng) if scores is None else _aim(scores[rows], given[rows], far)
        )
        return given

    return apply


def _aim(scores: Floats, true: Ints, far: bool) -> Ints:
    """The least (far) or the most (near) plausible class other than the true one."""
    ranked = -scores if far else scores.copy()
    ranked[np.arange(len(true)), true] = -np.inf
    return np.asarray(ranked.argmax(axis=1), np.int64)


def _same_rows(X: Floats | None, n: int) -> Floats:
    flat_features(X, n)
    return np.asarray(X)


def _check_shape(what: str, got: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if got != expected:
        raise DataError(f"The {what} have shape {got}, expected {expected}; compute them on exactly these rows.")
