"""A folder of pictures, a sub-folder per class: listed once, read in chunks, classes mixed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa

from labelwright.errors import SourceError
from labelwright.tables.chunked import TableSource
from labelwright.types import Ints

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm")
NOBODY_KNOWS = (None,)
"""In place of the classes of pictures without a label."""
PART_BYTES = 64 << 20
_SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation", "dev"}
_LARGE = 1 << 31  # where the offsets of an Arrow binary column end


@dataclass(frozen=True)
class Pictures:
    """The pictures of a folder, by class.

    classes: (K,) names of the sub-folders that hold pictures, by alphabet; :data:`NOBODY_KNOWS` where there are none. paths: (n,)
    relative to ``folder``, sorted. codes: (n,) int64 class of each. size: bytes of all files. skipped: files left out, being no
    pictures or in no class.
    """

    folder: Path
    classes: tuple[str | None, ...]
    paths: tuple[str, ...]
    codes: Ints
    size: int
    skipped: int

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def mixed(self) -> Ints:
        """(n,) an order in which every stretch holds the classes in the shares they have in the whole, and the first K rows
        one of each; it depends on the names only. Without classes, the order of the names."""
        if self.classes == NOBODY_KNOWS:
            return np.arange(len(self))
        rank = np.array([int.from_bytes(_digest(path), "big") >> 1 for path in self.paths], np.int64)
        by_class = np.lexsort((rank, self.codes))
        count = np.bincount(self.codes, minlength=len(self.classes))
        start = np.cumsum(count) - count
        own = self.codes[by_class]
        share = (np.arange(len(own)) - start[own]) / count[own]  # how far along its class a picture is
        return np.asarray(by_class[np.lexsort((rank[by_class], share))], np.int64)


def unlabelled_pictures(path: Path) -> Pictures | None:
    """One picture, or those that lie in a folder itself: nobody has said what they show. None when there are none."""
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error}); check its permissions.") from error
    files = [file for file in files if file.is_file() and not file.name.startswith(".")]
    found = [file for file in files if file.name.lower().endswith(PICTURE_SUFFIXES)]
    if not found:
        return None
    folder, size = (path if path.is_dir() else path.parent), sum(file.stat().st_size for file in found)
    names = tuple(file.name for file in found)
    return Pictures(folder, NOBODY_KNOWS, names, np.zeros(len(found), np.int64), size, len(files) - len(found))


def find_pictures(folder: str | Path) -> Pictures | None:
    """List the pictures of a folder's sub-folders, or None when there are none.

    A sub-folder is a class; pictures may lie deeper in it. Hidden files and folders are ignored; other files, and links to folders
    inside a class, are counted.
    Raises SourceError when a folder cannot be read, or when the sub-folders are splits (train, test) and no classes.

    >>> import tempfile
    >>> here = Path(tempfile.mkdtemp())
    >>> for name in ("cat/1.png", "dog/2.jpg", "dog/notes.txt"):
    ...     (here / name).parent.mkdir(exist_ok=True)
    ...     _ = (here / name).write_bytes(b"")
    >>> found = find_pictures(here)
    >>> found.classes, found.paths, found.codes.tolist(), found.skipped
    (('cat', 'dog'), ('cat/1.png', 'dog/2.jpg'), [0, 1], 1)
    """
    folder = Path(folder)
    try:
        entries = sorted((e for e in os.scandir(folder) if not e.name.startswith(".")), key=lambda e: e.name)
        skipped = sum(entry.is_file() for entry in entries)
        size = 0
        classes: list[str] = []
        paths: list[str] = []
        codes: list[int] = []
        for entry in entries:
            if not entry.is_dir():
                continue
            found, bytes_of, others = _listed(entry.path)
            skipped += others
            if found:
                paths += [f"{entry.name}/{path}" for path in found]
                codes += [len(classes)] * len(found)
                classes.append(entry.name)
                size += bytes_of
    except OSError as error:
        raise SourceError(f"{folder} cannot be read ({error}); check its permissions.") from error
    if not paths:
        return None
    if {name.lower() for name in classes} <= _SPLITS:
        raise SourceError(
            f"The sub-folders of {folder} are {', '.join(map(repr, classes))}, which are parts and no classes; "
            f"name one of them, as {folder / classes[0]}."
        )
    return Pictures(folder, tuple(map(shown, classes)), tuple(paths), np.array(codes, np.int64), size, skipped)


def _listed(folder: str) -> tuple[list[str], int, int]:
    """(sorted paths of the pictures below a folder, their bytes, how many other files)."""
    found: list[str] = []
    size = others = 0
    for root, folders, files in os.walk(folder, onerror=_raised):
        folders[:] = [name for name in folders if not name.startswith(".")]
        others += sum(
            os.path.islink(os.path.join(root, name)) for name in folders
        )  # not followed: it may lead in a circle
        for name in files:
            path = os.path.join(root, name)
            if name.startswith("."):
                continue
            if not name.lower().endswith(PICTURE_SUFFIXES) or not os.path.isfile(path):
                others += 1
                continue
            size += os.path.getsize(path)
            found.append(Path(path).relative_to(folder).as_posix())
    return sorted(found), size, others


def _raised(error: OSError) -> None:
    raise error


def _digest(path: str) -> bytes:
    return blake2b(os.fsencode(path), digest_size=8).digest()


def shown(path: str) -> str:
    """A path as text, whatever bytes its name holds."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def open_pictures(found: Pictures) -> TableSource:
    """The pictures as a table of ``image`` (bytes and path), ``label`` (the class) and ``path``, in mixed order.

    A file that cannot be read has no bytes. Memory holds one chunk of encoded pictures, beside the list of names.
    """
    binary = pa.binary() if found.size < _LARGE else pa.large_binary()
    schema = pa.schema(
        [
            ("image", pa.struct([("bytes", binary), ("path", pa.string())])),
            ("label", pa.string()),
            ("path", pa.string()),
        ]
    )

    def read(source: TableSource, rows: int) -> Iterator[pa.Table]:
        held: list[dict[str, object]] = []
        size = 0
        for at in found.mixed.tolist():
            path, content = shown(found.paths[at]), _content(found.folder / found.paths[at])
            held.append(
                {"image": {"bytes": content, "path": path}, "label": found.classes[found.codes[at]], "path": path}
            )
            size += len(content or b"")
            if len(held) >= rows or size >= PART_BYTES:
                yield pa.Table.from_pylist(held, schema)
                held, size = [], 0
        if held:
            yield pa.Table.from_pylist(held, schema)

    source = TableSource(str(found.folder), schema.names, len(found), read)
    source.label, source.id = "label", "path"
    if found.skipped:
        many = f"{found.skipped:,} files" if found.skipped > 1 else "1 file"
        source.notes = (f"{many} of {found.folder} left out: no pictures, or in no sub-folder",)
    return source


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
