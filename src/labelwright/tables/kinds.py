"""Which kind a column is: number, boolean, category, text, date, vector, image, or dropped."""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc

from labelwright.tables.arrow import is_image, is_number, is_string, is_vector
from labelwright.tables.columns import to_numbers
from labelwright.tables.pictures import PICTURE_SUFFIXES

PICTURE_NAME = "(?i)(" + "|".join(re.escape(suffix) for suffix in PICTURE_SUFFIXES) + ")$"
ID_NAME = re.compile(r"^$|(^|_)(id|idx|index|key|uuid|row|unnamed: 0)_*$", re.IGNORECASE)
"""Also the empty name, which pandas gives to the column of its own numbering."""
_COUNTED = 20


def kind_of(column: pa.ChunkedArray, name: str) -> tuple[str, str]:
    """The kind of a column, or "dropped" and the reason."""
    kind = column.type
    if column.null_count == len(column):
        return "dropped", "every value is missing"
    if is_vector(kind):
        return "vector", ""
    if is_image(kind):
        return "image", ""
    simple = pa.types.is_boolean(kind) or is_number(kind) or is_string(kind) or pa.types.is_temporal(kind)
    if not simple:
        return "dropped", f"values of type {kind} are not used"
    distinct = pc.count_distinct(column).as_py()
    if distinct == 1 and not column.null_count:
        return "dropped", "the same value in every row"
    if pa.types.is_boolean(kind):
        return "boolean", ""
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return "date", ""
    if is_string(kind):
        return _string_kind(column, distinct, name)
    if pa.types.is_integer(kind) and distinct == len(column) and ID_NAME.search(name):
        return "dropped", "looks like an identifier"
    if pa.types.is_integer(kind) and distinct == len(column) >= _COUNTED and _counts(column):
        return "dropped", "numbers the rows"
    return "number", ""


def _counts(column: pa.ChunkedArray) -> bool:
    """Whether whole numbers go up by one from row to row."""
    values = column.to_numpy()
    return not column.null_count and bool((values[1:] - values[:-1] == 1).all())


def _string_kind(column: pa.ChunkedArray, distinct: int, name: str) -> tuple[str, str]:
    present = column.drop_null()
    pictures = pc.sum(pc.match_substring_regex(present, PICTURE_NAME)).as_py()
    if pictures >= 0.95 * len(present):
        return "dropped", "names of picture files, which may tell the label"
    words = pc.mean(pc.count_substring(pc.utf8_trim_whitespace(present), " ")).as_py() + 1
    longest = pc.max(pc.utf8_length(present)).as_py()
    if distinct <= 20 and 2 * distinct <= len(present):
        return "category", ""
    numbers, lost = to_numbers(present)
    if lost <= 0.05 * len(numbers) and not ID_NAME.search(name):
        return "number", ""
    if distinct == len(present) and len(present) >= 10 and words == 1 and longest <= 64:
        return "dropped", "looks like an identifier"
    if words >= 3 or longest > 200 or (distinct > 20 and 2 * distinct > len(present)):
        return "text", ""
    return "category", ""
