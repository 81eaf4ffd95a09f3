"""Which label is true, and how sure are we?  P(true | features, given), from a noise matrix and a temperature.

Everything is kept in K x K memory, so a stream of any length fits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np

from labelwright.types import NO_LABEL, Floats, Ints

_TINY = 1e-12
_TEMPERATURES = np.geomspace(0.25, 32.0, 36)
_EM_ROWS = 4000
_FLAT_PULL = 0.05
_SHARP_PULL = 1.0
_MEMORY_PULL = 0.01
_FIRST_TEMPERATURE = 4.0


def normalised(x: Floats) -> Floats:
    """Rows of ``x`` scaled to sum to one; a row of zeros becomes uniform."""
    total = x.sum(axis=1, keepdims=True)
    return np.where(total > 0, x / np.where(total > 0, total, 1.0), 1.0 / x.shape[1])


def wilson(share: Any, rows: Any, level: float = 0.95) -> tuple[Any, Any]:
    """Wilson's interval of shares counted on ``rows``; (0, 1) where there are none.

    >>> low, high = wilson(0.5, 100.0)
    >>> round(float(low), 3), round(float(high), 3)
    (0.404, 0.596)
    """
    z2 = NormalDist().inv_cdf(0.5 + level / 2) ** 2
    n = np.maximum(np.asarray(rows, float), _TINY)
    p = np.asarray(share, float)
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = np.sqrt(z2) / (1 + z2 / n) * np.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return np.clip(middle - half, 0.0, 1.0), np.clip(middle + half, 0.0, 1.0)


def tempered(proba: Floats, temperature: float) -> Floats:
    """(n, K) ``proba ** temperature``, normalised: above 1 sharpens, below 1 flattens.

    >>> tempered(np.array([[0.8, 0.2]]), 2.0).round(3).tolist()
    [[0.941, 0.059]]
    """
    scaled = temperature * np.log(np.clip(proba, _TINY, None))
    scaled -= scaled.max(axis=1, keepdims=True)
    return normalised(np.exp(scaled))


@dataclass(frozen=True)
class NoiseModel:
    """How labels go wrong: counts of (true, given) pairs, and how far to sharpen the models' probabilities.

    counts: (K, K) expected pairs seen so far, ``counts[true, given]``. temperature: > 0.
    answered: (K, K) pairs that an expert or an owner of clean rows has settled.

    Methods section 5: ``P(y=k | x, given) ∝ p_k(x)^temperature * transition[k, given]``.

    >>> noise = NoiseModel.start(2)
    >>> noise.transition.round(2).tolist()
    [[0.8, 0.2], [0.2, 0.8]]
    >>> noise.posterior(np.array([[0.5, 0.5]]), np.array([1])).round(2).tolist()
    [[0.2, 0.8]]
    """

    counts: Floats
    answered: Floats
    temperature: float = 1.0
    strength: float = 10.0
    prior_rate: float = 0.2

    @staticmethod
    def start(classes: int, *, strength: float = 10.0, prior_rate: float = 0.2) -> NoiseModel:
        """Nothing seen yet; the prior says ``prior_rate`` of the labels are wrong, weighing ``strength`` rows a class."""
        zero = np.zeros((classes, classes))
        return NoiseModel(zero, zero, strength=strength, prior_rate=prior_rate)

    @property
    def classes(self) -> int:
        """K."""
        return len(self.counts)

    @property
    def _prior(self) -> Floats:
        k = self.classes
        wrong = self.prior_rate if k > 1 else 0.0
        prior = np.full((k, k), wrong / max(k - 1, 1))
        np.fill_diagonal(prior, 1.0 - wrong)
        return self.strength * prior

    @property
    def transition(self) -> Floats:
        """(K, K) ``transition[true, given]``, rows sum to one."""
        return normalised(self.counts + self._prior)

    @property
    def rate(self) -> float:
        """Share of the labels judged so far that are expected to be wrong, 0 to 1."""
        total = self.counts.sum()
        return float(1.0 - np.trace(self.counts) / total) if total > 0 else self.prior_rate

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Interval of :attr:`rate` by the Wilson score on the rows judged so far (model error is not in it)."""
        n = float(self.counts.sum())
        if n <= 0:
            return 0.0, 1.0
        low, high = wilson(self.rate, n, level)
        return float(low), float(high)

    def posterior(self, proba: Floats, given: Ints) -> Floats:
        """(n, K) P(true | features, given) for probabilities (n, K) and given labels (n,)."""
        scaled = self.temperature * np.log(np.clip(proba, _TINY, None))
        scaled += np.log(np.clip(self.transition, _TINY, None)).T[given]
        scaled -= scaled.max(axis=1, keepdims=True)
        return normalised(np.exp(scaled))

    def updated(self, proba: Floats, given: Ints, known: Ints | None = None, *, rounds: int = 40) -> NoiseModel:
        """A new model after a batch, by expectation-maximisation.

        proba: (n, K) out-of-sample probabilities. given: (n,). known: (n,) the true class where an expert or
        the owner has settled it, else :data:`~labelwright.types.NO_LABEL`. Earlier batches weigh by their counts;
        the temperature is chosen by the likelihood of the given labels, never by the truth.
        """
        if len(given) == 0:
            return self
        known = np.full(len(given), NO_LABEL) if known is None else known
        sample = np.linspace(0, len(given) - 1, min(len(given), _EM_ROWS)).astype(int)
        scale = len(given) / len(sample)
        model = self if self.counts.any() else self._first_guess(proba[sample], given[sample])
        for _ in range(rounds):
            share = model.believed(proba[sample], given[sample], known[sample])
            fresh = replace(model, counts=self.counts + scale * _pairs(share, given[sample], self.classes))
            moved = np.abs(fresh.transition - model.transition).max()
            model = replace(fresh, temperature=fresh._better_temperature(proba[sample], given[sample], self))
            if moved < 1e-3 and model.temperature == fresh.temperature:
                break
        share = model.believed(proba, given, known)
        settled = known != NO_LABEL
        return replace(
            model,
            counts=self.counts + _pairs(share, given, self.classes),
            answered=self.answered + _pairs(share[settled], given[settled], self.classes),
        )

    def _first_guess(self, proba: Floats, given: Ints) -> NoiseModel:
        """Where to start without earlier counts: the models' best classes against the given labels, probabilities
        sharpened. From a milder start, EM stays at the prior when there are two classes and much noise."""
        best = np.eye(self.classes)[proba.argmax(axis=1)]
        return replace(self, counts=_pairs(best, given, self.classes), temperature=_FIRST_TEMPERATURE)

    def believed(self, proba: Floats, given: Ints, known: Ints) -> Floats:
        """(n, K) the posterior, one-hot where the true class is known."""
        share = self.posterior(proba, given)
        settled = known != NO_LABEL
        share[settled] = 0.0
        share[settled, known[settled]] = 1.0
        return share

    def settled(self, given: Ints, label: Ints, believed: Floats | None = None) -> NoiseModel:
        """A new model after experts settled rows: their pairs replace what was believed of them, (n, K)."""
        sure = np.zeros((len(given), self.classes))
        sure[np.arange(len(given)), label] = 1.0
        pairs = _pairs(sure, given, self.classes)
        before = 0.0 if believed is None else _pairs(believed, given, self.classes)
        return replace(self, counts=np.clip(self.counts + pairs - before, 0.0, None), answered=self.answered + pairs)

    def _better_temperature(self, proba: Floats, given: Ints, before: NoiseModel) -> float:
        """One step uphill on the likelihood of the given labels, over a grid.

        Flat probabilities and few wrong labels explain the given labels nearly as well as sharp ones and many, so
        below 1 the pull towards 1 grows with the rows: out-of-sample models trained on noisy labels are too unsure,
        seldom too sure. What earlier batches said pulls as their rows weigh, so small batches add up.
        """
        column = self.transition.T[given]
        logp = np.log(np.clip(proba, _TINY, None))
        logp -= logp.max(axis=1, keepdims=True)

        def score(step: int) -> float:
            t = _TEMPERATURES[step]
            p = np.exp(t * logp)
            likelihood = (p * column).sum(axis=1) / p.sum(axis=1)
            pull = _SHARP_PULL if t >= 1 else _FLAT_PULL * len(given)
            drift = _MEMORY_PULL * before.counts.sum() * (np.log(t) - np.log(before.temperature)) ** 2
            return float(np.log(np.clip(likelihood, _TINY, None)).sum() - pull * np.log(t) ** 2 - drift)

        here = int(np.abs(_TEMPERATURES - self.temperature).argmin())
        near = [step for step in (here - 1, here, here + 1) if 0 <= step < len(_TEMPERATURES)]
        return float(_TEMPERATURES[max(near, key=score)])

    def state(self) -> dict[str, Any]:
        """What :meth:`restored` needs."""
        return {"counts": self.counts, "answered": self.answered, "temperature": self.temperature}

    def restored(self, state: Mapping[str, Any]) -> NoiseModel:
        """The model as it was when :meth:`state` was called."""
        return replace(
            self,
            counts=np.asarray(state["counts"]),
            answered=np.asarray(state["answered"]),
            temperature=float(state["temperature"]),
        )


def _pairs(share: Floats, given: Ints, classes: int) -> Floats:
    """(K, K) sum of ``share`` by given label: expected (true, given) pairs."""
    out = np.zeros((classes, classes))
    np.add.at(out.T, given, share)
    return out
