"""Judging rows by a run's models without learning: any number of rows, part by part, by whatever maps.

A worker reads its own part of a Parquet file, and writes its own part of the answer where a folder is asked for.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa

from labelwright.errors import SettingsError
from labelwright.learners import Learners, RowMemory, Scorer
from labelwright.scale import InProcess, Mapper
from labelwright.selection import JudgingSelector, NoSelection
from labelwright.streams import Intake
from labelwright.tables import Part, TableSource, bad_feature_rows, parts_of, write_tables
from labelwright.types import NO_LABEL, Bools, Floats, Rows, Verdict

if TYPE_CHECKING:
    from labelwright.runner import Run  # workers have no use for the ledger

BLOCK = 10_000
"""Rows that are judged at once, always the same ones: products of matrices of other sizes differ in the last digit."""


@dataclass(frozen=True)
class Judge:
    """What a run has learned, as far as judging goes: it can be sent to a worker, and holds no rows.

    intake: reads columns. scorer: the classifier. selector: judges given labels; None: they are not looked at.
    """

    intake: Intake
    scorer: Scorer
    selector: JudgingSelector | None

    @property
    def added(self) -> tuple[str, ...]:
        """The columns that :meth:`judged` adds."""
        names = ("predicted_label", "probability", *(f"proba_{name}" for name in self.intake.classes))
        return names if self.selector is None else (*names, "verdict", "label_score", "likely_label")

    def named(self, columns: Iterable[str]) -> list[str]:
        """The columns of the answer; one of the user's that has the name of an added one is ``<name>_original`` there."""
        return [*(f"{name}_original" if name in self.added else name for name in columns), *self.added]

    def judged(self, table: pa.Table) -> pa.Table:
        """The rows with ``predicted_label``, ``probability`` and ``proba_<class>``; with a selector also ``verdict``,
        ``label_score`` (probability that the given label is right) and ``likely_label``, missing where a row has no label. All are
        missing where a picture does not decode, or a vector is none."""
        encoder, names = self.intake.encoder, self.intake.classes
        X = encoder.transform(table)
        lost = np.zeros(table.num_rows, bool)
        if any(encoder.kinds[name] in ("image", "vector") for name in encoder.drift):
            lost[list(bad_feature_rows(table, encoder.kinds, widths=encoder.widths))] = True
        proba = self.scorer.proba(X).astype(float)
        proba /= proba.sum(axis=1, keepdims=True)
        best = proba.argmax(axis=1)
        found = [
            pa.array([names[b] for b in best], pa.string(), mask=lost),
            pa.array(proba[np.arange(len(best)), best], mask=lost),
        ]
        found += [pa.array(column, mask=lost) for column in proba.T]
        if self.selector is not None:
            found += self._verdicts(table, X, self.selector, lost)
        return pa.table([*table.columns, *found], self.named(table.column_names))

    def _verdicts(self, table: pa.Table, X: Floats, selector: JudgingSelector, lost: Bools) -> list[pa.Array]:
        given = np.where(lost, NO_LABEL, self.intake.codes(table, self.intake.columns.label))
        at = np.flatnonzero(given != NO_LABEL)
        verdict, likely = np.full(len(given), None, object), np.full(len(given), None, object)
        score = np.full(len(given), np.nan)
        if len(at):
            split = selector.looked_at(Rows(X[at], given[at], at))
            verdict[at] = [Verdict(code).word for code in split.verdict]
            likely[at] = np.array(self.intake.classes, object)[split.posterior.argmax(axis=1)]
            score[at] = split.label_score
        return [
            pa.array(verdict, pa.string()),
            pa.array(score, mask=given == NO_LABEL),
            pa.array(likely, pa.string()),
        ]


def judge_of(run: Run, *, labels: bool = False) -> Judge:
    """The judge of a run that was reopened. labels: judge given labels, too.

    Raises SettingsError when its selector keeps every label, so that there is nothing to judge by.
    """
    classifier = run.system.learners.classifier
    if not labels:
        return Judge(run.intake, classifier.scorer, None)
    selector: Any = run.system.selector
    while hasattr(selector, "inner"):  # those that watch for attacks, or sources, judge by the one within
        selector = selector.inner
    if isinstance(selector, NoSelection):
        raise SettingsError("this run keeps every label (--selector none), so it cannot judge any; leave --judge out")
    light = copy.copy(selector)
    light.learners = Learners(*(cast(Any, learner.scorer) for learner in (selector.learners.quality, classifier)))
    if selector.learners.quality is classifier:
        light.learners = Learners(light.learners.classifier, light.learners.classifier)
    light.buffer, light.waited = RowMemory(0), {}
    return Judge(run.intake, light.learners.classifier, light)


def predictions(
    judge: Judge,
    source: TableSource,
    *,
    mapper: Mapper | None = None,
    columns: Callable[[str], bool] = lambda name: True,
) -> Iterator[pa.Table]:
    """The source's rows, judged, part by part and in order: see :meth:`Judge.judged`.

    mapper: default this process; the result is the same. columns: which ones are wanted, of the source's and the judge's.
    Raises SourceError or ScaleError, naming the rows, when a part cannot be read or judged.
    """
    parts = (Task(part) for part in parts_of(source, BLOCK))
    wanted = partial(_judge_part, columns=tuple(filter(columns, judge.named(source.columns))))
    yield from (mapper or InProcess()).map(wanted, parts, shared=judge)


def predict_into(judge: Judge, source: TableSource, folder: Path, *, mapper: Mapper | None = None) -> Iterator[int]:
    """The same into ``part-000000.parquet``, ``part-000001.parquet``, … of a new folder, each written by the worker that judged
    it; yields the rows of each. Raises SettingsError when the folder holds something.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = next(folder.iterdir(), None)
    except OSError as error:
        raise SettingsError(f"--output {folder} cannot be made a folder ({error.strerror}); name another") from error
    if held is not None:
        raise SettingsError(
            f"--output {folder} holds {held.name}; name a new folder, or a file that ends in .csv or .parquet"
        )
    parts = (Task(part, folder.absolute() / f"part-{i:06d}.parquet") for i, part in enumerate(parts_of(source, BLOCK)))
    yield from (mapper or InProcess()).map(_write_part, parts, shared=judge)
    for begun in folder.glob(".part-*"):  # by a worker that was killed; another one has written the part
        begun.unlink(missing_ok=True)


@dataclass(frozen=True)
class Task:
    """One partition: what to judge, and where to write it."""

    part: Part
    target: Path = Path()

    @property
    def name(self) -> str:
        """For messages."""
        return self.part.name


def _judge_part(judge: Judge, task: Task, columns: tuple[str, ...]) -> pa.Table:
    return pa.concat_tables(judge.judged(table).select(columns) for table in task.part.blocks(BLOCK)).combine_chunks()


def _write_part(judge: Judge, task: Task) -> int:
    write_tables((judge.judged(table) for table in task.part.blocks(BLOCK)), task.target)
    return task.part.num_rows
