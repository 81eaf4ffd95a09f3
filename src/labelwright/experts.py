"""Who answers questions. An expert has ``ask(queries)`` and ``collect(outstanding)``, both yielding answers.

``ask`` puts new questions and yields what is answered at once. ``collect`` yields late answers to questions that
were put before, and never puts one again: this is what makes a run that was killed between asking and answering
resume without asking twice.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from labelwright.errors import DataError, SettingsError
from labelwright.truth import Truth
from labelwright.types import NO_LABEL, Answer, Queries


class Expert(Protocol):
    """What the loop needs of an expert."""

    def ask(self, queries: Queries) -> Iterator[Answer]:
        """Put new questions; yield the answers that are there at once."""

    def collect(self, outstanding: Queries) -> Iterator[Answer]:
        """Yield answers to questions put earlier. Must not put them again."""


class NoExpert:
    """Nobody to ask.

    >>> list(NoExpert().ask(Queries.none()))
    []
    """

    def ask(self, queries: Queries) -> Iterator[Answer]:
        """No answers."""
        return iter(())

    def collect(self, outstanding: Queries) -> Iterator[Answer]:
        """No answers."""
        return iter(())


class Oracle:
    """An expert who is always right; holds the truth (simulation only; paper, section III-B).

    cost: price of an answer.
    """

    def __init__(self, truth: Truth, *, cost: float = 1.0, name: str = "oracle"):
        self.truth, self.cost, self.name = truth, cost, name

    def ask(self, queries: Queries) -> Iterator[Answer]:
        """The true label of every row, at once."""
        if not len(queries):
            return
        for key, label in zip(queries.rows.keys, self.truth.of(queries.rows.keys), strict=True):
            yield Answer(int(key), self._said(int(key), int(label)), self.name, self.cost)

    def collect(self, outstanding: Queries) -> Iterator[Answer]:
        """What is owed to questions that were put before a crash."""
        return self.ask(outstanding)

    def _said(self, key: int, label: int) -> int:
        return label


class FallibleExpert(Oracle):
    """An oracle that errs: with probability ``error_rate`` it names another class, uniformly.

    classes: K. The error depends on the seed and the row alone, so a resumed run hears the same answers.

    >>> truth = Truth({0: np.zeros(1000, int)})
    >>> from labelwright.types import row_keys
    >>> expert = FallibleExpert(truth, classes=3, error_rate=0.25, seed=1)
    >>> wrong = sum(expert._said(int(k), 0) != 0 for k in row_keys(0, 1000))
    >>> 200 < wrong < 300
    True
    """

    def __init__(
        self,
        truth: Truth,
        *,
        classes: int,
        error_rate: float,
        cost: float = 1.0,
        seed: int = 0,
        name: str = "fallible expert",
    ):
        super().__init__(truth, cost=cost, name=name)
        if not 0 <= error_rate <= 1:
            raise SettingsError(f"error_rate={error_rate} is not a share; expected 0 to 1")
        self.classes, self.error_rate, self.seed = classes, error_rate, seed

    def _said(self, key: int, label: int) -> int:
        rng = np.random.default_rng([self.seed, key])
        if self.classes < 2 or rng.random() >= self.error_rate:
            return label
        other = int(rng.integers(self.classes - 1))
        return other + (other >= label)


class Several:
    """Experts in a row: each question is put to all, and the first one's answer counts; the later ones are told that it is
    closed, where they want to know.

    >>> truth = Truth({0: np.array([1])})
    >>> from labelwright.types import Rows
    >>> query = Queries(Rows(np.zeros((1, 1)), np.array([0]), np.array([0])), np.ones(1), np.ones(1, int), np.ones(1))
    >>> [a.expert for a in Several(Oracle(truth, name="first"), Oracle(truth, name="second")).ask(query)]
    ['first']
    """

    def __init__(self, *experts: Expert):
        self.experts = experts

    def ask(self, queries: Queries) -> Iterator[Answer]:
        """Ask all of them; of several answers to a row the first."""
        return self._first([expert.ask(queries) for expert in self.experts])

    def collect(self, outstanding: Queries) -> Iterator[Answer]:
        """Late answers of all of them; of several to a row the first."""
        return self._first([expert.collect(outstanding) for expert in self.experts])

    def _first(self, told: list[Iterator[Answer]]) -> Iterator[Answer]:
        known: set[int] = set()
        for at, answers in enumerate(told):
            for answer in answers:
                if answer.key not in known:
                    known.add(answer.key)
                    for other in self.experts[at + 1 :]:
                        if hasattr(other, "close"):
                            other.close([answer.key])
                    yield answer


class FileExpert:
    """People who answer by file: questions stay in the ledger, answers come from a CSV with columns ``id,label``.

    path: the answers file; it may not exist yet, and may grow. ids: row key -> the user's row id.
    classes: the label names. An empty label, or one of ``unsure``, means "I cannot say".
    """

    def __init__(self, path: Path, *, ids: dict[int, str], classes: tuple[str, ...], name: str = "expert"):
        self.path, self.ids, self.name = path, ids, name
        self._codes = {label: code for code, label in enumerate(classes)}

    def ask(self, queries: Queries) -> Iterator[Answer]:
        """Nothing at once: people answer later."""
        return iter(())

    def collect(self, outstanding: Queries) -> Iterator[Answer]:
        """Answers that stand in the file by now. Raises DataError on an unknown label or a missing column."""
        if not len(outstanding) or not self.path.exists():
            return
        said = self._read()
        for key in outstanding.rows.keys:
            row_id = self.ids.get(int(key))
            if row_id is not None and row_id in said:
                yield Answer(int(key), said[row_id], self.name)

    def _read(self) -> dict[str, int]:
        said: dict[str, int] = {}
        try:
            text = self.path.read_text(encoding="utf-8-sig")  # spreadsheets put a byte order mark first
        except (UnicodeError, OSError) as error:
            raise DataError(f"{self.path} cannot be read ({error}); save it as CSV in UTF-8") from error
        with io.StringIO(text, newline="") as file:
            reader = csv.DictReader(file)
            if not {"id", "label"} <= set(reader.fieldnames or ()):
                raise DataError(
                    f"{self.path} has columns {reader.fieldnames}; expected 'id' and 'label': keep the header of questions.csv"
                )
            for row in reader:
                label = (row["label"] or "").strip()
                if not label:
                    continue
                if label in self._codes:  # first: a class may itself be named "unsure"
                    said[row["id"]] = self._codes[label]
                elif label.lower() == "unsure":
                    said[row["id"]] = NO_LABEL
                else:
                    raise DataError(
                        f"{self.path} answers {label!r} for row {row['id']!r}; expected one of {list(self._codes)} or 'unsure'"
                    )
        return said
