"""Dimensionality-driven learning: labels give way once the network begins to learn them by heart (Ma et al. 2018).

Needs torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from labelwright.errors import SettingsError
from labelwright.learners.objectives import Method, Minibatch, Objective, Observed, Task, one_hot

WINDOW = 5
ROWS, GROUP, NEAREST = 1280, 128, 20
_ENDLESS = 1e6


@dataclass(frozen=True)
class D2L(Method):
    """Cross-entropy until the local intrinsic dimensionality of the last hidden layer turns up; then the target is
    alpha * given + (1 - alpha) * the network's best class, alpha = exp(-(epoch / epochs) * LID / least LID).

    start: epochs before the turning point is looked for; None is a sixth of them. Source: methods section 6; Ma et al. 2018,
    equations 4 to 6 and algorithm 1. Different here [D]: the network goes on from where it is at the turning point, not from its weights
    before it, which the authors' code leaves open. The turning point and the dimensionality of each epoch: ``turned``, ``lids`` of
    ``TorchClassifier.objective_``.

    >>> D2L(start=5)
    D2L(start=5)
    """

    start: int | None = None

    def __post_init__(self) -> None:
        if self.start is not None and self.start < 0:
            raise SettingsError(f"start={self.start} is no number of epochs; expected 0 or more, or None")

    def begin(self, task: Task) -> Objective:
        """See :class:`~labelwright.learners.objectives.Method`."""
        return _D2L(task, round(task.epochs / 6) if self.start is None else self.start)


def dimensionality(hidden: Tensor, nearest: int = NEAREST) -> Tensor:
    """(b,) local intrinsic dimensionality of each of b points (b, h): -k / sum_j log(r_j / r_k) over its k nearest others.

    On a line the neighbours at distances 1 and 2 give -2 / log(1/2):

    >>> dimensionality(torch.tensor([[0.0], [1.0], [-2.0]]), 2)[0].item()
    2.885...
    """
    apart = torch.cdist(hidden.float(), hidden.float(), compute_mode="donot_use_mm_for_euclid_dist")
    k = min(nearest, len(hidden) - 1)
    near = apart.topk(k + 1, largest=False).values[:, 1:].clamp_min(1e-12)
    return -k / (near / near[:, -1:]).log().sum(1).clamp_max(-1e-12)


def _usual(lids: Tensor) -> Tensor:
    """Those of points whose neighbours are not all equally far: a point that is there many times has no dimensionality."""
    return lids[lids < _ENDLESS]


class _D2L(Objective):
    def __init__(self, task: Task, start: int):
        super().__init__()
        self.epochs, self.start, self.rows = task.epochs, start, len(task.given)
        self.state["lids"] = torch.zeros(0)
        self.state["turned"] = torch.tensor(-1)
        self.state["alpha"] = torch.tensor(1.0)

    @property
    def lids(self) -> list[float]:
        """Dimensionality before each epoch."""
        return [float(lid) for lid in self.state["lids"]]

    @property
    def turned(self) -> int | None:
        """The epoch, from 0, from which on labels gave way."""
        return None if self.state["turned"] < 0 else int(self.state["turned"])

    def begin_epoch(self, epoch: int, seen: Observed) -> None:
        some = torch.randperm(self.rows)[:ROWS]
        if self.rows < 3:  # two rows have no neighbourhood
            return
        groups = [group for group in some.split(GROUP) if len(group) in (GROUP, self.rows)]  # no small one left over
        found = [_usual(dimensionality(seen.hidden(group))).cpu() for group in groups]
        found = [one.mean() for one in found if len(one)]
        if not found:  # rows that are all alike have none either
            return
        lid, before = torch.stack(found).mean(), self.state["lids"].cpu()
        self.state["lids"] = torch.cat([before, lid[None]])
        if self.state["turned"] < 0 and epoch >= self.start + WINDOW and len(before) >= WINDOW:
            last = before[-WINDOW:]
            if lid - last.mean() > 2 * last.std(unbiased=False):
                self.state["turned"] = torch.tensor(epoch)
        if self.state["turned"] >= 0:
            self.state["alpha"] = torch.exp(-(epoch / self.epochs) * lid / self.state["lids"].min())

    def loss(self, logits: Tensor, batch: Minibatch) -> Tensor:
        alpha, k = float(self.state["alpha"]), logits.shape[1]
        if alpha == 1.0:
            return F.cross_entropy(logits, batch.target, reduction="none")
        own = one_hot(logits.detach().argmax(1), k)
        return F.cross_entropy(logits, alpha * one_hot(batch.target, k) + (1 - alpha) * own, reduction="none")
