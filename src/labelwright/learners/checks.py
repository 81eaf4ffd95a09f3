"""Settings of a network, looked at before it trains: a misspelt one is said, not silently taken for something else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from labelwright.errors import SettingsError
from labelwright.learners.shapes import whole

if TYPE_CHECKING:
    from labelwright.learners.torch_classifier import TorchClassifier

_COUNTS = ("epochs", "later_epochs", "batch_size", "looks")
_POSITIVE = ("learning_rate", "later_rate")
_SHARES = ("momentum", "average", "validation_fraction")


def check_settings(model: TorchClassifier) -> None:
    """Raises SettingsError, in one sentence, for the first setting that makes no sense."""
    for name in _COUNTS:
        value = getattr(model, name)
        if not whole(value) or value < 1:
            raise SettingsError(f"{name}={value!r} is no count; expected a whole number of 1 or more")
    for name in _POSITIVE:
        value = getattr(model, name)
        if not _number(value) or not 0 < value < np.inf:
            raise SettingsError(f"{name}={value!r} is no rate; expected a number above 0")
    for name in _SHARES:
        value = getattr(model, name)
        if not _number(value) or not 0 <= value < 1:
            raise SettingsError(f"{name}={value!r} is no share; expected 0 up to below 1")
    for name in ("weight_decay", "checkpoint_seconds"):
        value = getattr(model, name)
        if not _number(value) or not 0 <= value < np.inf:
            raise SettingsError(f"{name}={value!r} makes no sense; expected a number of 0 or more")
    for name in ("nesterov", "mirror", "deterministic"):
        if not isinstance(getattr(model, name), bool | np.bool_):
            raise SettingsError(f"{name}={getattr(model, name)!r} is no switch; expected True or False")
    if model.on_epoch is not None and not callable(model.on_epoch):
        raise SettingsError(f"on_epoch={model.on_epoch!r} cannot be called; expected a function of the epoch, or None")
    if not _seed(model.random_state):
        raise SettingsError(f"random_state={model.random_state!r} is no seed; expected a whole number, or None")
    if not isinstance(model.augment, str):
        raise SettingsError(f"augment={model.augment!r} is no text; expected such as 'flip+crop2', or 'none'")
    if model.keep not in ("last", "best"):
        raise SettingsError(f"keep={model.keep!r} is unknown; expected last or best")
    if model.patience is not None and (not whole(model.patience) or model.patience < 1):
        raise SettingsError(f"patience={model.patience!r} is no count of epochs; expected 1 or more, or None")
    if (model.keep == "best" or model.patience is not None) and not model.validation_fraction:
        raise SettingsError("keep='best' and patience need rows to look at; set validation_fraction, such as 0.1")


def _seed(value: Any) -> bool:
    if isinstance(value, np.random.RandomState):
        return True
    try:
        np.random.default_rng(value)
    except (TypeError, ValueError):
        return False
    return True


def _number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)
