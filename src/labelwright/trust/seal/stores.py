"""Where ciphertext lies: a folder, memory, or any fsspec address. The host reads and writes it; nothing in it is trusted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

from labelwright.errors import SettingsError, SourceError
from labelwright.trust.files import read_bytes


class Store(Protocol):
    """Named blobs."""

    def read(self, name: str) -> bytes | None:
        """The blob, or None when there is none."""
        ...

    def write(self, name: str, content: bytes | memoryview) -> None:
        """Put a blob, whole or not at all; its memory is used again afterwards."""
        ...


class Memory(dict[str, bytes]):
    """A store in memory.

    >>> store = Memory()
    >>> store.write("a", b"1")
    >>> store.read("a"), store.read("b")
    (b'1', None)
    """

    def read(self, name: str) -> bytes | None:
        return self.get(name)

    def write(self, name: str, content: bytes | memoryview) -> None:
        self[name] = bytes(content)


class Folder:
    """A store in a local folder."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def read(self, name: str) -> bytes | None:
        path = self.path / name
        try:
            return read_bytes(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise SourceError(
                f"{path} cannot be read ({error.strerror}); have the store hold what was sealed"
            ) from error

    def write(self, name: str, content: bytes | memoryview) -> None:
        other = self.path / f".{name}.{os.getpid()}"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with other.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            other.replace(self.path / name)
        except OSError as error:
            raise SourceError(f"{self.path / name} cannot be written ({error.strerror}); check the path") from error


class Remote:
    """A store at an fsspec address: ``s3://bucket/path``, ``hdfs://…``, ``memory://…``."""

    def __init__(self, address: str):
        try:
            from fsspec.core import url_to_fs  # type: ignore[import-untyped]
        except ModuleNotFoundError as error:
            raise SettingsError(f"{address} needs {error.name}; run: pip install 'labelwright[trust]'") from error
        try:
            self.files, self.root = url_to_fs(address)
        except Exception as error:  # each file system raises its own
            raise SettingsError(
                f"{address} is no store that can be opened ({_short(error)}); name a folder or an fsspec address"
            ) from error
        self.address = address

    def read(self, name: str) -> bytes | None:
        try:
            return bytes(self.files.cat_file(f"{self.root}/{name}"))
        except FileNotFoundError:
            return None
        except Exception as error:  # each file system raises its own
            raise SourceError(f"{self.address}/{name} cannot be read ({_short(error)}); check the store") from error

    def write(self, name: str, content: bytes | memoryview) -> None:
        try:
            self.files.makedirs(self.root, exist_ok=True)
            self.files.pipe_file(f"{self.root}/{name}", bytes(content))
        except Exception as error:
            raise SourceError(f"{self.address}/{name} cannot be written ({_short(error)}); check the store") from error


def as_store(store: Any) -> Store:
    """A store of an address, a path, or itself.

    >>> type(as_store("memory://x")).__name__, type(as_store("somewhere")).__name__
    ('Remote', 'Folder')
    """
    if isinstance(store, str) and "://" in store:
        return Remote(store)
    if isinstance(store, str | os.PathLike):
        return Folder(Path(store))
    found: Store = store
    return found


def _short(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
