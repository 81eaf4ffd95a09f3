"""Columns of one value a row as numbers: numbers, dates, booleans, categories, text.

``fit_*`` maps a column to (what to remember, a sentence about it), ``apply_*`` a column and that to
(an (n, w) block, how many values were lost).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from labelwright.tables.arrow import NOT_A_NUMBER, as_text, cast_or_none, is_number, is_string
from labelwright.types import Floats

MAX_CATEGORIES = 100

State = dict[str, Any]
Fitted = tuple[State, str]
Applied = tuple[Floats, int]


def to_numbers(column: pa.ChunkedArray) -> tuple[Floats, int]:
    """(n,) float64 with NaN where missing, infinite or not a number; and how many did not convert."""
    kind = column.type
    if not (is_number(kind) or is_string(kind) or pa.types.is_boolean(kind) or _is_span(kind)):
        return np.full(len(column), np.nan), len(column) - column.null_count
    if is_string(kind):
        text = pc.utf8_trim_whitespace(column)
        column = pc.if_else(pc.is_in(text, pa.array(["", *NOT_A_NUMBER], text.type)), pa.scalar(None, text.type), text)
    if _is_span(kind):
        column = pc.cast(column, pa.int32() if kind.bit_width == 32 else pa.int64())
    before = column.null_count
    converted = cast_or_none(column, pa.float64())
    if converted is None:
        pattern = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
        fits = pc.match_substring_regex(column, pattern) if is_string(kind) else pc.is_valid(column)
        kept = pc.if_else(fits, column, pa.scalar(None, column.type))
        converted = pc.cast(kept, pa.float64(), safe=False)
    values = np.array(converted.to_numpy(), np.float64)
    values[~np.isfinite(values)] = np.nan
    return values, converted.null_count - before


def _is_span(kind: pa.DataType) -> bool:
    return bool(pa.types.is_time(kind) or pa.types.is_duration(kind))


def fit_dense(values: Floats) -> State:
    """Median, mean and deviation of each column of (n, w) values; flags: columns with missing values."""
    gaps = np.isnan(values)
    with np.errstate(over="ignore", invalid="ignore"):
        # Halved, because the mean of the two middle values may be beyond the largest float.
        halves = [np.median(v[~g] / 2) if not g.all() else 0.0 for v, g in zip(values.T, gaps.T, strict=True)]
        median = 2 * np.array(halves)
        filled = np.where(gaps, median, values)
        mean, std = filled.mean(axis=0), filled.std(axis=0)
    mean = np.where(np.isfinite(mean), mean, median)
    usable = np.isfinite(std) & (std > 1e-12 * np.maximum(1.0, np.abs(mean)))
    return {"median": median, "mean": mean, "std": np.where(usable, std, 1.0), "flags": gaps.any(axis=0)}


def apply_dense(values: Floats, state: State) -> Floats:
    gaps = np.isnan(values)
    scaled = (np.where(gaps, state["median"], values) - state["mean"]) / state["std"]
    flags = gaps[:, np.asarray(state["flags"], bool)]
    return np.hstack([np.clip(scaled, -1e6, 1e6), flags]).astype(np.float32)


def _filled(missing: int) -> str:
    return f"standardised, {missing} missing filled with the median" if missing else "standardised"


def fit_number(column: pa.ChunkedArray) -> Fitted:
    values, _ = to_numbers(column)
    return fit_dense(values[:, None]), _filled(int(np.isnan(values).sum()))


def apply_number(column: pa.ChunkedArray, state: State) -> Applied:
    values, lost = to_numbers(column)
    return apply_dense(values[:, None], state), lost


def to_dates(column: pa.ChunkedArray) -> tuple[Floats, int]:
    """(n, 5) year, month, weekday (Monday 0), hour, days since 1970; NaN where missing or not a date."""
    stamp = pa.timestamp("us")
    if is_string(column.type):
        text = column
        column = pc.strptime(pc.utf8_slice_codeunits(text, 0, 10), format="%Y-%m-%d", unit="us", error_is_null=True)
        column = cast_or_none(text, stamp) or column
        lost = column.null_count - text.null_count
    elif pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        column, lost = pc.cast(column, stamp, safe=False), 0
    else:
        return np.full((len(column), 5), np.nan), len(column) - column.null_count
    missing = column.is_null().to_numpy()
    micros = pc.cast(column, pa.int64()).fill_null(0).to_numpy()
    days = micros // 86_400_000_000
    moments = days.astype("datetime64[D]")
    years, months = moments.astype("datetime64[Y]"), moments.astype("datetime64[M]")
    month = (months - years.astype("datetime64[M]")).astype(int) + 1
    hour = micros // 3_600_000_000 % 24
    parts = [years.astype(int) + 1970, month, (days + 3) % 7, hour, micros / 86_400_000_000]
    values = np.stack(parts, axis=1).astype(np.float64)
    values[missing] = np.nan
    return values, lost


def fit_date(column: pa.ChunkedArray) -> Fitted:
    values, _ = to_dates(column)
    state = fit_dense(values)
    state["flags"][1:] = False  # one flag says it for all five
    return state, "year, month, weekday, hour and day count, " + _filled(int(np.isnan(values[:, 0]).sum()))


def apply_date(column: pa.ChunkedArray, state: State) -> Applied:
    values, lost = to_dates(column)
    return apply_dense(values, state), lost


def fit_boolean(column: pa.ChunkedArray) -> Fitted:
    return {"missing": 0.5}, f"0 or 1, {column.null_count} missing as 0.5" if column.null_count else "0 or 1"


def apply_boolean(column: pa.ChunkedArray, state: State) -> Applied:
    values = column if pa.types.is_boolean(column.type) else cast_or_none(column, pa.bool_())
    if values is None:
        text = pc.utf8_lower(as_text(column))
        known = pc.is_in(text, pa.array(["true", "false", "1", "0"], text.type))
        values = pc.cast(pc.if_else(known, text, pa.scalar(None, text.type)), pa.bool_())
    numbers = pc.cast(values, pa.float32()).fill_null(float(state["missing"])).to_numpy()
    return np.array(numbers, np.float32)[:, None], values.null_count - column.null_count


def fit_category(column: pa.ChunkedArray) -> Fitted:
    counts = {c["values"]: c["counts"] for c in pc.value_counts(as_text(column).drop_null()).to_pylist()}
    least = max(2, len(column) // 1000) if len(column) >= 20 else 1
    ranked = sorted(counts, key=lambda value: (-counts[value], value))
    common = [value for value in ranked if counts[value] >= least][:MAX_CATEGORIES]
    rare = sorted(set(ranked) - set(common))
    state = {"values": common, "rare": rare, "missing": bool(column.null_count)}
    said = f"{len(common)} values" + (f", {len(rare)} rare ones as one" if rare else "")
    return state, said + (", missing as a value of its own" if column.null_count else "")


def apply_category(column: pa.ChunkedArray, state: State) -> Applied:
    text = as_text(column)
    common, rare = state["values"], state["rare"]
    where = pc.index_in(text, pa.array([*common, *rare], pa.large_string()))
    code = np.minimum(where.fill_null(-1).to_numpy(), len(common))
    width = len(common) + bool(rare) + bool(state["missing"])
    block = np.zeros((len(code), width), np.float32)
    known = np.flatnonzero(code >= 0)
    block[known, code[known]] = 1
    if state["missing"]:
        block[:, -1] = text.is_null().to_numpy()
    return block, 0


def _vectorizer(**options: Any) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), dtype=np.float32, **options)


def fit_text(column: pa.ChunkedArray) -> Fitted:
    from sklearn.decomposition import TruncatedSVD

    vectorizer = _vectorizer(max_features=20_000)
    try:
        weights = vectorizer.fit_transform(as_text(column).fill_null("").to_pylist())
    except ValueError:
        return {}, "no words in it"
    width = min(50, weights.shape[0] - 1, weights.shape[1] - 1)
    if width < 1:
        return {}, "too few different words"
    axes = TruncatedSVD(width, random_state=0).fit(weights).components_.astype(np.float32)
    topics = np.asarray(weights @ axes.T, np.float64)
    words = "\n".join(vectorizer.get_feature_names_out())  # one string: skops stores each list item as a node
    state = {"words": words, "idf": vectorizer.idf_, "axes": axes, "scale": fit_dense(topics)}
    missing = f", {column.null_count} missing as empty" if column.null_count else ""
    return state, f"TF-IDF, {width} components{missing}"


def apply_text(column: pa.ChunkedArray, state: State) -> Applied:
    vectorizer = _vectorizer(vocabulary=state["words"].split("\n"))
    vectorizer.idf_ = state["idf"]
    weights = vectorizer.transform(as_text(column).fill_null("").to_pylist())
    return apply_dense(np.asarray(weights @ state["axes"].T, np.float64), state["scale"]), 0
