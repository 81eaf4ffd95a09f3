"""DISC: each row has thresholds of its own, by which its label is believed, doubted or replaced (Li et al. 2023). Needs torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labelwright.errors import SettingsError
from labelwright.learners.objectives import Method, Minibatch, Objective, Observed, Task, one_hot

_SURE = 0.99


@dataclass(frozen=True)
class DISC(Method):
    """Two looks at each row, one with a hole; a threshold a row and look: the moving average of its greatest probability.

    Clean rows pass both thresholds with the given label: cross-entropy. Hard rows pass one: generalised cross-entropy. Of the
    others, those that are surer of some class than both thresholds by ``margin`` are given that class: cross-entropy. Clean
    and purified rows are mixed with each other, besides.

    warm_up: epochs of cross-entropy first, None is a tenth. decay: of the averages an epoch, None is 0.99 at 200 epochs and
    as much over all of fewer ones. margin: above the mean threshold, at most 0.99 in all. q: of the generalised
    cross-entropy. alpha: of the Beta distribution that mixes rows.
    Source: methods section 6; Li et al. 2023, equations 2 to 9. Different here [D]: the second look has a hole of half the
    side instead of random distortions; the decay is fitted to the number of epochs.

    >>> DISC().margin
    0.3
    """

    warm_up: int | None = None
    decay: float | None = None
    margin: float = 0.3
    q: float = 0.7
    alpha: float = 5.0

    def __post_init__(self) -> None:
        if self.decay is not None and not 0 <= self.decay < 1:
            raise SettingsError(f"decay={self.decay} is out of range; expected 0 up to below 1, or None")
        if self.margin < 0 or not 0 < self.q <= 1 or self.alpha <= 0:
            raise SettingsError(f"{self} is out of range; expected margin of 0 or more, q in (0, 1], alpha above 0")

    def begin(self, task: Task) -> Objective:
        """See :class:`~labelwright.learners.objectives.Method`."""
        return _DISC(self, task)


class _DISC(Objective):
    def __init__(self, method: DISC, task: Task):
        super().__init__()
        self.method = method
        self.warm_up = max(1, round(task.epochs / 10)) if method.warm_up is None else method.warm_up
        self.decay = 0.99 ** (200 / task.epochs) if method.decay is None else method.decay
        start = torch.full((2, len(task.given)), 1 / task.classes, device=task.given.device)
        self.state["thresholds"] = start
        self.state["epoch"] = torch.tensor(0)

    def begin_epoch(self, epoch: int, seen: Observed) -> None:
        self.state["epoch"] = torch.tensor(epoch)

    def losses(self, network: nn.Module, batch: Minibatch) -> Iterator[Tensor]:
        looks = [batch.x, holed(batch.look())]
        logits = [batch.forward(network, x) for x in looks]
        shares = [F.softmax(z, 1).detach() for z in logits]
        thresholds = self.moved(batch.index, shares)
        if self.state["epoch"] < self.warm_up:
            yield 0.5 * sum(F.cross_entropy(z, batch.target) for z in logits)  # type: ignore[misc]
            return
        clean, hard, purified, label = self.sets(shares, thresholds, batch.target)
        loss = self.loss_of(logits, clean, hard, purified, label)
        mixed = (clean | purified).nonzero()[:, 0]
        if len(mixed) > 1:
            loss = loss + self._mixed(network, batch, looks[0][mixed], label[mixed], logits[0].shape[1])
        yield loss

    def moved(self, index: Tensor, shares: list[Tensor]) -> Tensor:
        """(2, b) the rows' thresholds, moved towards their greatest probabilities."""
        best = torch.stack([share.max(1).values for share in shares])
        out = self.decay * self.state["thresholds"][:, index] + (1 - self.decay) * best
        self.state["thresholds"][:, index] = out
        return out

    def sets(self, shares: list[Tensor], thresholds: Tensor, given: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(clean, hard, purified), each (b,) of bool, and the label (b,) of each row: the given one, or the purified one."""
        passed = [s.gather(1, given[:, None])[:, 0] > t for s, t in zip(shares, thresholds, strict=True)]
        clean, some = passed[0] & passed[1], passed[0] | passed[1]
        sure, best = (0.5 * (shares[0] + shares[1])).max(1)
        wanted = (thresholds.mean(0) + self.method.margin).clamp_max(_SURE)
        purified = ~some & (sure > wanted)
        return clean, some & ~clean, purified, torch.where(purified, best, given)

    def loss_of(self, logits: list[Tensor], clean: Tensor, hard: Tensor, purified: Tensor, label: Tensor) -> Tensor:
        """The mean over the minibatch of each row's loss: by its set, 0 for rows in none; mean of both looks."""
        q, out = self.method.q, logits[0].sum() * 0
        for z in logits:
            plain = F.cross_entropy(z, label, reduction="none")
            bounded = (1 - (-q * plain).exp()) / q
            out = out + 0.5 * torch.where(clean | purified, plain, bounded * hard).mean()
        return out

    def _mixed(self, network: nn.Module, batch: Minibatch, x: Tensor, label: Tensor, classes: int) -> Tensor:
        share = float(torch.distributions.Beta(self.method.alpha, self.method.alpha).sample())
        other = torch.randperm(len(x), device=x.device)
        target = one_hot(label, classes)
        logits = batch.forward(network, share * x + (1 - share) * x[other])
        return F.cross_entropy(logits, share * target + (1 - share) * target[other])


def holed(x: Tensor) -> Tensor:
    """Pictures (b, channels, height, width) each with a square hole of half the side, 0 (the mean) in it; vectors as they are.

    >>> (holed(torch.ones(5, 1, 8, 8)) == 0).sum((1, 2, 3)).max() <= 16
    tensor(True)
    """
    if x.ndim != 4:
        return x
    count, _, height, width = x.shape
    inside = []
    for side in (height, width):
        at = torch.randint(0, side, (count, 1), device=x.device)
        line = torch.arange(side, device=x.device)
        inside.append((line >= at - side // 4) & (line < at - side // 4 + side // 2))
    return x.masked_fill((inside[0][:, :, None] & inside[1][:, None, :])[:, None], 0.0)
