"""Pictures that are files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from labelwright.images.stores import EncodedImages, Size
from labelwright.types import Ints


class FileImages(EncodedImages):
    """Pictures that are files, read when asked for.

    paths: (n,) of the files, relative to ``folder`` when given. size, grey: see
    :class:`~labelwright.images.stores.EncodedImages`. A file that is gone by then is a picture that does not decode.

    >>> import tempfile
    >>> from PIL import Image
    >>> folder = Path(tempfile.mkdtemp())
    >>> Image.new("RGB", (4, 3), "red").save(folder / "a.png")
    >>> images = FileImages(["a.png", "gone.png"], folder=folder)
    >>> pixels, bad = images.read([0, 1])
    >>> images.shape, pixels[0, 0, 0].tolist(), list(bad)
    ((3, 4, 3), [255, 0, 0], [1])
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        *,
        folder: str | Path = "",
        size: Size | None = None,
        grey: bool | None = None,
    ):
        self.folder, self.paths = Path(folder), tuple(map(str, paths))
        super().__init__(size, grey)

    def __len__(self) -> int:
        return len(self.paths)

    def name_of(self, row: int) -> str:
        return self.paths[row]

    def _contents(self, rows: Ints) -> Iterator[bytes | str]:
        for row in rows.tolist():
            try:
                yield (self.folder / self.paths[row]).read_bytes()
            except OSError as error:
                yield f"cannot be read ({error.strerror or error})"
