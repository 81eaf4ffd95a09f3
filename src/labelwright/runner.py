"""A run over a user's data: state folder, intake, loop and ledger put together. Everything the command line calls."""

from __future__ import annotations

import fcntl
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from labelwright import queries
from labelwright.errors import BusyError, DataError, LedgerError, SettingsError
from labelwright.experts import Expert, FallibleExpert, FileExpert, NoExpert, Oracle
from labelwright.imitation import NoImitator, PosteriorImitator
from labelwright.learners import Learners
from labelwright.ledger import History, SqlLedger
from labelwright.ledger.schema import open_engine
from labelwright.loop import System
from labelwright.queries import Budget, DynamicBudget, FixedBudget
from labelwright.selection import NoSelection, QualityOnly, RadDuo, Slim
from labelwright.streams import Bad, Columns, Intake, class_names, content, label_text, numbered
from labelwright.tables import Encoder, TableSource, row_bytes
from labelwright.truth import Truth
from labelwright.types import KEY_SHIFT, NO_LABEL, Batch, Floats, Ints, Split, Verdict

SELECTORS = {"rad-duo": RadDuo, "quality-only": QualityOnly, "slim": Slim, "none": NoSelection}
MEASURES = {
    "margin": queries.margin,
    "least-distance": queries.least_distance,
    "entropy": queries.entropy,
    "cent": queries.cent,
}


@dataclass(frozen=True)
class Settings:
    """What decides a run. The ledger remembers it, and refuses to go on with other settings."""

    columns: Columns
    batch_size: int = 1000
    first_batch: int | None = None
    clean_rows: int = 0
    classes: tuple[str, ...] | None = None
    selector: str = "rad-duo"
    quality: str = "linear"
    classifier: str = "auto"
    budget: int = 0
    budget_total: int | None = None
    dynamic: bool = False
    expected_batches: int = 20
    measure: str = "margin"
    expert: str = "file"
    error_rate: float = 0.1
    cost: float = 1.0
    buffer: int = 1000
    correct: float | None = 0.95
    max_rows: int = 20_000
    seed: int = 0

    def noted(self) -> dict[str, Any]:
        """As JSON values."""
        return dict(json.loads(json.dumps(asdict(self))))

    @staticmethod
    def of(noted: Mapping[str, Any]) -> Settings:
        """Settings from :meth:`noted`."""
        columns = {**noted["columns"], "drop": tuple(noted["columns"]["drop"])}
        classes = noted["classes"]
        return Settings(**{**noted, "columns": Columns(**columns), "classes": tuple(classes) if classes else None})


def make_classifier(name: str, seed: int) -> Any:
    """A scikit-learn classifier by its name on the command line. Raises SettingsError for an unknown name."""
    from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression, SGDClassifier
    from sklearn.naive_bayes import GaussianNB

    from labelwright.learners.kernel import OneVsRestSVC

    makers: dict[str, Callable[[], Any]] = {
        "auto": lambda: ExtraTreesClassifier(200, min_samples_leaf=2, n_jobs=1, random_state=seed),
        "linear": lambda: LogisticRegression(C=1.0, max_iter=300, random_state=seed),
        "sgd": lambda: SGDClassifier(loss="log_loss", average=True, random_state=seed),
        "forest": lambda: RandomForestClassifier(200, min_samples_leaf=2, random_state=seed),
        "boosted": lambda: HistGradientBoostingClassifier(max_iter=100, early_stopping=False, random_state=seed),
        "bayes": lambda: GaussianNB(),
        "svm": lambda: OneVsRestSVC(),
    }
    if name not in makers:
        raise SettingsError(f"the classifier {name!r} is unknown; expected one of {', '.join(makers)}")
    return makers[name]()


class StateFolder:
    """A folder that one process at a time may write to: ``ledger.db``, and what the program leaves for people.

    ledger_url: another place for the ledger, e.g. PostgreSQL.
    """

    def __init__(self, path: str | Path, *, ledger_url: str | None = None):
        self.path = Path(path)
        self.url = ledger_url or f"sqlite:///{self.path / 'ledger.db'}"
        self._lock: Any = None

    def claim(self) -> None:
        """Take the folder. Raises LedgerError when it is not writable, BusyError when another process has it."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / "lock").open("w")
        except OSError as error:
            raise LedgerError(
                f"the state folder {self.path} cannot be written ({error.strerror}); make it writable or choose another with --state"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BusyError(
                f"another labelwright writes to {self.path}; wait for it, or choose another --state"
            ) from error

    def release(self) -> None:
        """Let the folder go."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def history(self) -> History:
        """The ledger, read-only. Raises LedgerError when there is none."""
        return History(self.history_engine())

    def history_engine(self) -> Any:
        """The ledger's database, unread. Raises LedgerError when there is none."""
        if self.url.startswith("sqlite:///") and not Path(self.url.removeprefix("sqlite:///")).exists():
            raise LedgerError(
                f"there is no ledger in {self.path}; run 'labelwright run' first, or give the right --state"
            )
        return open_engine(self.url)


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

    settings: what decides. state: the folder. truth_source: "oracle" experts read the truth column.
    """

    settings: Settings
    state: StateFolder
    strict: bool = False
    answers_file: Path | None = None
    repeated: int = 0

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
        for chunk_id, chunk in itertools.chain([first], chunks):
            batch, bad = self._take(chunk_id, chunk)
            if bad:
                self.ledger.set_aside(chunk_id, bad)
            if batch is None:
                yield Progress(chunk_id, self.ledger.next_number, chunk.num_rows, {"set aside": len(bad)})
                continue
            split = self.system.step(batch)
            if held_out is not None:
                self._measure(batch.number, *held_out)
            yield Progress(chunk_id, batch.number, chunk.num_rows, _counts(split, bad), split.note, split.noise.rate)

    def _first_size(self) -> int:
        s = self.settings
        return s.first_batch or max(s.clean_rows, s.batch_size)

    # ------------------------------------------------------------ putting the parts together

    def _open(self, first: pa.Table) -> None:
        columns = self.settings.columns
        names = self.settings.classes or class_names(label_text(first.column(columns.label)))
        fresh = not self._has_ledger()
        if fresh and len(names) < 2:
            raise DataError(
                f"the first {first.num_rows} rows hold {len(names)} class(es) {list(names)} in column {columns.label!r}; at least "
                "2 are needed. Mix the rows, take a larger --first-batch, or name all classes with --classes"
            )
        if fresh and len(names) > 0.5 * first.num_rows and first.num_rows > 20:
            raise DataError(
                f"column {columns.label!r} holds {len(names)} different labels in {first.num_rows} rows; that is no class label. "
                "Name the right column with --label"
            )
        self.ledger = SqlLedger(self.state.url, settings=self.settings.noted(), classes=names if fresh else None)
        self.history = History(self.ledger.engine)
        stored = self.history.encoder()
        encoder = Encoder.from_bytes(stored) if stored else Encoder(exclude=columns.not_features)
        self.intake = Intake(columns, encoder, self.ledger.classes, self.settings.clean_rows, self.strict)
        if stored is None:
            encoder.fit(self._fit_rows(first))
            self.ledger.keep_encoder(encoder.to_bytes())
        self.truth = Truth(load=self._old_truth)
        self.system = self._system()
        snapshot = self.history.snapshot()
        if snapshot is not None:
            self.system.restore(snapshot[1], self.fetch)
        self.ledger.resume(self.fetch)

    def _has_ledger(self) -> bool:
        try:
            return bool(self.state.history().classes)
        except LedgerError:
            return False

    def _fit_rows(self, first: pa.Table) -> pa.Table:
        """The rows of the first chunk that have a usable label."""
        labels = label_text(first.column(self.settings.columns.label))
        return first.filter(pa.array([text in self.ledger.classes for text in labels]))

    def _system(self) -> System:
        s, k = self.settings, len(self.ledger.classes)
        from labelwright.learners import as_learner

        def learner(name: str) -> Any:
            return as_learner(make_classifier(name, s.seed), classes=k, seed=s.seed, max_rows=s.max_rows)

        classifier = learner(s.classifier)
        two = s.selector == "rad-duo" or (s.selector == "quality-only" and s.quality != s.classifier)
        learners = Learners(learner(s.quality) if two else classifier, classifier)
        if s.selector not in SELECTORS:
            raise SettingsError(f"the selector {s.selector!r} is unknown; expected one of {', '.join(SELECTORS)}")
        selector = SELECTORS[s.selector](learners, buffer=s.buffer if s.selector != "none" else 0, seed=s.seed)
        imitator = PosteriorImitator(s.correct) if s.correct is not None and s.selector != "none" else NoImitator()
        return System(selector, learners, self._budget(), self._expert(k), imitator, self.ledger)

    def _budget(self) -> Budget:
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
        if s.expert == "file":
            path = self.answers_file or self.state.path / "answers.csv"
            return FileExpert(path, ids=_Ids(self.history), classes=self.ledger.classes)
        if s.expert == "none":
            return NoExpert()
        raise SettingsError(f"the expert {s.expert!r} is unknown; expected file, oracle, fallible or none")

    # ------------------------------------------------------------ rows in

    def _take(self, chunk_id: str, chunk: pa.Table) -> tuple[Batch | None, list[Bad]]:
        """The batch of this chunk's new and usable rows (None when there are none), and the bad ones."""
        good, ids, clean, bad = self.intake.accept(chunk, chunk_id)
        pending = self.ledger.next_number
        known_batch = self.history.batch_of(chunk_id)
        if self.settings.columns.id is not None or (known_batch is not None and known_batch != pending):
            good, ids, clean, more = self._news(good, ids, clean, pending)
            self.intake.refuse(more, chunk_id)
            bad = bad + more
        if not good.num_rows:
            return None, bad
        if known_batch is not None and known_batch != pending:
            chunk_id = f"{chunk_id}~{pending}"
        batch = self.intake.batch(good, ids, clean, id=chunk_id, number=pending)
        if self.settings.columns.truth:
            self.truth.add(pending, self.intake.codes(good, self.settings.columns.truth))
        return batch, bad

    def _news(
        self, good: pa.Table, ids: list[str], clean: Any, pending: int
    ) -> tuple[pa.Table, list[str], Any, list[Bad]]:
        """Without the rows that the ledger has: the same content counts once, other content is set aside."""
        known = {i: key for i, key in self.history.known(ids).items() if key >> KEY_SHIFT != pending}
        if not known:
            return good, ids, clean, []
        keys = np.array(sorted(set(known.values())), np.int64)
        found, table = self.history.at(keys)
        held = dict(zip(found.tolist(), row_bytes(table), strict=True)) if table is not None else {}
        contents = row_bytes(good)
        keep, bad = np.ones(len(ids), bool), []
        for at, row_id in enumerate(ids):
            if row_id not in known:
                continue
            keep[at] = False
            earlier = held.get(known[row_id])
            if earlier is None or earlier == contents[at]:
                self.repeated += 1
            else:
                bad.append((at, row_id, f"id {row_id!r} came before with other content", content(good, at)))
        return good.filter(pa.array(keep)), [i for i, k in zip(ids, keep, strict=True) if k], clean[keep], bad

    def fetch(self, keys: Ints) -> tuple[Ints, Floats]:
        """(found keys, their features) out of the ledger."""
        found, table = self.history.at(keys)
        if table is None:
            return found, np.empty((0, 0), np.float32)
        return found, self.intake.encoder.transform(table)

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


def predictions(run: Run, source: TableSource, *, rows: int = 10_000) -> Iterator[pa.Table]:
    """The source's rows with ``predicted_label``, ``probability`` and ``proba_<class>`` columns, part by part."""
    for chunk in source.chunks(rows):
        proba = run.system.learners.classifier.proba(run.intake.encoder.transform(chunk)).astype(float)
        proba /= proba.sum(axis=1, keepdims=True)
        best = proba.argmax(axis=1)
        out = chunk.append_column("predicted_label", pa.array([run.ledger.classes[b] for b in best]))
        out = out.append_column("probability", pa.array(proba[np.arange(len(best)), best]))
        for code, name in enumerate(run.ledger.classes):
            out = out.append_column(f"proba_{name}", pa.array(proba[:, code]))
        yield out


__all__ = ["Progress", "Run", "Settings", "StateFolder", "make_classifier", "predictions", "reopened"]
