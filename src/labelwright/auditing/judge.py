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
from labelwright.types import NO_LABEL, Bools, Floats, Ints

FIT_ROWS = 16_384
_PRIOR = (0.4, 0.6)
_SUSPECT = 0.25
_RARE = 30.0
_MOST_LIFT = 3.0
_LEAST = 1e-9
_FORMAT = 1
_LEAST_ROWS = 20
_LEAST_SLOPE = 0.05
_FAR = 8
_MISTRUST = 2.0
_REACH = 4.0
_BEYOND_CHANCE = 0.95
_DRAWS = 200
_TIE = 0.01


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
        return [Line(float(a), max(float(b), _LEAST_SLOPE), self.covariance) for a, b in found]


@dataclass(frozen=True)
class Curve:
    """P(label wrong) from the score, after answers: ``1 / (1 + exp(values))`` at the ``knots`` (d,), on straight lines in between and
    level beyond, with the covariance (d, d) of the values."""

    knots: Floats
    values: Floats
    covariance: Floats

    def __call__(self, score: Floats) -> Floats:
        """(n,) probabilities."""
        return _sigmoid(-np.interp(score, self.knots, self.values))

    def draws(self, count: int, rng: np.random.Generator) -> list[Curve]:
        """Curves as they might also be, for intervals."""
        root = np.linalg.cholesky(self.covariance)
        found = self.values + rng.standard_normal((count, len(root))) @ root.T
        return [Curve(self.knots, values, self.covariance) for values in found]


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
    line: Line | Curve
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
        order = content_order(row_content(proba, given, known), exact_content(proba, given, known), seed)
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
        order = content_order(narrow.content(given, len(counts), known), narrow.exact(given, known), seed)
        narrow, given, known = narrow.take(order), given[order], known[order]
        offset = rare_lift(narrow.own, given, counts)
        return Judge._from(narrow.evidence(given, offset), known, offset, None)

    @staticmethod
    def _from(seen: Evidence, known: Ints, offset: Floats, second: SecondLook | None) -> Judge:
        floor = second.floor if second is not None else 0.0
        readings = (hard_rows(seen, known, len(offset), floor), hard_labels(seen, known, len(offset)))
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
        prior = _fitted_line(raw, wrong)
        ranked = np.sort(raw)
        whole = _whole_ties(ranked)
        count = int((wrong > _SUSPECT).sum())
        usual = int(whole[np.abs(whole - count).argmin()])
        asked = np.flatnonzero(known != NO_LABEL)
        if not len(asked):
            cut = _midpoint(ranked, usual)
            spread = np.diag([1.5, 0.5]) ** 2
            return replace(self, cut=cut, line=Line(prior.level + prior.slope * cut, prior.slope, spread))
        curve = _fitted_curve(raw[asked], known[asked] == seen.given[asked], prior)
        cut = _midpoint(ranked, _best_count(ranked, whole, usual, curve))
        return replace(self, cut=cut, line=Curve(curve.knots - cut, curve.values, curve.covariance))

    def state(self) -> dict[str, Any]:
        """JSON values that :meth:`restored` needs."""
        return {
            "format": _FORMAT,
            "second": None if self.second is None else self.second.state(),
            "readings": [reading.state() for reading in self.readings],
            "weight": self.weight,
            "cut": self.cut,
            "line": _line_state(self.line),
            "offset": self.offset.astype(float).tolist(),
            "rows": self.rows,
        }

    @staticmethod
    def restored(state: Mapping[str, Any]) -> Judge:
        """As it was when :meth:`state` was called. Raises SettingsError when it cannot be read."""
        try:
            if state["format"] != _FORMAT:
                raise SettingsError(f"the audit's state has format {state['format']}, expected {_FORMAT}; audit again")
            first, second = (Hypothesis.restored(reading) for reading in state["readings"])
            if not isinstance(state["offset"], list):
                raise TypeError("offset is no list")
            return Judge(
                None if state["second"] is None else SecondLook.restored(state["second"]),
                (first, second),
                float(state["weight"]),
                float(state["cut"]),
                _line_restored(state["line"]),
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


def _fitted_line(score: Floats, wrong: Floats) -> Line:
    """Logistic regression of ``wrong`` (0 to 1) on a score, with a wide normal prior on (level, slope) of right."""
    design = np.stack([np.ones(len(score)), score], axis=1)
    x, covariance = _logistic(design, 1 - wrong, np.zeros(2), np.eye(2) / 25.0)
    return Line(float(x[0]), float(max(x[1], _LEAST_SLOPE)), covariance)


def _fitted_curve(score: Floats, right: Bools, prior: Line) -> Curve:
    """What answers say of the scores near theirs; elsewhere the curve is ``prior``, which holds no row for surer than ``_FAR``.

    A Gaussian process over log-odds about the prior, that a deviation ``_MISTRUST`` wide may leave, and forgets over ``_REACH``.
    Answers are seldom about rows drawn at random: those about the most doubtful rows tell how wrong these are, not where
    doubt should end. So no answer may turn a whole line about.
    """
    at = np.arange(-_FAR, _FAR + 1.0)
    place = np.clip(prior.level + prior.slope * score, -_FAR, _FAR)
    design = np.maximum(1 - np.abs(place[:, None] - at), 0.0)
    together = _MISTRUST**2 * np.exp(-np.abs(at[:, None] - at) / _REACH)
    values, covariance = _logistic(design, right.astype(float), at, np.linalg.inv(together))
    return Curve((at - prior.level) / prior.slope, values, covariance)


def _logistic(design: Floats, right: Floats, centre: Floats, precision: Floats) -> tuple[Floats, Floats]:
    """(d,) coefficients of a logistic regression of ``right`` (0 to 1) with a normal prior, and their covariance.

    Newton's steps are halved until the posterior rises: where scores lie far from 0 (coarse probabilities) whole ones leap to and
    fro for ever.
    """

    def loss(x: Floats) -> float:
        at, off = design @ x, x - centre
        return float((np.logaddexp(0.0, at) - right * at).sum() + 0.5 * off @ precision @ off)

    x = centre.copy()
    value = loss(x)
    for _ in range(100):
        chance = _sigmoid(design @ x)
        bend = (design * (chance * (1 - chance))[:, None]).T @ design + precision
        step = np.linalg.solve(bend, design.T @ (right - chance) - precision @ (x - centre))
        while np.abs(step).max() > 1e-9 and not (tried := loss(x + step)) < value:
            step = step / 2
        if np.abs(step).max() <= 1e-9:
            break
        x, value = x + step, tried
    chance = _sigmoid(design @ x)
    return x, np.linalg.inv((design * (chance * (1 - chance))[:, None]).T @ design + precision)


def _whole_ties(ranked: Floats) -> Ints:
    """How many of the lowest may be doubted, 0 to n, in ascending order: scores ``ranked`` (n,) that are equal but for rounding are
    doubted together or not at all. They are taken for equal within a hundredth of the mean step."""
    n = len(ranked)
    if not n:
        return np.zeros(1, np.int64)
    least = 4 * float(np.finfo(np.float32).eps) * float(np.abs(ranked).max())
    apart = np.diff(ranked) > max(_TIE * (ranked[-1] - ranked[0]) / n, least)
    return np.r_[0, np.flatnonzero(apart) + 1, n]


def _best_count(ranked: Floats, whole: Ints, usual: int, curve: Curve) -> int:
    """How many of the lowest scores ``ranked`` (n,) to doubt: as many as give the best expected F1, if that is better than the
    ``usual`` number for nearly all the curves that the answers leave possible. None where none is likely to be wrong.

    whole: the numbers that come into question, see :func:`_whole_ties`.
    """
    chance = curve(ranked)
    if chance.max() <= 0.05:
        return 0

    def gain(chance: Floats, count: Ints) -> Floats:
        found = np.r_[0.0, np.cumsum(chance)]
        return 2 * found[count] / (count + found[-1])

    expected = gain(chance, whole)
    best = int(whole[expected >= (1 - 1e-6) * expected.max()][0])
    if best == usual:
        return usual
    both = np.array([best, usual])
    gains = np.array([gain(drawn(ranked), both) for drawn in curve.draws(_DRAWS, np.random.default_rng(0))])
    return best if (gains[:, 0] > gains[:, 1]).mean() > _BEYOND_CHANCE else usual


def _line_state(line: Line | Curve) -> list[Any]:
    if isinstance(line, Line):
        return [line.level, line.slope, line.covariance.tolist()]
    return [line.knots.tolist(), line.values.tolist(), line.covariance.tolist()]


def _line_restored(state: list[Any]) -> Line | Curve:
    first, second, covariance = state
    if isinstance(first, list):
        return Curve(np.array(first, float), np.array(second, float), np.array(covariance, float))
    return Line(float(first), float(second), np.array(covariance, float))


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
