"""Three models in NumPy only: linear, support vectors, and a small network of dense layers.

Each has ``judge(X) -> (decision, proba)``, both (n, K), as :meth:`labelwright.learners.Learner.judge` has. Rows go through in
blocks, so that memory beside the result stays below about 2 MB whatever n is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from labelwright.learners.scoring import softmax
from labelwright.types import Floats

BLOCK = 1 << 19  #: numbers in the largest intermediate array of a block
SLOPE = 0.01  #: of torch's LeakyReLU


class Model(Protocol):
    """What the tier needs of a model."""

    @property
    def classes(self) -> int:
        """K."""

    @property
    def width(self) -> int:
        """Features of a row."""

    def judge(self, X: Floats) -> tuple[Floats, Floats]:
        """(decision, proba), each (n, K)."""


@dataclass(frozen=True)
class Linear:
    """Scores ``X @ weight + bias``. weight: (d, K). bias: (K,). calibrated: the softmax of the scores is the decision too (logistic
    regression); otherwise the decision is the scores (a support vector machine).

    >>> decision, proba = Linear(np.eye(2), np.zeros(2)).judge(np.array([[3.0, 1.0]]))
    >>> decision.tolist(), proba.round(3).tolist()
    ([[3.0, 1.0]], [[0.881, 0.119]])
    """

    weight: Floats
    bias: Floats
    calibrated: bool = False

    @property
    def classes(self) -> int:
        """K."""
        return len(self.bias)

    @property
    def width(self) -> int:
        """d."""
        return len(self.weight)

    def judge(self, X: Floats) -> tuple[Floats, Floats]:
        """(decision, proba), each (n, K)."""
        scores = X @ self.weight + self.bias
        proba = softmax(scores)
        return (proba if self.calibrated else scores), proba


@dataclass(frozen=True)
class Machine:
    """One-vs-rest support vector machine, as :class:`labelwright.learners.kernel.OneVsRestSVC`: ``k(X, support) @ dual + bias``.

    support: (m, d). dual: (m, K). bias: (K,). gamma: of the RBF kernel, > 0.

    >>> machine = Machine(np.array([[0.0], [2.0]]), np.array([[1.0, -1.0], [-1.0, 1.0]]), np.zeros(2), 1.0)
    >>> machine.judge(np.array([[0.1], [1.9]]))[0].argmax(axis=1).tolist()
    [0, 1]
    """

    support: Floats
    dual: Floats
    bias: Floats
    gamma: float

    @property
    def classes(self) -> int:
        """K."""
        return len(self.bias)

    @property
    def width(self) -> int:
        """d."""
        return self.support.shape[1]

    def judge(self, X: Floats) -> tuple[Floats, Floats]:
        """(decision, proba), each (n, K)."""
        square = (self.support**2).sum(axis=1)

        def scores(part: Floats) -> Floats:
            distance = part @ self.support.T
            distance *= -2
            distance += square
            distance += (part**2).sum(axis=1)[:, None]
            np.maximum(distance, 0, out=distance)
            distance *= -self.gamma
            return np.exp(distance, out=distance) @ self.dual + self.bias

        decision = blockwise(scores, X, len(self.support), self.classes)
        return decision, softmax(decision)


@dataclass(frozen=True)
class Network:
    """Dense layers with leaky ReLU between them (the networks ``mlp`` and ``expert``).

    layers: (weight (units, inputs), bias (units,)) of each, as torch keeps them. scale, shift: (d,) what makes a feature a number
    of mean 0 and deviation 1.

    >>> network = Network([(np.eye(2, dtype=np.float32), np.zeros(2, np.float32))], np.ones(2), np.zeros(2))
    >>> network.judge(np.array([[0.0, 0.0]]))[1].tolist()
    [[0.5, 0.5]]
    """

    layers: Sequence[tuple[Floats, Floats]]
    scale: Floats
    shift: Floats

    @property
    def classes(self) -> int:
        """K."""
        return len(self.layers[-1][1])

    @property
    def width(self) -> int:
        """d."""
        return len(self.scale)

    def judge(self, X: Floats) -> tuple[Floats, Floats]:
        """(proba, proba), each (n, K) float64."""
        widest = max(len(bias) for _, bias in self.layers)
        proba = softmax(blockwise(self._logits, X, max(widest, self.width), self.classes).astype(np.float64))
        return proba, proba

    def _logits(self, part: Floats) -> Floats:
        out = part * self.scale.astype(np.float32) + self.shift.astype(np.float32)
        for place, (weight, bias) in enumerate(self.layers):
            out = out @ weight.T
            out += bias
            if place + 1 < len(self.layers):
                np.maximum(out, out * np.float32(SLOPE), out=out)
        return out


def blockwise(call: Callable[[Floats], Floats], X: Floats, numbers: int, columns: int) -> Floats:
    """(n, columns) results of ``call`` on blocks of rows, each of about :data:`BLOCK` / ``numbers`` rows.

    >>> blockwise(lambda part: part * 2, np.ones((3, 1)), BLOCK, 1).tolist()
    [[2.0], [2.0], [2.0]]
    """
    rows = max(1, BLOCK // max(numbers, 1))
    if len(X) <= rows:
        return call(X)
    first = call(X[:rows])
    out = np.empty((len(X), columns), first.dtype)
    out[:rows] = first
    for start in range(rows, len(X), rows):
        out[start : start + rows] = call(X[start : start + rows])
    return out
