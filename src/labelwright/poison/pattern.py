"""Triggers: the same mark on many rows of one class, and on no other (backdoors, with true labels or false ones).

Features are cut into levels. A *mark* of class b is a set of (feature, level) items that are frequent in b, rare in every
other class, and rigid: the same rows have all of them. Natural features that tell classes apart vary from row to row, and are
not rigid; whole rows that came several times agree in nearly all features, and are no mark.
"""

from __future__ import annotations

from dataclasses import dataclass

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
    if (~rows.clean).sum() < 4 * LEAST or rows.X.shape[1] < FEWEST_ITEMS:
        return []
    coded = levels(rows.X, *ranges(rows.X))
    marks = _Marks(
        rows, coded, item_counts(coded, rows.given, classes), np.bincount(rows.given, minlength=classes).astype(float)
    )
    found = (marks.of(code) for code in range(classes) if marks.size[code] >= LEAST)
    return [alarm for alarm in found if alarm is not None]


def item_counts(coded: Ints, given: Ints, classes: int) -> Floats:
    """(K, 8, d) rows of each class that have each level of each feature.

    >>> item_counts(np.array([[3], [3], [0]]), np.array([1, 1, 0]), 2)[1, 3].tolist()
    [2.0]
    """
    counts = np.zeros((classes, LEVELS, coded.shape[1]))
    for code in range(classes):
        mine = coded[given == code]
        for level in range(LEVELS):
            counts[code, level] = np.count_nonzero(mine == level, axis=0)
    return counts


@dataclass(frozen=True)
class _Marks:
    """rows with their levels (n, d), and how many of each class (K,) have each item (K, 8, d)."""

    rows: Seen
    coded: Ints
    counts: Floats
    size: Floats

    def of(self, code: int) -> Alarm | None:
        """The mark of a class, if it has one."""
        level, feature = self._unusual(code)
        if len(level) < FEWEST_ITEMS:
            return None
        mine = np.flatnonzero((self.rows.given == code) & ~self.rows.clean)
        has = self.coded[mine][:, feature] == level
        together = rigid(has)
        carries = has[:, together].mean(axis=1) >= RIGID
        if len(together) < FEWEST_ITEMS or carries.sum() < LEAST or _same_rows(self.coded[mine[carries]], self.coded):
            return None
        return self._alarm(code, mine[carries], level[together], feature[together])

    def _unusual(self, code: int) -> tuple[Ints, Ints]:
        """(levels, features) of the items that are frequent in the class and rare elsewhere, the strongest first. An item that
        nearly all rows of a class have is its nature, unless the rows that the owner vouches for lack it."""
        hits, size, rest = self.counts[code], self.size[code], max(self.size.sum() - self.size[code], 1.0)
        expected = np.maximum(self.counts.sum(axis=0) - hits, 0.5) / rest * size
        vouched = self.coded[(self.rows.given == code) & self.rows.clean]
        lacking = np.zeros(hits.shape, bool)
        if len(vouched) >= 20:
            lacking = item_counts(vouched, np.zeros(len(vouched), int), 1)[0] <= 0.02 * len(vouched)
        frequent = (hits >= LEAST) & (hits > RARER * expected) & (lacking | (hits < 0.8 * size))
        level, feature = np.nonzero(frequent & (tail(hits, expected) < CHANCE))
        strongest = np.argsort(-(hits - expected)[level, feature], kind="stable")[:MOST_ITEMS]
        return level[strongest], feature[strongest]

    def _alarm(self, code: int, at: Ints, level: Ints, feature: Ints) -> Alarm | None:
        outside = self.rows.given != code
        elsewhere = int(((self.coded[outside][:, feature] == level).mean(axis=1) >= RIGID).sum())
        usual = max(elsewhere, 0.5) / max(outside.sum(), 1) * self.size[code]
        chance = float(tail(len(at), usual))
        if chance > CHANCE:
            return None
        newest, batches = int(self.rows.batch.max()), self.rows.batch[at]
        mark = tuple(int(f) for f in feature)
        return Alarm(
            PATTERN,
            newest,
            given=code,
            keys=self.rows.keys[at],
            first=int(batches.min()),
            expected=usual,
            chance=chance,
            features=mark,
        )


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
