"""The one training loop of all networks: minibatches, schedule, averaged weights, checkpoints. Needs torch.

All randomness of a training run (order, augmentation, dropout) comes from one seeded generator whose state is part of
the checkpoint: a run that was killed and started again ends with the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labelwright.errors import SettingsError, TooLargeError
from labelwright.learners.augment import Augment, views
from labelwright.learners.checkpoint import Beside, Checkpoint
from labelwright.learners.objectives import Minibatch, Objective, Observed

_AT_ONCE = 1000
_USUAL = 64 * 64 * 3
"""Numbers a row, up to which so many rows are judged at once; fewer of larger pictures."""
Tell = Callable[[int, int, float], None]
"""(steps done, steps in all, mean loss of the epoch so far)."""


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. rate: peak learning rate, falling linearly to ``final`` of it over all steps.

    average: decay of the averaged weights a step, 0 for none.
    """

    epochs: int = 30
    batch_size: int = 128
    rate: float = 0.05
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    final: float = 0.02
    average: float = 0.0
    augment: Augment = field(default_factory=Augment)

    def steps(self, rows: int) -> int:
        """Minibatches in one epoch: as even as they can be, so that none is left with a single row."""
        return max(1, -(-rows // self.batch_size))


@dataclass(frozen=True)
class Inputs:
    """Rows as tensors. values: (n, height, width, channels) bytes or floats, or (n, d) floats. scale, shift: what makes
    a value of each channel (or column) a number of mean 0 and deviation 1. home: the device that computes."""

    values: Tensor
    scale: Tensor
    shift: Tensor
    home: torch.device

    def __len__(self) -> int:
        return len(self.values)

    @property
    def at_once(self) -> int:
        """How many rows to judge at once."""
        return max(8, min(_AT_ONCE, _AT_ONCE * _USUAL // max(1, self.values[:1].numel())))

    def batch(self, index: Tensor, augment: Augment | None = None) -> Tensor:
        """The rows at ``index`` as the network reads them."""
        index = index.to(self.values.device)
        if self.values.ndim == 2:
            return (self.values[index].to(self.home).float() * self.scale) + self.shift
        grey = None if self.values.dtype == torch.uint8 else -self.shift / self.scale  # the mean
        out = (augment or _PLAIN).gather(self.values, index, grey).to(self.home)
        scale, shift = self.scale.view(1, -1, 1, 1), self.shift.view(1, -1, 1, 1)
        return torch.addcmul(shift, out.float(), scale)


_PLAIN = Augment()


class Trainer:
    """A network, the average of its weights, and where both stand.

    precision: torch.bfloat16 or torch.float32, of the products.
    """

    def __init__(self, network: nn.Module, *, device: torch.device, precision: torch.dtype):
        self.device, self.precision = device, precision
        self.network = network.to(device=device, memory_format=torch.channels_last)
        self.averaged: dict[str, Tensor] | None = None

    def run(
        self,
        inputs: Inputs,
        target: Tensor,
        recipe: Recipe,
        *,
        seed: int,
        weight: Tensor | None = None,
        objective: Objective | None = None,
        checkpoint: Checkpoint | None = None,
        tell: Tell | None = None,
        after_epoch: Callable[[int], bool] | None = None,
        beside: Beside | None = None,
    ) -> None:
        """Train on all rows. target: (n,) classes or (n, K) shares of classes. weight: (n,) of the rows.

        objective: what is learned from a minibatch; cross-entropy when None.
        after_epoch: told the number of each epoch that ended; returns True to stop. beside: what the checkpoint keeps for it.
        """
        advice = f"minibatches of {recipe.batch_size} rows; lower batch_size, or take a smaller network"
        with _randomness(seed, self.device), _memory(advice, self.device):
            state = _Going(self, recipe, len(inputs), objective or Objective(), beside)
            if checkpoint is not None:
                state.resume(checkpoint)
            while state.epoch < recipe.epochs:
                self._epoch(state, inputs, target, weight, checkpoint, tell)
                state.next_epoch()
                held = (*self.network.parameters(), *self.network.buffers())
                if not all(bool(value.isfinite().all()) for value in (*held, state.last)):
                    raise SettingsError(
                        f"training blew up: weights or losses are no numbers after epoch {state.epoch}; lower the learning "
                        "rate and fit anew"
                    )
                if after_epoch is not None and after_epoch(state.epoch):
                    break
        if checkpoint is not None:
            checkpoint.remove()

    def _epoch(
        self,
        state: _Going,
        inputs: Inputs,
        target: Tensor,
        weight: Tensor | None,
        checkpoint: Checkpoint | None,
        tell: Tell | None,
    ) -> None:
        recipe = state.recipe
        if state.step == 0:
            state.objective.begin_epoch(state.epoch, self.observed(inputs))
        self.network.train()
        parts = state.order(inputs.values.device).tensor_split(state.steps)
        for part in parts[state.step :]:
            state.set_rate()
            batch = self._minibatch(part, inputs, target, weight, recipe)
            for loss in state.objective.losses(self.network, batch):
                state.optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                state.optimiser.step()
                state.last = loss.detach()
            state.step += 1
            if recipe.average:
                self._average(recipe.average, state)
            if tell is not None:
                state.loss += float(loss.detach())
                tell(state.done, recipe.epochs * state.steps, state.loss / state.step)
            if checkpoint is not None and checkpoint.due():
                checkpoint.write(*state.held())

    def _minibatch(
        self, part: Tensor, inputs: Inputs, target: Tensor, weight: Tensor | None, recipe: Recipe
    ) -> Minibatch:
        index = part.repeat(2) if len(part) == 1 else part  # batch norm needs two
        there = index.to(target.device)

        def look() -> Tensor:
            return inputs.batch(index, recipe.augment)

        return Minibatch(there, look(), target[there], None if weight is None else weight[there], look, self.forward)

    def forward(self, network: nn.Module, x: Tensor) -> Tensor:
        """The network's output as float32, computed in this trainer's precision."""
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            out: Tensor = network(x)
        return out.float()

    def observed(self, inputs: Inputs) -> Observed:
        """The network and its training rows between epochs, for an objective."""

        def proba(network: nn.Module, rows: Tensor | None) -> Tensor:
            every = torch.arange(len(inputs)) if rows is None else rows
            self.network.eval()
            with torch.no_grad():
                shares = [F.softmax(self.forward(network, inputs.batch(at)), 1) for at in every.split(inputs.at_once)]
            return torch.cat(shares)

        return Observed(self.network, proba)

    def _average(self, decay: float, state: _Going) -> None:
        """Move the averaged weights towards the present ones; in the first steps faster, so that the start is forgotten."""
        now = self.network.state_dict()
        if self.averaged is None:
            self.averaged = {name: value.detach().clone() for name, value in now.items()}
            return
        share = 1 - min(decay, (1 + state.done) / (10 + state.done)) if state.fresh else 1 - decay
        floats = [name for name, value in now.items() if value.dtype.is_floating_point]
        with torch.no_grad():
            torch._foreach_lerp_([self.averaged[n] for n in floats], [now[n].detach() for n in floats], share)

    def proba(self, inputs: Inputs, *, looks: int = 1, flip: bool = False) -> Tensor:
        """(n, K) float32 probabilities on the CPU, by the averaged weights where there are any.

        looks, flip: averaged over shifted and mirrored pictures, see :func:`~labelwright.learners.augment.views`.
        """
        advice = f"{inputs.at_once} rows to be judged at once; take a smaller network or smaller pictures"
        with torch.no_grad(), self.judging() as network, _memory(advice, self.device):
            out = []
            for index in torch.arange(len(inputs)).split(inputs.at_once):
                batch = inputs.batch(index)
                seen = views(batch, looks, flip=flip) if batch.ndim == 4 else [batch]
                shares = [F.softmax(self.forward(network, one), 1) for one in seen]
                out.append(torch.stack(shares).mean(0).cpu())
        proba = torch.cat(out)
        if not bool(proba.isfinite().all()):
            raise SettingsError(
                "the network's answers are no numbers: its training blew up, or a row is out of all proportion to those it "
                "learned from; fit anew at a lower learning rate, or scale the rows"
            )
        return proba

    def weights(self) -> list[Any]:
        """All that the network holds, as arrays: what tells one start of a training run from another."""
        held = [*self.network.state_dict().values(), *(self.averaged or {}).values()]
        return [value.detach().cpu().numpy().reshape(-1) for value in held]

    @contextmanager
    def judging(self) -> Iterator[nn.Module]:
        """The network in evaluation mode, with the averaged weights."""
        self.network.eval()
        now = None
        if self.averaged is not None:
            now = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
            self.network.load_state_dict(self.averaged)
        try:
            yield self.network
        finally:
            if now is not None:
                self.network.load_state_dict(now)


class _Going:
    """Where a training run stands: optimiser, objective, epoch, step, random state."""

    def __init__(self, trainer: Trainer, recipe: Recipe, rows: int, objective: Objective, beside: Beside | None = None):
        self.trainer, self.recipe, self.rows, self.objective, self.beside = trainer, recipe, rows, objective, beside
        self.steps, self.epoch, self.step, self.loss = recipe.steps(rows), 0, 0, 0.0
        self.fresh = trainer.averaged is None
        self.last = torch.zeros(())
        self._order: Tensor | None = None
        self.optimiser = torch.optim.SGD(
            trainer.network.parameters(),
            lr=recipe.rate,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov and recipe.momentum > 0,
            weight_decay=recipe.weight_decay,
            fused=True,
        )

    @property
    def done(self) -> int:
        return self.epoch * self.steps + self.step

    def order(self, device: torch.device) -> Tensor:
        """The rows' order in this epoch."""
        if self._order is None:
            self._order = torch.randperm(self.rows)
        return self._order.to(device)

    def next_epoch(self) -> None:
        self.epoch, self.step, self.loss, self._order = self.epoch + 1, 0, 0.0, None

    def set_rate(self) -> None:
        share = self.done / max(1, self.recipe.epochs * self.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.rate * (1 - (1 - self.recipe.final) * share)

    def held(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All of it, for a checkpoint."""
        tensors = {f"network.{n}": v.detach() for n, v in self.trainer.network.state_dict().items()}
        if self.trainer.averaged is not None:
            tensors |= {f"averaged.{n}": v for n, v in self.trainer.averaged.items()}
        for at, weight in enumerate(self.trainer.network.parameters()):
            buffer = self.optimiser.state[weight].get("momentum_buffer")
            if buffer is not None:
                tensors[f"momentum.{at}"] = buffer
        tensors |= {f"objective.{n}": v for n, v in self.objective.state.items()}
        tensors["random"] = torch.get_rng_state()
        if self.trainer.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.trainer.device)
        if self._order is not None:
            tensors["order"] = self._order
        told: dict[str, Any] = {"epoch": self.epoch, "step": self.step, "loss": self.loss, "fresh": self.fresh}
        if self.beside is not None:
            more, told["beside"] = self.beside.held()
            tensors |= {f"beside.{n}": v for n, v in more.items()}
        return tensors, told

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint, if there is one of this run."""
        found = checkpoint.read()
        if found is None:
            return
        tensors, told = found
        part = {p: {n[len(p) :]: v for n, v in tensors.items() if n.startswith(p)} for p in ("network.", "averaged.")}
        self.trainer.network.load_state_dict(part["network."])
        device, now = self.trainer.device, self.trainer.network.state_dict()
        self.trainer.averaged = {n: _laid_out(v, now[n]) for n, v in part["averaged."].items()} or None
        for at, weight in enumerate(self.trainer.network.parameters()):
            if f"momentum.{at}" in tensors:
                self.optimiser.state[weight]["momentum_buffer"] = _laid_out(tensors[f"momentum.{at}"], weight)
        for name in [n for n in tensors if n.startswith("objective.")]:
            self.objective.state[name.removeprefix("objective.")] = tensors[name].to(device)
        torch.set_rng_state(tensors["random"])
        if "random.cuda" in tensors and device.type == "cuda":
            torch.cuda.set_rng_state(tensors["random.cuda"], device)
        self.epoch, self.step, self.loss, self.fresh = told["epoch"], told["step"], told["loss"], told["fresh"]
        self._order = tensors.get("order")
        if self.beside is not None:
            kept = {n.removeprefix("beside."): v.to(device) for n, v in tensors.items() if n.startswith("beside.")}
            self.beside.resume(kept, told["beside"])


def _laid_out(value: Tensor, like: Tensor) -> Tensor:
    """``value`` on the device and in the memory layout of ``like``: the fused optimiser takes both as they lie."""
    return torch.empty_like(like.detach()).copy_(value)


@contextmanager
def _randomness(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's generators seeded for a while, and put back as they were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@contextmanager
def _memory(advice: str, device: torch.device) -> Iterator[None]:
    """Out of memory: say for what, and which setting to lower."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        words = str(error).lower()
        short = isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in words
        if not short:
            raise
        raise TooLargeError(f"the memory of {device} is too small for {advice}") from error


__all__ = ["Inputs", "Recipe", "Trainer"]
