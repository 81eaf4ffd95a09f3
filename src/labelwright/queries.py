"""Which rows to ask about: measures (functions) and budgets (objects with ``choose`` and ``spent``).

A measure is ``(scores, given) -> value``, higher is asked first, where ``scores`` is an (n, K) matrix: the
posterior, or the quality model's decision values for measures marked ``reads_decision``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from labelwright.errors import BudgetError, SettingsError
from labelwright.types import Floats, Ints, Queries, Split

Measure = Callable[[Floats, Ints], Floats]


def _on_decision(measure: Measure) -> Measure:
    measure.reads_decision = True  # type: ignore[attr-defined]
    return measure


@_on_decision
def least_distance(decision: Floats, given: Ints) -> Floats:
    """Distance to the nearest of the K one-vs-rest boundaries, near first (paper, section III-B).

    >>> least_distance(np.array([[2.0, -0.1], [1.0, -1.0]]), np.array([0, 0])).tolist()
    [-0.1, -1.0]
    """
    return -np.abs(decision).min(axis=1)


@_on_decision
def margin(decision: Floats, given: Ints) -> Floats:
    """Best minus second-best score, small first (the paper's future work; methods section 3).

    >>> margin(np.array([[2.0, 1.5, 0.0], [3.0, 0.0, 0.0]]), np.array([0, 0])).tolist()
    [-0.5, -3.0]
    """
    if decision.shape[1] < 2:
        return np.zeros(len(decision))
    top = np.partition(decision, -2, axis=1)[:, -2:]
    return -(top[:, 1] - top[:, 0])


def entropy(posterior: Floats, given: Ints) -> Floats:
    """Entropy of the posterior in nats, high first.

    >>> entropy(np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([0, 0])).round(3).tolist()
    [0.693, 0.0]
    """
    p = np.clip(posterior, 1e-12, 1.0)
    return np.abs((posterior * np.log(p)).sum(axis=1))


def cent(posterior: Floats, given: Ints) -> Floats:
    """CENT: the most uncertain half of the rows first, among them those whose given label is least likely
    (cross-entropy with the given label; QActor, methods section 3).

    >>> value = cent(np.array([[0.5, 0.5], [0.45, 0.55], [0.99, 0.01], [0.98, 0.02]]), np.array([0, 0, 1, 1]))
    >>> np.argsort(-value).tolist()
    [1, 0, 2, 3]
    """
    if len(given) == 0:
        return np.empty(0)
    surprise = -np.log(np.clip(posterior[np.arange(len(given)), given], 1e-12, 1.0))
    doubt = entropy(posterior, given)
    uncertain = doubt >= np.median(doubt)
    return surprise + np.where(uncertain, 100.0, 0.0)


def random(seed: int) -> Measure:
    """A measure that asks at random, the same way for the same rows.

    >>> random(0)(np.zeros((3, 2)), np.zeros(3, int)).shape
    (3,)
    """

    def value(scores: Floats, given: Ints) -> Floats:
        return np.random.default_rng([seed, len(given), int(np.abs(scores).sum() * 1e6) % 2**32]).random(len(given))

    value.__name__ = "random"
    return value


class Budget(Protocol):
    """What the loop needs of a budget."""

    spent: int

    def choose(self, split: Split) -> Queries:
        """The rows to ask about. Pure: spends nothing."""

    def value(self, split: Split) -> Floats:
        """(n,) how much asking about each row of the split is worth."""

    def update(self, queries: Queries, split: Split) -> None:
        """The queries were put: count them."""

    def state(self) -> dict[str, Any]:
        """What :meth:`restore` needs."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """As it was when :meth:`state` was called."""


class FixedBudget:
    """Ask the same number of questions in every batch (paper, section III-B).

    per_batch: questions a batch, >= 0. total: never more than this in all (None: no limit).
    measure: see the module. among: "suspicious" rows only, or "all" rows of the batch.
    candidates: ask only while the rows qualify; unspent questions are not carried over.

    >>> budget = FixedBudget(5, total=90)
    >>> budget.spent
    0
    """

    def __init__(
        self, per_batch: int, *, total: int | None = None, measure: Measure = margin, among: str = "suspicious"
    ):
        if per_batch < 0 or (total is not None and total < 0):
            raise SettingsError(f"a budget of {per_batch} a batch and {total} in all is negative; give 0 or more")
        if among not in ("suspicious", "all"):
            raise SettingsError(f"among={among!r} is unknown; expected 'suspicious' or 'all'")
        self.per_batch, self.total, self.measure, self.among = per_batch, total, measure, among
        self.spent = 0

    @property
    def left(self) -> int | None:
        """Questions left, or None without a limit."""
        return None if self.total is None else self.total - self.spent

    def allowance(self, split: Split) -> int:
        """How many questions this batch may have, before the total is considered."""
        return self.per_batch

    def choose(self, split: Split) -> Queries:
        """The most valuable rows of the split, at most what is allowed. Pure."""
        count = self.allowance(split)
        if self.total is not None:
            count = min(count, self.total - self.spent)
        pool = np.flatnonzero(split.suspicious if self.among == "suspicious" else ~split.clean)
        count = min(count, len(pool))
        if count <= 0:
            return Queries.none(split.rows.X.shape[1])
        value = self._valued(split, pool)
        best = np.argsort(-value, kind="stable")[:count]
        chosen = pool[best]
        return queries_at(split, chosen, value[best], getattr(self.measure, "__name__", "measure"))

    def value(self, split: Split) -> Floats:
        """(n,) by the measure, of each row of the split."""
        return self._valued(split, np.arange(len(split)))

    def _valued(self, split: Split, pool: Ints) -> Floats:
        scores = split.decision if getattr(self.measure, "reads_decision", False) else split.posterior
        return np.asarray(self.measure(scores[pool], split.given[pool]), float)

    def update(self, queries: Queries, split: Split) -> None:
        """Count the questions that were put. Raises BudgetError past the total."""
        self.spent += len(queries)
        if self.total is not None and self.spent > self.total:
            raise BudgetError(
                f"{self.spent} questions were put but the budget is {self.total}; nothing was asked twice"
            )

    def state(self) -> dict[str, Any]:
        """What :meth:`restore` needs."""
        return {"spent": self.spent}

    def restore(self, state: Mapping[str, Any]) -> None:
        """As it was when :meth:`state` was called."""
        self.spent = int(state["spent"])


class DynamicBudget(FixedBudget):
    """Spend a total over the stream, faster while the models become unsure (QActor, methods section 3).

    ``o(t) = o(t-1) * (1 - (H(t-2) - H(t-1)) / H(t-1))`` with H the mean predictive entropy over the rows that train
    the models; clamped to [0, what is left]. Unspent questions are carried over. total: questions in all.
    batches: how many batches are expected, without those that are all clean; the first allowance is total / batches.

    >>> DynamicBudget(90, batches=18).rate
    5.0
    """

    def __init__(self, total: int, *, batches: int, measure: Measure = margin, among: str = "suspicious"):
        if batches < 1:
            raise SettingsError(f"a dynamic budget over {batches} batches is impossible; give 1 or more")
        super().__init__(0, total=total, measure=measure, among=among)
        self.rate = total / batches
        self.carried = 0.0
        self.entropies: tuple[float, ...] = ()

    def allowance(self, split: Split) -> int:
        """The present rate plus what earlier batches left unspent, whole questions."""
        return int(np.floor(self.carried + self.rate + 1e-9))

    def update(self, queries: Queries, split: Split) -> None:
        """Count what was put, carry over what was not, and set the rate of the next batch."""
        super().update(queries, split)
        if len(split) and split.clean.all():
            return  # nobody can be asked about D0: it is none of the expected batches
        self.carried = self.carried + self.rate - len(queries)
        kept = split.kept & ~split.clean
        if not kept.any():
            return
        now = float(entropy(split.proba[kept], split.given[kept]).mean())
        self.entropies = (*self.entropies, now)[-2:]
        if len(self.entropies) == 2 and self.entropies[1] > 0:
            before, last = self.entropies
            self.rate = float(np.clip(self.rate * (1 - (before - last) / last), 0.0, self.left or 0))

    def state(self) -> dict[str, Any]:
        """What :meth:`restore` needs."""
        return {**super().state(), "rate": self.rate, "carried": self.carried, "entropies": list(self.entropies)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """As it was when :meth:`state` was called."""
        super().restore(state)
        self.rate, self.carried = float(state["rate"]), float(state["carried"])
        self.entropies = tuple(state["entropies"])


def queries_at(split: Split, positions: Ints, value: Floats, why: str) -> Queries:
    """Queries for the rows at ``positions`` of a split."""
    believed = split.posterior[positions]
    top = believed.argmax(axis=1)
    return Queries(split.rows.take(positions), value, top, believed[np.arange(len(top)), top], why)
