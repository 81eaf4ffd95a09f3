"""Bootstrapping: part of the target is what the network says itself (Reed et al. 2015). Needs torch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from labelwright.errors import SettingsError
from labelwright.learners.objectives import Method, Minibatch, Objective, Task, one_hot


@dataclass(frozen=True)
class Bootstrap(Method):
    """Target ``share`` * given + (1 - share) * the network's own: its probabilities (soft), or its best class (hard).

    share: in (0, 1]; None is the published one, 0.95 soft and 0.8 hard. No gradient goes through the target.
    Source: methods section 6; Reed et al. 2015, equations 6 and 7.

    >>> Bootstrap("hard").weight
    0.8
    """

    kind: str = "soft"
    share: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("soft", "hard"):
            raise SettingsError(f"kind={self.kind!r} is unknown; expected soft or hard")
        if not 0 < self.weight <= 1:
            raise SettingsError(f"share={self.share} is no share of the target; expected above 0, at most 1")

    @property
    def weight(self) -> float:
        """Of the given label."""
        return {"soft": 0.95, "hard": 0.8}[self.kind] if self.share is None else self.share

    def begin(self, task: Task) -> Objective:
        """See :class:`~labelwright.learners.objectives.Method`."""
        return _Bootstrap(self)


class _Bootstrap(Objective):
    def __init__(self, method: Bootstrap):
        super().__init__()
        self.method = method

    def loss(self, logits: Tensor, batch: Minibatch) -> Tensor:
        with torch.no_grad():
            own = F.softmax(logits, 1)
            if self.method.kind == "hard":
                own = one_hot(own.argmax(1), own.shape[1])
            w = self.method.weight
            target = w * one_hot(batch.target, own.shape[1]) + (1 - w) * own
        return F.cross_entropy(logits, target, reduction="none")
