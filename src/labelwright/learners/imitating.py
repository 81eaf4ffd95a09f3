"""CopyNet's step on the training loop: Amateur and Expert teach each other. Needs torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labelwright.errors import SettingsError
from labelwright.learners.networks import Dense
from labelwright.learners.objectives import Make, Method, Minibatch, Objective, Task, as_kind, one_hot
from labelwright.posterior import NoiseModel, normalised
from labelwright.types import NO_LABEL, Floats, Ints

if TYPE_CHECKING:
    from labelwright.learners.torch_classifier import TorchClassifier


STAY = 0.8
"""The prior of :class:`Fusing`: a label is right so often (as the posterior's), before anything is learned."""


PULL = 10.0
"""Of new rows it takes so many of a class to weigh as much as what :class:`Fusing` has learned before."""

FLOOR = 1e-3
"""Least probability that :class:`Fusing` reads: below it, how sure the Amateur is of being unsure says nothing."""


class Fusing(nn.Module):
    """An Expert that is Bayes' rule with all its parts learned: heat * log p + log T[:, given]; K * K + 1 numbers.

    It begins with heat 1 and a T that is right :data:`STAY` of the time. So few numbers need few trusted rows, and a label
    and a probability are weighed against each other from the first step on, which dense layers have to find out.
    """

    def __init__(self, classes: int):
        super().__init__()
        wrong = (1 - STAY) / max(classes - 1, 1)
        self.heat = nn.Parameter(torch.zeros(1))
        self.table = nn.Parameter(torch.full((classes, classes), wrong).fill_diagonal_(STAY).log())

    def forward(self, x: Tensor) -> Tensor:
        """(b, K) logits of (b, 2K): probabilities, then the given label as 0 and 1."""
        k = self.table.shape[0]
        proba, given = x[:, :k], x[:, k:]
        heat = (0.1 * self.heat).exp()  # a tenth: its slope is of nats, the table's of shares
        return heat * proba.clamp_min(FLOOR).log() + given @ self.table.T  # type: ignore[no-any-return]

    def begin(self, noise: NoiseModel, *, whole: bool) -> None:
        """Move to the noise matrix that rows show, as if the present one were :data:`PULL` rows a class; with ``whole`` to the
        temperature too."""
        with torch.no_grad():
            before = self.table.double().softmax(1).cpu().numpy()
            shown = normalised(noise.counts + PULL * before)
            self.table.copy_(torch.as_tensor(np.log(np.clip(shown, FLOOR, None)), dtype=torch.float32))
            if whole:
                self.heat.fill_(10 * float(np.log(noise.temperature)))

    def last(self) -> list[nn.Parameter]:
        """The noise matrix alone: what changes when the pattern does."""
        return [self.table]


class Cascade(nn.Module):
    """The Amateur, whose output is the module's own, and the Expert, which reads 2K numbers."""

    taught: Tensor
    """(K,) which classes had a trusted row; saved with the weights."""

    def __init__(self, amateur: nn.Module, expert: nn.Module, classes: int):
        super().__init__()
        self.amateur, self.expert = amateur, expert
        self.register_buffer("taught", torch.ones(classes, dtype=torch.bool))

    def forward(self, x: Tensor) -> Tensor:
        """(b, K) logits of the Amateur."""
        return self.amateur(x)  # type: ignore[no-any-return]

    def judge(self, proba: Tensor, given: Tensor) -> Tensor:
        """(b, K) float32 logits of the Expert, for the Amateur's probabilities (b, K) and given classes (b,)."""
        return self.expert(torch.cat([proba, one_hot(given, proba.shape[1])], 1))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Imitate(Method):
    """The Expert learns from trusted rows, the Amateur learns from the Expert on all rows (methods section 4).

    expert: "dense", the paper's, or "fusing" (:class:`Fusing`). hidden: units of the dense layers but the last.
    """

    expert: str = "fusing"
    hidden: tuple[int, ...] = (512, 512, 512)

    def __post_init__(self) -> None:
        if self.expert not in ("dense", "fusing"):
            raise SettingsError(f"expert={self.expert!r} is unknown; expected dense or fusing")

    def network(self, make: Make, classes: int) -> nn.Module:
        """See :class:`~labelwright.learners.objectives.Method`."""
        hidden = tuple(self.hidden)
        expert = Fusing(classes) if self.expert == "fusing" else Dense(2 * classes, classes, hidden=hidden)
        return Cascade(make(), expert, classes)

    def begin(self, task: Task) -> Objective:
        """See :class:`~labelwright.learners.objectives.Method`."""
        return _Imitate(task)


class _Imitate(Objective):
    def __init__(self, task: Task):
        super().__init__()
        self.trusted = task.trusted
        known = task.trusted[task.vouched]
        self.taught = torch.zeros(task.classes, dtype=torch.bool, device=known.device)
        self.taught[known] = True

    def losses(self, network: nn.Module, batch: Minibatch) -> Iterator[Tensor]:
        network = as_kind(network, Cascade)
        network.taught.copy_(self.taught)
        given, true = batch.target, self.trusted[batch.index]
        logits = batch.forward(network, batch.x)
        share, sure = F.softmax(logits, 1).detach(), true >= 0
        if sure.any():
            yield F.cross_entropy(network.judge(share[sure], given[sure]), true[sure])
        with torch.no_grad():
            said = F.softmax(network.judge(share, given), 1)
            said = torch.where(self.taught[given][:, None], said, one_hot(given, said.shape[1]))
        yield F.cross_entropy(logits, said)


def expert_proba(model: TorchClassifier, proba: Floats, given: Ints) -> Floats:
    """(n, K) probabilities of the Expert inside a fitted model, for the Amateur's probabilities and given classes."""
    home = model.trainer_.device
    with torch.no_grad(), model.trainer_.judging() as judge:
        network = as_kind(judge, Cascade)
        share = torch.as_tensor(proba, dtype=torch.float32, device=home)
        said = F.softmax(network.judge(share, torch.as_tensor(given, device=home)), 1)
        return said.cpu().numpy().astype(np.float64)


def retrained(model: TorchClassifier, proba: Floats, given: Ints, true: Ints, *, last: bool, epochs: int) -> None:
    """Train the Expert inside a fitted model, all its layers or the last one, on the rows whose true class is known.

    proba: (n, K) of the Amateur. given: (n,). true: (n,) classes, NO_LABEL where unknown. The fusing Expert first moves to the noise
    matrix (and, where all of it is retrained, the temperature) that the posterior of methods section 5 finds in all rows, as far as
    there are rows to tell; the known ones then teach it. Classes that some known row has count as taught from then on.
    """
    from labelwright.learners.training import Inputs, Recipe, Trainer

    network, home = as_kind(model.trainer_.network, Cascade), model.trainer_.device
    k, sure = proba.shape[1], true != NO_LABEL
    if isinstance(network.expert, Fusing):
        seen = NoiseModel.start(k).updated(proba, given, true)
        network.expert.begin(seen, whole=not last and len(given) >= PULL * k)
    values = np.concatenate([proba, np.eye(k)[given]], axis=1)[sure].astype(np.float32)
    inputs = Inputs(torch.from_numpy(values).to(home), torch.ones(1, device=home), torch.zeros(1, device=home), home)
    changing = {id(w) for w in network.expert.last()} if last else set()
    frozen = [w for w in network.expert.parameters() if id(w) not in changing] if last else []
    for weight in frozen:
        weight.requires_grad_(False)
    recipe = Recipe(epochs, model.batch_size, model.learning_rate, model.momentum, model.nesterov, model.weight_decay)
    seed = int(np.random.default_rng([model._seed, 1 + model._stage]).integers(2**62))
    trainer = Trainer(network.expert, device=home, precision=torch.float32)
    trainer.run(inputs, torch.as_tensor(true[sure], device=home), recipe, seed=seed)
    for weight in frozen:
        weight.requires_grad_(True)
    network.taught[torch.as_tensor(np.unique(true[sure]), device=home)] = True
    if model.trainer_.averaged is not None:
        now = network.state_dict()
        model.trainer_.averaged |= {
            n: v.detach().clone() for n, v in now.items() if n.startswith(("expert.", "taught"))
        }
    model._stage += 1


def last_alone(model: TorchClassifier, layers: str | None) -> bool:
    """Whether "last" is meant: None is the matrix alone of a fusing Expert, which is better so, and all of a dense one."""
    if layers not in (None, "all", "last"):
        raise SettingsError(f"layers={layers!r} is unknown; expected all or last")
    fusing = isinstance(as_kind(model.trainer_.network, Cascade).expert, Fusing)
    return layers == "last" or (layers is None and fusing)


def fresh_expert(model: TorchClassifier) -> TorchClassifier:
    """A copy of a fitted model whose Expert has learned nothing yet; its Amateur is the same."""
    other = type(model).from_bytes(model.to_bytes())
    ours, new = as_kind(other.trainer_.network, Cascade), as_kind(other._trainer().network, Cascade)
    ours.expert.load_state_dict(new.expert.state_dict())
    return other
