"""One site between two exchanges: learn from its own rows, take in what the others know, judge its labels. No network here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from labelwright.posterior import NoiseModel
from labelwright.sites.model import learned, pairs, shares, softmax
from labelwright.sites.plan import Plan
from labelwright.sites.privacy import COUNTS, GRADIENT
from labelwright.sites.robust import outliers, rule
from labelwright.sites.statistics import Statistics
from labelwright.types import NO_LABEL, Batch, Bools, Corrections, Floats, Ints, Rows, Split, Verdict

FAR = 10.0  # times the median distance: set aside before the others are put together
EM = 3
SETTLED = 10


@dataclass(frozen=True)
class Shared:
    """What all sites know together besides the weights: medians over the sites, so that one liar cannot move them far.

    wrong: share of wrong labels. threshold: (K,) usual probability of a trusted label, by class. classes: (K,) shares.
    """

    wrong: float
    threshold: Floats
    classes: Floats

    @staticmethod
    def unknown(classes: int) -> Shared:
        """Before anything was heard."""
        return Shared(0.2, np.full(classes, 0.5), np.full(classes, 1 / classes))

    @staticmethod
    def of(heard: list[Statistics], before: Shared) -> Shared:
        """Medians of what the sites say.

        >>> both = [Statistics(np.zeros((1, 2)), np.eye(2), np.ones(2), np.full(2, 2.0), np.ones(2))] * 2
        >>> Shared.of(both, Shared.unknown(2)).threshold.tolist()
        [0.5, 0.5]
        """
        wrong = [one.wrong for one in heard if np.isfinite(one.wrong)]
        ratios = np.array([np.where(s.trusted > 0, s.sure / np.maximum(s.trusted, 1e-9), np.nan) for s in heard])
        known = np.isfinite(ratios).any(axis=0) if len(heard) else np.zeros(len(before.threshold), bool)
        threshold = before.threshold.copy()
        if known.any():
            threshold[known] = np.clip(np.nanmedian(ratios[:, known], axis=0), 0.0, 1.0)
        classes = shares(np.median([shares(s.classes) for s in heard], axis=0)) if heard else before.classes
        rate = float(np.clip(np.median(wrong), 0.01, 0.6)) if wrong else before.wrong
        return Shared(rate, threshold, classes)


class Site:
    """A site's rows and what it knows.

    X: (n, width) encoded rows. given: (n,) their labels. clean: (n,) True where the owner vouches. rng: of the privacy noise.
    weights: (columns, K) of the shared model. noise: how labels go wrong *here*. round: exchanges done so far.
    """

    def __init__(self, plan: Plan, X: Floats, given: Ints, *, clean: Bools | None = None, seed: int = 0):
        self.plan, self.given = plan, np.asarray(given, np.int64)
        self.F = plan.make_features()(X)
        self.known = np.where(clean, self.given, NO_LABEL) if clean is not None else np.full(len(given), NO_LABEL)
        self.rng = np.random.default_rng([plan.seed, seed, 13])
        self.weights: Floats = np.zeros((plan.shape.columns, plan.shape.classes), np.float32)
        self.noise = NoiseModel.start(plan.shape.classes)
        self.shared = Shared.unknown(plan.shape.classes)
        self.round = 0

    def proba(self, F: Floats) -> Floats:
        """(n, K) of rows of features."""
        return softmax(F @ self.weights)

    def learn(self) -> Statistics:
        """Some steps from the shared weights on the own rows, through the own noise matrix. The site's word in this round."""
        plan = self.plan
        if self.round >= plan.warm:
            self.noise = self._noise()
        noisy = None
        if plan.noise > 0:
            noisy = (plan.noise * GRADIENT, self.rng)
        weights = learned(
            self.weights, self.F, self.given, replace(self.noise, temperature=1.0), self.known,
            steps=plan.steps, rate=plan.rate, decay=plan.decay, noisy=noisy,
        )  # fmt: skip
        sure, trusted = self._sure() if plan.noise == 0 else (np.zeros(plan.shape.classes),) * 2
        counts = self.noise.counts
        scale = 1 / max(len(self.given), 1) if plan.secure else 1.0  # so that a masked sum never overflows
        told = [counts * scale, sure * scale, trusted * scale, counts.sum(axis=1) * scale]
        return Statistics(np.clip(weights, -plan.limit, plan.limit), *told)

    def _noise(self) -> NoiseModel:
        """Expectation-maximisation of the noise matrix under the shared model; with privacy, one noisy step of it."""
        proba, noise = self.proba(self.F), replace(self.noise, prior_rate=self.shared.wrong)
        if self.plan.noise == 0:
            empty = np.zeros_like(noise.counts)
            begun = replace(noise, counts=empty, answered=empty)
            return begun.updated(proba, self.given, self.known, rounds=EM)
        counts = pairs(noise.believed(proba, self.given, self.known), self.given)
        drawn = self.rng.standard_normal(counts.shape)
        return replace(noise, counts=np.maximum(counts + self.plan.noise * COUNTS * drawn, 0.0))

    def _sure(self) -> tuple[Floats, Floats]:
        """(summed probability of the label, number of rows) by class, over the rows whose label is believed."""
        proba = self.proba(self.F)
        agrees = self.noise.believed(proba, self.given, self.known).argmax(axis=1) == self.given
        own = proba[np.arange(len(self.given)), self.given]
        k = self.plan.shape.classes
        return (
            np.bincount(self.given[agrees], own[agrees], minlength=k).astype(float),
            np.bincount(self.given[agrees], minlength=k).astype(float),
        )

    def combine(self, heard: Mapping[str, Statistics]) -> list[str]:
        """Take in what was said in this round, the own word among it. Returns the names that were too far off to be used."""
        self.weights, self.shared, far = combined(heard, self.weights, self.shared, self.plan)
        self.round += 1
        return far

    def settle(self) -> None:
        """After the last exchange: the own noise matrix under the model as it is now, which a site that came back late has
        not learned with. It stays here, so nothing is added for privacy."""
        empty = np.zeros_like(self.noise.counts)
        begun = replace(self.noise, counts=empty, answered=empty, prior_rate=self.shared.wrong)
        self.noise = begun.updated(self.proba(self.F), self.given, self.known, rounds=SETTLED)

    def judge(self, batch: Batch, *, correct: float = 0.9) -> tuple[Split, Corrections]:
        """A verdict on each label by the shared model and the own noise matrix.

        A label is trusted where the posterior agrees with it. Another one is put in its place where that has a posterior of
        at least ``correct`` and the model is as sure of it as it usually is of trusted labels of that class at all sites
        (class-wise thresholds as in confident learning: Northcutt, Jiang, Chuang, JAIR 2021). The rest is rejected.
        """
        F = self.plan.make_features()(batch.X)
        proba = self.proba(F)
        settled = np.where(batch.clean, batch.given, NO_LABEL)
        posterior = self.noise.believed(proba, batch.given, settled)
        best = posterior.argmax(axis=1)
        at = np.arange(len(batch))
        verdict = np.where(best == batch.given, int(Verdict.TRUSTED), int(Verdict.REJECTED))
        deciders: dict[int, str] = {Verdict.TRUSTED: "sites' model", Verdict.REJECTED: "sites' model"}
        split = Split(batch.rows, verdict, batch.given, batch.clean, proba, proba, self.noise, deciders, self.told())
        sure = (best != batch.given) & (posterior[at, best] >= correct)
        sure &= proba[at, best] >= self.shared.threshold[best]
        rows = Rows(batch.X[sure], best[sure], batch.keys[sure])
        return split, Corrections(rows, posterior[sure, best[sure]], by="sites' model and own noise matrix")

    def told(self) -> str:
        """How the labels were judged, for the ledger."""
        names = self.plan.learners
        return (
            f"judged by the model that {len(names)} sites learned together in {self.round} rounds (plan "
            f"{self.plan.digest[:12]}, {self.plan.aggregate}), and by this site's own noise matrix; no row left the site"
        )

    def state(self) -> dict[str, Any]:
        """What :meth:`restore` needs. The privacy noise is drawn from where it stopped: no draw is used twice."""
        shared = {"wrong": self.shared.wrong, "threshold": self.shared.threshold, "classes": self.shared.classes}
        return {
            "round": self.round,
            "weights": self.weights,
            "noise": self.noise.state(),
            "prior_rate": self.noise.prior_rate,
            "shared": shared,
            "rng": self.rng.bit_generator.state,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """As it was."""
        self.round, self.weights = int(state["round"]), np.asarray(state["weights"], np.float32)
        self.noise = replace(self.noise.restored(state["noise"]), prior_rate=float(state["prior_rate"]))
        told = state["shared"]
        self.shared = Shared(float(told["wrong"]), np.asarray(told["threshold"]), np.asarray(told["classes"]))
        self.rng.bit_generator.state = state["rng"]


def combined(
    heard: Mapping[str, Statistics], weights: Floats, shared: Shared, plan: Plan
) -> tuple[Floats, Shared, list[str]]:
    """(weights, shared knowledge, names too far off) after what was said; unchanged when nothing was."""
    names = sorted(heard)
    if not names:
        return weights, shared, []
    vectors = np.stack([np.ravel(heard[name].weights) for name in names])
    far = [names[at] for at in outliers(vectors, np.ravel(weights), factor=FAR)]
    kept = [name for name in names if name not in far]
    vectors = np.stack([np.ravel(heard[name].weights) for name in kept])
    fresh = rule(plan.aggregate)(vectors).reshape(weights.shape)
    return np.asarray(fresh, np.float32), Shared.of([heard[name] for name in kept], shared), far
