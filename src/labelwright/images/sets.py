"""Image sets by name, and users' own."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from labelwright import datasets
from labelwright.errors import DataError
from labelwright.images.benchmarks import FIND, LOADERS
from labelwright.images.files import FileImages
from labelwright.images.imageset import PEOPLE, ImageSet, Wish, labels_of
from labelwright.images.parquet import ParquetImages
from labelwright.images.stores import Size
from labelwright.tables.pictures import find_pictures


def load_images(
    name: str,
    data_dir: str | Path | None = None,
    *,
    strict: bool = False,
    size: Size | None = None,
    people: int = PEOPLE,
) -> ImageSet:
    """Open one benchmark image set by name: cifar10, cifar100, cifar100-coarse, mnist, fashion-mnist, gtsrb, orl-faces or
    facescrub. docs/data.md tells the files that each needs. Pictures are decoded when asked for.

    data_dir: folder of the files, ``LABELWRIGHT_DATA`` when None. strict: a file that differs from the published one is an
    error instead of a sentence in ``note``. size: (height, width) or one number for both; that of the set when None.
    people: of facescrub, those with the most pictures.
    Raises DataError for an unknown name, a missing folder or file, or one that is damaged or of another layout.

    >>> load_images("imagenet")
    Traceback (most recent call last):
    labelwright.errors.DataError: There is no image set 'imagenet', expected one of cifar10, ...; pick one of these.
    """
    if name not in LOADERS:
        raise DataError(
            f"There is no image set {name!r}, expected one of {', '.join(sorted(LOADERS))}; pick one of these."
        )
    return LOADERS[name](Wish(datasets._folder(data_dir), strict, size, people))


def available_images(data_dir: str | Path | None = None) -> dict[str, str]:
    """Which image sets can be opened: name -> "ready", or why not and what to do. Files are looked for, not read.

    >>> "cifar10" in available_images()
    True
    """
    wish = Wish(datasets._folder(data_dir), False, None)
    return {name: datasets._state(partial(find, wish)) for name, find in FIND.items()}


def open_images(
    source: str | Path,
    *,
    column: str = "image",
    label: str = "label",
    size: Size | None = None,
    grey: bool | None = None,
) -> ImageSet:
    """A user's own image set: a Parquet file with pictures and labels, or a folder with a sub-folder of pictures per class.

    column, label: of the Parquet file. size, grey: one shape for all pictures; the commonest of 64 of them when None.
    Labels may be of any type; classes are their sorted values, or the names that the file gives to whole numbers.
    Raises DataError when there is no such source, a label is missing, or no picture decodes.

    >>> import tempfile
    >>> from PIL import Image
    >>> here = Path(tempfile.mkdtemp())
    >>> for animal in ("cat", "dog"):
    ...     (here / animal).mkdir()
    ...     Image.new("L", (6, 5)).save(here / animal / "1.png")
    >>> found = open_images(here)
    >>> found.classes, found.y.tolist(), found.images.shape
    (('cat', 'dog'), [0, 1], (5, 6, 1))
    """
    path = Path(source)
    if not path.is_dir():
        images = ParquetImages(path, column=column, size=size, grey=grey)
        y, classes = labels_of(images, label)
        return ImageSet(path.name, images, y, classes)
    found = find_pictures(path)
    if found is None:
        tables = sorted(path.glob("*.parquet"))
        raise DataError(
            f"The folder {path} holds {len(tables)} Parquet files; name one of them, such as {tables[0]}"
            if tables
            else f"The folder {path} holds no sub-folder of pictures per class; put the pictures there."
        )
    note = f"{found.skipped} files were left out: no pictures, or in no sub-folder" if found.skipped else ""
    images_of = FileImages(found.paths, folder=path, size=size, grey=grey)
    return ImageSet(path.name, images_of, found.codes, tuple(map(str, found.classes)), note=note)
