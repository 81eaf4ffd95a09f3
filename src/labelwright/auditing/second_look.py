"""A second look at out-of-sample probabilities: what labels do rows with similar probabilities carry?

Probabilities place every row in a space of K dimensions. A model that errs there in a regular way (a linear model on
curved classes, a network that is too sure) can be corrected from the given labels of the rows nearby: kernel ridge
regression of the given labels on the log-probabilities, through landmark rows (Nyström), with closed-form
leave-one-out predictions, so that no row is judged by its own label.

Stacking: Wolpert 1992. Landmarks: Williams and Seeger 2001. The use on label errors is our own [D].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import eigh
from scipy.linalg.lapack import dtrtri

from labelwright.types import Floats, Ints

_LANDMARKS = 512
_ROWS_PER_LANDMARK = 10
_RARE_ROWS, _RARE_LANDMARKS = 30, 3
_WIDTH = 0.3
_PENALTIES = (1e-5, 1e-4, 1e-3)
_FLOORS = (1e-5, 1e-4)
_LOW_SHARE = 0.01
_RESOLUTION_ROWS = 2048
_JITTER = 1e-5
_FINE_CELLS = 2_000_000
_BLOCK = 256


def resolution(proba: Floats) -> float:
    """The floor that suits ``proba`` (n, K): below it probabilities do not differ, the second look holds them for equal.

    Where nearly all positive ones are above 1e-4 (votes, leaves), zeros mean "none of a few" and the floor is 1e-4; a model that
    goes lower tells apart what lies lower, down to 1e-5. Read off the first 2,048 rows.
    """
    seen = proba[:_RESOLUTION_ROWS]
    seen = seen[seen > 0]
    if not len(seen):
        return _FLOORS[1]
    low = int(len(seen) * _LOW_SHARE)
    return min(max(float(np.partition(seen, low)[low]), _FLOORS[0]), _FLOORS[1])


def place(proba: Floats, floor: float = _FLOORS[1]) -> Floats:
    """(n, K) float32: where rows stand, centred log-probabilities (clipped at ``floor``)."""
    logs = np.log(np.maximum(proba, np.float32(floor)))
    logs -= logs.mean(axis=1, keepdims=True)
    return logs.astype(np.float32, copy=False)


@dataclass(frozen=True)
class SecondLook:
    """A fitted correction. landmarks: (m, K) float32 places. weights: (m, K). base: (K,) shares of the given labels.
    width: scale of the kernel ``exp(-sqrt(d² / width))``. floor: least probability of a place.
    """

    landmarks: Floats
    weights: Floats
    base: Floats
    width: float
    floor: float = _FLOORS[1]

    @staticmethod
    def fitted(proba: Floats, given: Ints) -> tuple[SecondLook, Floats]:
        """The correction, and its (n, K) leave-one-out predictions for the rows it was fitted on.

        proba: (n, K) float32 out-of-sample probabilities, in random order: the first rows serve as landmarks, and the first
        of each rare class, which would else be judged by none of its kind.
        given: (n,) labels.

        Distances are of float64 while rows times landmarks are few: the kernel bends most at distance 0, where squared distances
        of float32 are off by as much as the square root shows. Among many rows it averages out, and would cost time and memory.
        """
        n, k = proba.shape
        floor = resolution(proba)
        where = place(proba, floor)
        landmarks = where[_landmarks(given, np.bincount(given, minlength=k))]
        between = _squares(landmarks.astype(float), landmarks.astype(float))
        apart = between[np.tri(len(landmarks), k=-1, dtype=bool)]
        width = _WIDTH * max(float(np.median(apart)), 1e-3)
        whole = _kernel(between, width)
        whole.flat[:: len(whole) + 1] += _JITTER * len(whole)
        shape = dtrtri(np.linalg.cholesky(whole).T)[0].astype(np.float32)
        kind = np.float64 if n * len(landmarks) <= _FINE_CELLS else np.float32
        phi = _shaped(where, landmarks.astype(kind, copy=False), width, shape)
        power, basis = eigh(phi.T @ phi, check_finite=False, overwrite_a=True, driver="evd")
        spread = phi @ basis
        base = np.bincount(given, minlength=k) / n
        target = -np.broadcast_to(base.astype(np.float32), (n, k)).copy()
        target[np.arange(n), given] += 1.0
        inner = spread.T @ target
        squared = spread * spread
        found = [_left_out(spread, squared, inner, target, np.maximum(power, 0.0) + p * n) for p in _PENALTIES]
        best = int(np.argmin([error for error, _, _ in found]))
        _, left_out, coefficients = found[best]
        weights = (shape @ (basis @ coefficients)).astype(np.float32)
        look = SecondLook(landmarks, weights, base.astype(np.float32), width, floor)
        return look, look._with_unseen((left_out + base).astype(np.float32), proba)

    def __call__(self, proba: Floats) -> Floats:
        """(n, K) float32 estimates of P(given label | row); they may leave [0, 1] a little."""
        found = _kernel(_squares(place(proba, self.floor), self.landmarks), self.width) @ self.weights + self.base
        return self._with_unseen(found, proba)

    def _with_unseen(self, found: Floats, proba: Floats) -> Floats:
        """Of a class that no label names nothing was learned: there the probabilities stand as they came."""
        unseen = self.base == 0
        if unseen.any():
            found[:, unseen] = proba[:, unseen]
        return found

    def state(self) -> dict[str, Any]:
        """JSON values that :meth:`restored` needs."""
        arrays = {"landmarks": self.landmarks, "weights": self.weights, "base": self.base}
        return {
            **{name: array.astype(float).tolist() for name, array in arrays.items()},
            "width": self.width,
            "floor": self.floor,
        }

    @staticmethod
    def restored(state: Mapping[str, Any]) -> SecondLook:
        """As it was when :meth:`state` was called."""
        landmarks, weights, base = (np.array(state[name], np.float32) for name in ("landmarks", "weights", "base"))
        return SecondLook(landmarks, weights, base, float(state["width"]), float(state.get("floor", _FLOORS[1])))


def _landmarks(given: Ints, rows: Ints) -> Ints:
    """Positions of the landmarks among rows with labels ``given`` (n,); rows: (K,) how many each class has."""
    n = len(given)
    first = max(2, min(_LANDMARKS, n // _ROWS_PER_LANDMARK))
    order = np.argsort(given, kind="stable")
    turn = np.empty(n, np.int64)
    turn[order] = np.arange(n) - np.repeat(np.cumsum(rows) - rows, rows)
    few = (rows[given] <= _RARE_ROWS) & (turn < _RARE_LANDMARKS)
    return np.flatnonzero((np.arange(n) < first) | few)


def _squares(a: Floats, b: Floats) -> Floats:
    """(n, m) squared distances of rows."""
    out = a @ (-2.0 * b.T)
    out += (a * a).sum(axis=1)[:, None]
    out += (b * b).sum(axis=1)
    return np.maximum(out, 0.0, out=out)


def _kernel(squares: Floats, width: float) -> Floats:
    """``exp(-sqrt(d² / width))`` in place: Laplace's kernel, which bends where classes meet."""
    squares *= 1.0 / width
    np.sqrt(squares, out=squares)
    np.negative(squares, out=squares)
    return np.exp(squares, out=squares)


def _shaped(where: Floats, landmarks: Floats, width: float, shape: Floats) -> Floats:
    """(n, m) float32 kernel of rows and landmarks, times ``shape`` (m, m); distances are of the landmarks' type. A few rows at a time:
    a whole table of distances would be written to memory and read back at every step."""
    out = np.empty((len(where), len(shape)), np.float32)
    for start in range(0, len(where), _BLOCK):
        part = slice(start, start + _BLOCK)
        near = _kernel(_squares(where[part].astype(landmarks.dtype, copy=False), landmarks), width)
        np.matmul(near.astype(np.float32, copy=False), shape, out=out[part])
    return out


def _left_out(
    spread: Floats, squared: Floats, inner: Floats, target: Floats, power: Floats
) -> tuple[float, Floats, Floats]:
    """(mean squared error, leave-one-out predictions, coefficients) at one penalty."""
    inverse = (1.0 / power).astype(inner.dtype)
    coefficients = inner * inverse[:, None]
    leverage = np.minimum(squared @ inverse, inner.dtype.type(0.95))[:, None]
    out = (spread @ coefficients - leverage * target) / (1.0 - leverage)
    return float(((out - target) ** 2).mean()), out, coefficients
