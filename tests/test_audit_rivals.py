"""Against cleanlab, the other implementation: the same kinds of answers, and better ones where labels go wrong in pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from audit_data import blobs, made
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.model_selection import cross_val_predict

import labelwright


@pytest.fixture(scope="module")
def cleanlab() -> Any:
    pytest.importorskip("cleanlab", reason="cleanlab is a rival for comparison, not a dependency; pip install cleanlab")
    import cleanlab.filter
    import cleanlab.rank

    return cleanlab


def test_the_same_kinds_of_answers(cleanlab: Any) -> None:
    data = made(500, 4, 0.2, 0)
    ours, theirs = labelwright, cleanlab.filter
    mask, other = ours.find_label_issues(data.given, data.proba), theirs.find_label_issues(data.given, data.proba)
    assert mask.dtype == other.dtype == bool and mask.shape == other.shape == (500,)
    assert (mask == other).mean() > 0.9  # the same job, not the same method
    ours_scores = ours.get_label_quality_scores(data.given, data.proba)
    their_scores = cleanlab.rank.get_label_quality_scores(data.given, data.proba)
    assert ours_scores.shape == their_scores.shape == (500,) and 0 <= ours_scores.min() <= ours_scores.max() <= 1
    for rank in ("self_confidence", "normalized_margin", "confidence_weighted_entropy"):
        worst = ours.find_label_issues(data.given, data.proba, return_indices_ranked_by=rank)
        also = theirs.find_label_issues(data.given, data.proba, return_indices_ranked_by=rank)
        assert worst.dtype.kind == also.dtype.kind == "i" and worst.ndim == also.ndim == 1
        np.testing.assert_array_equal(np.sort(worst), np.flatnonzero(mask))
        assert (np.diff(ours_scores[worst]) >= 0).all()


@pytest.mark.parametrize("seed", range(3))
def test_pair_noise_is_ranked_better(cleanlab: Any, seed: int) -> None:
    """30 % of each class carry the label of the next one."""
    X, true, _ = blobs(1500, 5, 0.0, seed, apart=2.5)
    rng = np.random.default_rng(seed)
    given_ = np.where(rng.random(1500) < 0.3, (true + 1) % 5, true)
    proba = cross_val_predict(LogisticRegression(), X, given_, cv=5, method="predict_proba")
    bad = true != given_
    mine = average_precision_score(bad, 1 - labelwright.get_label_quality_scores(given_, proba))
    for method in ("self_confidence", "normalized_margin"):
        theirs = average_precision_score(bad, 1 - cleanlab.rank.get_label_quality_scores(given_, proba, method=method))
        assert mine > theirs + 0.01
