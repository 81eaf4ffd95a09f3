"""Two readings of the same doubt, and their average.

Where a model hesitates between two classes, either the rows are hard and their labels right (*hard rows*), or people
hesitated there too and mislabelled (*hard labels*). Probabilities alone cannot tell which; measured on synthetic noise
the first holds, on human labels the second. Both posteriors are computed, ``P(k | x, given) ∝ p_k(x)^τ T[k, given]``
(methods section 5), and averaged; experts' answers shift the weight to the one that foresaw them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from labelwright.auditing.evidence import Evidence
from labelwright.auditing.transition import Pairs, Transition
from labelwright.types import NO_LABEL, Floats, Ints

_FIRST_SHARPNESS = (0.5, 1.0)
_LABELS_SHARPNESS = (0.5, 2.0)
_ALONE_SHARPNESS = (3.0, 0.0)
_PULL = 1e-3
_LOW_SHARE = 0.25
_FIT_ROWS = 2048
_NARROW_ROUNDS = 4
_TINY = np.float32(1e-35)
_EVEN = np.float32(1e-4)


@dataclass(frozen=True)
class Hypothesis:
    """One reading. sharpness: exponents of the probabilities before and after the second look."""

    sharpness: tuple[float, float]
    transition: Transition

    def posterior(self, seen: Evidence) -> Floats:
        """(n, C) float32 P(true class | row, given label) over the evidence's columns."""
        scaled = seen.weighed(self.sharpness)
        scaled += likelihood(self.transition, seen)
        return softmax(scaled)

    def state(self) -> dict[str, Any]:
        """JSON values that :meth:`restored` needs."""
        return {"sharpness": list(self.sharpness), "transition": self.transition.state()}

    @staticmethod
    def restored(state: Mapping[str, Any]) -> Hypothesis:
        """As it was when :meth:`state` was called."""
        first, second = state["sharpness"]
        return Hypothesis((first, second), Transition.restored(state["transition"]))


def softmax(scaled: Floats) -> Floats:
    """Rows to probabilities, in place. Not shifted by the row's maximum first: log-probabilities are floored, so the
    best class of a row stays well above what float32 can hold, and for few classes the maximum costs as much as the rest.
    """
    np.exp(scaled, out=scaled)
    scaled /= _row_sums(scaled)[:, None]
    return scaled


def _row_sums(values: Floats) -> Floats:
    """(n,) sums of float32 rows; a product with ones is quicker than a reduction over a short axis."""
    return np.maximum(values @ np.ones(values.shape[1], np.float32), _TINY)


def likelihood(transition: Transition, seen: Evidence) -> Floats:
    """(n, C) float32 log P(given label | class of each column)."""
    if seen.classes is None:
        return transition.log_given[seen.given]
    rival = seen.classes[:, 1]
    named = np.flatnonzero(rival != NO_LABEL)
    out = np.empty((len(seen), 2), np.float32)
    out[:, 0] = np.log(np.maximum(1.0 - transition.wrong, _TINY)).astype(np.float32)[seen.given]
    out[:, 1] = np.log(max(transition.any_other, float(_TINY)))
    out[named, 1] = np.log(np.maximum(transition.of(rival[named], seen.given[named]), _TINY))
    return out


def hard_rows(seen: Evidence, known: Ints, classes: int, floor: float = 0.0) -> Hypothesis:
    """Doubt is the rows': wrong labels are counted where the model has no doubt, and its probabilities fitted to them.

    For each pair (j, k) the rows that look like j and least like k (the lowest quarter) tell how often j is labelled k
    by mistake. Then the exponents maximise the likelihood of the given labels.
    known: (n,) settled class or NO_LABEL; such pairs are added to the counts. floor: of the second look.
    """
    start = _FIRST_SHARPNESS if seen.second is not None else (1.0, 0.0)
    scaled = seen.levelled(floor).weighed(start)
    settled = known != NO_LABEL
    if seen.classes is None:
        counted = Pairs.from_dense(_where_sure(scaled, seen.given))
    else:
        best = scaled.argmax(axis=1)
        top = scaled.max(axis=1)  # how sure the model is of its best class, whatever the label
        sure = top >= np.quantile(top, 1 - _LOW_SHARE)
        counted = Pairs.of(seen.class_of(best)[sure], seen.given[sure], classes)
    if settled.any():
        counted = counted.plus(Pairs.of(known[settled], seen.given[settled], classes))
    transition = Transition.fitted(counted)
    if seen.classes is not None:  # two of many classes are too few to fit exponents to: the rest would not count
        return Hypothesis(start, transition)
    some = seen.take(np.arange(min(len(seen), _FIT_ROWS)))
    return Hypothesis(_fitted_sharpness(some, transition, start), transition)


def hard_labels(seen: Evidence, known: Ints, classes: int, rounds: int = 12) -> Hypothesis:
    """Doubt is the labels': probabilities are sharpened, and expectation-maximisation counts each disagreement."""
    sharpness = _LABELS_SHARPNESS if seen.second is not None else _ALONE_SHARPNESS
    scaled = seen.weighed(sharpness)
    share = _likeliest(scaled)
    weighed = softmax(scaled)
    transition = Transition.fitted(expected_pairs(settle(share, seen, known), seen, classes))
    for turn in range(rounds if seen.classes is None else _NARROW_ROUNDS):
        share = weighed * np.exp(likelihood(transition, seen))
        share /= _row_sums(share)[:, None]
        before = transition
        # The strengths of shrinkage cost more than the rest: they are read off at the first, the second and every fourth turn.
        like = before if turn % 4 else None
        transition = Transition.fitted(expected_pairs(settle(share, seen, known), seen, classes), like)
        if np.abs(transition.wrong - before.wrong).mean() < 2e-4:
            break
    return Hypothesis(sharpness, transition)


def _likeliest(scaled: Floats) -> Floats:
    """(n, C) float32: 1 at the greatest log-probability of each row, shared alike by columns that are as great but for rounding, so
    that it does not matter which comes first."""
    best = (scaled >= scaled.max(axis=1, keepdims=True) - _EVEN).astype(np.float32)
    best /= _row_sums(best)[:, None]
    return best


def settle(share: Floats, seen: Evidence, known: Ints) -> Floats:
    """(n, C) ``share`` with one-hot rows where the class is known (and among the columns)."""
    settled = np.flatnonzero(known != NO_LABEL)
    if len(settled):
        share = share.copy()
        columns = known[settled, None] == (
            np.arange(share.shape[1])[None, :] if seen.classes is None else seen.classes[settled]
        )
        here = columns.any(axis=1)
        share[settled[here]] = columns[here]
    return share


def expected_pairs(share: Floats, seen: Evidence, classes: int) -> Pairs:
    """Expected (true, given) pairs of rows whose true class is believed to be distributed as ``share`` (n, C)."""
    if seen.classes is None:
        return Pairs.from_dense(np.asarray(seen.labels @ share, float).T)
    rival = seen.classes[:, 1]
    named = np.flatnonzero((rival != NO_LABEL) & (share[:, 1] > 1e-6))
    apart = Pairs.of(rival[named], seen.given[named], classes, share[named, 1].astype(float))
    same = np.bincount(seen.given, share[:, 0], minlength=classes)
    met = np.flatnonzero(same)
    code = np.concatenate([apart.code, met * classes + met])
    order = np.argsort(code, kind="stable")
    return Pairs(code[order], np.concatenate([apart.count, same[met]])[order], classes)


def _where_sure(scaled: Floats, given: Ints) -> Floats:
    """(K, K) counts of (likeliest, given), each pair counted on the rows of the likeliest class that look least like ``given``.

    scaled: (n, K) log-probabilities. A row with several likeliest classes counts for each in part.
    """
    relative = scaled - scaled.max(axis=1, keepdims=True)
    share = _likeliest(scaled)
    classes = scaled.shape[1]
    counts = np.zeros((classes, classes))
    for j in range(classes):
        rows = np.flatnonzero(share[:, j])
        if not len(rows):
            continue
        low = max(1, int(np.ceil(_LOW_SHARE * len(rows))))
        looks, part = relative[rows], share[rows, j]
        line = np.partition(looks, low - 1, axis=0)[low - 1]
        below = looks <= line
        own = given[rows]
        here = below[np.arange(len(rows)), own]
        met = np.bincount(own[here], part[here], minlength=classes) * (low / below.sum(axis=0))
        met[j] = 0.0
        counts[j] = met
        counts[j, j] = max(low * float(part.mean()) - met.sum(), 0.5)
    return counts


def _fitted_sharpness(seen: Evidence, transition: Transition, start: tuple[float, float]) -> tuple[float, float]:
    """Exponents that maximise the likelihood of the given labels under ``transition``; Newton steps with the outer
    products of the rows' gradients (Berndt et al. 1974), pulled a little to where they start."""
    sizes = 1 if seen.second is None else 2
    x, origin = np.array(start[:sizes], float), np.array(start[:sizes], float)
    low, high = np.array([0.0, 0.25])[:sizes], np.array([4.0, 6.0])[:sizes]
    lift = np.exp(likelihood(transition, seen))
    parts = [seen.first] if seen.second is None else [seen.first, seen.second]
    n = len(seen)

    def look(at: Floats) -> tuple[float, Floats]:
        prior = softmax(seen.weighed((float(at[0]), float(at[1]) if sizes > 1 else 0.0)))
        joint = prior * lift
        total = _row_sums(joint)
        joint /= total[:, None]
        joint -= prior
        slopes = np.stack([np.einsum("ij,ij->i", joint, part) for part in parts], axis=1).astype(float)
        return float(np.log(total).mean() - _PULL * ((at - origin) ** 2).sum()), slopes

    value, slopes = look(x)
    for _ in range(12):
        slope = slopes.mean(axis=0) - 2 * _PULL * (x - origin)
        bend = slopes.T @ slopes / n + (2 * _PULL + 1e-9) * np.eye(sizes)
        step = np.linalg.solve(bend, slope)
        for shrink in (1.0, 0.5, 0.25, 0.1):
            tried = np.clip(x + shrink * step, low, high)
            new, new_slopes = look(tried)
            if new > value:
                break
        else:
            break
        gained, x, value, slopes = new - value, tried, new, new_slopes
        if gained < 3e-5:
            break
    return float(x[0]), float(x[1]) if sizes > 1 else 0.0
