"""Measures on hand-worked matrices; budgets that never exceed their total."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelwright import queries
from labelwright.errors import BudgetError, SettingsError
from labelwright.posterior import NoiseModel
from labelwright.queries import DynamicBudget, FixedBudget
from labelwright.types import Queries, Rows, Split, Verdict

ZERO = np.zeros(3, int)


def split_of(
    verdict: list[int],
    *,
    decision: list[list[float]] | None = None,
    proba: list[list[float]] | None = None,
    clean: bool = False,
) -> Split:
    n = len(verdict)
    p = np.full((n, 2), 0.5) if not proba else np.array(proba)
    rows = Rows(np.zeros((n, 1)), np.zeros(n, np.int64), np.arange(n))
    scores = p if not decision else np.array(decision)
    return Split(rows, np.array(verdict), rows.y, np.full(n, clean), scores, p, NoiseModel.start(p.shape[1]))


def stream_split(suspicious: int, kept: int = 0, entropy_classes: int = 2) -> Split:
    """Kept rows are uniform over ``entropy_classes`` of 4 classes: their entropy is its logarithm."""
    uniform = [1 / entropy_classes] * entropy_classes + [0.0] * (4 - entropy_classes)
    return split_of([4] * suspicious + [0] * kept, proba=[uniform] * (suspicious + kept))


# ---------------------------------------------------------------- measures


def test_least_distance_is_to_the_nearest_boundary_on_either_side() -> None:
    decision = np.array([[-0.3, -2.0, -1.0], [0.2, 1.5, -4.0], [-1.0, 1.0, -1.0]])
    assert queries.least_distance(decision, ZERO).tolist() == [-0.3, -0.2, -1.0]


def test_margin_is_best_minus_second() -> None:
    decision = np.array([[-0.25, -2.0, -1.0], [0.25, 1.5, -4.0], [-1.0, 1.0, 1.0]])
    assert queries.margin(decision, ZERO).tolist() == [-0.75, -1.25, 0.0]
    assert queries.margin(np.ones((3, 1)), ZERO).tolist() == [0, 0, 0]


def test_entropy_in_nats() -> None:
    posterior = np.array([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    np.testing.assert_allclose(queries.entropy(posterior, ZERO), [1.5 * math.log(2), 0, math.log(3)], atol=1e-9)


def test_cent_takes_the_uncertain_first_and_of_them_the_least_likely_label() -> None:
    posterior = np.array([[0.4, 0.6], [0.9, 0.1], [0.5, 0.5], [0.99, 0.01]])
    given_ = np.array([0, 1, 0, 1])
    # entropies .673 .325 .693 .056, median .499: rows 0 and 2 are the uncertain half;
    # -log p(given): .916 2.303 .693 4.605
    value = queries.cent(posterior, given_)
    assert np.argsort(-value).tolist() == [0, 2, 3, 1]
    np.testing.assert_allclose(value % 100, [0.9163, 2.3026, 0.6931, 4.6052], atol=1e-4)
    assert queries.cent(np.empty((0, 2)), np.empty(0, int)).shape == (0,)


def test_random_is_a_function_of_seed_and_rows() -> None:
    scores = np.random.default_rng(0).random((20, 3))
    first, again = (queries.random(7)(scores, np.zeros(20, int)) for _ in range(2))
    assert first.tolist() == again.tolist() and len(set(first)) == 20
    assert queries.random(8)(scores, np.zeros(20, int)).tolist() != first.tolist()


# ---------------------------------------------------------------- fixed budget


def test_fixed_budget_chooses_by_decision_among_suspicious_rows() -> None:
    decision = [[0.0, 0.1], [0.0, 0.5], [0.0, 0.2], [0.0, 0.3]]
    split = split_of([0, 4, 5, 4], decision=decision, proba=[[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.5, 0.5]])
    budget = FixedBudget(2)
    chosen = budget.choose(split)
    assert chosen.rows.keys.tolist() == [2, 3] and chosen.value.tolist() == [-0.2, -0.3] and chosen.why == "margin"
    # posterior of row 2, given 0: 0.3 * 0.8 = 0.24 against 0.7 * 0.2 = 0.14
    assert chosen.suggestion.tolist() == [0, 0] and chosen.confidence[0] == pytest.approx(0.24 / 0.38)
    assert budget.spent == 0 and budget.choose(split).rows.keys.tolist() == [2, 3]  # choosing is pure
    assert FixedBudget(1, among="all").choose(split).rows.keys.tolist() == [0]
    # entropy reads the posterior: rows 1 (0.2 * 0.8 = 0.8 * 0.2, a tie) is the least certain
    assert FixedBudget(1, measure=queries.entropy).choose(split).rows.keys.tolist() == [1]


def test_rows_that_the_owner_vouches_for_are_never_asked() -> None:
    assert len(FixedBudget(5, among="all").choose(split_of([0, 0], clean=True))) == 0


def test_budget_refuses_nonsense_and_overspending() -> None:
    with pytest.raises(SettingsError, match="negative"):
        FixedBudget(-1)
    with pytest.raises(SettingsError, match="unknown"):
        FixedBudget(1, among="some")
    with pytest.raises(SettingsError, match="impossible"):
        DynamicBudget(5, batches=0)
    split = split_of([4, 4])
    with pytest.raises(BudgetError, match="2 questions"):
        FixedBudget(2, total=1).update(FixedBudget(2).choose(split), split)


# ---------------------------------------------------------------- over a stream

streams = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5), st.integers(1, 4)), min_size=1, max_size=15)


@settings(max_examples=80, deadline=None)
@given(streams, st.integers(0, 40), st.integers(0, 20))
def test_fixed_budget_never_exceeds_batch_or_total(stream: list[tuple[int, int, int]], total: int, per: int) -> None:
    budget, spent = FixedBudget(per, total=total), 0
    for suspicious, kept, classes in stream:
        split = stream_split(suspicious, kept, classes)
        chosen = budget.choose(split)
        assert len(chosen) == min(per, total - spent, suspicious)
        budget.update(chosen, split)
        spent += len(chosen)
        assert budget.spent == spent <= total and budget.left == total - spent


@settings(max_examples=80, deadline=None)
@given(streams, st.integers(0, 60), st.integers(1, 20))
def test_dynamic_budget_never_exceeds_its_total(stream: list[tuple[int, int, int]], total: int, batches: int) -> None:
    budget = DynamicBudget(total, batches=batches)
    for suspicious, kept, classes in stream:
        again = DynamicBudget(total, batches=batches)  # goes on from the state at every batch
        again.restore(budget.state())
        split = stream_split(suspicious, kept, classes)
        chosen = again.choose(split)
        assert chosen.rows.keys.tolist() == budget.choose(split).rows.keys.tolist()
        again.update(chosen, split)
        assert again.spent == budget.spent + len(chosen) <= total
        assert again.rate >= 0 and again.carried >= -1e-6
        budget = again


def test_dynamic_budget_by_hand() -> None:
    """o(t) = o(t-1) * (1 - (H(t-2) - H(t-1)) / H(t-1)), B = 40 over 4 batches, with D0 before them."""
    budget = DynamicBudget(40, batches=4)

    def asked(split: Split) -> int:
        chosen = budget.choose(split)
        budget.update(chosen, split)
        return len(chosen)

    assert asked(split_of([0] * 3, clean=True)) == 0
    assert asked(stream_split(4, kept=2, entropy_classes=2)) == 4  # 10 allowed, 4 doubtful: 6 are carried over
    assert budget.rate == 10.0 and budget.carried == pytest.approx(6)
    assert asked(stream_split(50, kept=2, entropy_classes=4)) == 16
    assert budget.rate == pytest.approx(15.0)  # 10 * (1 - (ln 2 - 2 ln 2) / (2 ln 2))
    assert asked(stream_split(5, kept=2, entropy_classes=2)) == 5
    assert budget.rate == pytest.approx(0.0, abs=1e-6)  # 15 * (1 - (2 ln 2 - ln 2) / ln 2)
    assert asked(stream_split(50)) == 10  # what was carried over, nothing of the present rate
    assert (budget.spent, budget.left) == (35, 5)


def test_dynamic_rate_is_clamped_at_what_is_left() -> None:
    budget = DynamicBudget(12, batches=2)
    for classes in (1, 4):  # from near certainty to full doubt: the formula asks for far more than there is
        split = stream_split(3, kept=2, entropy_classes=classes)
        if classes == 1:
            split = split_of([4] * 3 + [0] * 2, proba=[[0.97, 0.01, 0.01, 0.01]] * 5)
        budget.update(budget.choose(split), split)
    assert budget.spent == 6 and budget.rate == pytest.approx(min(6.0, 6 * (2 - 0.16771 / math.log(4))), abs=1e-3)


def test_unspent_questions_are_not_lost_in_a_batch_without_doubt() -> None:
    budget = DynamicBudget(20, batches=4)
    for _ in range(3):
        split = stream_split(0, kept=1)
        budget.update(Queries.none(1), split)
    assert len(budget.choose(stream_split(50))) == 20
    assert split.verdict.tolist() == [Verdict.TRUSTED]
