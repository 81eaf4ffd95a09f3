"""A run over a stream: what a source gives becomes batches, and where it goes on is written down with what was decided.

Exactly once in the ledger: a batch's rows, verdicts, rows set aside and the position after it are one transaction. After a kill
the source is opened at the ledger's position; a batch that was recorded but not committed is finished out of the ledger.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from labelwright.errors import BadRowError, DataError, LedgerError
from labelwright.ledger.sql import now
from labelwright.runner import Progress, Run
from labelwright.settings import StateFolder
from labelwright.streams.intake import Accepted, Bad, content
from labelwright.streams.message import Parse, decode, parse_json
from labelwright.streams.shape import Shape
from labelwright.streams.source import Delivery, Position, Source, deliveries
from labelwright.tables import TableSource
from labelwright.types import Arrival, Batch, Floats, Ints

BEAT = "stream.json"
_BEAT_SECONDS = 2.0


@dataclass(frozen=True)
class Going:
    """How a stream is read. follow: wait for more when all was read. seconds: a batch that is not full ends so many seconds
    after its first row came. stop: asked often, whether to end after the batch in hand."""

    follow: bool = False
    seconds: float | None = None
    stop: Callable[[], bool] = lambda: False


@dataclass
class Taken:
    """What was taken of the stream so far, by the ledger."""

    position: Position = field(default_factory=dict)
    messages: int = 0
    rows: int = 0
    repeated: int = 0

    @staticmethod
    def of(state: StateFolder) -> Taken:
        """As the ledger has it; nothing where there is none."""
        taken = Taken()
        try:
            arrivals = state.history().arrivals()
        except LedgerError:
            return taken
        for told in arrivals:
            taken.after(told)
        return taken

    def after(self, told: dict[str, Any]) -> None:
        """Move on by one delivery."""
        self.position |= told["position"]
        self.messages += told["messages"]
        self.rows += told["rows"]
        self.repeated += told["repeated"]


@dataclass
class StreamRun(Run):
    """A run that reads a source of :mod:`labelwright.streams` instead of a table. parse: how its messages are read."""

    parse: Parse = parse_json
    beat: Callable[[dict[str, Any]], None] | None = None

    def through(
        self, source: Source, going: Going | None = None, *, test: TableSource | None = None
    ) -> Iterator[Progress]:
        """Take what the source gives, batch by batch, from where the ledger stands.

        Raises a LabelwrightError with one plain sentence on whatever ends the run; what was committed is safe.
        """
        self.state.claim()
        try:
            yield from self._through(source, going or Going(), test)
        finally:
            source.close()
            self.state.release()

    def _through(self, source: Source, going: Going, test: TableSource | None) -> Iterator[Progress]:
        self.source, self.taken, self.shape = source, Taken(), Shape()
        self._held_out: tuple[Floats, Ints] | None = None
        self._beaten, self._begun = 0.0, False
        if hasattr(source, "stopping"):
            source.stopping = going.stop  # asked while a server is away, too
        if self._has_ledger():
            yield from self._go_on(test)
        source.open(self.taken.position, follow=going.follow)
        self._tell("running")
        for delivery in deliveries(
            source, rows=self._wanted, seconds=going.seconds, stop=going.stop, idle=lambda: self._tell("running")
        ):
            yield self._delivered(delivery, test)
            source.done(delivery.pieces)
            self._tell("running")
        if not self._begun:
            if going.stop():
                return
            raise DataError(f"{source.name} holds no rows; nothing was done")
        self.system.settle()
        self._tell("stopped" if going.stop() else "ended", force=True)

    def _go_on(self, test: TableSource | None) -> Iterator[Progress]:
        """Open the ledger where it stands; a batch that was cut short is finished first."""
        self.taken = Taken.of(self.state)
        self._open(pa.table({}))
        self._begun, self._held_out = True, self._test_rows(test)
        self.shape = Shape(self.history.table(0))
        self.intake.row = self.taken.rows
        pending = self._pending()
        if pending is not None:
            yield self._stepped(pending, 0, [], self._held_out)

    def _wanted(self) -> int:
        return self.settings.batch_size if self._begun else self._first_size()

    # ------------------------------------------------------------ one delivery

    def _delivered(self, delivery: Delivery, test: TableSource | None) -> Progress:
        table, at, names, bad = self._table(delivery)
        if not self._begun:
            self._refuse(bad)
            self._open(table)
            self._begun, self._held_out = True, self._test_rows(test)
        batch_id = f"{self.source.name}#{self.taken.messages}"
        found = self.intake.accept(table, batch_id, names) if table.num_rows else None
        if found is not None and self.settings.columns.id is not None:
            found = self._news(found)
        again = 0 if found is None else found.repeated
        late = () if found is None else tuple((at[b[0]], *b[1:]) for b in found.bad)
        bad = sorted([*bad, *late])
        if getattr(self.source, "group", None):
            bad, known = self._unknown(bad)
            again += known
        self._refuse(bad)
        arrival = self._arrival(delivery, table.num_rows, again, bad)
        progress = self._stepped_with(batch_id, found, arrival, len(delivery), bad)
        self.repeated += again
        self.taken.after({**arrival.facts, "position": arrival.position})
        return progress

    def _stepped_with(
        self, batch_id: str, found: Accepted | None, arrival: Arrival, messages: int, bad: list[Bad]
    ) -> Progress:
        if found is None or not found.good.num_rows:
            self.ledger.passed_over(batch_id, arrival)
            return Progress(batch_id, self.ledger.next_number, messages, {"set aside": len(bad)})
        number = self.ledger.next_number
        made = self.intake.batch(found, id=batch_id, number=number)
        if self.settings.columns.truth:
            self.truth.add(number, self.intake.codes(found.good, self.settings.columns.truth))
        batch = Batch(
            made.id, number, made.X, made.given, made.clean, made.ids, made.table, made.sources, arrival=arrival
        )
        return self._stepped(batch, messages, bad, self._held_out)

    def _arrival(self, delivery: Delivery, rows: int, again: int, bad: list[Bad]) -> Arrival:
        lag = self.source.lag()
        facts: dict[str, Any] = {
            "messages": len(delivery),
            "rows": rows,
            "repeated": again,
            "behind": lag.rows,
            "notes": [*self.shape.told(), *self.source.notes()],
        }
        return Arrival(delivery.position, facts, tuple(bad))

    def _table(self, delivery: Delivery) -> tuple[pa.Table, list[int], list[str], list[Bad]]:
        """(rows, their positions in the delivery, what the source calls them, what could not be read)."""
        named = self.settings.columns.named
        tables, at, names, bad, start = list[pa.Table](), list[int](), list[str](), list[Bad](), 0
        for held in _alike(delivery):
            bad += [(start, *b[1:]) for piece in held for b in piece.bad]
            rows = [piece.rows for piece in held]
            calls = [name for piece in held for name in piece.names[: len(piece)]]
            if rows and isinstance(rows[0], pa.Table):
                table, here = pa.concat_tables(rows), list(range(len(calls)))
            else:
                table, here, more = decode(
                    [m for part in rows for m in part], calls, self.shape.known, parse=self.parse
                )
                bad += [(start + b[0], *b[1:]) for b in more]
            lacks = [name for name in named if name not in table.column_names]
            if lacks and table.num_rows:
                columns = ", ".join(map(repr, table.column_names[:12]))
                reason = f"no column {lacks[0]!r}, only {columns}; name the right one"
                bad += [(start + where, calls[where], reason, content(table, i)) for i, where in enumerate(here)]
            elif table.num_rows:
                tables.append(self.shape.conform(table))
                at += [start + where for where in here]
                names += [calls[where] for where in here]
            start += len(calls)
        if not tables:
            if not self._begun:
                raise DataError(f"no usable row among the first {len(delivery)}: {bad[0][2] if bad else 'none came'}")
            return pa.table({}), [], [], sorted(bad)
        return Shape.joined(tables), at, names, sorted(bad)

    def _unknown(self, bad: list[Bad]) -> tuple[list[Bad], int]:
        """Without rows that were set aside before, word for word: a group delivers again what it is not sure of."""
        held = self.history.aside_known([b[1] for b in bad])
        left = [b for b in bad if (b[1], b[3]) not in held]
        return left, len(bad) - len(left)

    def _refuse(self, bad: list[Bad]) -> None:
        if self.strict and bad:
            raise BadRowError(f"row {bad[0][1]!r} of {self.source.name}: {bad[0][2]}. Mend it, or run without --strict")

    # ------------------------------------------------------------ a sign of life

    def _tell(self, state: str, *, force: bool = False) -> None:
        """Where the stream stands, in STATE/stream.json: for 'labelwright status', also while nothing comes."""
        if not force and time.monotonic() - self._beaten < _BEAT_SECONDS:
            return
        self._beaten = time.monotonic()
        lag = self.source.lag()
        told = {
            "source": self.source.name,
            "state": state,
            "at": now(),
            "pid": os.getpid(),
            "messages": self.taken.messages,
            "behind": lag.rows,
            "parts": dict(lag.parts),
        }
        target = self.state.path / BEAT
        draft = target.with_suffix(".tmp")
        draft.write_text(json.dumps(told))
        draft.replace(target)


def _alike(delivery: Delivery) -> Iterator[list[Any]]:
    """Neighbouring pieces that can be read together: messages, or tables of one schema."""
    run: list[Any] = []
    for piece in delivery.pieces:
        if run and _kind(piece) != _kind(run[-1]):
            yield run
            run = []
        run.append(piece)
    if run:
        yield run


def _kind(piece: Any) -> Any:
    return piece.rows.schema if isinstance(piece.rows, pa.Table) else None


def standing(state: StateFolder) -> dict[str, Any] | None:
    """Where the stream of a state folder stands: what the ledger has of it, and the run's last sign of life. None: no stream.

    Of each source of labels: rows and share of wrong ones in the latest batch, with its interval, and whether it is bad.
    """
    taken = Taken.of(state)
    if not taken.messages and not taken.position:
        return None
    history, notes, behind = state.history(), list[str](), None
    for told in history.arrivals():
        notes = [*notes, *told["notes"]][-20:]
        behind = told["behind"]
    try:
        beat = json.loads((state.path / BEAT).read_text())
    except (OSError, ValueError):
        beat = {}
    return {
        "source": beat.get("source"),
        "state": beat.get("state", "stopped") if _alive(beat) else _ended(beat),
        "seen_at": beat.get("at"),
        "messages": taken.messages,
        "repeated": taken.repeated,
        "behind": beat.get("behind", behind),
        "parts": beat.get("parts", {}),
        "position": taken.position if len(taken.position) <= 100 else {"parts": len(taken.position)},
        "notes": notes,
        **sources_of(history),
    }


def _ended(beat: dict[str, Any]) -> str:
    return "killed" if beat.get("state") == "running" else str(beat.get("state", "stopped"))


def _alive(beat: dict[str, Any]) -> bool:
    try:
        os.kill(int(beat["pid"]), 0)
    except (KeyError, ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


def sources_of(history: Any) -> dict[str, Any]:
    """The latest word on each source of labels, and the alarms about them, newest last."""
    latest, alarms = dict[str, Any](), list[str]()
    for entry in history.batches():
        facts = entry["body"].get("facts", {})
        latest |= facts.get("sources", {})
        alarms = [*alarms, *(f"{entry['batch']}: {text}" for text in facts.get("alarms", []))][-20:]
    return {"sources": latest, "alarms": alarms} if latest else {}


__all__ = ["BEAT", "Going", "StreamRun", "Taken", "sources_of", "standing"]
