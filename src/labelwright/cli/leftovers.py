"""A command that fails leaves nothing behind: files that it made in its folders go, and the folders that it made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
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


def nothing_left(keys: Path, passphrase_file: str | None, store: str, name: str) -> ExitStack:
    """When sealing fails, no key, no passphrase and no chunk of it stays."""
    from labelwright.trust.broker.keyfolder import checked_name

    checked_name(f"default/key/{name}")
    held, fresh = ExitStack(), not (keys / "wrapping.json").exists()
    held.enter_context(none_on_failure(keys, lambda file: fresh or file.endswith(f"~{name}.wrapped")))
    if "://" not in store:
        held.enter_context(none_on_failure(Path(store), lambda file: file.endswith(".chunk") or file.startswith(".v")))
    if passphrase_file not in (None, "-"):
        words = Path(str(passphrase_file))
        held.enter_context(none_on_failure(words.parent, lambda file: file == words.name))
    return held
