"""Sparse over-parameterisation: each row learns its own noise (Liu et al. 2022). Needs torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labelwright.errors import SettingsError
from labelwright.learners.objectives import Method, Minibatch, Objective, Task, one_hot

_LEAST = 1e-8


@dataclass(frozen=True)
class SOP(Method):
    """The label is explained by p + s, where s = u * u at the given label and -v * v elsewhere is learned for each row.

    rate_u, rate_v: learning rates of u and v, above 0, by plain gradient descent; both start at 1e-8 times normal draws.
    Without the consistency and balance terms of SOP+. Probabilities are at least 1e-8, not 1e-4 as in the authors' code: below
    that no gradient flows, and rows that a young network is sure to be otherwise would stay so.
    Source: methods section 6; Liu et al. 2022, equations 3 to 5.

    >>> SOP()
    SOP(rate_u=10.0, rate_v=10.0)
    """

    rate_u: float = 10.0
    rate_v: float = 10.0

    def __post_init__(self) -> None:
        if min(self.rate_u, self.rate_v) <= 0:
            raise SettingsError(f"{self} is out of range; expected learning rates above 0")

    def begin(self, task: Task) -> Objective:
        """See :class:`~labelwright.learners.objectives.Method`."""
        return _SOP(self, task)


class _SOP(Objective):
    def __init__(self, method: SOP, task: Task):
        super().__init__()
        self.method = method
        rng = torch.Generator().manual_seed(task.seed)
        for name, width in (("u", 1), ("v", task.classes)):
            self.state[name] = (1e-8 * torch.randn(len(task.given), width, generator=rng)).to(task.given.device)

    def losses(self, network: nn.Module, batch: Minibatch) -> Iterator[Tensor]:
        logits = batch.forward(network, batch.x)
        u, v = (self.state[name][batch.index].requires_grad_() for name in ("u", "v"))
        yield batch.mean(self.of(logits, one_hot(batch.target, logits.shape[1]), u, v))
        for name, own, rate in (("u", u, self.method.rate_u), ("v", v, self.method.rate_v)):
            if own.grad is not None:
                self.state[name][batch.index] = (own - rate * own.grad).detach()

    @staticmethod
    def of(logits: Tensor, given: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """(b,) cross-entropy of the explained label, which teaches the network and u, and squared error, which teaches u and v."""
        up, down = (u.square() * given).clamp(0, 1), (v.square() * (1 - given)).clamp(0, 1)
        explained = (F.softmax(logits, 1) + up - down.detach()).clamp_min(_LEAST)
        explained = explained / explained.sum(1, keepdim=True)
        best = one_hot(logits.detach().argmax(1), logits.shape[1])
        apart = (best + up - down - given).square().sum(1)
        return -(given * explained.clamp(_LEAST, 1).log()).sum(1) + apart
