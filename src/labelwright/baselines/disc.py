"""DISC: each row has thresholds of its own, by which its label is believed, doubted or replaced (Li et al. 2023). Needs torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labelwright.errors import SettingsError
from labelwright.learners.objectives import Method, Minibatch, Objective, Observed, Task, one_hot

_SURE = 0.9


@dataclass(frozen=True)
class DISC(Method):
    """Two looks at each row, one with a hole; a threshold a row and look: the moving average of its greatest probability.

    After each epoch the rows are sorted by what the network said of them in it. Clean rows pass both thresholds with the
    given label: cross-entropy. Hard rows pass one: generalised cross-entropy. Of the others, those that are surer of some
    class than the mean threshold by ``margin`` are given that class. All three are mixed with each other, besides.

    warm_up: epochs of cross-entropy first, None is a tenth. decay: of the averages an epoch, None is 0.99 at 200 epochs and
    as much over all of fewer ones. margin: above the mean threshold, at most 0.9 in all. q: of the generalised
    cross-entropy. alpha: of the Beta distribution that mixes rows.
    Source: methods section 6; Li et al. 2023, equations 2 to 9, with the margin, the bound and the sorting after each epoch of
    the authors' code [O]: sorted at each minibatch, a network that knows little yet gives all rows to one class within ten
    steps. Different here [D]: the second look has a hole of half the side instead of random distortions; the decay is fitted
    to the number of epochs; losses of the two looks are averaged, not summed;
    thresholds begin at 1 / K, not near 0.

    >>> DISC().margin
    0.5
    """

    warm_up: int | None = None
    decay: float | None = None
    margin: float = 0.5
    q: float = 0.7
    alpha: float = 5.0

    def __post_init__(self) -> None:
        if self.decay is not None and not 0 <= self.decay < 1:
            raise SettingsError(f"decay={self.decay} is out of range; expected 0 up to below 1, or None")
        if self.warm_up is not None and self.warm_up < 1:
            raise SettingsError(f"warm_up={self.warm_up} is out of range; expected an epoch or more, or None")
        if self.margin < 0 or not 0 < self.q <= 1 or self.alpha <= 0:
            raise SettingsError(f"{self} is out of range; expected margin of 0 or more, q in (0, 1], alpha above 0")

    def begin(self, task: Task) -> Objective:
        """See :class:`~labelwright.learners.objectives.Method`."""
        return _DISC(self, task)


class _DISC(Objective):
    """state: thresholds (2, n); shares (2, n, K) of each row when it was last seen; kind (n,) of 0 none, 1 clean, 2 hard,
    3 purified; label (n,)."""

    def __init__(self, method: DISC, task: Task):
        super().__init__()
        self.method, self.given = method, task.given
        self.warm_up = max(1, round(task.epochs / 10)) if method.warm_up is None else method.warm_up
        self.decay = 0.99 ** (200 / task.epochs) if method.decay is None else method.decay
        n, home = len(task.given), task.given.device
        self.state["thresholds"] = torch.full((2, n), 1 / task.classes, device=home)
        self.state["shares"] = torch.full((2, n, task.classes), 1 / task.classes, device=home)
        self.state["kind"] = torch.zeros(n, dtype=torch.int64, device=home)
        self.state["label"] = task.given.clone()
        self.state["epoch"] = torch.tensor(0)

    def begin_epoch(self, epoch: int, seen: Observed) -> None:
        """Sort the rows by the epoch that ended, then move their thresholds."""
        self.state["epoch"] = torch.tensor(epoch)
        if epoch == 0:
            return
        shares, thresholds = self.state["shares"], self.state["thresholds"]
        clean, hard, purified, self.state["label"] = self.sets(shares, thresholds, self.given)
        self.state["kind"] = clean + 2 * hard + 3 * purified
        self.state["thresholds"] = self.decay * thresholds + (1 - self.decay) * shares.max(2).values

    def losses(self, network: nn.Module, batch: Minibatch) -> Iterator[Tensor]:
        looks = [batch.x, holed(batch.look())]
        logits = [batch.forward(network, x) for x in looks]
        for look, z in enumerate(logits):
            self.state["shares"][look, batch.index] = F.softmax(z, 1).detach()
        if self.state["epoch"] < self.warm_up:
            yield 0.5 * sum(F.cross_entropy(z, batch.target) for z in logits)  # type: ignore[misc]
            return
        kind, label = self.state["kind"][batch.index], self.state["label"][batch.index]
        loss, used = self.loss_of(logits, kind, batch.target), (kind > 0).nonzero()[:, 0]
        if len(used) > 1:
            target = one_hot(label[used], logits[0].shape[1])
            loss = loss + 0.5 * sum(self._mixed(network, batch, x[used], target) for x in looks)
        yield loss

    def sets(self, shares: Tensor, thresholds: Tensor, given: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(clean, hard, purified), each (n,) of bool, and the label (n,) of each row: the given one, or the purified one."""
        passed = shares.gather(2, given.expand(2, -1)[:, :, None])[:, :, 0] > thresholds
        clean, some = passed.all(0), passed.any(0)
        sure, best = shares.mean(0).max(1)
        purified = ~some & (sure > (thresholds.mean(0) + self.method.margin).clamp_max(_SURE))
        return clean, some & ~clean, purified, torch.where(purified, best, given)

    def loss_of(self, logits: list[Tensor], kind: Tensor, given: Tensor) -> Tensor:
        """The mean over the minibatch of each row's loss with its given label: by its kind, 0 for all but clean and hard rows;
        mean of both looks."""
        q, out = self.method.q, logits[0].sum() * 0
        for z in logits:
            plain = F.cross_entropy(z, given, reduction="none")
            bounded = (1 - (-q * plain).exp()) / q
            out = out + 0.5 * (plain * (kind == 1) + bounded * (kind == 2)).mean()
        return out

    def _mixed(self, network: nn.Module, batch: Minibatch, x: Tensor, target: Tensor) -> Tensor:
        share = float(torch.distributions.Beta(self.method.alpha, self.method.alpha).sample())
        other = torch.randperm(len(x), device=x.device)
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
