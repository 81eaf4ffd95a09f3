"""Labels as people hold them: missing in several ways, of several kinds, one a row or not."""

from __future__ import annotations

from typing import Any

import numpy as np

from labelwright.errors import DataError
from labelwright.types import Bools


def checked_trust(labels: Any, n: int, what: str = "the true labels") -> tuple[Bools, Any]:
    """(which rows have a label, the labels (n,) object). Missing are None, NaN, pandas' NA and masked values.

    what: their name in an error. Raises DataError when there is not one a row.

    >>> checked_trust([1, None, 0], 3)[0].tolist()
    [True, False, True]
    """
    if labels is None:
        return np.zeros(n, bool), np.empty(n, object)
    if np.ma.isMaskedArray(labels):
        hidden, labels = np.ma.getmaskarray(labels), np.ma.getdata(labels).astype(object)
        labels[hidden] = None
    known = np.asarray(labels, object)
    if known.shape != (n,):
        raise DataError(f"{what} have shape {known.shape}; expected ({n},): one a row, None where unknown")
    return np.array([not is_missing(one) for one in known], bool), known


def is_missing(label: Any) -> bool:
    """None, NaN, NaT or pandas' NA, which is neither equal to itself nor not.

    >>> is_missing(float("nan")), is_missing("")
    (True, False)
    """
    if label is None:
        return True
    try:
        return bool(label != label)
    except TypeError:
        return True


def labels_like(labels: Any, like: Any, what: str = "the true labels") -> Any:
    """Labels (m,) object as an array of the kind of ``like``, texts as long as they are.

    Raises DataError for one that is of another kind: a label is never rounded or made true.

    >>> labels_like(np.array([1.0, 2], object), np.array([0, 1])).tolist()
    [1, 2]
    >>> labels_like(np.array([1.5], object), np.array([0, 1]))
    Traceback (most recent call last):
        ...
    labelwright.errors.DataError: the true labels hold 1.5, but the classes are whole numbers; give labels of one kind
    """
    kind = like.dtype.kind
    texts = kind == "U" or (kind == "O" and len(like) > 0 and all(isinstance(one, str) for one in like))
    other = next((one for one in labels if texts and not isinstance(one, str)), None)
    if other is not None:
        raise DataError(f"{what} hold {other!r}, but the classes are texts; give labels of one kind")
    if kind == "U":
        return np.array([str(one) for one in labels], np.str_)
    if kind not in "biuf":
        return np.asarray(labels, object).astype(like.dtype)
    named = {"b": "true or false", "f": "numbers"}.get(kind, "whole numbers")
    allowed = (bool, np.bool_) if kind == "b" else (int, float, np.number)
    for one in labels:
        if not isinstance(one, allowed) or (kind in "iu" and one != int(one)):
            raise DataError(f"{what} hold {one!r}, but the classes are {named}; give labels of one kind")
    wide = {"i": np.int64, "u": np.int64}.get(kind, like.dtype)
    return np.array([one if kind in "bf" else int(one) for one in labels], wide)
