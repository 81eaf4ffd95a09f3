"""Shapes of rows: pictures or vectors, and the same at every call."""

from __future__ import annotations

from typing import Any

import numpy as np

from labelwright.errors import DataError, SettingsError


def whole(value: Any) -> bool:
    """Whether a setting is a whole number."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def shape_of(X: Any, wanted: tuple[int, int, int] | None) -> tuple[int, int, int] | None:
    """(height, width, channels) of pictures, None of vectors. wanted: the shape of rows that are flat.

    Raises DataError for rows that do not fit, SettingsError for a shape that is none.

    >>> shape_of(np.zeros((5, 28, 28)), None)
    (28, 28, 1)
    """
    if wanted is not None:
        if not isinstance(wanted, tuple | list) or len(wanted) != 3 or not all(whole(s) and s > 0 for s in wanted):
            raise SettingsError(f"image_shape={wanted!r} is no shape; expected (height, width, channels)")
        height, width, channels = (int(side) for side in wanted)
        if int(np.prod(X.shape[1:])) != height * width * channels:
            raise DataError(
                f"a row holds {int(np.prod(X.shape[1:]))} numbers, but image_shape={tuple(wanted)} asks for "
                f"{height * width * channels}; correct one of them"
            )
        return height, width, channels
    if X.ndim == 2:
        return None
    if X.ndim not in (3, 4) or (X.ndim == 4 and X.shape[3] not in (1, 3, 4)):
        raise DataError(f"X has shape {X.shape}; expected (n, d), (n, height, width) or (n, height, width, channels)")
    return X.shape[1], X.shape[2], X.shape[3] if X.ndim == 4 else 1


def numbers_of(X: Any) -> Any:
    """Bytes as they are, anything else as float32. Raises DataError for a number that float32 cannot hold."""
    if X.dtype == np.uint8:
        return X
    with np.errstate(over="ignore"):
        out = np.asarray(X, np.float32)
    if X.dtype != np.float32 and not np.isfinite(out).all():
        raise DataError(f"X holds {np.abs(X).max():.3g}, more than float32 can; scale the rows")
    return out


def check_rows(X: Any, image: tuple[int, int, int] | None, width: int, *, flat: bool) -> None:
    """Raises DataError for rows of another shape than those that were learned from. width: numbers a row. flat: whether pictures may come
    as flat rows, since their shape is a setting."""
    shape = tuple(getattr(X, "shape", ()))[1:]
    known = shape == image or (*shape, 1) == image or (flat and len(shape) == 1)
    if shape and image is not None and not known:
        raise DataError(f"rows have shape {shape}, but the network has learned from {image}; give such rows")
    if len(shape) > 1 and int(np.prod(shape)) != width:
        raise DataError(f"rows hold {int(np.prod(shape))} numbers, but the network has learned from {width}")


def check_shares(target: Any, n: int, classes: int) -> None:
    """Raises DataError for soft labels that are not (n, classes), not all numbers of 0 or more, or do not sum to one."""
    if np.shape(target) != (n, classes):
        raise DataError(f"target has shape {np.shape(target)}; expected {(n, classes)}: a share a class")
    values = np.asarray(target, float)
    if not np.isfinite(values).all() or (values < 0).any():
        raise DataError("target holds shares that are negative or no numbers; expected 0 to 1, each row summing to one")
    off = np.flatnonzero(np.abs(values.sum(axis=1) - 1) > 1e-3)
    if len(off):
        raise DataError(
            f"{len(off)} rows of target do not sum to one, as row {off[0]} with {values[off[0]].sum():.4g}; "
            "divide each row by its sum"
        )


def checked_weights(weight: Any, n: int) -> Any:
    """(n,) float32. Raises ValueError for weights that are negative, no numbers, or all 0."""
    values = np.broadcast_to(np.asarray(weight, np.float32), (n,)).copy()
    if not np.isfinite(values).all() or (values < 0).any():
        raise ValueError("sample_weight holds weights that are negative or no numbers; expected 0 or more")
    if not (values > 0).any():
        raise ValueError("every sample_weight is zero; give some row a weight")
    return values
