"""Triggers: the same mark on many rows of one class, and on no other (backdoors, with true labels or false ones).

Features are cut into levels. A *mark* of class b is a set of (feature, level) items that are frequent in b, rare in every
other class, and rigid: the same rows have all of them. Natural features that tell classes apart vary from row to row, and are
not rigid; whole rows that came several times agree in nearly all features, and are no mark.
"""

from __future__ import annotations

import numpy as np

from labelwright.poison.alarm import PATTERN, Alarm
from labelwright.poison.structure import CHANCE, LEAST, tail
from labelwright.poison.window import Seen
from labelwright.types import Bools, Floats, Ints

LEVELS = 8
FEWEST_ITEMS = 4
"""A mark covers at least so many features."""
RIGID = 0.8
"""Two items belong together when this share of the rows that have either has both (Jaccard)."""
MOST_ITEMS = 400
RARER = 10.0


def levels(X: Floats, low: Floats, high: Floats) -> Ints:
    """(n, d) uint8 levels 0..7 of each feature between ``low`` and ``high``, (d,) or numbers.

    >>> levels(np.array([[0.0, 0.5, 1.0]]), 0.0, 1.0).tolist()
    [[0, 4, 7]]
    """
    span = np.maximum(np.asarray(high, float) - low, 1e-12)
    scaled = (np.asarray(X, np.float32) - np.float32(low)) * (LEVELS / span).astype(np.float32)
    return np.clip(np.nan_to_num(scaled), 0, LEVELS - 1).astype(np.uint8)  # type: ignore[return-value]


def ranges(X: Floats) -> tuple[Floats, Floats]:
    """Least and greatest value: one for all features when they share a scale (pixels), else one a feature."""
    low, high = X.min(axis=0).astype(float), X.max(axis=0).astype(float)
    if X.shape[1] >= 64 and np.median(np.where(high > low, low, low.min())) == low.min():
        return np.full_like(low, low.min()), np.full_like(high, high.max())
    return low, high


def pattern_alarms(rows: Seen, classes: int) -> list[Alarm]:
    """Marks in the window, at most one a class."""
    use = rows.take(~rows.clean)
    if len(use) < 4 * LEAST or use.X.shape[1] < FEWEST_ITEMS:
        return []
    coded = levels(use.X, *ranges(use.X))
    counts = np.zeros((classes, LEVELS, coded.shape[1]))
    for level in range(LEVELS):
        has = coded == level
        for code in range(classes):
            counts[code, level] = has[use.given == code].sum(axis=0)
    size = np.bincount(use.given, minlength=classes).astype(float)
    found = (_mark(use, coded, counts, size, code) for code in range(classes) if size[code] >= LEAST)
    return [alarm for alarm in found if alarm is not None]


def _mark(rows: Seen, coded: Ints, counts: Floats, size: Floats, code: int) -> Alarm | None:
    others = counts.sum(axis=0) - counts[code]
    rest = max(size.sum() - size[code], 1.0)
    expected = np.maximum(others, 0.5) / rest * size[code]
    hits = counts[code]
    unusual = (hits >= LEAST) & (hits > RARER * expected) & (hits < 0.8 * size[code]) & (tail(hits, expected) < CHANCE)
    level, feature = np.nonzero(unusual)
    if len(level) < FEWEST_ITEMS:
        return None
    strongest = np.argsort(-(hits - expected)[level, feature], kind="stable")[:MOST_ITEMS]
    level, feature = level[strongest], feature[strongest]
    mine = np.flatnonzero(rows.given == code)
    has = coded[mine][:, feature] == level
    together = rigid(has)
    if len(together) < FEWEST_ITEMS:
        return None
    carries = has[:, together].mean(axis=1) >= RIGID
    if carries.sum() < LEAST or _same_rows(coded[mine[carries]], coded):
        return None
    at = mine[carries]
    outside = (coded[:, feature[together]] == level[together]).mean(axis=1) >= RIGID
    elsewhere = int((outside & (rows.given != code)).sum())
    usual = max(elsewhere, 0.5) / rest * size[code]
    chance = float(tail(len(at), usual))
    if chance > CHANCE:
        return None
    batches = rows.batch[at]
    return Alarm(
        PATTERN, int(rows.batch.max()), given=code, keys=rows.keys[at], first=int(batches.min()), expected=usual, chance=chance,
        features=tuple(int(f) for f in feature[together]),
    )  # fmt: skip


def rigid(has: Bools) -> Ints:
    """Places of the largest set of items that the same rows have: an item and all that overlap with it by :data:`RIGID`.

    has: (n, m) whether a row has an item.

    >>> rigid(np.array([[1, 1, 0], [1, 1, 1], [0, 0, 1]], bool)).tolist()
    [0, 1]
    """
    numbers = has.astype(np.float32)
    both = numbers.T @ numbers
    each = np.diag(both)
    jaccard = both / np.maximum(each[:, None] + each[None, :] - both, 1.0)
    linked = jaccard >= RIGID
    best = int((linked.sum(axis=1) * each).argmax())
    return np.flatnonzero(linked[best])


def _same_rows(coded: Ints, every: Ints) -> bool:
    """Whether rows agree in most of the features that vary at all: then they are copies of one row."""
    varies = (every != every[0]).any(axis=0)
    agree = (coded == coded[0]).all(axis=0)[varies] & (every.std(axis=0)[varies] > 0.5)
    return bool(agree.sum() > 0.6 * max((every.std(axis=0)[varies] > 0.5).sum(), 1))
