"""Generalised cross-entropy: between cross-entropy and mean absolute error (Zhang and Sabuncu 2018). Needs torch."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from labelwright.errors import SettingsError
from labelwright.learners.objectives import Method, Minibatch, Objective, Task


@dataclass(frozen=True)
class GCE(Method):
    """Loss (1 - p_given ** q) / q, which heeds rows less the less they are believed.

    q: in (0, 1]; towards 0 cross-entropy, 1 is the mean absolute error. Source: methods section 6; Zhang and Sabuncu 2018,
    equation 6.

    >>> GCE().q
    0.7
    """

    q: float = 0.7

    def __post_init__(self) -> None:
        if not 0 < self.q <= 1:
            raise SettingsError(f"q={self.q} is out of range; expected above 0, at most 1")

    def begin(self, task: Task) -> Objective:
        """See :class:`~labelwright.learners.objectives.Method`."""
        return _GCE(self.q)


class _GCE(Objective):
    def __init__(self, q: float):
        super().__init__()
        self.q = q

    def loss(self, logits: Tensor, batch: Minibatch) -> Tensor:
        log_own = F.log_softmax(logits, 1).gather(1, batch.target[:, None])[:, 0]
        return (1 - (self.q * log_own).exp()) / self.q
