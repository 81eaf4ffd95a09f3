"""CIFAR-10 and CIFAR-100 as their python archives, unpacked or not."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from labelwright.errors import DataError
from labelwright.images.checksums import check_file
from labelwright.images.pickles import read_pickle
from labelwright.images.stores import Pixels
from labelwright.types import Ints

Read = Callable[[str], bytes]
_SIDE = 32
_DAMAGE = (tarfile.TarError, OSError, EOFError, zlib.error)
_MOST = 1 << 30  # bytes of the largest batch that is believed


@dataclass(frozen=True)
class Layout:
    """Where things are. folder: of the files, in the archive too. train, test, meta: files. labels, names: keys in them."""

    archive: str
    folder: str
    train: tuple[str, ...]
    test: str
    meta: str
    labels: str
    names: str


CIFAR10 = Layout(
    "cifar-10-python.tar.gz",
    "cifar-10-batches-py",
    tuple(f"data_batch_{part}" for part in range(1, 6)),
    "test_batch",
    "batches.meta",
    "labels",
    "label_names",
)
CIFAR100 = Layout(
    "cifar-100-python.tar.gz", "cifar-100-python", ("train",), "test", "meta", "fine_labels", "fine_label_names"
)
CIFAR100_COARSE = Layout(
    "cifar-100-python.tar.gz", "cifar-100-python", ("train",), "test", "meta", "coarse_labels", "coarse_label_names"
)


@dataclass(frozen=True)
class Cifar:
    """pixels, pixels_test: (n, 32, 32, 3) uint8. y, y_test: (n,) int64. classes: their names. note: odd checksums."""

    pixels: Pixels
    y: Ints
    pixels_test: Pixels
    y_test: Ints
    classes: tuple[str, ...]
    note: str


def find_cifar(data_dir: Path, layout: Layout) -> Path:
    """The unpacked folder, else the archive. Raises DataError when there is neither."""
    for path in (data_dir / layout.folder, data_dir / layout.archive):
        if path.exists():
            return path
    raise DataError(
        f"There is neither {layout.folder}/ nor {layout.archive} in {data_dir}; put the python archive of the set there."
    )


def read_cifar(path: Path, layout: Layout, strict: bool) -> Cifar:
    """Read a whole set: 184 MB of pixels that stay, and up to as much again twice while a batch is turned into pictures.

    path: from :func:`find_cifar`. Raises DataError when a file is missing, damaged or of another layout, or strict and other
    than the published one.
    """
    names = (*layout.train, layout.test, layout.meta)
    if path.is_dir():
        notes = [check_file(path / name, f"{layout.folder}/{name}", strict) for name in names]
    else:
        notes = [check_file(path, layout.archive, strict)]
    with _opened(path, layout.folder) as read:
        classes = _class_names(read_pickle(read(layout.meta), layout.meta), layout)
        pixels, y = _batches(read, layout.train, layout, len(classes))
        pixels_test, y_test = _batches(read, (layout.test,), layout, len(classes))
    return Cifar(pixels, y, pixels_test, y_test, classes, " ".join(filter(None, notes)))


@contextmanager
def _opened(path: Path, folder: str) -> Iterator[Read]:
    """A function that gives the bytes of a file by its name, out of a folder or an archive; nothing is unpacked to disk."""
    if path.is_dir():
        yield partial(_from_folder, path)
        return
    try:
        archive = tarfile.open(path, "r:gz")  # noqa: SIM115  (closed below, where its own errors are told apart from the reader's)
    except _DAMAGE as error:
        raise DataError(f"{path} is no complete tar.gz ({error}); fetch it again.") from error
    with archive:
        yield partial(_from_archive, archive, path, folder)


def _from_folder(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise DataError(f"{folder / name} cannot be read ({error}); unpack the archive again.") from error


def _from_archive(archive: tarfile.TarFile, path: Path, folder: str, name: str) -> bytes:
    try:
        member = archive.getmember(f"{folder}/{name}")
        file = archive.extractfile(member) if member.isreg() and member.size < _MOST else None
        if file is None:
            raise DataError(f"{path} holds {name} as no file of a sensible size; fetch it again.")
        return file.read()
    except KeyError as error:
        raise DataError(f"{path} holds no {folder}/{name}; fetch the original archive.") from error
    except _DAMAGE as error:
        raise DataError(f"{path} is no complete tar.gz ({error}); fetch it again.") from error


def _batches(read: Read, names: Sequence[str], layout: Layout, classes: int) -> tuple[Pixels, Ints]:
    parts, labels = [], []
    for name in names:
        planes, y = _batch(read_pickle(read(name), name), name, layout, classes)
        parts.append(np.ascontiguousarray(planes.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)))
        labels.append(y)
    if len(parts) == 1:
        return parts[0], labels[0]
    out = np.empty((sum(map(len, parts)), _SIDE, _SIDE, 3), np.uint8)
    start = 0
    while parts:
        part = parts.pop(0)
        out[start : start + len(part)] = part
        start += len(part)
    return out, np.concatenate(labels)


def _batch(held: Mapping[Any, Any], name: str, layout: Layout, classes: int) -> tuple[Pixels, Ints]:
    data, given = _value(held, "data"), _value(held, layout.labels)
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != 3 * _SIDE * _SIDE:
        shape = getattr(data, "shape", type(data).__name__)
        raise DataError(f"{name} holds pictures of shape {shape}, expected (n, 3072); fetch the original file.")
    whole = isinstance(given, list) and all(type(label) is int and 0 <= label < classes for label in given)
    if not whole or len(given) != len(data):
        raise DataError(
            f"{name} holds no list {layout.labels!r} of {len(data)} classes from 0 to {classes - 1}; fetch the original file."
        )
    return data, np.array(given, np.int64)


def _class_names(held: Mapping[Any, Any], layout: Layout) -> tuple[str, ...]:
    names = _value(held, layout.names)
    if not isinstance(names, list) or not names or not all(isinstance(name, bytes | str) for name in names):
        raise DataError(f"{layout.meta} holds no list {layout.names!r} of names; fetch the original file.")
    return tuple(name.decode("utf-8", "replace") if isinstance(name, bytes) else name for name in names)


def _value(held: Mapping[Any, Any], key: str) -> Any:
    """A value by its key, which Python 2 wrote as bytes."""
    return held.get(key.encode(), held.get(key))
