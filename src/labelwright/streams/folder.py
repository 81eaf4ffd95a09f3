"""A growing folder of Parquet and CSV files as a source: files are read when they are whole, in the order of their names."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from labelwright.errors import SourceError
from labelwright.streams.source import Lag, Piece, Position
from labelwright.tables import CSV_SUFFIXES, PARQUET_SUFFIXES, open_source

_UNFINISHED = (".tmp", ".part", ".partial", ".crdownload", ".swp", "~")
_DONE = -1
_BROKEN = -2


@dataclass
class _Seen:
    """How a file looked, and since when it has looked so."""

    size: int
    modified: int
    since: float


class FolderSource:
    """Files with the suffixes .parquet, .pq, .csv, .tsv (also .gz) of one folder, as they come.

    settle: a file is read once its size and time have not changed for so many seconds (without ``follow`` at once); names that
    begin with ``.`` or ``_`` or end in .tmp, .part and the like are never read, so the sure way is to write under such a name
    and rename. patience: a file that cannot be read, or a CSV without its last line's end, may still be being written for so
    many seconds; then it is read as it is, or set aside with the reason. A file that has grown since it was read (CSV) is read on
    from the row where it ended.
    The position of a file is [rows taken, size in bytes, rows or -1: all, -2: set aside].
    """

    def __init__(self, path: str | Path, *, settle: float = 1.0, patience: float = 60.0):
        self.path, self.settle, self.patience = Path(path), settle, patience
        self.name = self.path.name or str(self.path)
        self._position: Position = {}
        self._seen: dict[str, _Seen] = {}
        self._reading: Iterator[Piece] | None = None
        self._told: list[str] = []
        self._follow = self._over = False

    def open(self, position: Position, *, follow: bool) -> None:
        """See :class:`~labelwright.streams.source.Source`."""
        if not self.path.is_dir():
            raise SourceError(f"there is no folder {self.path}; make it, or check the path")
        mine = self._part("")
        self._position = {part: place for part, place in position.items() if part.startswith(mine)}
        self._follow = follow

    def _part(self, name: str) -> str:
        return f"folder:{self.name}/{name}"

    def fetch(self, limit: int, wait: float) -> list[Piece]:
        """See :class:`~labelwright.streams.source.Source`."""
        end = time.monotonic() + wait
        while True:
            piece = self._next(limit)
            if piece is not None:
                self._position[piece.part] = piece.places[-1]
                return [piece]
            if not self._follow:
                self._over = True
                return []
            left = end - time.monotonic()
            if left <= 0:
                return []
            time.sleep(min(0.1, left))

    def _next(self, limit: int) -> Piece | None:
        while True:
            if self._reading is None:
                file = self._chosen()
                if file is None:
                    return None
                self._reading = self._pieces(file, limit)
            piece = next(self._reading, None)
            if piece is not None:
                return piece
            self._reading = None

    def _files(self) -> list[Path]:
        try:
            names = sorted(self.path.iterdir())
        except OSError as error:
            if not self._follow:
                raise SourceError(f"the folder {self.path} cannot be read ({error.strerror}); check it") from error
            return []  # a share that is away for a while
        kinds = (*CSV_SUFFIXES, *PARQUET_SUFFIXES)
        return [
            f
            for f in names
            if f.name[0] not in "._" and f.name.lower().endswith(kinds) and not f.name.lower().endswith(_UNFINISHED)
        ]

    def _chosen(self) -> Path | None:
        """The next file that is whole and not yet read: one that was begun first, then by name."""
        ready = [file for file in self._files() if self._fresh(file) and self._settled(file)]
        begun = [file for file in ready if self._part(file.name) in self._position]
        return next(iter([*begun, *ready]), None)

    def _fresh(self, file: Path) -> bool:
        """Whether the file holds what was not read."""
        place = self._position.get(self._part(file.name))
        try:
            return place is None or place[2] >= 0 or place[1] != file.stat().st_size
        except OSError:
            return False

    def _settled(self, file: Path) -> bool:
        try:
            now = file.stat()
        except OSError:
            return False
        seen = self._seen.get(file.name)
        if seen is None or (seen.size, seen.modified) != (now.st_size, now.st_mtime_ns):
            seen = self._seen[file.name] = _Seen(now.st_size, now.st_mtime_ns, time.monotonic())
        if not self._follow:
            return True
        quiet = time.monotonic() - seen.since
        if quiet < self.settle:
            return False
        return quiet >= self.patience or _whole(file)

    def _pieces(self, file: Path, limit: int) -> Iterator[Piece]:
        """The file's rows after those that were taken."""
        part, size = self._part(file.name), self._seen[file.name].size
        place = self._position.get(part)
        skip = place[0] if place is not None and place[2] != _BROKEN and place[1] <= size else 0
        if place is not None and place[1] > size and place[2] != _BROKEN:
            self._told.append(
                f"{file.name} became shorter after it was read; it is read anew, rows with known ids count once"
            )
        count = 0
        try:
            held: Piece | None = None
            for table in open_source(file).chunks(max(1, min(limit, 65_536))):
                start, count = count, count + table.num_rows
                if count <= skip:
                    continue
                if held is not None:
                    yield held
                held = self._piece(part, file.name, table.slice(max(0, skip - start)), max(start, skip), size)
            if held is not None:
                places = [*held.places[:-1], [held.places[-1][0], size, _DONE]]
                yield Piece(part, places, held.names, held.rows)
            else:
                self._position[part] = [count, size, _DONE]
        except SourceError as error:
            self._told.append(f"{file.name} was set aside: {error}")
            bad = (0, file.name, f"file: {error}", f"{size} bytes")
            yield Piece(part, [[count, size, _BROKEN]], [file.name], [], (bad,))

    def _piece(self, part: str, name: str, table: pa.Table, start: int, size: int) -> Piece:
        rows = range(start + 1, start + table.num_rows + 1)
        return Piece(part, [[row, size, row] for row in rows], [f"{name}:{row - 1}" for row in rows], table)

    def ended(self) -> bool:
        """See :class:`~labelwright.streams.source.Source`."""
        return not self._follow and self._over

    def lag(self) -> Lag:
        """Rows of the Parquet files that wait; None for a CSV, whose rows only reading tells."""
        parts: dict[str, int | None] = {}
        for file in self._files():
            if self._fresh(file):
                place = self._position.get(self._part(file.name))
                rows = _rows_in(file)
                parts[self._part(file.name)] = None if rows is None else max(0, rows - (place[0] if place else 0))
        known = [count for count in parts.values() if count is not None]
        return Lag(sum(known) if len(known) == len(parts) else None, parts)

    def done(self, pieces: Sequence[Piece]) -> None:
        """Nothing: the ledger has the position."""

    def notes(self) -> list[str]:
        """See :class:`~labelwright.streams.source.Source`."""
        told, self._told = self._told, []
        return told

    def close(self) -> None:
        """Nothing is held open."""
        self._reading = None


def _rows_in(file: Path) -> int | None:
    import pyarrow.parquet as pq

    if not file.name.lower().endswith(PARQUET_SUFFIXES):
        return None
    try:
        return int(pq.read_metadata(file).num_rows)
    except (pa.ArrowException, OSError):
        return None


def _whole(file: Path) -> bool:
    """Whether a quiet file looks finished: a Parquet file by its footer, a CSV by the end of its last line."""
    if file.name.lower().endswith(PARQUET_SUFFIXES):
        return _rows_in(file) is not None
    if file.name.lower().endswith(".gz"):
        import gzip
        import zlib

        try:
            with gzip.open(file) as stream:
                while stream.read(1 << 20):
                    pass
            return True
        except (OSError, EOFError, zlib.error):
            return False
    try:
        with file.open("rb") as stream:
            stream.seek(-1, 2)
            return stream.read(1) == b"\n"
    except OSError:
        return False


__all__ = ["FolderSource"]
