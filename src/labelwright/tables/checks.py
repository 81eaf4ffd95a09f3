"""Rows that cannot be used, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from labelwright.tables.arrow import contiguous, dense_vectors, is_string, is_vector, undictionaried
from labelwright.tables.vectors import decoded_image, encoded_images, to_vectors


def bad_feature_rows(
    table: pa.Table, kinds: Mapping[str, str], *, widths: Mapping[str, int] | None = None
) -> dict[int, str]:
    """Rows whose features cannot be used: position -> reason in plain words.

    A vector that is missing, of the wrong width or holds NaN or inf; an image that does not decode; a number
    that is infinite. Missing numbers, text and categories are not bad: the Encoder fills them.
    kinds, widths: of an :class:`Encoder`; without a width the commonest of the column is expected.

    >>> bad_feature_rows(pa.table({"v": [[1.0, 2.0], [1.0], [1.0, float("nan")]]}), {"v": "vector"}, widths={"v": 2})
    {1: 'v: a vector of 1 numbers, expected 2', 2: 'v: a vector with NaN or inf'}
    """
    reasons: dict[int, list[str]] = {}
    for name, kind in kinds.items():
        if name not in table.column_names or kind not in ("vector", "image", "number"):
            continue
        column = undictionaried(table[name])
        for row, reason in _bad_values(column, kind, (widths or {}).get(name)):
            reasons.setdefault(row, []).append(f"{name}: {reason}")
    return {row: "; ".join(reasons[row]) for row in sorted(reasons)}


def _bad_values(column: pa.ChunkedArray, kind: str, width: int | None) -> Iterator[tuple[int, str]]:
    if kind == "number":
        text = is_string(column.type)
        if pa.types.is_floating(column.type) or text:
            infinite = pc.match_substring_regex(column, r"(?i)^\s*[+-]?inf(inity)?\s*$") if text else pc.is_inf(column)
            for row in np.flatnonzero(infinite.fill_null(False).to_numpy()).tolist():
                yield row, "an infinite number"
    elif kind == "image":
        for row, content in enumerate(encoded_images(column)):
            if not content or decoded_image(content) is None:
                yield row, "an image that does not decode" if content else "no image"
    else:
        yield from _bad_vectors(column, width)


def _bad_vectors(column: pa.ChunkedArray, width: int | None) -> Iterator[tuple[int, str]]:
    if not is_vector(column.type):
        for row in range(len(column)):
            yield row, f"a value of type {column.type}, expected a vector"
        return
    array = contiguous(column)
    lengths = pc.list_value_length(array)
    if width is None:
        width = int(pc.mode(lengths)[0]["mode"].as_py()) if array.null_count < len(array) else 0
    X = dense_vectors(array)
    if X is None or X.shape[1] != width:
        X, _ = to_vectors(column, width)
    got = lengths.fill_null(-1).to_numpy()
    # A finite sum proves all values finite at a quarter of the cost of looking at each.
    with np.errstate(over="ignore", invalid="ignore"):
        suspects = np.flatnonzero(~np.isfinite(X.sum(axis=1)) | (got != width)).tolist()
    for row in suspects:
        if got[row] < 0:
            yield row, "no vector"
        elif got[row] != width:
            yield row, f"a vector of {got[row]} numbers, expected {width}"
        elif not np.isfinite(X[row]).all():
            yield row, "a vector with NaN or inf"
