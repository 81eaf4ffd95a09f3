"""Estimates with intervals: the noise rate, and how right the audit is itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from labelwright.auditing.judge import Curve, Line
from labelwright.types import Floats

_DRAWS = 400
_BINS = 2000


class Estimate(float):
    """A number with an interval (95 % unless said otherwise): a float that has ``low`` and ``high``.

    >>> rate = Estimate(0.2, 0.1, 0.3)
    >>> rate + 0.0, rate.low, rate.high
    (0.2, 0.1, 0.3)
    """

    low: float
    high: float

    def __new__(cls, value: float, low: float, high: float) -> Estimate:
        out = super().__new__(cls, value)
        out.low, out.high = min(float(low), float(value)), max(float(high), float(value))
        return out

    def __repr__(self) -> str:
        return f"{float(self):.4g} ({self.low:.4g} to {self.high:.4g})"

    def __getnewargs__(self) -> tuple[float, float, float]:  # type: ignore[override]
        return float(self), self.low, self.high

    @property
    def interval(self) -> tuple[float, float]:
        """(low, high)."""
        return self.low, self.high


@dataclass(frozen=True)
class TestAccuracy:
    """Accuracy of a model on a test set whose labels are in doubt.

    before: against the labels as given. after: expected against the true labels, with an interval that holds both the
    few rows and the two readings of the doubt. flagged: rows in doubt; they are told, never changed.
    """

    before: Estimate
    after: Estimate
    flagged: int

    def __str__(self) -> str:
        return (
            f"accuracy {100 * self.before:.2f} % against the labels as given; about {100 * self.after:.2f} % "
            f"(95 % interval {100 * self.after.low:.2f} to {100 * self.after.high:.2f} %) if the {self.flagged} doubted labels "
            "are judged as the audit does. No label was changed"
        )


def drawn_rates(score: Floats, line: Line | Curve, asked: tuple[int, int, int], seed: int) -> Floats:
    """(draws, 3) noise rate, precision and recall of the flags as they might be: the line from score to probability is drawn
    from its posterior, then how many rows are wrong under it.

    score: (m,) of the open rows, doubted below 0. asked: answered rows, the wrong ones of them, and those doubted.
    """
    rng = np.random.default_rng(seed)
    weight = np.ones(len(score))
    rows, flagged = len(score) + asked[0], int((score < 0).sum()) + asked[2]
    if len(score) > 2 * _BINS:
        place = np.searchsorted(np.unique(np.quantile(score, np.linspace(0, 1, _BINS))), score)
        place = 2 * place + (score < 0)
        count, total = np.bincount(place).astype(float), np.bincount(place, score)
        here = count > 0
        score, weight = total[here] / count[here], count[here]
    doubted = score < 0
    out = []
    for drawn in line.draws(_DRAWS, rng):
        chance = drawn(score)
        hit = _drawn(chance[doubted], weight[doubted], rng) + asked[2]
        wrong = hit + _drawn(chance[~doubted], weight[~doubted], rng) + asked[1] - asked[2]
        out.append((wrong / max(rows, 1), hit / max(flagged, 1), hit / max(wrong, 1e-9)))
    return np.clip(np.array(out), 0.0, 1.0)


def estimated(drawn: Floats) -> Estimate:
    """Mean and 95 % interval of draws."""
    return Estimate(float(drawn.mean()), *np.quantile(drawn, [0.025, 0.975]))


def _drawn(chance: Floats, weight: Floats, rng: np.random.Generator) -> float:
    """How many of ``weight`` rows are wrong, each with its ``chance``: the sum's normal approximation."""
    mean, variance = float((weight * chance).sum()), float((weight * chance * (1 - chance)).sum())
    return float(np.clip(rng.normal(mean, np.sqrt(variance)), 0.0, weight.sum()))
