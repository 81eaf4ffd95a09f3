"""The judge of labels: fitted once on (a sample of) out-of-sample probabilities and given labels, then asked about any rows.

Nothing here sees a true label but those that an expert has answered. What is fitted is small and kept as JSON, so
that tomorrow's batch is judged without fitting again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from labelwright.auditing.evidence import DENSE, Evidence, Narrow, content_order, exact_content, row_content, wide
from labelwright.auditing.hypotheses import Hypothesis, hard_labels, hard_rows
from labelwright.auditing.second_look import SecondLook
from labelwright.errors import SettingsError
from labelwright.types import NO_LABEL, Floats, Ints

FIT_ROWS = 16_384
_PRIOR = (0.4, 0.6)
_SUSPECT = 0.3
_RARE = 30.0
_MOST_LIFT = 3.0
_LEAST = 1e-9
_FORMAT = 1
_LEAST_ROWS = 20


@dataclass(frozen=True)
class Line:
    """P(label wrong) from the score: ``1 / (1 + exp(level + slope * score))``, with the covariance of both numbers."""

    level: float
    slope: float
    covariance: Floats

    def __call__(self, score: Floats) -> Floats:
        """(n,) probabilities."""
        return _sigmoid(-(self.level + self.slope * score))

    def draws(self, count: int, rng: np.random.Generator) -> list[Line]:
        """Lines as they might also be, for intervals."""
        found = rng.multivariate_normal([self.level, self.slope], self.covariance, size=count)
        return [Line(float(a), max(float(b), 0.05), self.covariance) for a, b in found]


@dataclass(frozen=True)
class Judged:
    """Rows, judged.

    score: (n,) float32 log-odds that the given label is right, 0 on the decision line; lower is worse.
    wrong: (n,) probability that the given label is wrong, averaged over both readings. wrong_by: the same by each
    reading alone. predicted: (n,) likeliest class; for a doubted row the likeliest class but the given one.
    probability: (n,) of ``predicted``. shares: posterior of each reading, over the evidence's columns.
    """

    score: Floats
    wrong: Floats
    wrong_by: tuple[Floats, Floats]
    predicted: Ints
    probability: Floats
    shares: tuple[Floats, Floats]


@dataclass(frozen=True)
class Judge:
    """What was fitted. weight: of the reading *hard rows*. line: turns scores into probabilities. cut: log-odds of the
    decision line. offset: (K,) lift of rare classes. rows: how many it was fitted on."""

    second: SecondLook | None
    readings: tuple[Hypothesis, Hypothesis]
    weight: float
    cut: float
    line: Line
    offset: Floats
    rows: int

    @property
    def classes(self) -> int:
        """K."""
        return len(self.offset)

    @staticmethod
    def fitted(proba: Floats, given: Ints, known: Ints, counts: Ints, *, seed: int = 0) -> tuple[Judge, Floats | None]:
        """The judge of few classes, and the second look at the rows it was fitted on, without their own labels.

        proba: (n, K) float32 out-of-sample. given: (n,) labels. known: (n,) settled class, or NO_LABEL.
        counts: (K,) labels of each class in the whole data. seed: chooses the landmarks.
        """
        certainty = proba[np.arange(len(given)), given]
        order = content_order(row_content(proba, given), exact_content(proba, given, known), seed)
        proba, given, known = proba[order], given[order], known[order]
        offset = rare_lift(certainty[order], given, counts)
        second, left_out = None, None
        if len(given) >= _LEAST_ROWS:
            second, left_out = SecondLook.fitted(proba, np.where(known == NO_LABEL, given, known))
        judge = Judge._from(wide(proba, given, offset, left_out), known, offset, second)
        if left_out is None:
            return judge, None
        back = np.empty_like(left_out)
        back[order] = left_out
        return judge, back

    @staticmethod
    def fitted_narrow(narrow: Narrow, given: Ints, known: Ints, counts: Ints, *, seed: int = 0) -> Judge:
        """The judge of many classes, from the given class and the likeliest other; there is no second look."""
        order = content_order(narrow.content(given, len(counts)), narrow.exact(given, known), seed)
        narrow, given, known = narrow.take(order), given[order], known[order]
        offset = rare_lift(narrow.own, given, counts)
        return Judge._from(narrow.evidence(given, offset), known, offset, None)

    @staticmethod
    def _from(seen: Evidence, known: Ints, offset: Floats, second: SecondLook | None) -> Judge:
        readings = (hard_rows(seen, known, len(offset)), hard_labels(seen, known, len(offset)))
        weight = _weight(seen, readings, known)
        flat = Judge(second, readings, weight, 0.0, Line(0.0, 1.0, np.eye(2)), offset, len(seen))
        return flat._with_line(seen, known)

    def evidence(self, proba: Floats, given: Ints, left_out: Floats | None = None) -> Evidence:
        """What is known of rows: ``left_out`` in place of the second look for those that it was fitted on."""
        if proba.shape[1] > DENSE:
            return Narrow.of(proba, given).evidence(given, self.offset)
        if left_out is None and self.second is not None:
            left_out = self.second(proba)
        return wide(proba, given, self.offset, left_out)

    def judged(self, seen: Evidence) -> Judged:
        """Judge rows."""
        shares = (self.readings[0].posterior(seen), self.readings[1].posterior(seen))
        w = np.float32(self.weight)
        wrong_by = (seen.others(shares[0]), seen.others(shares[1]))
        right = w * seen.at_own(shares[0]) + (1 - w) * seen.at_own(shares[1])
        wrong = w * wrong_by[0] + (1 - w) * wrong_by[1]
        score = raw_score(right, wrong, seen, self.offset) - np.float32(self.cut)
        belief = w * shares[0] + (1 - w) * shares[1]
        doubted = np.flatnonzero(score < 0)
        ranked = belief
        if len(doubted):
            ranked = belief.copy()
            ranked[doubted, seen.own[doubted]] = -1.0
        column = ranked.argmax(axis=1)
        probability = belief[np.arange(len(seen)), column]
        return Judged(score, wrong, wrong_by, seen.class_of(column), probability, shares)

    def _with_line(self, seen: Evidence, known: Ints) -> Judge:
        """Where the line between doubted and not runs, and what a score means in probability."""
        told = self.judged(seen)
        raw, wrong = told.score.astype(float), told.wrong.astype(float)
        prior = _fitted_line(raw, wrong, np.zeros(2), np.diag([25.0, 25.0]), weight=1.0)
        asked = np.flatnonzero(known != NO_LABEL)
        spread = np.diag([1.5, 0.5]) ** 2
        if not len(asked):
            cut = _midpoint(np.sort(raw), int((wrong > _SUSPECT).sum()))
            return replace(self, cut=cut, line=Line(prior.level + prior.slope * cut, prior.slope, spread))
        mistaken = (known[asked] != seen.given[asked]).astype(float)
        line = _fitted_line(raw[asked], mistaken, np.array([prior.level, prior.slope]), spread, weight=1.0)
        ranked = np.sort(raw)
        chance = line(ranked)
        gain = 2 * np.cumsum(chance) / (np.arange(1, len(chance) + 1) + chance.sum())
        best = int(gain.argmax()) + 1 if chance[0] > 0.05 else 0
        cut = _midpoint(ranked, best)
        turn = np.array([[1.0, cut], [0.0, 1.0]])
        covariance = turn @ line.covariance @ turn.T
        return replace(self, cut=cut, line=Line(line.level + line.slope * cut, line.slope, covariance))

    def state(self) -> dict[str, Any]:
        """JSON values that :meth:`restored` needs."""
        return {
            "format": _FORMAT,
            "second": None if self.second is None else self.second.state(),
            "readings": [reading.state() for reading in self.readings],
            "weight": self.weight,
            "cut": self.cut,
            "line": [self.line.level, self.line.slope, self.line.covariance.tolist()],
            "offset": self.offset.astype(float).tolist(),
            "rows": self.rows,
        }

    @staticmethod
    def restored(state: Mapping[str, Any]) -> Judge:
        """As it was when :meth:`state` was called. Raises SettingsError when it cannot be read."""
        try:
            if state["format"] != _FORMAT:
                raise SettingsError(f"the audit's state has format {state['format']}, expected {_FORMAT}; audit again")
            level, slope, covariance = state["line"]
            first, second = (Hypothesis.restored(reading) for reading in state["readings"])
            return Judge(
                None if state["second"] is None else SecondLook.restored(state["second"]),
                (first, second),
                float(state["weight"]),
                float(state["cut"]),
                Line(float(level), float(slope), np.array(covariance, float)),
                np.array(state["offset"], np.float32),
                int(state["rows"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, SettingsError):
                raise
            raise SettingsError(f"this is no state of an audit ({error!r}); write one with --state") from error


def rare_lift(certainty: Floats, given: Ints, counts: Ints) -> Floats:
    """(K,) float32 lift, in nats, of classes with so few rows that a model hardly dares to predict them.

    How much less sure of its own rows the model is in a class than overall, at most 3; the weight of the lift falls
    with the rows of the class (half at 30), so large classes are left as they are.
    certainty: (n,) probability of each given label. counts: (K,) labels of each class in the whole data.
    """
    k = len(counts)
    own = certainty.astype(float)
    rows = np.bincount(given, minlength=k)
    mean = np.bincount(given, own, minlength=k) / np.maximum(rows, 1)
    overall = float(own.mean()) if len(own) else 1.0
    gap = np.log(overall + 1e-9) - np.log(np.maximum(mean, 1e-6))
    lift = np.clip(gap, 0.0, _MOST_LIFT) * _RARE / (_RARE + counts)
    return np.where((rows > 0) & (counts < 10 * _RARE), lift, 0.0).astype(np.float32)


def _weight(seen: Evidence, readings: tuple[Hypothesis, Hypothesis], known: Ints) -> float:
    """Weight of the reading *hard rows* after the answers: Bayes' rule over the two."""
    settled = np.flatnonzero(known != NO_LABEL)
    odds = np.log(_PRIOR[0] / _PRIOR[1])
    if len(settled):
        asked = seen.take(settled)
        wanted = known[settled, None]
        columns = wanted == (np.arange(asked.first.shape[1])[None, :] if asked.classes is None else asked.classes)
        first, second = (np.maximum((r.posterior(asked) * columns).sum(axis=1), 0.01) for r in readings)
        odds += float(np.log(first / second).sum())
    return float(np.clip(_sigmoid(np.array(odds)), 0.02, 0.98))


def _fitted_line(score: Floats, wrong: Floats, centre: Floats, spread: Floats, *, weight: float) -> Line:
    """Logistic regression of ``wrong`` (0 to 1) on a score, with a normal prior on (level, slope) of right."""
    precision = np.linalg.inv(spread)
    x = centre.copy() if centre.any() else np.array([0.0, 1.0])
    design = np.stack([np.ones(len(score)), score], axis=1)
    for _ in range(25):
        chance = _sigmoid(design @ x)
        slope = weight * design.T @ ((1 - wrong) - chance) - precision @ (x - centre)
        bend = weight * (design * (chance * (1 - chance))[:, None]).T @ design + precision
        step = np.clip(np.linalg.solve(bend, slope), -2.0, 2.0)
        x = x + step
        if np.abs(step).max() < 1e-6:
            break
    chance = _sigmoid(design @ x)
    bend = weight * (design * (chance * (1 - chance))[:, None]).T @ design + precision
    return Line(float(x[0]), float(max(x[1], 0.05)), np.linalg.inv(bend))


def _midpoint(ranked: Floats, count: int) -> float:
    """A value between the ``count`` lowest and the rest."""
    if not len(ranked):
        return 0.0
    if count <= 0:
        return float(ranked[0] - 1.0)
    if count >= len(ranked):
        return float(ranked[-1] + 1.0)
    return float((ranked[count - 1] + ranked[count]) / 2)


def raw_score(right: Floats, wrong: Floats, seen: Evidence, offset: Floats) -> Floats:
    """(n,) float32 log-odds that labels are right: two parts posterior, one part the model's own word; the mean of both
    ranks better than either.

    right, wrong: (n,) posterior of the given label, and of all others together. offset: (K,) lift of rare classes.
    """
    plain = _log_odds(seen.certainty, seen.rest) + offset[seen.given]
    return (2 * _log_odds(right, wrong) + plain) / 3


def _log_odds(right: Floats, wrong: Floats) -> Floats:
    least = np.float32(_LEAST)
    out: Floats = np.log(np.maximum(right, least)) - np.log(np.maximum(wrong, least))
    return out


def _sigmoid(x: Floats) -> Floats:
    return 0.5 * (1 + np.tanh(0.5 * x))
