"""What planted labels look like and honest mistakes do not: tests on the rows of a window.

Each test is a function of :class:`~labelwright.poison.window.Seen` rows and says nothing (None or an empty list) or an
:class:`~labelwright.poison.alarm.Alarm`. All read labels and models only, never the truth. The thresholds are decided here [D];
docs/poison.md says how often honest noise passes them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from labelwright.poison.alarm import BURST, DEEP, PAIR, SOURCE, Alarm
from labelwright.poison.depth import depths, discriminant, far_fetched
from labelwright.poison.window import NOBODY, Seen
from labelwright.types import Bools, Floats, Ints

CHANCE = 1e-6
"""An alarm needs a count that honest noise reaches with at most this probability."""
LEAST = 8
"""Fewer rows than this are never an alarm."""
LEAST_IN_PAIR = 20
"""In fewer rows, several pairs of honest asymmetric noise may by chance look like one."""
CONCENTRATED = 0.6
"""Share of all unusual wrong labels that one pair must hold: honest noise spreads over several."""
OVERDISPERSION = 2.0
"""Honest confusion of one pair may be so many times that of the reverse pair."""
SPREAD = 0.35
"""Rows of an attacked pair lie on average at least so far from the border, as a share of their class."""
NEIGHBOURS = 10
FEWEST_CLASSES = 4


def tail(count: Floats | float, expected: Floats | float) -> Floats:
    """P(Poisson(expected) >= count).

    >>> float(tail(0, 1.0)), round(float(tail(1, 1.0)), 3)
    (1.0, 0.632)
    """
    from scipy.stats import poisson

    return np.asarray(poisson.sf(np.asarray(count, float) - 1, np.maximum(expected, 1e-9)))


def pair_counts(rows: Seen, classes: int) -> Floats:
    """(K, K) rows whose class is sure, by [believed, given]."""
    at = rows.sure & ~rows.clean
    out = np.zeros((classes, classes))
    np.add.at(out, (rows.believed[at], rows.given[at]), 1.0)
    return out


def honest_counts(counts: Floats) -> Floats:
    """(K, K) how many rows honest noise may put into each pair, by what the other pairs show.

    The larger of what the other pairs of the same size hold on average, the pair itself and the largest tenth of them left out
    (noise that spreads), and the reverse pair's share times :data:`OVERDISPERSION` (classes that look alike are taken for each
    other both ways).

    >>> honest_counts(np.array([[90.0, 10.0], [4.0, 96.0]])).round(1).tolist()
    [[90.0, 9.0], [21.0, 96.0]]
    """
    classes = len(counts)
    size = counts.sum(axis=1, keepdims=True)
    rate = counts / np.maximum(size, 1.0)
    off = np.sort(rate[~np.eye(classes, dtype=bool)])
    spread = off[: max(1, int(0.9 * len(off)))].mean() if len(off) > 2 else 0.0
    expected = np.maximum(spread * size, OVERDISPERSION * rate.T * size) + 1.0
    np.fill_diagonal(expected, np.diag(counts))
    return np.asarray(expected)


def pair_alarm(rows: Seen, classes: int) -> Alarm | None:
    """One class comes as one other, far more often than any honest mistake explains, and no other pair shows the like.

    Honest asymmetric noise has several such pairs, honest symmetric noise none. The rows' nearest neighbours must agree that
    they belong to the believed class, and they must not all lie where the two classes meet: a model that is wrong about a region
    is no attack. Fewer than four classes have too
    few pairs to tell.
    """
    if classes < FEWEST_CLASSES:
        return None
    counts = pair_counts(rows, classes)
    expected = honest_counts(counts)
    unusual = np.where(tail(counts, expected) < 0.05, np.maximum(counts - expected, 0.0), 0.0)
    np.fill_diagonal(unusual, 0.0)
    true, given = (int(at) for at in np.unravel_index(unusual.argmax(), unusual.shape))
    if unusual[true, given] < CONCENTRATED * unusual.sum() or counts[true, given] < LEAST_IN_PAIR:
        return None
    if tail(counts[true, given], expected[true, given]) > CHANCE:
        return None
    mine = np.flatnonzero(rows.suspect & (rows.believed == true) & (rows.given == given))
    sure = mine[rows.sure[mine]]
    witnessed = sure[neighbours_agree(rows, sure)]
    chance = float(tail(len(witnessed), expected[true, given]))
    if (
        len(witnessed) < max(LEAST_IN_PAIR, 0.4 * len(sure))
        or chance > CHANCE
        or distance_rank(rows, witnessed, true, given) < SPREAD
    ):
        return None
    return _alarm(PAIR, rows, mine, true=true, given=given, expected=expected[true, given], chance=chance)


def distance_rank(rows: Seen, at: Ints, true: int, given: int) -> float:
    """Mean place, in (0, 1), of the rows ``at`` among the sure rows believed to be ``true``, by how far they are from ``given``: a half
    for rows picked at random, near 0 for rows on the border."""
    mine = np.flatnonzero(rows.sure & (rows.believed == true))
    scores = discriminant(
        rows.X, rows.believed, int(rows.believed.max()) + 1 if given <= rows.believed.max() else given + 1
    )
    gap = scores[:, true] - scores[:, given]
    return float(np.mean(np.searchsorted(np.sort(gap[mine]), gap[at]) / max(len(mine), 1)))


def neighbours_agree(rows: Seen, at: Ints, *, most: int = 400) -> Bools:
    """(m,) whether the given labels of a row's nearest neighbours side with what the models believe of it, rather than with its
    own label. at: places of the rows; beyond ``most`` of them an even sample is asked, the others get its majority."""
    if not len(at):
        return np.zeros(0, bool)
    chosen = at[np.unique(np.linspace(0, len(at) - 1, min(most, len(at))).astype(int))]
    X = rows.X.astype(np.float32, copy=False)
    size = (X**2).sum(axis=1)
    distance = size[None, :] - 2 * X[chosen] @ X.T
    distance[np.arange(len(chosen)), chosen] = np.inf
    near = np.argpartition(distance, min(NEIGHBOURS, len(X) - 1), axis=1)[:, :NEIGHBOURS]
    labels = rows.given[near]
    agrees = (labels == rows.believed[chosen, None]).sum(axis=1) > (labels == rows.given[chosen, None]).sum(axis=1)
    if len(chosen) == len(at):
        return np.asarray(agrees)
    return np.linspace(0, 1, len(at)) < agrees.mean()


def source_alarms(rows: Seen, names: list[str]) -> list[Alarm]:
    """Sources that are wrong far more often than the others were in the same batches.

    A source is named when its wrong labels are twice those of the middle source, three points above, and beyond chance. Only
    batches that hold several sources count: in a burst all get worse, and no single one is to blame.
    """
    known = (rows.source != NOBODY) & ~rows.clean
    if not known.any():
        return []
    several = [b for b in np.unique(rows.batch[known]) if len(np.unique(rows.source[known & (rows.batch == b)])) > 1]
    known &= np.isin(rows.batch, several)
    size = np.bincount(rows.source[known], minlength=len(names)).astype(float)
    wrong = np.bincount(rows.source[known & rows.suspect], minlength=len(names)).astype(float)
    out = []
    enough = size >= 20
    if enough.sum() < 2:
        return []
    rates = wrong / np.maximum(size, 1.0)
    for code in np.flatnonzero(enough):
        others = enough & (np.arange(len(names)) != code)
        usual = float(np.median(rates[others])) if others.sum() > 2 else wrong[others].sum() / size[others].sum()
        bound, nearly = max(2.0 * usual, usual + 0.03) * size[code], (usual + 0.005) * size[code]
        if wrong[code] >= LEAST and tail(wrong[code], bound) < 1e-2 and tail(wrong[code], nearly) < CHANCE:
            mine = np.flatnonzero(known & rows.suspect & (rows.source == code))
            chance = float(tail(wrong[code], nearly))
            out.append(_alarm(SOURCE, rows, mine, source=names[code], expected=usual * size[code], chance=chance))
    return out


def deep_alarm(rows: Seen, classes: int) -> Alarm | None:
    """Wrong labels on the most typical rows of their classes, and the least plausible labels at that ("far first" flips).

    Honest noise falls on any row alike or rather on doubtful ones: of the mislabelled rows no more than a fifth lie in the most
    typical fifth of their believed class. And honest wrong labels are plausible, or any: their places among the other classes
    average a half or less. An alarm needs far more of the first, or more of both; see :mod:`labelwright.poison.depth`.
    """
    sure = rows.take(rows.sure)
    if not len(sure) or sure.suspect.sum() < LEAST or classes < FEWEST_CLASSES:
        return None
    scores = discriminant(sure.X, sure.believed, classes)
    depth, far = depths(scores, sure.believed), far_fetched(scores, sure.believed, sure.given)
    total = int(sure.suspect.sum())
    for cut in (0.8, 0.9, 0.95):
        top = sure.suspect & (depth >= cut)
        count = int(top.sum())
        chance = beyond(count, total, 1 - cut)
        implausible = too_high(far[top])
        if count >= LEAST and (chance < CHANCE / 10 or (chance < 1e-3 and chance * implausible < CHANCE / 1000)):
            mine = np.flatnonzero(sure.suspect & ((depth >= 0.8) | ((depth >= 0.5) & (far >= 0.5))))
            return _alarm(DEEP, sure, mine, expected=total * (1 - cut), chance=chance * implausible)
    return None


def beyond(count: int, total: int, share: float) -> float:
    """P(Binomial(total, share) >= count).

    >>> beyond(2, 2, 0.5)
    0.25
    """
    from scipy.stats import binom

    return float(binom.sf(count - 1, total, share))


def too_high(values: Floats) -> float:
    """How likely so high a mean is of numbers that are uniform on [0, 1], by the normal approximation; 1 for none.

    >>> round(too_high(np.full(12, 0.75)), 5)
    0.00135
    """
    from scipy.stats import norm

    return float(norm.sf((values.mean() - 0.5) * np.sqrt(12.0 * len(values)))) if len(values) else 1.0


def burst_notice(rows: Seen) -> Alarm | None:
    """The last batch holds surely more wrong labels than 1.5 times the usual, and five points more. A notice, no attack."""
    last = rows.batch == rows.batch.max(initial=-1)
    here, before = last & ~rows.clean, ~last & ~rows.clean
    if here.sum() < 20 or len(np.unique(rows.batch[before])) < 3:
        return None
    rates = [float(rows.suspect[rows.batch == b].mean()) for b in np.unique(rows.batch[before])]
    usual, wrong = float(np.median(rates)), int(rows.suspect[here].sum())
    chance = float(tail(wrong, max(1.5 * usual, usual + 0.05) * here.sum()))
    if chance > 1e-3:
        return None
    return _alarm(BURST, rows, np.flatnonzero(here & rows.suspect), expected=usual * here.sum(), chance=chance)


def named_source(rows: Seen, mine: Ints, names: list[str]) -> str | None:
    """The source that most of these rows come from, when it holds far fewer of all rows."""
    codes = rows.source[mine]
    if not len(codes) or (codes == NOBODY).all():
        return None
    counts = np.bincount(codes[codes != NOBODY], minlength=len(names))
    top = int(counts.argmax())
    share, usual = counts[top] / len(codes), float((rows.source == top).mean())
    return names[top] if share > 0.6 and share > 2 * usual else None


def _alarm(kind: str, rows: Seen, at: Ints, **more: Any) -> Alarm:
    batches = rows.batch[at]
    return Alarm(
        kind, int(rows.batch.max()), keys=rows.keys[at], first=int(batches.min(initial=rows.batch.max())), **more
    )
