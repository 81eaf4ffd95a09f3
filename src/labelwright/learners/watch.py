"""Looking at held-out rows, labelled as they came, while a network trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from labelwright.types import NO_LABEL, Ints

if TYPE_CHECKING:
    from labelwright.learners.torch_classifier import TorchClassifier
    from labelwright.learners.training import Inputs, Trainer


def held_out(n: int, fraction: float, seed: int, trusted: Ints | None = None) -> Ints:
    """Sorted positions of the rows that choose the epoch; those that somebody vouches for only when there are no others.

    fraction: of the n rows, at least one row above 0, never all. trusted: (n,) classes, NO_LABEL where nobody vouches.

    >>> held_out(4, 0.5, 0, np.array([1, -1, 0, -1])).tolist()
    [1, 3]
    """
    count = min(max(round(fraction * n), fraction > 0), n - 1)
    order = np.random.default_rng(seed).permutation(n)
    if trusted is not None:
        order = order[np.argsort(trusted[order] != NO_LABEL, kind="stable")]
    return np.sort(order[:count])


class Watch:
    """Looks at the held-out rows, labelled as they came, after every epoch; remembers the best one."""

    def __init__(self, model: TorchClassifier, inputs: Inputs, given: Ints):
        self.model, self.inputs, self.given = model, inputs, given
        self.best, self.waited = -np.inf, 0
        self.kept: tuple[Any, Any] | None = None

    def __call__(self, epoch: int) -> bool:
        trainer = self.model.trainer_
        proba = trainer.proba(self.inputs).numpy()
        own = np.maximum(proba[np.arange(len(self.given)), self.given], 1e-9)
        accuracy = float((proba.argmax(axis=1) == self.given).mean())
        told = {"epoch": epoch, "noisy_accuracy": accuracy, "noisy_loss": float(-np.log(own).mean())}
        self.model.history_.append(told)
        if accuracy > self.best:
            self.best, self.waited, self.model.best_epoch_ = accuracy, 0, epoch
            copies = [
                None if s is None else {n: v.detach().clone() for n, v in s.items()} for s in self._states(trainer)
            ]
            self.kept = (copies[0], copies[1])
        else:
            self.waited += 1
        return self.model.patience is not None and self.waited >= self.model.patience

    @staticmethod
    def _states(trainer: Trainer) -> tuple[Any, Any]:
        return trainer.network.state_dict(), trainer.averaged

    def held(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a checkpoint keeps: the best weights, and what was seen so far."""
        parts = zip(("best.", "averaged."), self.kept or (None, None), strict=True)
        tensors = {f"{part}{n}": v for part, state in parts for n, v in (state or {}).items()}
        told = {"best": self.best if self.kept else None, "waited": self.waited, "history": self.model.history_}
        return tensors, {**told, "best_epoch": self.model.best_epoch_}

    def resume(self, tensors: Mapping[str, Any], told: Mapping[str, Any]) -> None:
        """Go on from :meth:`held`."""
        self.waited, self.model.history_, self.model.best_epoch_ = told["waited"], told["history"], told["best_epoch"]
        if told["best"] is None:
            return
        self.best = told["best"]
        weights, averaged = (
            {n.removeprefix(part): v for n, v in tensors.items() if n.startswith(part)}
            for part in ("best.", "averaged.")
        )
        self.kept = (weights, averaged or None)

    def restore(self, trainer: Trainer) -> None:
        """The weights of the best epoch."""
        if self.kept is not None:
            trainer.network.load_state_dict(self.kept[0])
            trainer.averaged = self.kept[1]
