"""Co-teaching: two networks, each trained on the rows that its peer finds easiest (Han et al. 2018). Needs torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labelwright.baselines.rate import noise_rate
from labelwright.errors import SettingsError
from labelwright.learners.objectives import Make, Method, Minibatch, Objective, Observed, Task, Twins, as_kind


@dataclass(frozen=True)
class CoTeaching(Method):
    """Of each minibatch, a network learns the 1 - R rows of smallest loss in its peer's eyes; it predicts by the first one.

    rate: share of wrong labels, in [0, 1); None estimates it. gradual: epochs over which R rises from 0 to it.
    Source: methods section 6; Han et al. 2018, algorithm 1.

    >>> CoTeaching(0.3)
    CoTeaching(rate=0.3, gradual=10)
    """

    rate: float | None = None
    gradual: int = 10

    def __post_init__(self) -> None:
        if self.rate is not None and not 0 <= self.rate < 1:
            raise SettingsError(f"rate={self.rate} is no share of wrong labels; expected 0 up to below 1, or None")

    def network(self, make: Make, classes: int) -> nn.Module:
        """See :class:`~labelwright.learners.objectives.Method`."""
        return Twins(make(), make(), mean=False)

    def begin(self, task: Task) -> Objective:
        """See :class:`~labelwright.learners.objectives.Method`."""
        return _CoTeaching(noise_rate(task) if self.rate is None else self.rate, self.gradual)


class _CoTeaching(Objective):
    def __init__(self, rate: float, gradual: int):
        super().__init__()
        self.rate, self.gradual = rate, gradual

    def begin_epoch(self, epoch: int, seen: Observed) -> None:
        self.state["dropped"] = torch.tensor(self.rate * min(1.0, epoch / max(1, self.gradual)), dtype=torch.float64)

    def losses(self, network: nn.Module, batch: Minibatch) -> Iterator[Tensor]:
        twins = as_kind(network, Twins)
        first, second = (
            F.cross_entropy(batch.forward(member, batch.x), batch.target, reduction="none") for member in twins.members
        )
        yield self.exchanged(first, second)

    def exchanged(self, first: Tensor, second: Tensor) -> Tensor:
        """Both networks' losses (b,) on the rows that the other chose. The sum: their weights have nothing in common."""
        count = max(1, int((1 - float(self.state["dropped"])) * len(first)))
        chosen = [loss.detach().argsort()[:count] for loss in (first, second)]
        return first[chosen[1]].mean() + second[chosen[0]].mean()
