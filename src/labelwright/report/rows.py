"""Single rows for people to look at: cells as short text or small pictures."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from labelwright.tables.arrow import is_image, is_vector
from labelwright.tables.vectors import decoded_image

TEXT = 220
SIDES = range(8, 65)
PICTURE = 160


def cells(row: pa.Table, hidden: tuple[str, ...]) -> list[dict[str, Any]]:
    """The cells of a one-row table but for the ``hidden`` columns: name, and text or picture (a data URI) and its kind.

    >>> cells(pa.table({"price": [1.5], "label": ["a"]}), ("label",))
    [{'name': 'price', 'text': '1.5', 'picture': None, 'photo': False}]
    """
    out = []
    for name in row.column_names:
        if name in hidden:
            continue
        value = row.column(name)[0].as_py()
        kind = row.schema.field(name).type
        picture = _picture(kind, value)
        text = None if picture else shortened(value)
        out.append({"name": name, "text": text, "picture": picture, "photo": bool(picture) and is_image(kind)})
    return out


def erased(row: pa.Table) -> bool:
    """True when nothing of the row is left."""
    return all(column.null_count == len(column) for column in row.columns)


def shortened(value: Any, limit: int = TEXT) -> str:
    """A value as one line of text of at most ``limit`` characters.

    >>> shortened("a " * 200, limit=8), shortened(None), shortened([0.123456, 2.0])
    ('a a a a…', '(missing)', '0.1235, 2')
    """
    if value is None:
        return "(missing)"
    if isinstance(value, bytes):
        return f"({len(value):,} bytes)"
    if isinstance(value, float):
        text = f"{value:.6g}"
    elif isinstance(value, list):
        shown = ", ".join(f"{v:.4g}" if isinstance(v, float) else shortened(v, 40) for v in value[:8])
        text = shown + (f", … ({len(value):,} numbers)" if len(value) > 8 else "")
    elif isinstance(value, dict):
        text = ", ".join(f"{k}: {shortened(v, 40)}" for k, v in value.items())
    else:
        text = str(value)
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def _picture(kind: pa.DataType, value: Any) -> str | None:
    if value is None:
        return None
    if is_image(kind) and value.get("bytes"):
        image = decoded_image(value["bytes"])
        return None if image is None else _uri(image)
    return _vector_picture(value) if is_vector(kind) else None


def _vector_picture(values: list[Any]) -> str | None:
    pixels = vector_pixels(values)
    if pixels is None:
        return None
    from PIL import Image

    return _uri(Image.fromarray(pixels))


def vector_pixels(values: list[Any]) -> Any:
    """(side, side) uint8, when the numbers look like a grey picture: a square number of them, none negative; else None."""
    side = math.isqrt(len(values))
    if side not in SIDES or side * side != len(values) or any(v is None for v in values):
        return None
    pixels = np.asarray(values, float)
    if not np.isfinite(pixels).all() or pixels.min() < 0 or pixels.max() <= pixels.min():
        return None
    return np.round(255 * pixels / pixels.max()).astype(np.uint8).reshape(side, side)


def _uri(image: Any) -> str | None:
    """Drawn anew as PNG: nothing of the user's bytes reaches the page but pixels."""
    try:
        image = image.convert("L" if image.mode in ("1", "L", "I", "F", "I;16") else "RGB")
        image.thumbnail((PICTURE, PICTURE))
        out = io.BytesIO()
        image.save(out, "PNG")
    except (OSError, ValueError):
        return None
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def belief(
    row: Mapping[str, Any], names: tuple[str, ...], suggested: Mapping[int, tuple[int, float]]
) -> dict[str, Any]:
    """What the models believed when they judged the row: label (None where the ledger does not tell), probability.

    suggested: row key -> (class, confidence) of the question about it.
    """
    if row["label"] >= 0 and row["label"] != row["given"]:
        label, share = row["label"], row["proba"]
    elif row["key"] in suggested:
        label, share = suggested[row["key"]]
    elif row["score"] >= 0.5:
        label, share = row["given"], row["score"]
    elif len(names) == 2:
        label, share = 1 - row["given"], 1 - row["score"]
    else:
        label, share = None, 1 - row["score"] if row["label"] >= 0 else row["proba"]
    return {"label": None if label is None else names[label], "probability": share, "now": False}
