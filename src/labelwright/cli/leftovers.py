"""A command that fails leaves nothing behind: files that it made in its folders go, and the folders that it made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def none_on_failure(folder: Path, is_own: Callable[[str], bool]) -> Iterator[None]:
    """Take away, when the body raises, what it made in ``folder``, and the folder and those above it that were not there.

    is_own: which names the command makes; in a folder that was there before, only new files of such names go.

    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp()) / "a" / "b"
    >>> with suppress(ValueError), none_on_failure(place, lambda name: True):
    ...     place.mkdir(parents=True)
    ...     _ = (place / "half").write_text("done")
    ...     raise ValueError
    >>> place.parent.exists()
    False
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    before = set() if missing or not folder.is_dir() else {path.name for path in folder.iterdir()}
    try:
        yield
    except BaseException:
        with suppress(OSError):
            for path in folder.iterdir():
                if path.name not in before and (folder in missing or is_own(path.name)):
                    path.unlink()
            for path in missing:
                path.rmdir()
        raise
