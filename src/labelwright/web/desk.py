"""What the page shows of a question, and what it does with an answer: everything but HTTP."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from labelwright.errors import BusyError, DataError, LedgerError
from labelwright.ledger import SqlLedger
from labelwright.ledger import queue_view as view
from labelwright.ledger.change import carry_out
from labelwright.ledger.people import People
from labelwright.ledger.queue import ExpertQueue, Item
from labelwright.report.rows import shortened
from labelwright.report.words import percent
from labelwright.settings import PEOPLE, Settings, StateFolder
from labelwright.types import NO_LABEL, Rows, Verdict
from labelwright.web.examples import Examples
from labelwright.web.shelf import Shelf, is_picture

log = logging.getLogger("labelwright")

HOTKEYS = "1234567890acdefhijklmopqrtvwyz"
"""Keys that choose a class, in order; b, g, n, s, u, x are taken (broken, guidelines, none of these, skip, undo, unsure)."""
CHOICES = len(HOTKEYS)
LONG = 60
TEXT = 6000
GOLD = 60
MANY = 5000
EXAMPLES = 4
AFTER = 0.3
"""Seconds before a figure is renewed: to count a million rows at once would keep the page that shows the old one waiting."""


@dataclass(frozen=True)
class Field:
    """A cell as it is shown. kind: picture, text or value. odd: why the value is unusual. others: of the examples."""

    name: str
    kind: str
    text: str = ""
    url: str = ""
    odd: str = ""
    small: bool = False
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Example:
    """A trusted row to compare with."""

    key: int
    id: str
    label: str
    fields: list[Field] = field(default_factory=list)


@dataclass(frozen=True)
class Question:
    """A question as it is shown. item: of the queue. examples: trusted rows of the given label, and of the suggestion."""

    item: Item
    id: str
    given: str
    suggestion: str
    fields: list[Field]
    why: list[str]
    examples: list[tuple[str, list[Example]]]

    @property
    def pictures(self) -> list[Field]:
        """Cells shown as pictures."""
        return [f for f in self.fields if f.kind == "picture"]

    @property
    def texts(self) -> list[Field]:
        """Cells shown as running text."""
        return [f for f in self.fields if f.kind == "text"]

    @property
    def values(self) -> list[Field]:
        """Cells shown in a table."""
        return [f for f in self.fields if f.kind == "value"]


class Desk:
    """The state folder as people see it. state: of a run whose expert is people. lease, blind, gold: of
    :class:`~labelwright.ledger.queue.ExpertQueue`.

    Raises LedgerError when there is no ledger, DataError when its questions are not for people.
    """

    def __init__(self, state: StateFolder, *, lease: float = 600.0, blind: float = 0.0, gold: float = 0.0):
        self.state, self.history = state, state.history()
        settings = Settings.of(self.history.settings)
        if settings.expert not in PEOPLE:
            raise DataError(
                f"the questions of this run go to the expert {settings.expert!r}, not to people; use 'labelwright run --expert people'"
            )
        columns = settings.columns
        named = (columns.label, columns.id, columns.trusted, columns.truth, columns.source)
        self.settings, self.hidden = settings, frozenset(name for name in named if name is not None)
        self.classes = self.history.classes
        engine = self.history.engine
        self.queue = ExpertQueue(
            engine, classes=len(self.classes), overlap=settings.overlap, lease=lease, blind=blind, gold=gold
        )
        self.people = People(engine)
        self.shelf, self.examples = Shelf(self.history), Examples(self.history, self.hidden)
        self._codes = {name: code for code, name in enumerate(self.classes)}
        self._cached: dict[str, tuple[float, Any]] = {}
        self._turn = threading.RLock()  # one figure may need another
        self.gold_rows = self._put_gold() if gold else 0
        self.examples.avoided = self.queue.gold_keys()

    # ------------------------------------------------------------ questions

    def question(self, expert: str, items: list[Item] | None = None) -> Question | None:
        """The next question for a person, leased; None when nothing waits. Questions about erased rows are forgotten. items: what
        was served already."""
        while True:
            items = self.queue.serve(expert) if items is None else items
            if not items:
                return None
            shown = self.shown(items[0])
            if shown is not None or not self._gone([items[0].key]):
                return shown
            items = None

    def several(self, expert: str, count: int) -> list[Question]:
        """Up to ``count`` questions for the grid, leased; none that are to be answered without a suggestion."""
        items = self.queue.serve(expert, count, seeing=True)
        shown = [(item.key, self.shown(item, brief=True)) for item in items]
        self._gone([key for key, question in shown if question is None])
        return [question for _, question in shown if question is not None]

    def _gone(self, keys: list[int]) -> bool:
        """Forget the questions about those of these rows that were erased; False when there are none."""
        erased = sorted(self.history.erased() & set(keys)) if keys else []
        if erased:
            self.queue.withdraw(erased)
        return bool(erased)

    def shown(self, item: Item, *, brief: bool = False) -> Question | None:
        """A question as it is shown; None when its row is gone. brief: without examples."""
        row = self.shelf.row(item.key)
        if row is None:
            return None
        given, suggestion = self.classes[item.given], self.classes[item.suggestion]
        examples = [] if brief or item.blind else self._examples(row, item)
        fields = self.fields(item.key, row, [example for _, group in examples for example in group])
        row_id = self.shelf.id_of(item.key)
        return Question(item, row_id, given, suggestion, fields, self._why(item), examples)

    def _examples(self, row: pa.Table, item: Item) -> list[tuple[str, list[Example]]]:
        out = []
        pictured = any(is_picture(field.type, row.column(field.name)[0].as_py()) for field in row.schema)
        count = EXAMPLES if pictured else EXAMPLES // 2  # a column each, beside the row
        other = self.examples.rival(row, item.given) if item.given == item.suggestion else item.suggestion
        for label in (item.given, other):
            if label is None:
                continue
            found = []
            for key in self.examples.near(row, label, count, but=item.key):
                other = self.shelf.row(key)
                if other is not None:
                    fields = self.fields(key, other, [])
                    found.append(Example(key, self.shelf.id_of(key), self.classes[label], fields))
            out.append((self.classes[label], found))
        return out

    def fields(self, key: int, row: pa.Table, examples: list[Example]) -> list[Field]:
        """What is shown of a row, column by column; the values of numbers beside those of the examples."""
        out = []
        for at, name in enumerate(row.column_names):
            if name in self.hidden:
                continue
            kind, value = row.schema.field(at).type, row.column(at)[0].as_py()
            if is_picture(kind, value):
                out.append(Field(name, "picture", url=f"/picture/{key}/{at}", small=not isinstance(value, dict)))
            elif isinstance(value, str) and len(value) > LONG:
                out.append(Field(name, "text", text=value[:TEXT] + ("…" if len(value) > TEXT else "")))
            else:
                others = tuple(f.text for e in examples for f in e.fields if f.name == name)
                out.append(Field(name, "value", shortened(value), odd=self.examples.odd(name, value), others=others))
        return out

    def _why(self, item: Item) -> list[str]:
        """Why the row was asked about, in sentences. They follow from what is shown, so that gold rows look like others."""
        given, suggestion = self.classes[item.given], self.classes[item.suggestion]
        sure = percent(item.confidence, 0).replace(" ", "\u00a0")
        if item.blind:
            return [f"The models doubt its label, “{given}”. Their own guess is not shown this time."]
        first = (
            f"It came as “{given}”; the models believe in “{suggestion}”, {sure}."
            if item.given != item.suggestion
            else f"It came as “{given}”, which is the models’ best guess, too, {sure}."
        )
        reasons = {
            "margin": "It lies nearer to a boundary between classes than most rows: an answer moves that boundary.",
            "least_distance": "It lies nearer to a boundary between classes than most rows: an answer moves that boundary.",
            "entropy": "It is among the rows that the models are least sure about.",
            "cent": "It is among the rows that the models are least sure about, and whose label would surprise them.",
            "random": "It was chosen by chance.",
        }
        return [first, reasons.get(item.why.replace("-", "_"), "")]

    def choices(self) -> list[tuple[int, str, str]]:
        """(class, name, key) of each class, where there are few enough for a key each; else none."""
        if len(self.classes) > CHOICES:
            return []
        return [(code, name, HOTKEYS[code]) for code, name in enumerate(self.classes)]

    def code(self, name: str) -> int:
        """The class of this name; raises DataError when there is none."""
        if name not in self._codes:
            raise DataError(f"“{shortened(name, 60)}” is no class; choose one of the list")
        return self._codes[name]

    def say(self, expert: str, key: int, said: str, seconds: float | None, *, count: int = 0) -> tuple[str, list[Item]]:
        """Take an answer. said: a class as ``=CODE`` or ``~NAME``, or one of the queue's other kinds. Returns what happened, for
        the person, and the next ``count`` items. Raises DataError for what is no answer."""
        if said.startswith("="):
            label: int | None = int(said[1:]) if said[1:].isdecimal() and len(said) < 9 else -1
        else:
            label = self.code(said[1:]) if said.startswith("~") else None
        kind = "answer" if label is not None else said
        done, items = self.queue.say_and_serve(expert, key, label=label, kind=kind, seconds=seconds, count=count)
        word = self.classes[label] if label is not None else WORDS[kind]
        told = {
            "taken": f"Saved: {word}.",
            "again": f"Saved before: {word}.",
            "changed": f"Changed to {word}.",
            "late": LATE,
        }
        return told[done], items

    # ------------------------------------------------------------ gold rows and corrections

    def _put_gold(self) -> int:
        """Rows that the owner vouches for, to test people with."""
        keys: list[int] = []
        labels: list[int] = []
        for entry in self.history.batches():
            records = self.history.records(int(entry["number"]))
            mine = [
                at
                for at, who in enumerate(records.decider)
                if who == "owner" and records.verdict[at] == Verdict.TRUSTED
            ]
            keys += [int(records.keys[at]) for at in mine]
            labels += [int(records.label[at]) for at in mine]
            if len(keys) >= 50 * GOLD:
                break
        if not keys:
            return 0
        chosen = np.random.default_rng(0).permutation(len(keys))[:GOLD]
        rows = Rows(np.zeros((len(chosen), 1), np.float32), np.array(labels)[chosen], np.array(keys, np.int64)[chosen])
        self.queue.put_gold(rows, why=self.settings.measure)
        return len(chosen)

    def corrections(self, count: int) -> list[dict[str, Any]]:
        """The latest corrections by the models that nobody looked at: a question's cells, given and new label."""
        seen, out = view.reviewed(self.history.engine), list[dict[str, Any]]()
        for entry in self.history.batches()[::-1]:
            records = self.history.records(int(entry["number"]))
            for at in np.flatnonzero(records.verdict == Verdict.CORRECTED).tolist():
                key, row = int(records.keys[at]), self.shelf.row(int(records.keys[at]))
                if key in seen or row is None or records.label[at] == NO_LABEL:
                    continue
                told = {"given": self.classes[int(records.given[at])], "label": self.classes[int(records.label[at])]}
                sure = float(records.proba[at])
                out.append(
                    {"key": key, "id": records.ids[at], "sure": sure, "fields": self.fields(key, row, []), **told}
                )
                if len(out) == count:
                    return out
        return out

    def review(self, expert: str, verdicts: dict[int, str]) -> tuple[int, bool]:
        """Take what a person says of corrections by the models; of other rows it is not taken. Returns how many were, and
        whether they were carried out at once; else the run will do it."""
        standing = self.history.latest(list(verdicts))
        mine = {
            key: word
            for key, word in verdicts.items()
            if key in standing and standing[key]["verdict"] == Verdict.CORRECTED
        }
        with self._turn:
            taken = view.review(self.history.engine, expert, mine, self.queue.clock())
            try:
                self.state.claim()
            except BusyError:
                return taken, False
            try:
                carry_out(SqlLedger(self.state.url, settings=self.history.settings))
            finally:
                self.state.release()
        return taken, True

    # ------------------------------------------------------------ figures

    def cached(self, name: str, seconds: float, make: Callable[[], Any], *, beside: bool = False) -> Any:
        """A figure that may be some seconds old. beside: nobody waits for a newer one; it is made in a thread of its own, a
        moment later, when the page that asked has left."""
        held = self._cached.get(name)
        if held is not None and time.monotonic() - held[0] < seconds:
            return held[1]
        if held is not None and beside:
            self._cached[name] = (time.monotonic(), held[1])  # one thread is enough
            later = threading.Timer(AFTER, self._remade, args=(name, make))
            later.daemon = True
            later.start()
            return held[1]
        with self._turn:
            held = self._cached.get(name)
            if held is None or time.monotonic() - held[0] >= seconds:
                held = self._cached[name] = (time.monotonic(), make())
        return held[1]

    def _remade(self, name: str, make: Callable[[], Any]) -> None:
        try:
            self._cached[name] = (time.monotonic(), make())
        except LedgerError as error:
            log.warning("%s could not be renewed: %s", name, error)

    def progress(self) -> dict[str, Any]:
        """As :func:`labelwright.ledger.queue_view.progress`, some seconds old."""
        return self.cached("progress", 2.0, lambda: view.progress(self.history.engine, self.queue.clock()), beside=True)

    def bought(self, expert: str) -> dict[str, Any]:
        """What a person's answers brought, and what as many at random would have."""
        own = self._cached.get(f"bought {expert}", (0.0, {"answers": 0}))[1]
        if own["answers"] < MANY:
            own = view.bought(self.history.engine, expert)
        if own["answers"] >= MANY:  # to count them all for every question would take too long
            own = self.cached(f"bought {expert}", 30.0, lambda: view.bought(self.history.engine, expert), beside=True)
        rate = self.cached("noise", 5.0, self._noise)
        return {**own, "random": rate}

    def _noise(self) -> float | None:
        try:
            batches = self.history.batches()
        except LedgerError:
            return None
        return float(batches[-1]["body"]["noise"]["rate"]) if batches else None


LATE = "Somebody else had answered that row by then; nothing changed."
WORDS = {"unsure": "unsure", "none": "none of these", "broken": "this row is broken", "skip": "skipped"}
"""What the kinds of answers without a class are called on the page."""
