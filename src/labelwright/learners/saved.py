"""A fitted TorchClassifier as the bytes of a safetensors file, and back. Needs torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from labelwright.errors import SettingsError
from labelwright.learners.objectives import Method
from labelwright.learners.shapes import whole
from labelwright.learners.tensors import from_bytes, to_bytes
from labelwright.learners.torch_classifier import TorchClassifier

FORMAT = 1
_OURS = ("labelwright.baselines.", "labelwright.learners.imitating")
_NOT_SAVED = ("checkpoint", "on_epoch", "method")


def dumped(model: TorchClassifier) -> bytes:
    """Weights, averaged weights, settings, classes."""
    tensors = {f"network.{n}": v for n, v in model.trainer_.network.state_dict().items()}
    if model.trainer_.averaged is not None:
        tensors |= {f"averaged.{n}": v for n, v in model.trainer_.averaged.items()}
    told = {
        "format": FORMAT,
        "method": _named(model.method),
        "params": {n: v for n, v in model.get_params(deep=False).items() if n not in _NOT_SAVED}
        | {"random_state": model.random_state if whole(model.random_state) else None, "device": str(model.device)},
        "classes": model.classes_.tolist(),
        "object_classes": model.classes_.dtype == object,
        "width": model._width,
        "image": model._image,
        "features": model.n_features_in_,
        "feature_names": list(getattr(model, "feature_names_in_", [])),
        "scale": model._scale.tolist(),
        "shift": model._shift.tolist(),
        "seed": model._seed,
        "stage": model._stage,
    }
    try:
        text = json.dumps(told, default=_plain)
    except TypeError as error:
        raise SettingsError(
            f"the network cannot be saved: {error}; use classes and settings that are texts or numbers"
        ) from error
    return to_bytes(tensors, {"labelwright": text})


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays, and paths, as JSON has them."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{value!r} is no value of JSON")


def loaded(content: bytes, name: str, **settings: str) -> TorchClassifier:
    """What :func:`dumped` made. settings: device and precision, where not as saved. Raises SettingsError when it is damaged or of
    another kind."""
    tensors, said = from_bytes(content, name)
    try:
        model = _empty(json.loads(said["labelwright"]), name).set_params(**settings)
    except (KeyError, ValueError, TypeError) as error:
        if isinstance(error, SettingsError):
            raise
        raise SettingsError(
            f"{name} is no saved TorchClassifier ({error!r}); save one with model.save(path)"
        ) from error
    model.trainer_ = model._trainer()
    take_weights(model, tensors, name)
    return model


def _empty(told: Mapping[str, Any], name: str) -> TorchClassifier:
    if told["format"] != FORMAT:
        raise SettingsError(f"{name} has format {told['format']}, expected {FORMAT}; use the version that wrote it")
    params, shape = told["params"], told["params"]["image_shape"]
    if params["device"] == "cuda" and not torch.cuda.is_available():
        params["device"] = "auto"  # learned on another machine
    model = TorchClassifier(**{**params, "image_shape": None if shape is None else tuple(shape)})
    model.method = _method(told.get("method"), name)
    model.classes_ = np.array(told["classes"], dtype=object if told["object_classes"] else None)
    model._width, model._image = told["width"], None if told["image"] is None else tuple(told["image"])
    model.n_features_in_, model._seed, model._stage = told["features"], told["seed"], told["stage"]
    if told.get("feature_names"):
        model.feature_names_in_ = np.array(told["feature_names"], dtype=object)
    model._scale, model._shift = (np.array(told[n], np.float32) for n in ("scale", "shift"))
    model.history_, model.best_epoch_ = [], None
    return model


def _named(method: Any) -> dict[str, Any] | None:
    """A method of this package as its name and settings; another's is not saved."""
    kind = type(method)
    if method is None:
        return None
    if not kind.__module__.startswith(_OURS):
        if kind.network is not Method.network:
            raise SettingsError(
                f"{kind.__name__} is a method of your own with a network of its own; keep model.trainer_.network.state_dict() instead"
            )
        return None
    return {"kind": f"{kind.__module__}:{kind.__qualname__}", "settings": asdict(method)}


def _method(told: Mapping[str, Any] | None, name: str) -> Any:
    """The method that a file names. Only a :class:`Method` of this package is ever made."""
    if told is None:
        return None
    room, _, kind = str(told["kind"]).partition(":")
    found = getattr(import_module(room), kind, None) if room.startswith(_OURS) else None
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise SettingsError(f"{name} names the method {told['kind']!r}, which is not of this package; train anew")
    return found(**{n: _tupled(v) for n, v in told["settings"].items()})


def _tupled(value: Any) -> Any:
    return tuple(map(_tupled, value)) if isinstance(value, list) else value


def take_weights(model: TorchClassifier, tensors: Mapping[str, Tensor], name: str) -> None:
    """Take over weights of the same architecture. Raises SettingsError for another."""
    part = {p: {n[len(p) :]: v for n, v in tensors.items() if n.startswith(p)} for p in ("network.", "averaged.")}
    try:
        model.trainer_.network.load_state_dict(part["network."])
    except RuntimeError as error:
        raise SettingsError(
            f"{name} holds the weights of another architecture than network={model.network!r} for {len(model.classes_)} "
            f"classes; make the model with the settings it was saved with, or train anew"
        ) from error
    like = model.trainer_.network.state_dict()
    model.trainer_.averaged = {n: torch.empty_like(like[n]).copy_(v) for n, v in part["averaged."].items()} or None
