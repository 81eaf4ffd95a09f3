"""Backdoors: a trigger on training pictures that makes a model say one class wherever it sees it (methods section 7)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from labelwright.errors import DataError, SettingsError
from labelwright.noise.checks import check_rate, checked_labels, exact_count
from labelwright.types import Floats, Ints

Trigger = Callable[[Floats], Floats]
Planting = Callable[[Ints, Floats, np.random.Generator], tuple[Ints, Floats]]


def patch(shape: tuple[int, ...], *, size: int = 3, value: float = 255.0, corner: str = "bottom right") -> Trigger:
    """A square of ``size`` pixels of one brightness, one pixel from a corner; maps rows to stamped copies.

    shape: (height, width) or (height, width, channels) of a picture; rows may be flattened. corner: "top" or "bottom", "left" or
    "right". Raises SettingsError when the square does not fit, DataError for rows of another size.

    >>> stamped = patch((4, 4), size=2, value=1.0)(np.zeros((1, 16)))
    >>> stamped.reshape(4, 4).astype(int).tolist()
    [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    """
    vertical, _, horizontal = corner.partition(" ")
    if vertical not in ("top", "bottom") or horizontal not in ("left", "right"):
        raise SettingsError(f"the corner is {corner!r}, expected e.g. 'bottom right'.")
    if size < 1 or size + 1 > min(shape[:2]):
        raise SettingsError(f"a square of {size} pixels does not fit into a picture of {shape[0]} x {shape[1]}.")

    def place(length: int, late: bool) -> slice:
        return slice(length - 1 - size, length - 1) if late else slice(1, 1 + size)

    rows, columns = place(shape[0], vertical == "bottom"), place(shape[1], horizontal == "right")

    def stamp(X: Floats) -> Floats:
        if int(np.prod(X.shape[1:])) != int(np.prod(shape)):
            raise DataError(
                f"Rows have {int(np.prod(X.shape[1:]))} numbers, the patch was made for pictures of {shape}."
            )
        out = np.array(X).reshape(len(X), *shape)
        out[:, rows, columns] = value
        return out.reshape(X.shape)

    return stamp


def clean_label_backdoor(rate: float, target: int, trigger: Trigger, *, fade: float = 0.5) -> Planting:
    """Put ``trigger`` on floor(rate * n) rows of class ``target`` (at most all of them) whose labels stay right.

    fade: each poisoned row is mixed with another row, of any class, by this share before it is stamped, so that a model finds the
    trigger easier to learn than the picture (Turner et al. 2019, "Label-consistent backdoor attacks", interpolation, here between
    pixels). rate: of all rows. The result maps (y, X, rng) to (given, X): labels equal to ``y`` and a changed copy of X.
    Raises SettingsError for a rate or fade outside [0, 1].

    >>> plant = clean_label_backdoor(0.5, 1, lambda X: X + 5.0, fade=0.0)
    >>> given, X = plant(np.array([0, 1]), np.zeros((2, 1)), np.random.default_rng(0))
    >>> given.tolist(), X.ravel().tolist()
    ([0, 1], [0.0, 5.0])
    """
    check_rate(rate)
    if not 0 <= fade <= 1:
        raise SettingsError(f"fade is {fade}, expected a share in [0, 1].")

    def plant(y: Ints, X: Floats, rng: np.random.Generator) -> tuple[Ints, Floats]:
        given, changed = checked_labels(y), np.array(X)
        mine = np.flatnonzero(given == target)
        rows = rng.choice(mine, min(len(mine), exact_count(rate, len(given))), replace=False)
        other = rng.integers(len(given), size=len(rows))
        mixed = (1 - fade) * changed[rows].astype(float) + fade * np.asarray(X)[other]
        changed[rows] = trigger(mixed.astype(changed.dtype))
        return given, changed

    return plant


def dirty_label_backdoor(rate: float, target: int, trigger: Trigger) -> Planting:
    """Put ``trigger`` on floor(rate * n) rows of other classes and label them ``target`` (BadNets, Gu et al. 2017).

    Arguments and result as of :func:`clean_label_backdoor`.

    >>> plant = dirty_label_backdoor(0.5, 1, lambda X: X + 5.0)
    >>> given, X = plant(np.array([0, 1]), np.zeros((2, 1)), np.random.default_rng(0))
    >>> given.tolist(), X.ravel().tolist()
    ([1, 1], [5.0, 0.0])
    """
    check_rate(rate)

    def plant(y: Ints, X: Floats, rng: np.random.Generator) -> tuple[Ints, Floats]:
        given, changed = checked_labels(y), np.array(X)
        others = np.flatnonzero(given != target)
        rows = rng.choice(others, min(len(others), exact_count(rate, len(given))), replace=False)
        changed[rows] = trigger(changed[rows])
        given[rows] = target
        return given, changed

    return plant
