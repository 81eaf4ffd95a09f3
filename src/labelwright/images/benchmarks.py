"""Benchmark image sets: one function per layout."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from labelwright import datasets
from labelwright.errors import DataError
from labelwright.images import cifar
from labelwright.images.checksums import check_file
from labelwright.images.files import FileImages
from labelwright.images.idx import read_idx
from labelwright.images.imageset import ImageSet, Wish, labels_of
from labelwright.images.parquet import ParquetImages
from labelwright.images.stores import ArrayImages, SomeImages
from labelwright.tables.pictures import Pictures, find_pictures
from labelwright.types import Ints

FACE = 128
DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts its files."""
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
_PARTS = ("-train", "-test")
_ORL_TRAIN = 7


def _parquet(
    name: str, wish: Wish, classes_of: tuple[str, ...], groups: Callable[[str], str] | None = None
) -> ImageSet:
    parts: list[tuple[ParquetImages, Ints, tuple[str, ...]]] = []
    notes = []
    for part in _PARTS:
        path = datasets._parquet_file(wish.folder, f"{name}{part}")
        notes.append(check_file(path, path.name, wish.strict))
        first = parts[0][0].shape if parts else None
        images = ParquetImages(path, size=wish.size or (first and first[:2]), grey=first and first[2] == 1)
        parts.append((images, *labels_of(images, names=parts[0][2] if parts else classes_of)))
    (images, y, classes), (images_test, y_test, classes_test) = parts
    if classes_test != classes:
        raise DataError(
            f"{images_test.path} has the classes {', '.join(classes_test[:5])}, … and {images.path.name} others; "
            "fetch both again."
        )
    together = None
    if groups is not None:
        together = np.array([groups(path or "") for path in images.values("image.path").to_pylist()], object)
    return ImageSet(name, images, y, classes, images_test, y_test, together, " ".join(filter(None, notes)))


def _cifar(name: str, layout: cifar.Layout, wish: Wish) -> ImageSet:
    path = cifar.find_cifar(wish.place(layout.archive), layout)
    held = cifar.read_cifar(path, layout, wish.strict)
    images = ArrayImages(held.pixels, size=wish.size, name=f"{name}'s training set")
    images_test = ArrayImages(held.pixels_test, size=wish.size, name=f"{name}'s test set")
    return ImageSet(name, images, held.y, held.classes, images_test, held.y_test, note=held.note)


def _cifar10(wish: Wish) -> ImageSet:
    if _has_parquet(wish, "cifar10"):
        return _parquet("cifar10", wish, CIFAR10)
    return _cifar("cifar10", cifar.CIFAR10, wish)


def _has_parquet(wish: Wish, name: str) -> bool:
    return any((wish.place(f"{name}-train.parquet") / f"{name}{part}.parquet").exists() for part in _PARTS)


def _mnist(wish: Wish) -> ImageSet:
    return (
        _parquet("mnist", wish, datasets.DIGITS)
        if _has_parquet(wish, "mnist")
        else _idx("mnist", datasets.DIGITS, wish)
    )


def _idx_files(name: str, wish: Wish) -> dict[str, Path]:
    """The four files by what they hold. Raises DataError when no folder has all of them."""
    places = _idx_folders(name, wish)
    parts = [f"{part}-{kind}" for part in ("train", "t10k") for kind in ("images", "labels")]
    lacking: list[str] = parts
    for place in places:
        found = {part: path for part in parts for path in _idx_names(place, part) if path.is_file()}
        if len(found) == len(parts):
            return found
        lacking = min(lacking, [part for part in parts if part not in found], key=len)
    more = " or install Debian's package dataset-fashion-mnist," if name == "fashion-mnist" else ""
    raise DataError(
        f"There is no file {_idx_names(Path(), lacking[0])[0]} in {' or '.join(map(str, places))}; put it there,{more} "
        f"or set {datasets.DATA_DIR_VARIABLE} or --data-dir to the right folder."
    )


def _idx_folders(name: str, wish: Wish) -> list[Path]:
    if name == "mnist":
        place = wish.place("train-images-idx3-ubyte.gz")
        return [place, place / "mnist", place / "MNIST" / "raw"]
    own = [wish.folder / name, wish.folder / "FashionMNIST" / "raw"] if wish.folder is not None else []
    return [*own, DEBIAN_FASHION]


def _idx_names(folder: Path, part: str) -> list[Path]:
    axes = 3 if part.endswith("images") else 1
    return [folder / f"{part}{dot}idx{axes}-ubyte{end}" for end in (".gz", "") for dot in ("-", ".")]


def _idx(name: str, classes: tuple[str, ...], wish: Wish) -> ImageSet:
    files = _idx_files(name, wish)
    notes = [check_file(path, f"{name}/{part}", wish.strict) for part, path in files.items()]
    parts: list[Any] = []
    for part in ("train", "t10k"):
        pixels, y = read_idx(files[f"{part}-images"]), read_idx(files[f"{part}-labels"])
        if pixels.ndim != 3 or y.shape != (len(pixels),):
            raise DataError(
                f"{files[f'{part}-images']} is of shape {pixels.shape} but its labels of {y.shape}; "
                "expected (n, height, width) and (n,): fetch both again."
            )
        if len(y) and y.max() >= len(classes):
            raise DataError(f"{files[f'{part}-labels']} has a class {y.max()}, expected 0 to 9; fetch it again.")
        parts += [ArrayImages(pixels, size=wish.size, name=files[f"{part}-images"].name), y.astype(np.int64)]
    return ImageSet(name, parts[0], parts[1], classes, parts[2], parts[3], note=" ".join(filter(None, notes)))


def _gtsrb(wish: Wish) -> ImageSet:
    """Rows of one track (class/track) are near-duplicates of one sign, and one group."""
    return _parquet("gtsrb", wish, tuple(map(str, range(43))), lambda path: path.rpartition("_")[0])


def _orl(wish: Wish) -> ImageSet:
    """The first 7 pictures of each person, in the file's order, are for training and the other 3 for tests."""
    path = datasets._parquet_file(wish.folder, "orl-faces")
    note = check_file(path, path.name, wish.strict)
    images = ParquetImages(path, size=wish.size)
    y, classes = labels_of(images)
    seen: Counter[int] = Counter()
    place = np.empty(len(y), np.int64)  # of each row among its person's
    for row, person in enumerate(y.tolist()):
        place[row] = seen[person]
        seen[person] += 1
    train, test = np.flatnonzero(place < _ORL_TRAIN), np.flatnonzero(place >= _ORL_TRAIN)
    persons = np.array(classes, object)[y[train]]
    told = f"The first {_ORL_TRAIN} pictures of each person are the training set, the others the test set."
    return ImageSet(
        "orl-faces", SomeImages(images, train), y[train], classes, SomeImages(images, test), y[test], persons,
        f"{told} {note}".strip(),
    )  # fmt: skip


def _facescrub(wish: Wish) -> ImageSet:
    """The people with the most pictures; a fifth of the pictures is for tests, by the digest of person and file name, so that
    a picture stays on its side whatever else the folder holds."""
    folder, found = _faces(wish)
    count = np.bincount(found.codes, minlength=len(found.classes))
    chosen = np.sort(np.argsort(-count, kind="stable")[: wish.people])  # of equals the first by alphabet
    rows = np.flatnonzero(np.isin(found.codes, chosen))
    paths = [found.paths[row] for row in rows.tolist()]
    y = np.searchsorted(chosen, found.codes[rows])
    held_out = np.array([_fifth(path) for path in paths], bool)
    images = FileImages(paths, folder=folder, size=wish.size or FACE, grey=False)
    train, test = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    note = f"{len(chosen)} people with {count[chosen].min()} to {count[chosen].max()} pictures each"
    if len(chosen) < wish.people:
        note += f"; {wish.people} were asked for"
    classes = tuple(found.classes[person] for person in chosen.tolist())
    return ImageSet(
        "facescrub", SomeImages(images, train), y[train], classes, SomeImages(images, test), y[test], note=note + "."
    )


def _fifth(path: str) -> bool:
    """True for about a fifth of all paths, and for the same ones everywhere."""
    return int.from_bytes(blake2b(os.fsencode(path), digest_size=8).digest(), "big") % 5 == 0


def _faces(wish: Wish) -> tuple[Path, Pictures]:
    folder = wish.place("the folder facescrub") / "facescrub"
    found = find_pictures(folder) if folder.is_dir() else None
    if found is None or wish.people < 1:
        raise DataError(
            f"There are no pictures in {folder}/<person>/; put a folder per person there."
            if found is None
            else f"{wish.people} people were asked for; ask for 1 or more."
        )
    return folder, found


def _find_parquet(name: str, *parts: str) -> Callable[[Wish], object]:
    return lambda wish: [datasets._parquet_file(wish.folder, f"{name}{part}") for part in parts]


def _find_cifar(layout: cifar.Layout) -> Callable[[Wish], object]:
    return lambda wish: cifar.find_cifar(wish.place(layout.archive), layout)


def _either(name: str, other: Callable[[Wish], object]) -> Callable[[Wish], object]:
    """Look for Parquet files where there is one of them, else for the other layout."""
    parquet = _find_parquet(name, *_PARTS)
    return lambda wish: parquet(wish) if _has_parquet(wish, name) else other(wish)


LOADERS: Mapping[str, Callable[[Wish], ImageSet]] = {
    "cifar10": _cifar10,
    "cifar100": partial(_cifar, "cifar100", cifar.CIFAR100),
    "cifar100-coarse": partial(_cifar, "cifar100-coarse", cifar.CIFAR100_COARSE),
    "mnist": _mnist,
    "fashion-mnist": partial(_idx, "fashion-mnist", FASHION),
    "gtsrb": _gtsrb,
    "orl-faces": _orl,
    "facescrub": _facescrub,
}

FIND: Mapping[str, Callable[[Wish], object]] = {
    "cifar10": _either("cifar10", _find_cifar(cifar.CIFAR10)),
    "cifar100": _find_cifar(cifar.CIFAR100),
    "cifar100-coarse": _find_cifar(cifar.CIFAR100_COARSE),
    "mnist": _either("mnist", partial(_idx_files, "mnist")),
    "fashion-mnist": partial(_idx_files, "fashion-mnist"),
    "gtsrb": _find_parquet("gtsrb", *_PARTS),
    "orl-faces": _find_parquet("orl-faces", ""),
    "facescrub": _faces,
}
"""Name -> what raises DataError when its files are not there."""
