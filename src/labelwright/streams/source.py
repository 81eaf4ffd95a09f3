"""The face of everything that keeps on giving rows, and how its rows become deliveries of a batch each.

A source is pulled: it reads no further ahead than one batch (and, for Kafka, a bounded queue), so whoever is slow holds it back.
It keeps no position of its own: the ledger does, in the transaction that writes the decisions down.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from labelwright.streams.intake import Bad

Position = dict[str, Any]
"""Part of the source -> the place after the last row that the ledger has: an offset, an entry's id, rows of a file."""

MOST_BYTES = 256 << 20
"""A batch of messages ends early where it would hold more than this."""


@dataclass(frozen=True)
class Piece:
    """Rows of one part of a source, in order.

    part: e.g. ``"kafka:orders[0]"``. places: (n,) the place after each row. names: (n,) what the source itself calls each.
    rows: messages as bytes, or a table of n rows. bad: what could not even be read as rows (a broken file), with places [one].
    """

    part: str
    places: Sequence[Any]
    names: Sequence[str]
    rows: list[bytes] | pa.Table
    bad: tuple[Bad, ...] = ()

    def __len__(self) -> int:
        return self.rows.num_rows if isinstance(self.rows, pa.Table) else len(self.rows)

    def cut(self, at: int) -> tuple[Piece, Piece]:
        """The first ``at`` rows, and the rest.

        >>> [len(part) for part in Piece("p", [1, 2, 3], ["a", "b", "c"], [b"1", b"2", b"3"]).cut(2)]
        [2, 1]
        """
        rows, rest = (
            (self.rows.slice(0, at), self.rows.slice(at))
            if isinstance(self.rows, pa.Table)
            else (self.rows[:at], self.rows[at:])
        )
        return (
            Piece(self.part, self.places[:at], self.names[:at], rows, self.bad),
            Piece(self.part, self.places[at:], self.names[at:], rest),
        )

    def within(self, most: int) -> int:
        """How many of the first rows hold at most so many bytes together (tables: all; they are read in bounded parts)."""
        if isinstance(self.rows, pa.Table):
            return len(self)
        total = 0
        for count, message in enumerate(self.rows):
            total += len(message)
            if total > most:
                return count
        return len(self.rows)

    @property
    def size(self) -> int:
        """Bytes of the messages; 0 for tables."""
        return 0 if isinstance(self.rows, pa.Table) else sum(map(len, self.rows))


@dataclass(frozen=True)
class Lag:
    """How far the source is ahead of what was fetched. rows: None where it cannot tell. parts: the same by part."""

    rows: int | None
    parts: Mapping[str, int | None] = field(default_factory=dict)


class Source(Protocol):
    """What a run needs of a source. name: short, for people and batch ids."""

    name: str

    def open(self, position: Position, *, follow: bool) -> None:
        """Go on after ``position``; without ``follow``, up to what is there now. Raises SourceError when it cannot."""

    def fetch(self, limit: int, wait: float) -> list[Piece]:
        """At most ``limit`` further rows, in order; waits up to ``wait`` seconds for the first. [] when there are none yet."""

    def ended(self) -> bool:
        """Whether all was fetched that was there when it was opened; never, when it is followed."""

    def lag(self) -> Lag:
        """What waits behind the rows that were fetched."""

    def done(self, pieces: Sequence[Piece]) -> None:
        """The ledger has these rows."""

    def notes(self) -> list[str]:
        """What went wrong and was got over since the last call, in plain words."""

    def close(self) -> None:
        """Let go of connections."""


@dataclass(frozen=True)
class Delivery:
    """The rows of one batch as they came. position: of the parts that moved."""

    pieces: tuple[Piece, ...]

    def __len__(self) -> int:
        return sum(map(len, self.pieces))

    @property
    def position(self) -> Position:
        """The place after the last row, of each part that these rows are of."""
        return {piece.part: piece.places[-1] for piece in self.pieces if len(piece.places)}


def deliveries(
    source: Source,
    *,
    rows: Callable[[], int],
    seconds: float | None = None,
    stop: Callable[[], bool] = lambda: False,
    idle: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Delivery]:
    """Deliveries of ``rows()`` rows each; of fewer at the end, or ``seconds`` after the first of them came.

    Cut by rows alone, a delivery depends on what the source holds and on nothing else: after a crash it is the same again.
    stop: asked often; what is not yet a whole delivery then stays with the source. idle: called while nothing comes.
    """
    held: deque[Piece] = deque()
    taken: list[Piece] = []
    count = size = 0
    since: float | None = None
    while not stop():
        wanted = rows() - count
        if not held:
            wait = 0.2 if seconds is None or since is None else min(0.2, max(0.01, seconds - (clock() - since)))
            held.extend(source.fetch(wanted, wait))
        came, full = bool(held), False
        while held and not full:
            piece = held.popleft()
            fits = min(len(piece), wanted, piece.within(MOST_BYTES - size) or (0 if taken else 1))
            if fits < len(piece):
                piece, rest = piece.cut(fits)
                held.appendleft(rest)
            if fits or piece.bad:
                taken.append(piece)
            count, size, wanted = count + fits, size + piece.size, wanted - fits
            full = wanted <= 0 or bool(held and len(held[0]) and fits == 0)
        since = clock() if taken and since is None else since
        ended = not came and source.ended()
        late = seconds is not None and since is not None and clock() - since >= seconds
        if taken and (full or ended or late):
            yield Delivery(tuple(taken))
            taken, count, size, since = [], 0, 0, None
        elif ended:
            return
        elif not came:
            idle()


__all__ = ["MOST_BYTES", "Delivery", "Lag", "Piece", "Position", "Source", "deliveries"]
