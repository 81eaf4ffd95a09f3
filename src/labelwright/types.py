"""The nouns of the main path: frozen dataclasses over NumPy arrays.

Classes are integers 0..K-1 inside the program; the names that users know are kept at the edges
(:mod:`labelwright.tables`, :mod:`labelwright.ledger`). A true label is never part of any of these:
see :mod:`labelwright.truth`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pyarrow as pa

    from labelwright.posterior import NoiseModel

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.signedinteger[Any]]
Bools = npt.NDArray[np.bool_]
State = Mapping[str, Any]
"""What a part needs to go on after a crash: JSON values, arrays and bytes, nested in dicts."""

KEY_SHIFT = 32
NO_LABEL = -1


def row_keys(number: int, n: int) -> Ints:
    """Keys of the ``n`` rows of batch ``number``: ``number * 2**32 + position``, int64, unique in a stream.

    >>> row_keys(1, 2).tolist()
    [4294967296, 4294967297]
    """
    return (np.int64(number) << KEY_SHIFT) + np.arange(n, dtype=np.int64)


class Verdict(enum.IntEnum):
    """What was decided about a row."""

    TRUSTED = 0  #: the quality model agrees with the given label, or its owner vouches for it
    RESCUED = 1  #: the quality model disagrees, the classifier agrees
    ASKED = 2  #: put to the expert
    CORRECTED = 3  #: given another label, by the imitator
    REJECTED = 4  #: dropped
    BUFFERED = 5  #: held back, to be judged again with a later batch
    QUARANTINED = 6  #: set apart: an alarm of planted labels names it

    @property
    def word(self) -> str:
        """The verdict as users read it, e.g. ``"trusted"``."""
        return self.name.lower()


@dataclass(frozen=True)
class Rows:
    """Rows with a label each: what learners train on.

    X: (n, d) features. y: (n,) class of each row. keys: (n,) int64, see :func:`row_keys`.
    share: (n, K) belief in each class, for learners that take soft labels; None where ``y`` is the whole truth.
    """

    X: Floats
    y: Ints
    keys: Ints
    share: Floats | None = None

    def __len__(self) -> int:
        return len(self.y)

    def take(self, index: Ints | Bools) -> Rows:
        """The rows at ``index`` (positions or mask)."""
        return Rows(self.X[index], self.y[index], self.keys[index], None if self.share is None else self.share[index])

    def plus(self, other: Rows) -> Rows:
        """These rows followed by ``other``'s."""
        if not len(other):
            return self
        if not len(self):
            return other
        return Rows(
            np.concatenate([self.X, other.X]),
            np.concatenate([self.y, other.y]),
            np.concatenate([self.keys, other.keys]),
            _together(self, other),
        )

    @staticmethod
    def none(width: int = 0) -> Rows:
        """No rows, ``width`` features wide."""
        return Rows(np.empty((0, width), np.float32), np.empty(0, np.int64), np.empty(0, np.int64))


def _together(first: Rows, second: Rows) -> Floats | None:
    """(n, K) shares of both; a row without shares is sure of its label."""
    known = [rows.share for rows in (first, second) if rows.share is not None]
    if not known:
        return None
    sure = np.eye(known[0].shape[1], dtype=np.float32)
    return np.concatenate([sure[rows.y] if rows.share is None else rows.share for rows in (first, second)])


@dataclass(frozen=True)
class Arrival:
    """How a batch came out of a stream; the ledger writes it down in the transaction that holds the batch's decisions.

    position: the place after the batch, of each part of the source that moved: JSON values. facts: what is worth telling, JSON
    values. aside: rows that could not be used: (position in the delivery, id, reason, content).
    """

    position: Mapping[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)
    aside: tuple[tuple[int, str, str, str], ...] = ()


@dataclass(frozen=True)
class Batch:
    """Labelled rows that arrived together.

    id: names the delivery; a batch delivered twice counts once. number: position in the stream.
    X: (n, d) features. given: (n,) class that came with each row, maybe wrong.
    clean: (n,) True where the owner vouches for the label (D0 of the paper).
    ids: (n,) the user's name of each row. table: the rows as the user gave them, for the ledger.
    sources: (n,) who labelled each row, where known. arrival: where a stream goes on after it.
    """

    id: str
    number: int
    X: Floats
    given: Ints
    clean: Bools
    ids: npt.NDArray[np.object_] | None = None
    table: pa.Table | None = None
    sources: npt.NDArray[np.object_] | None = None
    arrival: Arrival | None = None

    def __len__(self) -> int:
        return len(self.given)

    @property
    def keys(self) -> Ints:
        """(n,) int64, unique in the stream."""
        return row_keys(self.number, len(self))

    @property
    def rows(self) -> Rows:
        """The rows with their given labels."""
        return Rows(self.X, self.given, self.keys)

    @staticmethod
    def of(number: int, X: Floats, given: Ints, *, clean: bool | Bools = False, id: str | None = None) -> Batch:
        """A batch from arrays. ``clean`` may be one value for all rows.

        >>> batch = Batch.of(0, np.zeros((2, 3)), np.array([0, 1]), clean=True)
        >>> batch.id, batch.clean.tolist(), len(batch)
        ('batch-0', [True, True], 2)
        """
        mask = np.broadcast_to(np.asarray(clean, dtype=bool), (len(given),)).copy()
        return Batch(id or f"batch-{number}", number, X, np.asarray(given, np.int64), mask)


@dataclass(frozen=True)
class Split:
    """What a selector thinks of each row of a batch, and of the buffered rows that rejoined it.

    rows: the judged rows with their *given* labels, the batch's own first.
    verdict: (n,) of :class:`Verdict`. label: (n,) the label to use where the row is kept.
    decision: (n, K) the quality model's score of each class, any scale.
    proba: (n, K) the models' probability of each class before the given label is considered.
    noise: how labels go wrong, for :attr:`posterior`. clean: (n,) True where the owner vouches.
    deciders: who decides for each verdict, e.g. ``{Verdict.RESCUED: "classifier"}``.
    note: what the selector assumed, in plain words.
    """

    rows: Rows
    verdict: Ints
    label: Ints
    clean: Bools
    decision: Floats
    proba: Floats
    noise: NoiseModel
    deciders: Mapping[int, str] = field(default_factory=dict)
    note: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def given(self) -> Ints:
        """(n,) the label that came with each row."""
        return self.rows.y

    @cached_property
    def posterior(self) -> Floats:
        """(n, K) P(true label | features, given label); one-hot where the owner vouches."""
        out = self.noise.posterior(self.proba, self.given)
        out[self.clean] = 0.0
        out[self.clean, self.given[self.clean]] = 1.0
        return out

    @cached_property
    def label_score(self) -> Floats:
        """(n,) in [0, 1]: probability that the given label is right; lower is worse."""
        return self.posterior[np.arange(len(self)), self.given]

    @property
    def kept(self) -> Bools:
        """(n,) True where the row trains the models as it stands."""
        return np.isin(self.verdict, (Verdict.TRUSTED, Verdict.RESCUED, Verdict.CORRECTED))

    @property
    def suspicious(self) -> Bools:
        """(n,) True where no model agrees with the given label."""
        return np.isin(self.verdict, (Verdict.REJECTED, Verdict.BUFFERED))

    def marked(self, index: Ints, verdict: Verdict) -> Split:
        """A copy with ``verdict`` at the positions ``index``."""
        changed = self.verdict.copy()
        changed[index] = verdict
        return replace(self, verdict=changed)


@dataclass(frozen=True)
class Queries:
    """Rows whose true label the expert is asked for.

    rows: the rows with their given labels. value: (n,) how much asking is worth, higher is asked first.
    suggestion: (n,) the class the models believe in. confidence: (n,) its probability.
    why: the measure that chose them.
    """

    rows: Rows
    value: Floats
    suggestion: Ints
    confidence: Floats
    why: str = ""

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: Ints | Bools) -> Queries:
        """The queries at ``index`` (positions or mask)."""
        return Queries(
            self.rows.take(index), self.value[index], self.suggestion[index], self.confidence[index], self.why
        )

    def ordered(self) -> Queries:
        """The most valuable first, equal ones by key: an order that a ledger can give back after a stop."""
        return self.take(np.lexsort((self.rows.keys, -np.nan_to_num(self.value.astype(float)))))

    @staticmethod
    def none(width: int = 0) -> Queries:
        """No queries."""
        return Queries(Rows.none(width), np.empty(0), np.empty(0, np.int64), np.empty(0))


@dataclass(frozen=True)
class Answer:
    """One expert's word on one row. label: a class, or :data:`NO_LABEL` for "I cannot say"."""

    key: int
    label: int
    expert: str
    cost: float = 1.0


@dataclass(frozen=True)
class Answers:
    """Answers that arrived in one step, with the rows they are about.

    rows: the rows with their *given* labels. label: (n,) the expert's class, or :data:`NO_LABEL`.
    experts: who answered each. cost: (n,) price of each.
    """

    rows: Rows
    label: Ints
    experts: tuple[str, ...]
    cost: Floats

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def usable(self) -> Rows:
        """The answered rows with the experts' labels, without those the expert could not say."""
        said = self.label != NO_LABEL
        return Rows(self.rows.X[said], self.label[said], self.rows.keys[said])

    def plus(self, other: Answers) -> Answers:
        """These answers followed by ``other``'s."""
        return Answers(
            self.rows.plus(other.rows),
            np.concatenate([self.label, other.label]),
            self.experts + other.experts,
            np.concatenate([self.cost, other.cost]),
        )

    @staticmethod
    def none(width: int = 0) -> Answers:
        """No answers."""
        return Answers(Rows.none(width), np.empty(0, np.int64), (), np.empty(0))


@dataclass(frozen=True)
class Corrections:
    """Rows that the imitator relabels. rows: with their *new* labels. probability: (n,) of the new label.

    hints: rows that nobody is sure of, with a share of each class: models learn from them, the clean data set does not
    hold them.
    """

    rows: Rows
    probability: Floats
    by: str = "imitator"
    hints: Rows = field(default_factory=lambda: Rows.none())

    def __len__(self) -> int:
        return len(self.rows)

    @staticmethod
    def none(width: int = 0) -> Corrections:
        """No corrections."""
        return Corrections(Rows.none(width), np.empty(0))
