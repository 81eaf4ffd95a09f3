"""Activation clustering (Chen et al. 2018) and spectral signatures (Tran et al. 2018), as the adversarial-robustness-toolbox has them.

Both look at the last hidden layer of the network that was trained on everything as given. Activation clustering as by default (two
clusters a class by ten principal components, the smaller one is called poisoned); spectral signatures are told the true share of
poisoned rows, which a user would have to guess.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from labelwright.errors import SettingsError
from labelwright.types import Bools, Floats, Ints

RIVALS = ("activation clustering", "spectral signatures")


def flagged(name: str, estimator: Any, X: Floats, given: Ints, *, share: float) -> Bools:
    """(n,) rows that a rival calls poisoned.

    estimator: a fitted TorchClassifier of a compact network. X: (n, d) pictures. share: of poisoned rows, for spectral signatures.
    Raises SettingsError when the toolbox is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from art.defences.detector.poison import ActivationDefence, SpectralSignatureDefense
    except ImportError as error:
        raise SettingsError(
            f"the rivals need the adversarial-robustness-toolbox ({error}); run: pip install 'labelwright[rivals]'"
        ) from error
    wrapped, pictures = _wrapped(estimator), _pictures(estimator, X)
    onehot = np.eye(len(estimator.classes_), dtype=np.float32)[given]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name == RIVALS[0]:
            defence = ActivationDefence(wrapped, pictures, onehot)
            _, clean = defence.detect_poison(nb_clusters=2, nb_dims=10, reduce="PCA", cluster_analysis="smaller")
        else:
            defence = SpectralSignatureDefense(wrapped, pictures, onehot, expected_pp_poison=max(share, 0.001))
            _, clean = defence.detect_poison()
    return np.asarray(clean, int) == 0


def _pictures(estimator: Any, X: Floats) -> Floats:
    height, width, channels = estimator._image
    scaled = np.asarray(X, np.float32).reshape(len(X), height, width, channels) * estimator._scale + estimator._shift
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2), np.float32)


def _wrapped(estimator: Any) -> Any:
    import torch
    from art.estimators.classification import PyTorchClassifier
    from torch import nn

    network = estimator.trainer_.network.float().eval()

    class Hidden(nn.Module):  # type: ignore[misc]
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return network.features(x).amax((2, 3))  # type: ignore[no-any-return]

    height, width, channels = estimator._image
    return PyTorchClassifier(
        nn.Sequential(Hidden()),  # the toolbox reads the last layer that it is given
        loss=nn.CrossEntropyLoss(),
        input_shape=(channels, height, width),
        nb_classes=len(estimator.classes_),
        device_type="cpu",
    )
