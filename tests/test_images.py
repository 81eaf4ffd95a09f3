"""Image sets: every layout on tiny files written here, bad pictures, and the real files where they are at hand."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from labelwright import datasets
from labelwright.errors import DataError
from labelwright.images import (
    ArrayImages,
    FileImages,
    ImageSet,
    ParquetImages,
    SomeImages,
    available_images,
    benchmarks,
    cifar,
    load_images,
    open_images,
    read_idx,
    read_pickle,
)
from labelwright.tables.vectors import decoded_image, pixels_of

HERE = os.environ.get(datasets.DATA_DIR_VARIABLE)
needs_data = pytest.mark.skipif(HERE is None, reason="LABELWRIGHT_DATA is not set")


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def pictures(n: int, side: int = 6, channels: int = 3, seed: int = 0) -> np.ndarray:
    shape = (n, side, side, 3) if channels == 3 else (n, side, side)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_parquet(
    path: Path,
    contents: list[bytes | None],
    labels: list[Any],
    *,
    paths: list[str] | None = None,
    groups: int = 1000,
    names: list[str] | None = None,
) -> Path:
    paths = paths or [f"{row}.png" for row in range(len(contents))]
    column = pa.array([{"bytes": c, "path": p} for c, p in zip(contents, paths, strict=True)])
    table = pa.table({"image": column, "label": pa.array(labels)})
    if names:
        told = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(told)})
    pq.write_table(table, path, row_group_size=groups)
    return path


# ---------------------------------------------------------------- stores


def test_array_rows_by_hand() -> None:
    array = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)
    images = ArrayImages(array)
    assert len(images) == 4 and images.shape == (2, 3, 1)
    out = images.take(np.array([3, 0, 3]))
    assert out.flags.c_contiguous and out.dtype == np.uint8
    np.testing.assert_array_equal(out[..., 0], array[[3, 0, 3]])
    np.testing.assert_array_equal(images.take(slice(None, None, -2))[..., 0], array[::-2])
    np.testing.assert_array_equal(images.take(np.array([True, False, True, False]))[..., 0], array[[0, 2]])
    assert images.take([]).shape == (0, 2, 3, 1) and images.bad_rows() == {}


@pytest.mark.parametrize(
    ("index", "says"),
    [
        ([4], "Row 4 was asked for"),
        ([-1], "rows are 0 to 3"),
        ([0.5], "whole numbers"),
        ([[0]], "shape"),
        ([True], "4 booleans"),
    ],
)
def test_rows_that_are_not_there(index: list[Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        ArrayImages(np.zeros((4, 2, 2), np.uint8)).take(index)


@pytest.mark.parametrize(
    "array",
    [np.zeros((2, 3, 3)), np.zeros((2, 9), np.uint8), np.zeros((1, 2, 2, 4), np.uint8), np.zeros((1, 0, 2), np.uint8)],
)
def test_arrays_that_are_no_pictures(array: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"expected uint8 of \(n, height, width\)"):
        ArrayImages(array)


def test_arrays_are_mapped_resized_and_recoloured(tmp_path: Path) -> None:
    array = pictures(5)
    np.save(tmp_path / "a.npy", array)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    np.testing.assert_array_equal(ArrayImages(mapped).take([4, 1]), array[[4, 1]])
    grey = ArrayImages(mapped, grey=True).take([2])
    np.testing.assert_array_equal(grey[0, ..., 0], np.asarray(Image.fromarray(array[2]).convert("L")))
    even = ArrayImages(np.full((1, 4, 4), 9, np.uint8), size=(2, 8), grey=False).take([0])
    assert even.shape == (1, 2, 8, 3) and (even == 9).all()


def test_some_images_name_the_row_of_the_whole(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "p.parquet", [encoded(pictures(1)[0]), b"no"], [0, 1])
    some = SomeImages(ParquetImages(path), np.array([1, 0]))
    with pytest.raises(
        DataError, match=r"1 of 2 pictures cannot be used: row 1 of p\.parquet: 2 bytes that are no picture"
    ):
        some.take([0, 1])


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.integers(0, 49), max_size=80), cache=st.sampled_from([0, 2500, 1 << 20]))
def test_parquet_rows_in_any_order_and_memory(
    tmp_path_factory: pytest.TempPathFactory, rows: list[int], cache: int
) -> None:
    """cache 0: every group is larger than it, and is streamed; 2500: two or three of the seven groups fit."""
    pixels = pictures(50)
    path = tmp_path_factory.getbasetemp() / "fifty.parquet"
    if not path.exists():
        write_parquet(path, [encoded(p) for p in pixels], [0] * 50, groups=8)
    images = ParquetImages(path, cache_bytes=cache)
    for _ in range(2):
        np.testing.assert_array_equal(images.take(np.array(rows, np.int64)), pixels[rows])
        assert sum(images._sizes[group] for group in images._held) <= cache


def test_only_the_row_groups_asked_for_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path / "a.parquet", [encoded(p) for p in pictures(40)], [0] * 40, groups=10)
    images = ParquetImages(path, size=6, grey=False)
    read: list[int] = []
    group_of = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile, "read_row_group", lambda self, i, *a, **k: read.append(i) or group_of(self, i, *a, **k)
    )
    images.take([35, 12, 31])
    images.take([13, 39])
    assert read == [1, 3]


def bad_contents() -> list[bytes | None]:
    """Colour, grey, other size, 16 bits, transparent, cut JPEG, cut PNG, no picture, empty, missing."""
    colour = encoded(pictures(1)[0])
    photo = encoded(pictures(1, 40)[0], "JPEG")
    large = encoded(pictures(1, 40)[0])
    clear = io.BytesIO()
    Image.new("RGBA", (6, 6), (10, 20, 30, 128)).save(clear, "PNG")
    deep = encoded(np.full((6, 6), 512 * 100, np.uint16))
    grey, other = encoded(np.full((6, 6), 77, np.uint8)), encoded(np.full((12, 3, 3), 50, np.uint8))
    return [colour, grey, other, deep, clear.getvalue(), photo[: len(photo) // 2], large[:-30], b"what?", b"", None]


def test_bad_pictures_are_zeros_with_reasons_and_others_fit(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "p.parquet", bad_contents(), list(range(10)))
    images = ParquetImages(path)
    assert images.shape == (6, 6, 3)
    out, bad = images.read(slice(None))
    assert list(bad) == [5, 6, 7, 8, 9] and (out[5:] == 0).all()
    assert (out[1] == 77).all() and (out[2] == 50).all() and (out[3] == 200).all()  # 512 * 100 / 256
    assert out[4, 0, 0].tolist() == [10, 20, 30]
    assert "truncated" in bad[5] and "truncated" in bad[6] and "no picture of a known kind" in bad[7]
    assert [bad[row] for row in (8, 9)] == [
        f"row {row} of p.parquet: no picture, the bytes are empty" for row in (8, 9)
    ]
    assert images.bad_rows(at_once=3) == {row: bad[row] for row in range(5, 10)}
    with pytest.raises(DataError, match=r"5 of 10 pictures cannot be used: row 5 of p\.parquet") as caught:
        images.take(slice(None))
    assert "\n" not in str(caught.value)


def test_the_shape_is_that_of_most_pictures_that_decode(tmp_path: Path) -> None:
    greys = [encoded(one) for one in pictures(3, 7, 1)]
    path = write_parquet(tmp_path / "p.parquet", [b"no", None, *greys, encoded(pictures(1, 2, 1)[0])], [0] * 6)
    assert ParquetImages(path).shape == (7, 7, 1)
    assert ParquetImages(path, size=(3, 4)).shape == (3, 4, 1) and ParquetImages(path, grey=False).shape == (7, 7, 3)
    coloured = write_parquet(tmp_path / "c.parquet", [*greys, encoded(pictures(1)[0])], [0] * 4)
    assert ParquetImages(coloured).shape == (7, 7, 3)
    hopeless = write_parquet(tmp_path / "q.parquet", [b"no", b"neither"], [0, 1])
    with pytest.raises(DataError, match="None of the 2 pictures decodes, the first being row 0"):
        ParquetImages(hopeless)
    assert len(ParquetImages(hopeless, size=4, grey=True).bad_rows()) == 2
    with pytest.raises(DataError, match="1 x 1 or more"):
        ParquetImages(path, size=0)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_bytes_are_pictures_or_reasons_never_exceptions(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "WEBP", "PPM"]))
    content = bytearray(encoded(pictures(1, 9)[0], kind))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(bytes(content))
    out, bad = FileImages([path], size=9, grey=False).read([0])
    assert out.shape == (1, 9, 9, 3) and (not bad or not out.any())


def test_parquet_of_another_layout(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="no pictures in column 'image' but 'x'"):
        ParquetImages(tmp_path / "x.parquet")
    (tmp_path / "y.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="not a complete Parquet file"):
        ParquetImages(tmp_path / "y.parquet")
    with pytest.raises(DataError, match="There is no file"):
        open_images(tmp_path / "none.parquet")
    path = write_parquet(tmp_path / "z.parquet", [encoded(pictures(1)[0])] * 2, [1, None])
    with pytest.raises(DataError, match="1 rows without a label in column 'label'"):
        open_images(path)
    with pytest.raises(DataError, match="no column 'species'"):
        open_images(path, label="species")


def test_own_parquet_and_folder(tmp_path: Path) -> None:
    pixels = pictures(3)
    contents: list[bytes | None] = [encoded(p) for p in pixels]
    words = open_images(write_parquet(tmp_path / "w.parquet", contents, ["b", "a", "b"]))
    assert words.classes == ("a", "b") and words.y.tolist() == [1, 0, 1]
    named = open_images(write_parquet(tmp_path / "n.parquet", contents, [2, 0, 2], names=["x", "y", "z"]))
    assert named.classes == ("x", "y", "z") and named.y.tolist() == [2, 0, 2]
    for name, content in {"cat/2.png": contents[0], "cat/1.png": contents[1], "dog/1.png": contents[2]}.items():
        (tmp_path / "f" / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / "f" / name).write_bytes(content or b"")
    (tmp_path / "f" / "dog" / "readme.txt").write_text("")
    folder = open_images(tmp_path / "f")
    np.testing.assert_array_equal(folder.images.take(slice(None)), pixels[[1, 0, 2]])
    assert folder.y.tolist() == [0, 0, 1] and folder.note.startswith("1 files were left out")
    (tmp_path / "f" / "cat" / "1.png").unlink()
    assert folder.images.bad_rows() == {0: "cat/1.png: cannot be read (No such file or directory)"}


# ---------------------------------------------------------------- IDX


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def test_idx_is_mapped_and_gzipped_unpacked(tmp_path: Path) -> None:
    array = pictures(4, 5, 1)
    (tmp_path / "a").write_bytes(idx(array))
    (tmp_path / "a.gz").write_bytes(gzip.compress(idx(array)))
    assert isinstance(read_idx(tmp_path / "a"), np.memmap)
    for name in ("a", "a.gz"):
        np.testing.assert_array_equal(read_idx(tmp_path / name), array)
        assert not read_idx(tmp_path / name).flags.writeable


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "starts with nothing, expected 000008"),
        (b"\x89PNG....", "starts with 89504e47"),
        (bytes([0, 0, 13, 1]) + bytes(8), "no IDX file of unsigned bytes"),
        (bytes([0, 0, 8, 3]) + bytes(5), "ends within its header"),
        (idx(np.zeros((3, 2, 2), np.uint8))[:-1], "too short: it holds 11 bytes of values, its header says 12"),
        (idx(np.zeros((3, 2, 2), np.uint8)) + b"x", "too long"),
        (bytes([0, 0, 8, 3]) + b"\xff" * 12, "which cannot be"),
        (bytes([0, 0, 8, 2]) + b"\x00\x0f\xff\xff" * 2, "too short"),  # a terabyte that is not there
    ],
)
def test_idx_that_cannot_be(tmp_path: Path, zipped: bool, content: bytes, says: str) -> None:
    path = tmp_path / ("a.gz" if zipped else "a")
    path.write_bytes(gzip.compress(content) if zipped else content)
    with pytest.raises(DataError, match=says):
        read_idx(path)


def test_idx_that_is_cut_or_missing(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(idx(pictures(9, 9, 1)))[:-20])
    with pytest.raises(DataError, match="cut or damaged"):
        read_idx(tmp_path / "a.gz")
    with pytest.raises(DataError, match="There is no file"):
        read_idx(tmp_path / "b")


def write_idx(folder: Path, *, zipped: bool = True) -> tuple[np.ndarray, np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    pixels, y = pictures(6, 28, 1), np.array([9, 0, 1, 2, 3, 4], np.uint8)
    for part in ("train", "t10k"):
        for name, array in ((f"{part}-images-idx3-ubyte", pixels), (f"{part}-labels-idx1-ubyte", y)):
            content = idx(array)
            (folder / (name + ".gz" * zipped)).write_bytes(gzip.compress(content) if zipped else content)
    return pixels, y


@pytest.mark.parametrize(
    ("name", "place"), [("mnist", "."), ("mnist", "MNIST/raw"), ("fashion-mnist", "fashion-mnist")]
)
@pytest.mark.parametrize("zipped", [False, True])
def test_mnist_and_fashion_as_idx(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, place: str, zipped: bool
) -> None:
    monkeypatch.setattr(benchmarks, "DEBIAN_FASHION", tmp_path / "none")
    pixels, y = write_idx(tmp_path / place, zipped=zipped)
    found = load_images(name, tmp_path)
    assert available_images(tmp_path)[name] == "ready"
    np.testing.assert_array_equal(found.images.take(slice(None))[..., 0], pixels)
    assert found.y.tolist() == y.tolist() and found.y.dtype == np.int64 and len(found.classes) == 10
    assert found.images_test is not None and len(found.images_test) == 6 and found.note.count("has md5") == 4
    with pytest.raises(DataError, match="fetch the original file"):
        load_images(name, tmp_path, strict=True)
    assert load_images(name, tmp_path, size=14).images.take([0]).shape == (1, 14, 14, 1)


def test_a_file_packed_anew_is_the_published_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from labelwright.images import checksums

    content = idx(np.zeros(3, np.uint8))
    known = ("0" * 32, hashlib.md5(content).hexdigest())
    monkeypatch.setattr(checksums, "CHECKSUMS", {"x": known})
    for name, held, told in (
        ("a.gz", gzip.compress(content, 1), False), ("a", content, False), ("b.gz", gzip.compress(b"other"), True),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(held)
        assert ("has md5" in checksums.check_file(tmp_path / name, "x", False)) is told
    (tmp_path / "c.gz").write_bytes(gzip.compress(content)[:-9])
    with pytest.raises(DataError, match="cut or damaged"):
        checksums.check_file(tmp_path / "c.gz", "x", False)


def test_idx_files_that_do_not_fit_each_other(tmp_path: Path) -> None:
    write_idx(tmp_path, zipped=False)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(5, np.uint8)))
    with pytest.raises(DataError, match=r"is of shape \(6, 28, 28\) but its labels of \(5,\)"):
        load_images("mnist", tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.full(6, 10, np.uint8)))
    with pytest.raises(DataError, match="has a class 10"):
        load_images("mnist", tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="There is no file train-labels-idx1-ubyte"):
        load_images("mnist", tmp_path)


# ---------------------------------------------------------------- CIFAR


def python2(value: Any) -> bytes:
    """A pickle as Python 2 wrote it, by protocol 2: text as bytes, NumPy under its old name."""
    out = pickle.dumps(value, protocol=2)
    return out.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def write_cifar10(folder: Path, rows: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """The unpacked archive; the pictures (5 * rows, 32, 32, 3) and labels of training."""
    here = folder / "cifar-10-batches-py"
    here.mkdir(parents=True)
    pixels = pictures(6 * rows, 32)
    y = np.arange(6 * rows) % 10
    for part, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        at = slice(part * rows, (part + 1) * rows)
        planes = np.ascontiguousarray(pixels[at].transpose(0, 3, 1, 2)).reshape(rows, -1)
        batch = {b"batch_label": b"x", b"labels": y[at].tolist(), b"data": planes, b"filenames": [b"a.png"] * rows}
        (here / name).write_bytes(python2(batch))
    names = [name.encode() for name in benchmarks.CIFAR10]
    (here / "batches.meta").write_bytes(python2({b"label_names": names, b"num_vis": 3072}))
    return pixels[: 5 * rows], y[: 5 * rows]


def packed(folder: Path, name: str) -> None:
    with tarfile.open(folder / name, "w:gz") as tar:
        for part in sorted(folder.iterdir()):
            if part.is_dir():
                tar.add(part, part.name)


def test_cifar10_unpacked_and_archive(tmp_path: Path) -> None:
    pixels, y = write_cifar10(tmp_path / "a")
    packed(tmp_path / "a", "cifar-10-python.tar.gz")
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "cifar-10-python.tar.gz").rename(tmp_path / "b" / "cifar-10-python.tar.gz")
    for place, odd in (("a", 7), ("b", 1)):
        found = load_images("cifar10", tmp_path / place)
        np.testing.assert_array_equal(found.images.take(slice(None)), pixels)
        assert found.y.tolist() == y.tolist() and found.classes[6] == "frog" and found.note.count("has md5") == odd
        assert found.images_test is not None and len(found.images_test) == 4 and found.y_test is not None
        with pytest.raises(DataError, match="has md5"):
            load_images("cifar10", tmp_path / place, strict=True)
    archive = tmp_path / "b" / "cifar-10-python.tar.gz"
    archive.write_bytes(archive.read_bytes()[:3000])
    with pytest.raises(DataError, match="no complete tar"):
        load_images("cifar10", tmp_path / "b")


def test_cifar100_fine_and_coarse(tmp_path: Path) -> None:
    here = tmp_path / "cifar-100-python"
    here.mkdir()
    for name in ("train", "test"):
        held = {b"data": pictures(3, 32).reshape(3, 3072), b"fine_labels": [99, 0, 5], b"coarse_labels": [19, 1, 0]}
        (here / name).write_bytes(python2(held))
    names = {
        b"fine_label_names": [b"f%d" % i for i in range(100)],
        b"coarse_label_names": [b"c%d" % i for i in range(20)],
    }
    (here / "meta").write_bytes(python2(names))
    fine, coarse = load_images("cifar100", tmp_path), load_images("cifar100-coarse", tmp_path)
    assert fine.y.tolist() == [99, 0, 5] and len(fine.classes) == 100 and fine.classes[99] == "f99"
    assert coarse.y.tolist() == [19, 1, 0] and coarse.classes[19] == "c19"
    (here / "test").write_bytes(python2({b"data": np.zeros((3, 3072), np.uint8), b"fine_labels": [1, 2, 100]}))
    with pytest.raises(DataError, match="no list 'fine_labels' of 3 classes from 0 to 99"):
        load_images("cifar100", tmp_path)
    (here / "test").write_bytes(python2({b"data": np.zeros((3, 9), np.uint8), b"fine_labels": [1, 2, 3]}))
    with pytest.raises(DataError, match=r"shape \(3, 9\), expected \(n, 3072\)"):
        load_images("cifar100", tmp_path)
    (here / "test").unlink()
    with pytest.raises(DataError, match="There is no file"):
        load_images("cifar100", tmp_path)


@pytest.mark.parametrize("protocol", [0, 2, 3, 4, 5])
def test_pickles_of_every_protocol(protocol: int) -> None:
    value = {"data": np.arange(6, dtype=np.uint8).reshape(2, 3), "labels": [1, 2], "name": b"ab", "t": "t"}
    out = read_pickle(pickle.dumps(value, protocol=protocol), "p")
    np.testing.assert_array_equal(out.pop("data", out.pop(b"data", None)), value["data"])
    assert {k.decode() if isinstance(k, bytes) else k: v for k, v in out.items()} == {
        "labels": [1, 2], "name": b"ab", "t": "t",
    }  # fmt: skip
    turned = np.asfortranarray(value["data"])
    np.testing.assert_array_equal(read_pickle(pickle.dumps({"a": turned}, protocol=protocol), "p")["a"], value["data"])


class Evil:
    def __init__(self, call: Any, *arguments: Any):
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> Any:
        return self.call, self.arguments


def test_no_function_of_a_pickle_is_ever_called(tmp_path: Path) -> None:
    mark = tmp_path / "called"
    evils = [
        Evil(os.system, f"touch {mark}"),
        Evil(exec, f"open({str(mark)!r}, 'w')"),
        Evil(eval, "1"),
        Evil(np.load, str(mark)),
        Evil(np.frombuffer, b"ab"),
        Evil(open, str(mark), "w"),
        np.array([Evil(os.system, f"touch {mark}")], dtype=object),
        np.zeros(3),
        np.float64(1),
        Path("x"),
    ]
    for evil in evils:
        for protocol in (0, 2, 4):
            with pytest.raises(DataError) as caught:
                read_pickle(pickle.dumps({"data": evil}, protocol=protocol), "train")
            assert str(caught.value).startswith("train ") and "\n" not in str(caught.value)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"cnumpy\nndarray\n)R.", "calls or changes"),  # what only _reconstruct may be handed
        (b"cnumpy\ndtype\n}X\x01\x00\x00\x00aK\x01sb.", "calls or changes"),  # sets an attribute on a function
        (b"cnumpy\ndtype\nN}X\x05\x00\x00\x00_callK\x01s\x86b.", "calls or changes"),
        (b"cnumpy\ndtype\n)\x81.", "no complete pickle"),  # NEWOBJ of what is no class
        (b"cbuiltins\ngetattr\n.", "names builtins.getattr"),
        (b"c__main__\nx\n.", "names __main__.x"),
        (b"Px\n.", "points outside itself"),
        (b"]\x94.", "holds list, expected a dict"),
        (b"\x80\x02}q\x00(X", "no complete pickle"),
        (b"", "no complete pickle"),
        (b"not a pickle", "no complete pickle"),
    ],
)
def test_pickles_made_by_hand(content: bytes, says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_pickle(content, "train")


def test_arrays_of_a_pickle_that_lie() -> None:
    honest = pickle.dumps({"a": np.zeros((2, 3), np.uint8)}, protocol=2)
    for old, new in ((b"K\x02K\x03", b"K\x02K\x04"), (b"u1", b"i1"), (b"u1", b"O8")):
        assert old in honest
        with pytest.raises(DataError):
            read_pickle(honest.replace(old, new, 1), "train")


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_pickles_are_refused_in_one_sentence(data: st.DataObject) -> None:
    content = bytearray(
        pickle.dumps({"data": np.arange(12, dtype=np.uint8).reshape(3, 4), "labels": [1, 2, 3]}, protocol=2)
    )
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        out = read_pickle(bytes(content), "train")
    except DataError as error:
        assert str(error).startswith("train ")
    else:
        assert all(not isinstance(v, np.ndarray) or v.dtype == np.uint8 for v in out.values())


# ---------------------------------------------------------------- sets of Parquet, faces


def test_parquet_comes_before_the_archive(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    pixels = pictures(3, 32)
    for part in ("train", "test"):
        write_parquet(tmp_path / f"cifar10-{part}.parquet", [encoded(p) for p in pixels], [9, 0, 1])
    found = load_images("cifar10", tmp_path)
    assert len(found) == 3 and found.classes[9] == "truck" and found.y.tolist() == [9, 0, 1]
    assert "cifar10-train.parquet has sha256" in found.note
    (tmp_path / "cifar10-test.parquet").unlink()
    assert "There is no file" in available_images(tmp_path)["cifar10"]


def test_a_track_of_gtsrb_is_a_group(tmp_path: Path) -> None:
    contents: list[bytes | None] = [encoded(p) for p in pictures(3, 32)]
    paths = ["00000/00000_00001.ppm", "00000/00000_00004.ppm", "00007/00000_00001.ppm"]
    write_parquet(tmp_path / "gtsrb-train.parquet", contents, [0, 0, 7], paths=paths)
    write_parquet(tmp_path / "gtsrb-test.parquet", contents, [1, 2, 42])
    found = load_images("gtsrb", tmp_path)
    assert found.groups is not None and found.groups.tolist() == ["00000/00000", "00000/00000", "00007/00000"]
    assert found.y_test is not None and found.y_test.tolist() == [1, 2, 42] and len(found.classes) == 43


def test_the_first_seven_of_a_person_are_for_training(tmp_path: Path) -> None:
    contents: list[bytes | None] = [encoded(p) for p in pictures(18, 6, 1)]
    labels = [0] * 10 + [1] * 8
    write_parquet(tmp_path / "orl-faces.parquet", contents, labels, names=["ann", "bob"])
    found = load_images("orl-faces", tmp_path)
    assert isinstance(found, ImageSet) and found.y.tolist() == [0] * 7 + [1] * 7
    assert found.y_test is not None and found.y_test.tolist() == [0, 0, 0, 1]
    np.testing.assert_array_equal(found.images.take([7])[0, ..., 0], pictures(18, 6, 1)[10])
    assert found.groups is not None and set(found.groups) == {"ann", "bob"} and "first 7 pictures" in found.note


def write_faces(folder: Path, counts: dict[str, int]) -> None:
    for person, count in counts.items():
        (folder / "facescrub" / person).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            size = 10 + i % 3
            Image.new("RGB", (size, 9), (i % 256, 0, 0)).save(folder / "facescrub" / person / f"{person}_{i}.jpg")


def test_facescrub_takes_the_people_with_most_pictures_and_never_moves_one(tmp_path: Path) -> None:
    write_faces(tmp_path, {"Cy": 40, "Ann": 30, "Bo": 40, "Di": 5})
    found = load_images("facescrub", tmp_path, people=3)
    assert found.classes == ("Ann", "Bo", "Cy") and found.images.shape == (128, 128, 3)
    assert "3 people with 30 to 40 pictures each" in found.note
    assert found.images_test is not None and len(found.images) + len(found.images_test) == 110
    assert 10 <= len(found.images_test) <= 35
    assert load_images("facescrub", tmp_path, people=2).classes == ("Bo", "Cy")
    sides = {found.images.name_of(row): "train" for row in range(len(found.images))}
    sides |= {found.images_test.name_of(row): "test" for row in range(len(found.images_test))}
    write_faces(tmp_path, {"Ann": 50})
    for path in list((tmp_path / "facescrub" / "Bo").iterdir())[:6]:
        path.unlink()
    more = load_images("facescrub", tmp_path, people=3, size=16)
    assert more.images_test is not None and more.images.shape == (16, 16, 3)
    for side, images in (("train", more.images), ("test", more.images_test)):
        assert all(sides.get(images.name_of(row), side) == side for row in range(len(images)))
    (tmp_path / "facescrub" / "Ann" / "Ann_0.jpg").write_bytes(b"\xff\xd8\xff")
    for images in (more.images, more.images_test):
        for why in images.bad_rows().values():
            assert why.startswith("Ann/Ann_0.jpg")


def test_errors_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(datasets.DATA_DIR_VARIABLE, raising=False)
    monkeypatch.setattr(benchmarks, "DEBIAN_FASHION", tmp_path / "none")
    for name in benchmarks.LOADERS:
        with pytest.raises(DataError, match="LABELWRIGHT_DATA"):
            load_images(name)
        with pytest.raises(DataError, match=r"put (it|the python archive|a folder per person)") as caught:
            load_images(name, tmp_path)
        assert available_images(tmp_path)[name] == str(caught.value)
    assert set(available_images(tmp_path)) == set(benchmarks.LOADERS)
    with pytest.raises(DataError, match="expected one of cifar10"):
        load_images("cifar")
    write_faces(tmp_path, {"Ann": 2})
    with pytest.raises(DataError, match="ask for 1 or more"):
        load_images("facescrub", tmp_path, people=0)


def test_cifar_files_of_another_kind(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    here = tmp_path / "cifar-10-batches-py"
    (here / "batches.meta").write_bytes(python2({b"label_names": 3}))
    with pytest.raises(DataError, match="no list 'label_names'"):
        load_images("cifar10", tmp_path)
    (here / "batches.meta").write_bytes(pickle.dumps({b"label_names": [Evil(os.system, "true")]}))
    with pytest.raises(DataError, match=r"batches\.meta names posix\.system"):
        load_images("cifar10", tmp_path)
    assert cifar.find_cifar(tmp_path, cifar.CIFAR10) == here


# ---------------------------------------------------------------- the real files


@needs_data
@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "rows", "tests", "shape", "classes"),
    [
        ("cifar10", 50000, 10000, (32, 32, 3), 10),
        ("mnist", 60000, 10000, (28, 28, 1), 10),
        ("gtsrb", 13070, 12630, (32, 32, 3), 43),
        ("orl-faces", 280, 120, (112, 92, 1), 40),
    ],
)
def test_real_sets(name: str, rows: int, tests: int, shape: tuple[int, int, int], classes: int) -> None:
    if available_images()[name] != "ready":
        pytest.skip(f"{name} is not at hand")
    found = load_images(name, strict=True)
    assert len(found) == rows == len(found.images) and found.images.shape == shape and len(found.classes) == classes
    assert found.images_test is not None and len(found.images_test) == tests and found.images_test.shape == shape
    assert np.unique(found.y).tolist() == list(range(classes))
    rng = np.random.default_rng(0)
    assert found.images.take(rng.integers(0, rows, 200)).std() > 20
    assert found.groups is None or len(found.groups) == rows


@needs_data
@pytest.mark.data
def test_real_mnist_is_the_published_idx() -> None:
    """The pixels and labels of the Parquet files, written as IDX, have the published digest."""
    from labelwright.images.checksums import CHECKSUMS

    found = load_images("mnist")
    assert found.images_test is not None and found.y_test is not None
    pixels = found.images_test.take(slice(None))[..., 0]
    assert hashlib.md5(idx(pixels)).hexdigest() in CHECKSUMS["mnist/t10k-images"]
    assert hashlib.md5(idx(found.y_test.astype(np.uint8))).hexdigest() in CHECKSUMS["mnist/t10k-labels"]


def test_real_fashion_mnist() -> None:
    if available_images()["fashion-mnist"] != "ready":
        pytest.skip("neither the files nor Debian's package dataset-fashion-mnist are at hand")
    found = load_images("fashion-mnist", strict=True)
    assert len(found) == 60000 and found.classes[int(found.y[0])] == "Ankle boot" and found.images.shape == (28, 28, 1)


@pytest.mark.parametrize(
    ("deep", "wanted"),
    [
        (np.array([[0, 200], [255, 100]], np.uint16), [[0, 0], [0, 0]]),  # 16 bits, all dark
        (np.array([[0, 200], [65535, 256]], np.uint16), [[0, 0], [255, 1]]),
        (np.array([[-5, 200], [255, 100]], np.int32), [[0, 200], [255, 100]]),
        (np.array([[-5, 70000], [65535, 256]], np.int32), [[0, 255], [255, 1]]),
        (np.array([[0.0, 0.5], [1.0, np.nan]], np.float32), [[0, 127], [255, 0]]),
        (np.array([[0.0, 300.0], [128.0, 2.0]], np.float32), [[0, 255], [128, 2]]),
    ],
)
def test_deep_pixels_become_bytes(deep: np.ndarray, wanted: list[list[int]]) -> None:
    buffer = io.BytesIO()
    Image.fromarray(deep).save(buffer, "PNG" if deep.dtype == np.uint16 else "TIFF")
    assert pixels_of(decoded_image(buffer.getvalue()), "L", (2, 2)).tolist() == wanted


def test_pictures_are_turned_as_the_camera_says(tmp_path: Path) -> None:
    image, buffer = Image.fromarray(pictures(1, 8, 3)[0][:, :4]), io.BytesIO()
    tags = image.getexif()
    tags[274] = 6  # held upright
    image.save(buffer, "PNG", exif=tags)
    turned = decoded_image(buffer.getvalue())
    assert turned.size == (8, 4)
    np.testing.assert_array_equal(np.asarray(turned), np.rot90(np.asarray(image), -1))
