"""Models of the tier as safetensors files, and from what was trained elsewhere. Never pickle."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from labelwright.errors import SettingsError
from labelwright.trust.tier.models import Linear, Machine, Model, Network

KEY = "labelwright.tier"
_DENSE = ("auto", "mlp", "expert")


def write(model: Model, *, names: list[str] | None = None) -> bytes:
    """A model as the bytes of a safetensors file. names: of the classes.

    >>> read(write(Linear(np.eye(2), np.zeros(2))))[0].judge(np.array([[1.0, 0.0]]))[0].tolist()
    [[1.0, 0.0]]
    """
    from safetensors.numpy import save

    told: dict[str, Any] = {"kind": type(model).__name__.lower(), "names": names}
    if isinstance(model, Linear):
        arrays = {"weight": model.weight, "bias": model.bias}
        told["calibrated"] = model.calibrated
    elif isinstance(model, Machine):
        arrays = {"support": model.support, "dual": model.dual, "bias": model.bias}
        told["gamma"] = model.gamma
    elif isinstance(model, Network):
        arrays = {"scale": model.scale, "shift": model.shift}
        for place, (weight, bias) in enumerate(model.layers):
            arrays |= {f"{place}.weight": weight, f"{place}.bias": bias}
    else:
        raise SettingsError(
            f"{type(model).__name__} is no model of the NumPy tier; expected Linear, Machine or Network"
        )
    return bytes(save({n: np.ascontiguousarray(a) for n, a in arrays.items()}, {KEY: json.dumps(told)}))


def read(content: bytes, name: str = "the model") -> tuple[Model, list[str] | None]:
    """(the model, the names of its classes) of a safetensors file: one of the tier's own, or a saved ``TorchClassifier`` of dense layers.

    Raises SettingsError when it is damaged or of another kind.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(bytes(content))
        said = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]).get("__metadata__", {})
        if KEY in said:
            told = json.loads(said[KEY])
            return _checked(_own(told, arrays, name), name), told["names"]
        told = json.loads(said["labelwright"])
        return _checked(_network(told, arrays, name), name), [str(c) for c in told["classes"]]
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        if isinstance(error, SettingsError):
            raise
        raise SettingsError(
            f"{name} is no model that the NumPy tier reads ({type(error).__name__}); give a file of tier.write, or a saved "
            "TorchClassifier of network 'mlp' or 'expert'"
        ) from error


def of_estimator(estimator: Any) -> Model:
    """The tier's model of a fitted estimator: ``OneVsRestSVC`` (rbf or linear), logistic regression or another linear classifier, or
    ``TorchClassifier`` of dense layers. Raises SettingsError for any other.
    """
    if hasattr(estimator, "to_bytes"):
        return read(estimator.to_bytes(), "the network")[0]
    if hasattr(estimator, "support_vectors_") and hasattr(estimator, "gamma_"):
        return _machine(estimator)
    if hasattr(estimator, "coef_") and hasattr(estimator, "intercept_"):
        weight, bias = np.atleast_2d(np.asarray(estimator.coef_)).T, np.atleast_1d(np.asarray(estimator.intercept_))
        calibrated = hasattr(estimator, "predict_proba")
        if len(bias) == 1:  # two classes: one column of scores
            left = np.zeros_like(weight) if calibrated else -weight
            weight = np.concatenate([left, weight], axis=1)
            bias = np.concatenate([np.zeros(1) if calibrated else -bias, bias])
        return Linear(weight, bias, calibrated)
    raise SettingsError(
        f"{type(estimator).__name__} has no place in the NumPy tier; expected OneVsRestSVC, a linear classifier, or TorchClassifier of "
        "dense layers, fitted"
    )


def _machine(estimator: Any) -> Model:
    dual, bias = np.asarray(estimator.dual_coef_), np.asarray(estimator.intercept_)
    if dual.shape[1] == 1:
        dual, bias = np.concatenate([-dual, dual], axis=1), np.concatenate([-bias, bias])
    support = np.asarray(estimator.support_vectors_)
    if estimator.kernel == "linear":
        return Linear(support.T @ dual, bias)
    return Machine(support, dual, bias, float(estimator.gamma_))


def _own(told: dict[str, Any], arrays: dict[str, Any], name: str) -> Model:
    kind = told["kind"]
    if kind == "linear":
        return Linear(arrays["weight"], arrays["bias"], bool(told["calibrated"]))
    if kind == "machine":
        return Machine(arrays["support"], arrays["dual"], arrays["bias"], float(told["gamma"]))
    if kind == "network":
        count = (len(arrays) - 2) // 2
        layers = [(arrays[f"{place}.weight"], arrays[f"{place}.bias"]) for place in range(count)]
        return Network(layers, arrays["scale"], arrays["shift"])
    raise SettingsError(f"{name} is of the kind {str(kind)[:40]!r}; expected linear, machine or network")


def _network(told: dict[str, Any], arrays: dict[str, Any], name: str) -> Model:
    """A saved TorchClassifier: its averaged weights where it has some, as it predicts with those."""
    if told["params"]["network"] not in _DENSE or told["image"] is not None:
        raise SettingsError(
            f"{name} is the network {told['params']['network']!r} for pictures; the NumPy tier holds 'mlp' and 'expert' on vectors"
        )
    part = "averaged.layers." if any(key.startswith("averaged.") for key in arrays) else "network.layers."
    places = sorted(
        int(key[len(part) :].split(".")[0]) for key in arrays if key.startswith(part) and key.endswith("weight")
    )
    layers = [(arrays[f"{part}{at}.weight"], arrays[f"{part}{at}.bias"]) for at in places]
    width = told["width"]
    scale, shift = (np.broadcast_to(np.array(told[n], np.float32), (width,)).copy() for n in ("scale", "shift"))
    return Network(layers, scale, shift)


def _checked(model: Model, name: str) -> Model:
    """Shapes that fit each other. Raises SettingsError."""
    if isinstance(model, Linear):
        sound = model.weight.ndim == 2 and model.bias.shape == model.weight.shape[1:]
    elif isinstance(model, Machine):
        sound = model.support.ndim == model.dual.ndim == 2 and model.bias.shape == model.dual.shape[1:]
        sound = sound and len(model.support) == len(model.dual) and model.gamma > 0
    elif isinstance(model, Network):
        inputs = model.width
        sound = bool(model.layers) and model.scale.shape == model.shift.shape == (inputs,)
        for weight, bias in model.layers:
            sound = sound and weight.ndim == 2 and weight.shape[1] == inputs and bias.shape == weight.shape[:1]
            inputs = len(bias)
    else:
        sound = False
    if not sound or model.classes < 1:
        raise SettingsError(f"{name} holds arrays whose shapes do not fit each other; save the model again")
    return model
