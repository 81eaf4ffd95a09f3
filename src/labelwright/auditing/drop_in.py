"""For people who come from cleanlab: its two functions, by our judgement."""

from __future__ import annotations

from typing import Any

import numpy as np

from labelwright.auditing.api import audit
from labelwright.errors import SettingsError

_RANKS = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")
_FILTERS = (
    "prune_by_noise_rate", "prune_by_class", "both", "confident_learning", "predicted_neq_given", "low_normalized_margin",
    "low_self_confidence",
)  # fmt: skip
_WITHOUT_EFFECT = ("rank_by_kwargs", "n_jobs", "verbose", "adjust_pred_probs")
_USUAL = {
    "frac_noise": (1.0,), "num_to_remove_per_class": (None,), "min_examples_per_class": (1,), "multi_label": (False, None),
    "confident_joint": (None,),
}  # fmt: skip
"""Options that would ask for other rows than the posterior names: taken at their usual value only."""


def find_label_issues(
    labels: Any,
    pred_probs: Any,
    *,
    return_indices_ranked_by: str | None = None,
    filter_by: str = "prune_by_noise_rate",
    **options: Any,
) -> Any:
    """(n,) mask of label issues, or their positions, ranked.

    return_indices_ranked_by: None for the mask; "self_confidence", "normalized_margin" or "confidence_weighted_entropy" for
    positions: all three rank by our ``label_score``, the worst first. filter_by: any of cleanlab's words; the posterior decides.
    options: cleanlab's others, at their usual values. Raises SettingsError for another word or option.

    >>> int(find_label_issues([0, 1] * 20, np.array([[0.9, 0.1], [0.1, 0.9]] * 20)).sum())
    0
    """
    _check(options)
    if filter_by not in _FILTERS:
        raise SettingsError(f"filter_by={filter_by!r} is unknown; expected one of {', '.join(_FILTERS)}")
    if return_indices_ranked_by is not None and return_indices_ranked_by not in _RANKS:
        raise SettingsError(
            f"return_indices_ranked_by={return_indices_ranked_by!r} is unknown; expected one of {', '.join(_RANKS)}"
        )
    found = audit(labels, pred_probs)
    if return_indices_ranked_by is None:
        return found.flagged
    return found.ranking[found.flagged[found.ranking]]


def get_label_quality_scores(labels: Any, pred_probs: Any, *, method: str = "self_confidence", **options: Any) -> Any:
    """(n,) ``label_score`` in [0, 1], lower is worse, whichever of cleanlab's methods is named. Raises SettingsError for another.

    >>> get_label_quality_scores([0, 1] * 20, np.array([[0.9, 0.1], [0.1, 0.9]] * 20)).shape
    (40,)
    """
    _check(options)
    if method not in _RANKS:
        raise SettingsError(f"method={method!r} is unknown; expected one of {', '.join(_RANKS)}")
    return audit(labels, pred_probs).label_score


def _check(options: dict[str, Any]) -> None:
    for name, value in options.items():
        if name in _USUAL and not (np.ndim(value) == 0 and value in _USUAL[name]):
            raise SettingsError(
                f"{name}={value!r} has no counterpart here: the posterior decides how many labels are doubted; leave it out, or take "
                "the first rows of audit().ranking"
            )
        if name not in _USUAL and name not in _WITHOUT_EFFECT:
            raise SettingsError(f"the option {name!r} is unknown; labelwright.audit() tells more than a mask")
