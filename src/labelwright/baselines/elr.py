"""Early-learning regularisation: what was believed early is held on to (Liu et al. 2020). Needs torch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from labelwright.errors import SettingsError
from labelwright.learners.objectives import Method, Minibatch, Objective, Task


@dataclass(frozen=True)
class ELR(Method):
    """Cross-entropy + strength * log(1 - <p, t>), where t is the moving average of the row's probabilities p.

    decay: of the average, in [0, 1). strength: at least 0. Source: methods section 6; Liu et al. 2020, equation 6 (CIFAR-10:
    0.7 and 3; CIFAR-100: 0.9 and 7).

    >>> ELR()
    ELR(decay=0.7, strength=3.0)
    """

    decay: float = 0.7
    strength: float = 3.0

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1 or self.strength < 0:
            raise SettingsError(f"{self} is out of range; expected decay from 0 up to below 1, strength of 0 or more")

    def begin(self, task: Task) -> Objective:
        """See :class:`~labelwright.learners.objectives.Method`."""
        return _ELR(self, task)


class _ELR(Objective):
    def __init__(self, method: ELR, task: Task):
        super().__init__()
        self.method = method
        self.state["believed"] = torch.zeros(len(task.given), task.classes, device=task.given.device)

    def loss(self, logits: Tensor, batch: Minibatch) -> Tensor:
        p = F.softmax(logits, 1).clamp(1e-4, 1 - 1e-4)
        now, before = p.detach(), self.state["believed"]
        decay = self.method.decay
        before[batch.index] = decay * before[batch.index] + (1 - decay) * now / now.sum(1, keepdim=True)
        agreed = (before[batch.index] * p).sum(1)
        return F.cross_entropy(logits, batch.target, reduction="none") + self.method.strength * (1 - agreed).log()
