"""The model that sites share: a softmax over random Fourier features. NumPy only, a few thousand weights, convex for given
soft labels, so that averages of weights mean something.

A site's own noise matrix stays at the site: what it shares was learned *through* that matrix (methods section 5), so
that a site whose labels go wrong in another way still teaches the same thing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from labelwright.posterior import NoiseModel, normalised
from labelwright.types import Floats, Ints

MOMENTUM = 0.9
ROW_NORM = float(np.sqrt(3.0))  # of a row of random features and its constant


@dataclass(frozen=True)
class Features:
    """Random Fourier features of the RBF kernel, the same at every site from the same seed.

    width: d of the rows. size: D of the features (0: the rows themselves, scaled and clipped to a norm of sqrt(2)).
    bandwidth: gamma of exp(-gamma |x - y|^2). Source: Rahimi and Recht, *Random Features*, NeurIPS 2007.

    >>> made = Features(2, 2000, 0.5, 0)
    >>> a, b = made(np.array([[0.0, 0.0], [1.0, 1.0]]))
    >>> abs(float(a[:-1] @ b[:-1]) - float(np.exp(-0.5 * 2))) < 0.05
    True
    """

    width: int
    size: int
    bandwidth: float
    seed: int

    @property
    def columns(self) -> int:
        """Columns of the result, the constant among them."""
        return (self.size or self.width) + 1

    def __call__(self, X: Floats) -> Floats:
        """(n, columns) float32; each row's norm is at most :data:`ROW_NORM`."""
        X = np.asarray(X, np.float32).reshape(len(X), self.width)
        if self.size == 0:
            flat = X / np.sqrt(max(self.width, 1))
            norm = np.linalg.norm(flat, axis=1, keepdims=True)
            part = flat * np.minimum(1.0, np.sqrt(2.0) / np.maximum(norm, 1e-12))
        else:
            rng = np.random.default_rng([self.seed, 11])
            turn = rng.standard_normal((self.width, self.size), dtype=np.float32) * np.float32(
                np.sqrt(2 * self.bandwidth)
            )
            shift = rng.uniform(0, 2 * np.pi, self.size).astype(np.float32)
            part = np.sqrt(2.0 / self.size) * np.cos(X @ turn + shift)
        return np.hstack([part, np.ones((len(X), 1))]).astype(np.float32)


def softmax(scores: Floats) -> Floats:
    """(n, K) rows that sum to one.

    >>> softmax(np.zeros((1, 2))).tolist()
    [[0.5, 0.5]]
    """
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def gradient(weights: Floats, F: Floats, target: Floats) -> Floats:
    """(columns, K) summed gradient of the cross-entropy between ``target`` (n, K) and the model.

    >>> gradient(np.zeros((1, 2)), np.ones((1, 1)), np.array([[1.0, 0.0]])).tolist()
    [[-0.5, 0.5]]
    """
    return np.asarray(F.T @ (softmax(F @ weights) - target))


def learned(
    weights: Floats,
    F: Floats,
    given: Ints,
    noise: NoiseModel,
    known: Ints,
    *,
    steps: int,
    rate: float,
    decay: float,
    noisy: tuple[float, np.random.Generator] | None = None,
) -> Floats:
    """Weights (columns, K) after ``steps`` of gradient descent with Nesterov's momentum on the likelihood of the given labels
    through ``noise``.

    F: (n, columns). given: (n,). known: (n,) settled class or NO_LABEL. rate, decay: learning rate and weight decay.
    noisy: (standard deviation, rng) of Gaussian noise on each summed gradient, for privacy.
    """
    speed = np.zeros_like(weights)
    for _ in range(steps):
        ahead = weights + MOMENTUM * speed
        target = noise.believed(softmax(F @ ahead), given, known)
        summed = gradient(ahead, F, target)
        if noisy is not None:
            summed = summed + noisy[0] * noisy[1].standard_normal(summed.shape)
        speed = MOMENTUM * speed - rate * (summed / max(len(given), 1) + decay * ahead)
        weights = weights + speed
    return np.asarray(weights, np.float32)


def pairs(share: Floats, given: Ints) -> Floats:
    """(K, K) expected (true, given) pairs: the sum of ``share`` (n, K) by given label.

    >>> pairs(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 0])).round(1).tolist()
    [[1.1, 0.0], [0.9, 0.0]]
    """
    out = np.zeros((share.shape[1], share.shape[1]))
    np.add.at(out.T, given, share)
    return out


def shares(totals: Floats) -> Floats:
    """(K,) a sum per class as shares of all."""
    return np.asarray(normalised(np.maximum(totals, 0.0)[None])[0])
