"""A run over a user's data: state folder, intake, loop and ledger put together. Everything the command line calls."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from labelwright import queries
from labelwright.errors import DataError, LedgerError, SettingsError
from labelwright.experts import Expert, FallibleExpert, FileExpert, NoExpert, Oracle, Several
from labelwright.imitation import Imitator, NoImitator, PosteriorImitator, SoftImitator
from labelwright.learners import Learners
from labelwright.ledger import History, SqlLedger
from labelwright.ledger.change import carry_out
from labelwright.ledger.queue import ExpertQueue
from labelwright.loop import System
from labelwright.poison import Guarded, SettlingBudget, Watch
from labelwright.queries import DynamicBudget, FixedBudget
from labelwright.scale import InProcess, Mapper
from labelwright.settings import MEASURES, PEOPLE, POISON, SELECTORS, Settings, StateFolder, make_classifier, resolved
from labelwright.sourced import Sourced
from labelwright.streams import Accepted, Bad, Intake, class_names, comparable, label_text, numbered
from labelwright.tables import Encoder, TableSource
from labelwright.truth import Truth
from labelwright.types import NO_LABEL, Batch, Floats, Ints, Split, Verdict


@dataclass
class Progress:
    """What a run tells while it goes: rows read so far, the last batch's counts."""

    batch: str
    number: int
    rows: int
    counts: dict[str, int]
    note: str = ""
    noise: float = 0.0


@dataclass
class Run:
    """One run: open it, iterate over it, close it.

    settings: what decides. state: the folder. wait: seconds to wait after each batch for people to answer what was asked.
    mapper: cross-validates the first batch, and judges batches of more than 20,000 rows; it decides nothing.
    """

    settings: Settings
    state: StateFolder
    strict: bool = False
    answers_file: Path | None = None
    repeated: int = 0
    wait: float = 0.0
    mapper: Mapper = field(default_factory=InProcess)
    queue: ExpertQueue | None = field(default=None, init=False)

    def over(self, source: TableSource, *, test: TableSource | None = None) -> Iterator[Progress]:
        """Take the source's rows batch by batch, those that the ledger has already are skipped.

        test: rows with true labels; accuracy on them is measured after every batch. Raises a LabelwrightError with
        one plain sentence on whatever ends the run; what was committed is safe.
        """
        source.require(*self.settings.columns.named)
        self.state.claim()
        try:
            yield from self._over(source, test)
        finally:
            self.state.release()

    def _over(self, source: TableSource, test: TableSource | None) -> Iterator[Progress]:
        chunks = numbered(source.chunks(self.settings.batch_size, first=self._first_size()), source.name)
        first = next(chunks, None)
        if first is None:
            raise DataError(f"{source.name} holds no rows; nothing was done")
        self._open(first[1])
        held_out = self._test_rows(test)
        pending = self._pending()
        if pending is not None:
            yield self._stepped(pending, 0, [], held_out)
        for chunk_id, chunk in itertools.chain([first], chunks):
            batch, bad = self._take(chunk_id, chunk)
            if bad:
                self.ledger.set_aside(chunk_id, bad)
            if batch is None:
                yield Progress(chunk_id, self.ledger.next_number, chunk.num_rows, {"set aside": len(bad)})
                continue
            yield self._stepped(batch, chunk.num_rows, bad, held_out)
        self.system.settle()

    def _stepped(self, batch: Batch, rows: int, bad: list[Bad], held_out: tuple[Floats, Ints] | None) -> Progress:
        split = self.system.step(batch)
        if held_out is not None:
            self._measure(batch.number, *held_out)
        self._people()
        return Progress(batch.id, batch.number, rows, _counts(split, bad), split.note, split.noise.rate)

    def _people(self) -> None:
        """What people said of corrections is carried out; their questions get the values of the present models; they are
        waited for, where the run was asked to."""
        if self.queue is None:
            return
        carry_out(self.ledger)
        self.queue.rank(self.system.revalued())
        end = time.monotonic() + self.wait
        while self.queue.waiting() and time.monotonic() < end:
            time.sleep(0.1)

    def _pending(self) -> Batch | None:
        """The batch that was recorded but not finished before a stop: out of the ledger, so that it is finished as it
        was recorded, whatever the source holds by now."""
        number = self.ledger.recorded
        table = None if number is None else self.history.table(number)
        if number is None or table is None:
            return None
        records = self.history.records(number)
        clean = np.array([who == "owner" for who in records.decider], bool)
        ids = np.array(records.ids, dtype=object)
        X = self.intake.encoder.transform(table)
        column = self.settings.columns.source
        sources = np.array(table.column(column).to_pylist(), dtype=object) if column in table.column_names else None
        return Batch(self.history.batch_name(number), number, X, records.given, clean, ids, table, sources)

    def _first_size(self) -> int:
        s = self.settings
        return s.first_batch or max(s.clean_rows, s.batch_size)

    # ------------------------------------------------------------ putting the parts together

    def _open(self, first: pa.Table) -> None:
        """first: the first rows; where there is a ledger, none are needed."""
        columns = self.settings.columns
        fresh = not self._has_ledger()
        if not fresh:
            self.settings = self._as_before(self.state.history().settings)
        names = self.settings.classes or (class_names(label_text(first.column(columns.label))) if fresh else ())
        if fresh and len(names) < 2:
            raise DataError(
                f"the first {first.num_rows} rows hold {len(names)} class(es) {list(names)} in column {columns.label!r}; at least "
                "2 are needed. Mix the rows, take a larger --first-batch, or name all classes with --classes"
            )
        if fresh and not self.settings.classes and len(names) > 0.5 * first.num_rows and first.num_rows > 20:
            raise DataError(
                f"column {columns.label!r} holds {len(names)} different labels in {first.num_rows} rows; that is no class label. "
                "Name the right column with --label; if it is the right one, take a larger --first-batch"
            )
        self.ledger = SqlLedger(self.state.url, settings=self.settings.noted(), classes=names if fresh else None)
        self.history = History(self.ledger.engine)
        stored = self.history.encoder()
        encoder = Encoder.from_bytes(stored) if stored else Encoder(exclude=columns.not_features)
        home = self.history.batch_name(0).rpartition("#")[0] or None
        self.intake = Intake(columns, encoder, self.ledger.classes, self.settings.clean_rows, self.strict, home)
        if stored is None:
            encoder.fit(self._fit_rows(first))
            self.ledger.keep_encoder(encoder.to_bytes())
        self.truth = Truth(load=self._old_truth)
        self.queue = self._queue()
        self.system = self._system()
        snapshot = self.history.snapshot()
        if snapshot is not None:
            self.system.restore(snapshot[1], self.fetch)
        self.ledger.resume(self.fetch)
        if self.queue is not None:
            self.queue.ask(self.ledger.outstanding())  # also those that were written down but not put before a stop

    def _queue(self) -> ExpertQueue | None:
        s = self.settings
        if s.expert not in PEOPLE:
            return None
        return ExpertQueue(self.ledger.engine, classes=len(self.ledger.classes), overlap=s.overlap, cost=s.cost)

    def _as_before(self, held: dict[str, Any]) -> Settings:
        """The settings in the words of an older ledger: those from before "auto" say "linear", those from before the page say
        "file" of people."""
        settings = self.settings
        if settings.quality == "auto":
            settings = replace(settings, quality=held.get("quality", "auto"))
        if settings.expert in PEOPLE and held.get("expert") in PEOPLE:
            settings = replace(settings, expert=held["expert"])
        return settings

    def _has_ledger(self) -> bool:
        """Whether there is a ledger with a batch: one without holds nothing but a start that came to nothing."""
        try:
            return bool(self.state.history().batch_name(0))
        except LedgerError:
            return False

    def _fit_rows(self, first: pa.Table) -> pa.Table:
        """The rows of the first chunk that have a usable label."""
        labels = label_text(first.column(self.settings.columns.label))
        return first.filter(pa.array([text in self.ledger.classes for text in labels]))

    def _system(self) -> System:
        s, k = self.settings, len(self.ledger.classes)
        from labelwright.learners import Deep, as_learner

        shape = self._picture_shape()

        def learner(name: str, *, judging: bool = False) -> Any:
            made = make_classifier(resolved(name, shape, judging=judging), s.seed, shape)
            found = as_learner(made, classes=k, seed=s.seed, max_rows=s.max_rows, prioritized=s.selector != "none")
            found.mapper = self.mapper
            return found

        classifier = learner(s.classifier)
        names = resolved(s.quality, shape, judging=True), resolved(s.classifier, shape)
        two = s.selector == "rad-duo" or (s.selector == "quality-only" and names[0] != names[1])
        learners = Learners(learner(s.quality, judging=True) if two else classifier, classifier)
        if s.selector not in SELECTORS:
            raise SettingsError(f"the selector {s.selector!r} is unknown; expected one of {', '.join(SELECTORS)}")
        selector = SELECTORS[s.selector](learners, buffer=s.buffer if s.selector != "none" else 0, seed=s.seed)
        imitator: Imitator = NoImitator()
        if s.correct is not None and s.selector != "none":
            imitator = (SoftImitator if isinstance(classifier, Deep) else PosteriorImitator)(s.correct)
        budget = self._budget()
        if s.poison not in POISON:
            raise SettingsError(f"--poison {s.poison!r} is unknown; expected {', '.join(POISON)}")
        if s.poison == "off" or s.selector == "none":  # without a filter nothing is judged, so nothing can be suspected
            judge = Sourced(selector) if s.watch_sources else selector
            return System(judge, learners, budget, self._expert(k), imitator, self.ledger)
        guard = Guarded(selector, Watch(k), quarantine=s.poison == "quarantine", names=self.ledger.classes)
        settling = SettlingBudget(budget, guard) if guard.quarantine else budget
        return System(
            Sourced(guard) if s.watch_sources else guard, learners, settling, self._expert(k), imitator, self.ledger
        )

    def _picture_shape(self) -> tuple[int, int, int] | None:
        """The shape of the pictures that rows are, or None. A run that began with trees, before torch was installed, goes on
        with trees; one that began with networks needs torch."""
        shape, snapshot = self.intake.encoder.image_shape, self.history.snapshot()
        if shape is None or snapshot is None or self.settings.classifier != "auto":
            return shape
        held = list(snapshot[1]["learners"].values())[-1]
        if "model" not in held:
            return None
        if resolved("auto", shape) == "auto":
            raise SettingsError(
                "this run's models are networks, and torch is not installed; run: pip install 'labelwright[torch]'"
            )
        return shape

    def _budget(self) -> FixedBudget:
        s = self.settings
        if s.measure not in MEASURES and s.measure != "random":
            raise SettingsError(
                f"the measure {s.measure!r} is unknown; expected one of {', '.join([*MEASURES, 'random'])}"
            )
        measure = MEASURES.get(s.measure) or queries.random(s.seed)
        if s.dynamic:
            total = s.budget_total if s.budget_total is not None else s.budget * s.expected_batches
            return DynamicBudget(total, batches=s.expected_batches, measure=measure)
        return FixedBudget(s.budget, total=s.budget_total, measure=measure)

    def _expert(self, classes: int) -> Expert:
        s = self.settings
        if s.expert in ("oracle", "fallible") and s.columns.truth is None:
            raise SettingsError(
                f"a simulated expert ({s.expert}) needs the column of true labels; give it with --truth"
            )
        if s.expert == "oracle":
            return Oracle(self.truth, cost=s.cost)
        if s.expert == "fallible":
            return FallibleExpert(self.truth, classes=classes, error_rate=s.error_rate, cost=s.cost, seed=s.seed)
        if s.expert in PEOPLE:
            path = self.answers_file or self.state.path / "answers.csv"
            by_file = FileExpert(path, ids=_Ids(self.history), classes=self.ledger.classes)
            return by_file if self.queue is None else Several(by_file, self.queue)
        if s.expert == "none":
            return NoExpert()
        raise SettingsError(f"the expert {s.expert!r} is unknown; expected people, oracle, fallible or none")

    # ------------------------------------------------------------ rows in

    def _take(self, chunk_id: str, chunk: pa.Table) -> tuple[Batch | None, list[Bad]]:
        """The batch of this chunk's new and usable rows (None when there are none), and the bad ones."""
        found = self.intake.accept(chunk, chunk_id)
        self.repeated += found.repeated
        known_batch = self.history.batch_of(chunk_id)
        if self.settings.columns.id is not None or known_batch is not None:
            found = self._news(found)
            self.intake.refuse(found.bad, chunk_id)
        if not found.good.num_rows:
            return None, found.bad
        number = self.ledger.next_number
        if known_batch is not None:
            chunk_id = f"{chunk_id}~{number}"
        batch = self.intake.batch(found, id=chunk_id, number=number)
        if self.settings.columns.truth:
            self.truth.add(number, self.intake.codes(found.good, self.settings.columns.truth))
        return batch, found.bad

    def _news(self, found: Accepted) -> Accepted:
        """Without the rows that the ledger has: the same content counts once, other content is set aside."""
        known = self.history.known(found.ids)
        if not known:
            return found
        keys, table = self.history.at(np.array(sorted(set(known.values())), np.int64), reverted=True)
        earlier, contents = comparable(table, found.good)
        held = dict(zip(keys.tolist(), earlier, strict=True))
        fresh, other = np.ones(len(contents), bool), np.zeros(len(contents), bool)
        for at, row_id in enumerate(found.ids):
            if row_id in known:
                fresh[at] = False
                other[at] = held.get(known[row_id], contents[at]) != contents[at]
        self.repeated += int((~fresh & ~other).sum())
        return found.narrowed(fresh, other)

    def fetch(self, keys: Ints) -> tuple[Ints, Floats]:
        """(found keys, their features) out of the ledger."""
        parts = [(found, self.intake.encoder.transform(table)) for found, table in self.history.each_at(keys)]
        if not parts:
            return np.empty(0, np.int64), np.empty((0, 0), np.float32)
        return np.concatenate([found for found, _ in parts]), np.concatenate([X for _, X in parts])

    def _old_truth(self, number: int) -> Ints:
        table = self.history.table(number)
        column = self.settings.columns.truth
        if table is None or column is None:
            raise DataError(f"the true labels of batch {number} are not at hand; keep the truth column in the data")
        return self.intake.codes(table, column)

    # ------------------------------------------------------------ measuring

    def _test_rows(self, test: TableSource | None) -> tuple[Floats, Ints] | None:
        if test is None:
            return None
        column = self.settings.columns.truth or self.settings.columns.label
        test.require(column)
        tables = list(test.chunks(100_000))
        if not tables:
            raise DataError(f"{test.name} holds no test rows; leave --test out or give a file with rows")
        table = pa.concat_tables(tables, promote_options="permissive")
        y = self.intake.codes(table, column)
        if (y == NO_LABEL).all():
            raise DataError(
                f"no row of {test.name} has one of the classes {list(self.ledger.classes)} in column {column!r}; "
                "give a file with true labels"
            )
        return self.intake.encoder.transform(table)[y != NO_LABEL], y[y != NO_LABEL]

    def _measure(self, number: int, X: Floats, y: Ints) -> None:
        self.ledger.measured(
            number, {"test_accuracy": float((self.system.predict(X) == y).mean()), "test_rows": len(y)}
        )


class _Ids(dict[int, str]):
    """Row key -> id, read from the ledger when asked for."""

    def __init__(self, history: History):
        super().__init__()
        self._history = history

    def get(self, key: int, default: Any = None) -> Any:
        return self._history.id_of(key) or default


def _counts(split: Split, bad: list[Bad]) -> dict[str, int]:
    counts = np.bincount(split.verdict, minlength=len(Verdict))
    return {v.word: int(counts[v]) for v in Verdict} | {"set aside": len(bad)}


def reopened(state: StateFolder) -> Run:
    """A run as its ledger left it, to predict with or to change. Raises LedgerError when there is none."""
    history = state.history()
    run = Run(Settings.of(history.settings), state)
    run.ledger = SqlLedger(state.url, settings=history.settings)
    run.history = History(run.ledger.engine)
    stored = run.history.encoder()
    snapshot = run.history.snapshot()
    if stored is None or snapshot is None:
        raise LedgerError(
            f"no batch was finished in {state.path}, so there is no model yet; run 'labelwright run' again"
        )
    run.intake = Intake(run.settings.columns, Encoder.from_bytes(stored), run.ledger.classes)
    run.truth = Truth(load=run._old_truth)
    run.system = run._system()
    run.system.restore(snapshot[1], run.fetch)
    return run


__all__ = ["Progress", "Run", "Settings", "StateFolder", "make_classifier", "reopened"]
