"""Made-up data for the audit's tests: probabilities and labels with known mistakes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from labelwright.types import Bools, Floats, Ints

KINDS = ("plain", "saturated", "rounded", "repeated", "half saturated", "constant")


@dataclass(frozen=True)
class Made:
    """proba: (n, K) float32. true, given: (n,) classes. bad: (n,) where they differ."""

    proba: Floats
    true: Ints
    given: Ints

    @property
    def bad(self) -> Bools:
        return self.true != self.given


def made(
    n: int, k: int, noise: float, seed: int, *, kind: str = "plain", sharp: float = 0.3, pairs: bool = False
) -> Made:
    """True labels drawn from Dirichlet probabilities (small ``sharp``: classes far apart); a share ``noise`` of the labels
    is wrong, to any other class or (``pairs``) to the next. kind: ties as models make them."""
    rng = np.random.default_rng(seed)
    proba = rng.dirichlet(np.full(k, sharp), n)
    if kind == "repeated":
        proba = proba[rng.integers(max(n // 10, 2), size=n)]
    if kind == "constant":
        proba = np.full((n, k), 1 / k)
    true = (rng.random((n, 1)) > proba.cumsum(axis=1)).sum(axis=1).clip(0, k - 1)
    if kind in ("saturated", "half saturated"):
        certain = rng.random(n) < (1.0 if kind == "saturated" else 0.5)
        proba[certain] = np.eye(k)[proba[certain].argmax(axis=1)]
    if kind == "rounded":
        proba = np.round(proba, 1) + 1e-9
        proba /= proba.sum(axis=1, keepdims=True)
    step = 1 if pairs else rng.integers(1, k, size=n)
    given = np.where(rng.random(n) < noise, (true + step) % k, true)
    return Made(proba.astype(np.float32), true, given)


def blobs(n: int, k: int, noise: float, seed: int, *, apart: float = 4.0, width: int = 6) -> tuple[Floats, Ints, Ints]:
    """(X, true, given): Gaussian classes whose centres lie ``apart`` from the middle."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(k, width))
    centres *= apart / np.sqrt((centres**2).sum(axis=1, keepdims=True))
    true = rng.integers(k, size=n)
    given = np.where(rng.random(n) < noise, (true + rng.integers(1, k, size=n)) % k, true)
    return (centres[true] + rng.normal(size=(n, width))).astype(np.float32), true, given
