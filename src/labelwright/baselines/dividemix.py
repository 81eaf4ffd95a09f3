"""DivideMix: rows whose labels look wrong are taken for unlabelled ones (Li et al. 2020). Needs torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labelwright.errors import SettingsError
from labelwright.learners.objectives import Make, Method, Minibatch, Objective, Observed, Task, Twins, as_kind, one_hot
from labelwright.types import Floats


@dataclass(frozen=True)
class DivideMix(Method):
    """Two networks; each epoch a mixture of two Gaussians over one's losses tells the other which labels to believe.

    warm_up: epochs of cross-entropy first; None is a sixth of them. threshold: least probability of a label to be believed.
    sharpen: temperature of guessed labels. alpha: of the Beta distribution that mixes rows. unlabelled: weight of the guessed
    rows' loss, reached over as many epochs as the warm-up, at least 1. Predicts by the mean of both.
    Source: methods section 6; Li et al. 2020, algorithm 1, and the authors' code, in which the peer judges without dropout and by its
    running statistics while a network trains. Different here [D]: the networks take turns at each minibatch,
    not at each epoch, and a minibatch holds both kinds of rows.

    >>> DivideMix().unlabelled
    25.0
    """

    warm_up: int | None = None
    threshold: float = 0.5
    sharpen: float = 0.5
    alpha: float = 4.0
    unlabelled: float = 25.0

    def __post_init__(self) -> None:
        if self.warm_up is not None and self.warm_up < 1:
            raise SettingsError(f"warm_up={self.warm_up} is out of range; expected an epoch or more, or None")
        if not 0 < self.threshold < 1 or min(self.sharpen, self.alpha) <= 0 or self.unlabelled < 0:
            raise SettingsError(f"{self} is out of range; expected threshold in (0, 1), sharpen and alpha above 0")

    def network(self, make: Make, classes: int) -> nn.Module:
        """See :class:`~labelwright.learners.objectives.Method`."""
        return Twins(make(), make(), mean=True)

    def begin(self, task: Task) -> Objective:
        """See :class:`~labelwright.learners.objectives.Method`."""
        return _DivideMix(self, task, max(1, round(task.epochs / 6)) if self.warm_up is None else self.warm_up)


def believed(loss: Floats) -> Floats:
    """(n,) probability of each row to be in the component of small losses, by a mixture of two Gaussians over them (n,).

    >>> believed(np.array([0.1, 0.12, 0.11, 2.0, 2.1, 1.9])).round(2).tolist()
    [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    """
    from sklearn.mixture import GaussianMixture

    if len(loss) < 2:
        return np.ones(len(loss))
    spread = loss.max() - loss.min()
    scaled = ((loss - loss.min()) / (spread if spread > 0 else 1.0)).reshape(-1, 1)
    mixture = GaussianMixture(2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=0).fit(scaled)
    return np.asarray(mixture.predict_proba(scaled)[:, mixture.means_.argmin()])


def sharpened(share: Tensor, temperature: float) -> Tensor:
    """(b, K) ``share ** (1 / temperature)``, rows summing to one."""
    high = share.clamp_min(1e-9) ** (1 / temperature)
    return high / high.sum(1, keepdim=True)


class _DivideMix(Objective):
    def __init__(self, method: DivideMix, task: Task, warm_up: int):
        super().__init__()
        self.method, self.given, self.warm_up, self.classes = method, task.given, warm_up, task.classes
        self.state["clean"] = torch.ones(2, len(task.given), device=task.given.device)
        self.state["weight"] = torch.tensor(-1.0)

    def begin_epoch(self, epoch: int, seen: Observed) -> None:
        if epoch < self.warm_up:
            return
        for at, member in enumerate(as_kind(seen.network, Twins).members):
            own = seen.proba(network=member).gather(1, self.given[:, None].to(self.given.device))[:, 0]
            loss = -own.clamp_min(1e-9).log().cpu().numpy()
            self.state["clean"][1 - at] = torch.as_tensor(believed(loss), dtype=torch.float32)
        ramp = min(1.0, (epoch - self.warm_up) / max(1, self.warm_up))
        self.state["weight"] = torch.tensor(self.method.unlabelled * ramp)

    def losses(self, network: nn.Module, batch: Minibatch) -> Iterator[Tensor]:
        twins = as_kind(network, Twins)
        for at, member in enumerate(twins.members):
            if self.state["weight"] < 0:
                yield F.cross_entropy(batch.forward(member, batch.x), batch.target)
            else:
                yield self.mixed(twins, at, batch)

    def mixed(self, network: Twins, at: int, batch: Minibatch) -> Tensor:
        """The loss of one network: believed rows with refined labels, the others with guessed ones, all mixed (MixMatch)."""
        looks = [batch.x, batch.look()]
        clean = self.state["clean"][at][batch.index]
        peer = network.members[1 - at].eval()
        with torch.no_grad():
            shares = [[F.softmax(batch.forward(one, x), 1) for x in looks] for one in network.members]
            peer.train()
            target = self.targets(shares, at, clean, batch.target)
        x, y = torch.cat(looks), torch.cat([target, target])
        sure = torch.cat([clean, clean]) > self.method.threshold
        share = float(torch.distributions.Beta(self.method.alpha, self.method.alpha).sample())
        share, other = max(share, 1 - share), torch.randperm(len(x), device=x.device)
        logits = batch.forward(network.members[at], share * x + (1 - share) * x[other])
        return self.loss_of(logits, share * y + (1 - share) * y[other], sure)

    def targets(self, shares: list[list[Tensor]], at: int, clean: Tensor, given: Tensor) -> Tensor:
        """(b, K): for believed rows w * given + (1 - w) * own mean over the looks, for others the mean of both networks; sharp."""
        w = clean[:, None]
        refined = w * one_hot(given, self.classes) + (1 - w) * torch.stack(shares[at]).mean(0)
        guessed = torch.stack([torch.stack(own).mean(0) for own in shares]).mean(0)
        return sharpened(torch.where(w > self.method.threshold, refined, guessed), self.method.sharpen)

    def loss_of(self, logits: Tensor, target: Tensor, sure: Tensor) -> Tensor:
        """Cross-entropy of believed rows + weight * squared error of the others + a pull of the mean prediction to uniform."""
        p, zero = F.softmax(logits, 1), logits.sum() * 0
        right = -(F.log_softmax(logits, 1) * target).sum(1)[sure].mean() if sure.any() else zero
        guessed = (p - target)[~sure].square().mean() if not sure.all() else zero
        even = torch.full_like(p[0], 1 / self.classes)
        spread = (even * (even / p.mean(0).clamp_min(1e-9)).log()).sum()
        return right + float(self.state["weight"]) * guessed + spread
