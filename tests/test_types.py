"""The nouns: keys, rows, splits, answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelwright.posterior import NoiseModel
from labelwright.truth import Truth
from labelwright.types import NO_LABEL, Answers, Batch, Corrections, Queries, Rows, Split, Verdict, row_keys


def rows_of(*keys: int) -> Rows:
    return Rows(np.array(keys, float)[:, None] * 10, np.array(keys) % 3, np.array(keys))


def split_of(verdict: list[int], clean: list[bool] | None = None) -> Split:
    n = len(verdict)
    rows = Rows(np.zeros((n, 1)), np.zeros(n, np.int64), np.arange(n))
    proba = np.tile([0.5, 0.3, 0.2], (n, 1))
    mask = np.zeros(n, bool) if clean is None else np.array(clean)
    return Split(rows, np.array(verdict), rows.y, mask, proba, proba, NoiseModel.start(3))


@given(st.integers(0, 2**30), st.integers(1, 50))
def test_row_keys_tell_batch_and_position(number: int, n: int) -> None:
    keys = row_keys(number, n)
    assert keys.dtype == np.int64 and (keys >> 32 == number).all() and (keys & 0xFFFFFFFF).tolist() == list(range(n))


def test_rows_take_and_plus() -> None:
    both = rows_of(1, 2).plus(rows_of(5))
    assert both.keys.tolist() == [1, 2, 5] and both.X[:, 0].tolist() == [10, 20, 50] and both.y.tolist() == [1, 2, 2]
    assert both.take(np.array([2, 0])).keys.tolist() == [5, 1]
    assert both.take(np.array([True, False, True])).keys.tolist() == [1, 5]
    # an empty part may be of another width, as it is before the first row was seen
    assert Rows.none().plus(both) is both and both.plus(Rows.none(7)) is both


def test_batch_of_spreads_one_clean_flag_and_names_itself() -> None:
    batch = Batch.of(3, np.zeros((2, 4)), np.array([1, 0]))
    assert batch.id == "batch-3" and batch.clean.tolist() == [False, False] and batch.given.dtype == np.int64
    assert batch.keys.tolist() == [3 * 2**32, 3 * 2**32 + 1] and batch.rows.keys.tolist() == batch.keys.tolist()
    assert Batch.of(0, np.zeros((2, 1)), np.array([0, 1]), clean=np.array([True, False])).clean.tolist() == [
        True,
        False,
    ]


def test_split_kept_suspicious_and_marked() -> None:
    split = split_of([int(v) for v in Verdict])
    assert [v.word for v in Verdict] == [
        "trusted",
        "rescued",
        "asked",
        "corrected",
        "rejected",
        "buffered",
        "quarantined",
    ]
    assert split.kept.tolist() == [True, True, False, True, False, False, False]
    assert split.suspicious.tolist() == [False, False, False, False, True, True, False]
    again = split.marked(np.array([0, 5]), Verdict.ASKED)
    assert again.verdict.tolist() == [2, 1, 2, 3, 4, 2, 6] and split.verdict[0] == Verdict.TRUSTED


def test_posterior_of_a_split_is_certain_where_the_owner_vouches() -> None:
    split = split_of([0, 0], clean=[True, False])
    assert split.posterior[0].tolist() == [1, 0, 0] and split.label_score[0] == 1
    # 0.5 * 0.8, 0.3 * 0.1, 0.2 * 0.1 over their sum 0.45
    np.testing.assert_allclose(split.posterior[1], [0.40 / 0.45, 0.03 / 0.45, 0.02 / 0.45])


def test_usable_answers_leave_out_who_cannot_say() -> None:
    first = Answers(rows_of(1, 2), np.array([2, NO_LABEL]), ("ann", "ann"), np.array([1.0, 1.0]))
    both = Answers.none().plus(first).plus(Answers(rows_of(4), np.array([0]), ("bob",), np.array([2.5])))
    assert len(both) == 3 and both.experts == ("ann", "ann", "bob") and both.cost.tolist() == [1, 1, 2.5]
    assert both.usable.keys.tolist() == [1, 4] and both.usable.y.tolist() == [2, 0]
    assert both.rows.y.tolist() == [1, 2, 1]  # the given labels stay


def test_queries_take_keeps_columns_together() -> None:
    queries = Queries(rows_of(1, 2, 3), np.array([3.0, 1, 2]), np.array([0, 1, 2]), np.array([0.9, 0.5, 0.7]), "margin")
    part = queries.take(np.array([2, 0]))
    assert part.rows.keys.tolist() == [3, 1] and part.value.tolist() == [2, 3] and part.suggestion.tolist() == [2, 0]
    assert part.confidence.tolist() == [0.7, 0.9] and part.why == "margin"
    assert len(Queries.none(4)) == len(Corrections.none(4)) == 0 and Queries.none(4).rows.X.shape == (0, 4)


def test_truth_answers_by_key_across_batches() -> None:
    truth = Truth({0: np.array([5, 6])})
    truth.add(2, np.array([7, 8, 9]))
    keys = np.concatenate([row_keys(2, 3)[[2, 0]], row_keys(0, 2)[[1]]])
    assert truth.of(keys).tolist() == [9, 7, 6]
    with pytest.raises(KeyError):
        truth.of(row_keys(1, 1))
