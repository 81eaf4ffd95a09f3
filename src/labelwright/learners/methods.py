"""What a robust method may ask for before its training begins. Needs torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.model_selection import StratifiedKFold

from labelwright.learners.objectives import Task
from labelwright.types import Bools, Floats, Ints

if TYPE_CHECKING:
    from labelwright.learners.torch_classifier import TorchClassifier
    from labelwright.learners.training import Recipe

SHORT = 6
"""A crossed network trains this part of the epochs: it has learned what most labels say, and few wrong ones by heart."""


def task(model: TorchClassifier, X: Any, wanted: Any, trusted: Ints, recipe: Recipe, seed: int) -> Task:
    """The task of one training run of ``model`` on rows X, their labels as codes or shares."""
    home = model.trainer_.device
    return Task(
        given=torch.from_numpy(np.ascontiguousarray(wanted)).to(home),
        trusted=torch.from_numpy(trusted).to(home),
        classes=len(model.classes_),
        epochs=recipe.epochs,
        seed=seed,
        plain=lambda mask: _plain(model, *_masked(X, wanted, mask), recipe.epochs, seed)(X),
        crossed=lambda: _crossed(model, X, wanted, max(1, round(recipe.epochs / SHORT)), seed),
    )


def _masked(X: Any, codes: Ints, mask: Bools | None) -> tuple[Any, Ints]:
    return (X, codes) if mask is None else (X[mask], codes[mask])


def _plain(model: TorchClassifier, X: Any, codes: Ints, epochs: int, seed: int) -> Any:
    """A function X -> (n, K) probabilities of a new network of the same settings, trained by cross-entropy."""
    beside = None if model.checkpoint is None else f"{model.checkpoint}.plain"
    other = clone(model).set_params(
        method=None, epochs=epochs, checkpoint=beside, on_epoch=None, random_state=seed % 2**31, validation_fraction=0.0,
        keep="last", patience=None,
    )  # fmt: skip
    other.partial_fit(X, codes, classes=np.arange(len(model.classes_)))
    return lambda rows: other.predict_proba(rows, mirror=False)


def _crossed(model: TorchClassifier, X: Any, codes: Ints, epochs: int, seed: int) -> Floats:
    """(n, K): every row judged by a network that has not seen it."""
    out = np.empty((len(X), len(model.classes_)))
    folds = StratifiedKFold(2, shuffle=True, random_state=seed % 2**31)
    few = np.bincount(codes, minlength=1).max(initial=0) < 2
    parts = folds.split(X, codes) if not few else [(np.arange(len(X)),) * 2]
    for part, (learned, judged) in enumerate(_quietly(parts)):
        out[judged] = _plain(model, X[learned], codes[learned], epochs, seed + part)(X[judged])
    return out


def _quietly(parts: Any) -> Any:
    """Without scikit-learn's warning that a class has one row."""
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        yield from parts
