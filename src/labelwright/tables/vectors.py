"""Columns of many values a row as numbers: vectors and images. The functions are as in ``columns``."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from labelwright.tables.arrow import contiguous, dense_vectors, is_image, is_vector
from labelwright.tables.columns import Applied, Fitted, State, apply_dense, fit_dense
from labelwright.types import Floats

MOST_PIXELS = 64
FEWEST_PIXELS = 8
LOOKED_AT = 64
"""Pictures, evenly spread, that decide the shape and the colour of all."""
warnings.filterwarnings("ignore", message="Image size .* could be decompression bomb")  # Pillow opens it all the same


def to_vectors(column: pa.ChunkedArray, width: int) -> tuple[Floats, int]:
    """(n, width) float32 with NaN where missing; and how many vectors were of another width or type."""
    if not is_vector(column.type):
        return np.full((len(column), width), np.nan, np.float32), len(column) - column.null_count
    array = contiguous(column)
    X = dense_vectors(array)
    if X is not None and X.shape[1] == width:
        return X, 0
    out, lost = np.full((len(array), width), np.nan, np.float32), 0
    for row, vector in enumerate(array.to_pylist()):
        if vector is not None and len(vector) == width:
            out[row] = vector
        else:
            lost += vector is not None
    return out, lost


def fit_vector(column: pa.ChunkedArray) -> Fitted:
    array = contiguous(column)
    width = int(pc.mode(pc.list_value_length(array))[0]["mode"].as_py())
    if not width:
        return {}, "the vectors are empty"
    X, _ = to_vectors(column, width)
    low, high = X.min(), X.max()
    if low >= 0 and high <= 1:  # False when there is a NaN
        return {"width": width, "as_is": True, "mean": X.mean(axis=0)}, f"{width} numbers in [0, 1], used as they are"
    values = np.where(np.isfinite(X), X, np.nan).astype(np.float64)
    gaps = int(np.isnan(values).sum())
    inside = not gaps or not ((values < 0) | (values > 1)).any()
    scale = fit_dense(values)
    scale["flags"][:] = False
    state = {"width": width, "as_is": bool(gaps and inside), "mean": scale["median"].astype(np.float32), "scale": scale}
    how = "in [0, 1], used as they are" if state["as_is"] else "standardised"
    return state, f"{width} numbers {how}" + (f", {gaps} missing filled with the median" if gaps else "")


def apply_vector(column: pa.ChunkedArray, state: State) -> Applied:
    X, lost = to_vectors(column, int(state["width"]))
    finite = np.isfinite(X)
    if state["as_is"]:
        return (X.copy() if finite.all() else np.where(finite, X, state["mean"])), lost
    return apply_dense(np.where(finite, X, np.nan).astype(np.float64), state["scale"]), lost


def encoded_images(column: pa.ChunkedArray) -> list[bytes | None]:
    if not is_image(column.type):
        return [None] * len(column)
    return [None if value is None else value["bytes"] for value in column.to_pylist()]


def decoded_image(content: bytes) -> Any:
    """The image, loaded whole and turned as its EXIF data says; None when it does not decode."""
    from PIL import Image, ImageOps

    try:
        image = Image.open(io.BytesIO(content))
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return image
    except Exception:  # damaged files make decoders raise whatever comes to hand: struct.error, zlib.error, IndexError
        return None


def picture_column(pixels: Any, names: Sequence[str | None]) -> pa.Array:
    """Bytes (n, height, width, 1 or 3) as a column of PNG files, which lose nothing; missing where the name is None."""
    from PIL import Image

    def png(one: Any) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(one[..., 0] if one.shape[2] == 1 else one).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()

    cells = [
        None if name is None else {"bytes": png(one), "path": name} for one, name in zip(pixels, names, strict=True)
    ]
    return pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))


def is_grey(image: Any) -> bool:
    """Whether an image has one channel of colour, and perhaps transparency."""
    return str(image.mode).split(";")[0] in ("1", "L", "LA", "La", "I", "F")


def pixels_of(image: Any, mode: str, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """(height, width) or (height, width, 3) uint8 of an image that was decoded; 16-bit grey keeps its upper 8 bits.

    mode: "L" or "RGB". size: (width, height), to which it is resized bilinearly.
    """
    from PIL import Image

    if str(image.mode).startswith(("I", "F")):
        image = Image.fromarray(_shallow(np.asarray(image), str(image.mode)))
    image = image.convert(mode)
    return np.asarray(image if image.size == size else image.resize(size, Image.Resampling.BILINEAR), np.uint8)


def _shallow(deep: npt.NDArray[Any], mode: str) -> npt.NDArray[np.uint8]:
    """Pixels of 16 or 32 bits as bytes. Whole numbers of 32 bits are taken for 8 or 16 of them by the largest, larger ones and floats
    above 1 are cut off; floats up to 1 are shares."""
    if mode.startswith("I;16"):
        return (deep.astype(np.uint16) >> 8).astype(np.uint8)
    finite = np.nan_to_num(deep.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    top = float(finite.max(initial=0.0))
    if mode.startswith("F"):
        finite *= 255 if top <= 1 else 1
    elif top > 255:
        finite = np.floor(np.clip(finite, 0, 65535) / 256)
    return np.clip(finite, 0, 255).astype(np.uint8)


def _bounded(width: int, height: int) -> tuple[int, int]:
    """The size with both sides shrunk alike until the longer is :data:`MOST_PIXELS`, neither below :data:`FEWEST_PIXELS`."""
    longer = max(width, height)
    if longer <= MOST_PIXELS:
        return width, height
    small = [max(FEWEST_PIXELS, round(side * MOST_PIXELS / longer)) for side in (width, height)]
    return min(width, small[0]), min(height, small[1])


def common_shape(images: Iterable[Any]) -> tuple[str, int, int] | None:
    """("L" or "RGB", width, height) for all of these decoded images, None ones left out: colour if any has it, and the median of each
    side, so that one odd picture does not decide for all. None without any."""
    grey, sizes = True, []
    for image in images:
        if image is not None:
            grey = grey and is_grey(image)
            sizes.append(image.size)
    if not sizes:
        return None
    width, height = (int(side) for side in np.quantile(np.array(sizes), 0.5, axis=0, method="nearest"))
    return "L" if grey else "RGB", width, height


def fit_image(column: pa.ChunkedArray) -> Fitted:
    there = [content for content in encoded_images(column) if content]
    some = [there[at] for at in np.unique(np.linspace(0, len(there) - 1, LOOKED_AT).astype(int))] if there else []
    found = common_shape(map(decoded_image, some)) or common_shape(map(decoded_image, there))
    if found is None:
        return {}, "no image decodes" if there else "no image has bytes; paths to files are not followed"
    mode, *size = found
    width, height = _bounded(*size)
    shrunk = "" if [width, height] == size else f", resized from {size[0]} x {size[1]}"
    how = f"{width} x {height} {'grey' if mode == 'L' else 'colour'} pixels in [0, 1]{shrunk}"
    return {"mode": mode, "width": width, "height": height}, how


def apply_image(column: pa.ChunkedArray, state: State) -> Applied:
    mode, size = state["mode"], (int(state["width"]), int(state["height"]))
    contents = encoded_images(column)
    out = np.zeros((len(contents), size[0] * size[1] * (1 if mode == "L" else 3)), np.float32)
    lost = 0
    for row, content in enumerate(contents):
        image = decoded_image(content) if content else None
        if image is None:
            lost += 1
            continue
        out[row] = pixels_of(image, mode, size).ravel()
    out /= 255
    return out, lost
