"""What a network learns from a minibatch: the one thing in which robust methods differ. Needs torch.

A method is settings; for each training run it makes an :class:`Objective`, which turns minibatches into losses. The training
loop, the networks, the order of the rows and the checkpoints are the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labelwright.types import NO_LABEL, Bools, Floats

Make = Callable[[], nn.Module]
"""A freshly initialised network, another one at each call."""


@dataclass(frozen=True)
class Minibatch:
    """index: (b,) rows of the training set, on the device. target: (b,) classes or (b, K) shares. weight: (b,) or None.

    look: another augmented look at the same rows, as the network reads them. forward: (network, x) -> (b, K) float32
    outputs, in the precision of the training.
    """

    index: Tensor
    x: Tensor
    target: Tensor
    weight: Tensor | None
    look: Callable[[], Tensor]
    forward: Callable[[nn.Module, Tensor], Tensor]

    def mean(self, loss: Tensor) -> Tensor:
        """The mean of a loss (b,), by the weights of the rows."""
        return loss.mean() if self.weight is None else (loss * self.weight).sum() / self.weight.sum().clamp_min(1e-9)


@dataclass(frozen=True)
class Task:
    """What a method is told when a training run begins; nobody tells it the truth of a row that nobody looked at.

    given: (n,) classes as they are given, or (n, K) shares of classes. trusted: (n,) the true class where somebody vouches
    for it, else NO_LABEL. classes: K. epochs: of the run. seed: of whatever is drawn besides.
    plain: (mask (n,) or None) -> (n, K) probabilities of all training rows, by another network that learned the labels of the
    rows of the mask by cross-entropy. crossed: the same, each row judged by a network that has not seen it (two halves, a
    sixth of the epochs). Both train when they are called.
    """

    given: Tensor
    trusted: Tensor
    classes: int
    epochs: int
    seed: int
    plain: Callable[[Bools | None], Floats]
    crossed: Callable[[], Floats]

    @property
    def vouched(self) -> Tensor:
        """(n,) whether a row's true class is known."""
        return self.trusted != NO_LABEL


class Observed:
    """The network and the training rows between epochs.

    proba: (network, hidden) -> probabilities (n, K) without augmentation; see :meth:`Trainer.proba`.
    """

    def __init__(self, network: nn.Module, proba: Callable[[nn.Module, Tensor | None], Tensor]):
        self.network, self._proba = network, proba

    def proba(self, rows: Tensor | None = None, network: nn.Module | None = None) -> Tensor:
        """(n, K) probabilities of the rows at an index, by the network or a part of it, as it is (weights not averaged)."""
        return self._proba(self.network if network is None else network, rows)

    def hidden(self, rows: Tensor) -> Tensor:
        """(n, h) what the last linear layer reads of the rows at an index."""
        last = [layer for layer in self.network.modules() if isinstance(layer, nn.Linear)][-1]
        seen: list[Tensor] = []
        hook = last.register_forward_pre_hook(lambda _, read: seen.append(read[0].detach().float()))
        try:
            self.proba(rows)
        finally:
            hook.remove()
        return torch.cat(seen)


class Objective:
    """Losses of minibatches, one optimiser step each. The plain one: cross-entropy with the labels as they are given.

    state: all that it remembers from minibatch to minibatch, as tensors; checkpoints hold it.
    """

    def __init__(self) -> None:
        self.state: dict[str, Tensor] = {}

    def begin_epoch(self, epoch: int, seen: Observed) -> None:
        """Before each epoch, the first is 0."""

    def losses(self, network: nn.Module, batch: Minibatch) -> Iterator[Tensor]:
        """Scalars to step on, one after the other: the second is computed after the step on the first."""
        yield batch.mean(self.loss(batch.forward(network, batch.x), batch))

    def loss(self, logits: Tensor, batch: Minibatch) -> Tensor:
        """(b,) the loss of each row."""
        return F.cross_entropy(logits, batch.target, reduction="none")


@dataclass(frozen=True)
class Method:
    """How to learn from labels of which some are wrong. The plain way: cross-entropy with the labels as they are given.

    Subclasses are frozen dataclasses of their settings.
    """

    def network(self, make: Make, classes: int) -> nn.Module:
        """The network, or several in one module whose output is what is predicted from."""
        return make()

    def begin(self, task: Task) -> Objective:
        """The objective of one training run."""
        return Objective()


PLAIN = Method()


class Twins(nn.Module):
    """Two networks of one kind, side by side. mean: predict by the mean of both probabilities, else by the first alone."""

    def __init__(self, first: nn.Module, second: nn.Module, *, mean: bool):
        super().__init__()
        self.members = nn.ModuleList([first, second])
        self.mean = mean

    def forward(self, x: Tensor) -> Tensor:
        """(b, K) logits; of the mean, its logarithm."""
        if not self.mean:
            return self.members[0](x)  # type: ignore[no-any-return]
        shares = [F.softmax(member(x).float(), 1) for member in self.members]
        return torch.stack(shares).mean(0).clamp_min(1e-12).log()


Kind = TypeVar("Kind", bound=nn.Module)


def as_kind(network: nn.Module, kind: type[Kind]) -> Kind:
    """``network``, which a method's own ``network`` made. Raises TypeError for another: the method was changed after the fit.

    >>> as_kind(nn.Linear(1, 1), Twins)
    Traceback (most recent call last):
        ...
    TypeError: the network is a Linear, not the Twins that the method trains; fit again after changing the method
    """
    if not isinstance(network, kind):
        raise TypeError(
            f"the network is a {type(network).__name__}, not the {kind.__name__} that the method trains; fit again after "
            "changing the method"
        )
    return network


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """(b, K) float32."""
    return F.one_hot(labels, classes).float()
