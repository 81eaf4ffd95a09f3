"""What is known of rows before labels are doubted: log-probabilities of the classes that come into question.

Up to :data:`DENSE` classes all are weighed; beyond, the given one and the likeliest other, so that each probability
is read once and nothing grows with K but the reading.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from labelwright.types import NO_LABEL, Floats, Ints

DENSE = 256
_FLOOR = 1e-6
_SECOND_FLOOR = 0.01


@dataclass(frozen=True)
class Evidence:
    """Rows to judge.

    first: (n, C) float32 log-probabilities. second: (n, C) the same after the second look, or None without one.
    classes: (n, C) class of each column, or None where column = class. own: (n,) column of the given label.
    given: (n,) class. certainty, rest: (n,) probability of the given label as it came, and of all others together: summed up,
    not one minus the other, so that rows which the model is sure of keep their order.
    """

    first: Floats
    second: Floats | None
    classes: Ints | None
    own: Ints
    given: Ints
    certainty: Floats
    rest: Floats

    def __len__(self) -> int:
        return len(self.given)

    def at_own(self, values: Floats) -> Floats:
        """(n,) the column of the given label out of (n, C) values."""
        return values[np.arange(len(self)), self.own]

    def others(self, values: Floats) -> Floats:
        """(n,) sum of the other columns of (n, C) float32 values."""
        apart = values.copy()
        apart[np.arange(len(self)), self.own] = 0.0
        return apart @ np.ones(apart.shape[1], np.float32)

    @cached_property
    def labels(self) -> Any:
        """(C, n) sparse float32: 1 where a row is given the class of the column. Kept, since every turn of
        expectation-maximisation asks for it."""
        from scipy.sparse import csr_matrix

        n = len(self)
        return csr_matrix((np.ones(n, np.float32), self.own, np.arange(n + 1)), shape=(n, self.first.shape[1])).T

    def class_of(self, column: Ints) -> Ints:
        """(n,) classes of these columns."""
        return column if self.classes is None else self.classes[np.arange(len(self)), column]

    def take(self, index: Ints) -> Evidence:
        """The rows at ``index``."""
        second = None if self.second is None else self.second[index]
        classes = None if self.classes is None else self.classes[index]
        return Evidence(
            self.first[index],
            second,
            classes,
            self.own[index],
            self.given[index],
            self.certainty[index],
            self.rest[index],
        )

    def levelled(self, floor: float) -> Evidence:
        """The same, with the second look averaged over rows whose probabilities are equal above ``floor`` (a tree's leaves, few
        neighbours' votes).

        The second look at a row leaves its own label out. So of equal rows those given k look least like k, and an order
        among them would tell the label, not the row.
        """
        if self.second is None:
            return self
        _, group, size = np.unique(_row_codes(self.first, floor), return_inverse=True, return_counts=True)
        if len(size) == len(self):
            return self
        from scipy.sparse import csr_matrix

        member = csr_matrix((np.ones(len(self), np.float32), (group, np.arange(len(self)))), (len(size), len(self)))
        mean = (member @ self.second) / size[:, None].astype(np.float32)
        return replace(self, second=mean[group])

    def weighed(self, sharpness: tuple[float, float]) -> Floats:
        """(n, C) ``sharpness[0] * first + sharpness[1] * second``: log-probabilities up to a constant a row."""
        out = np.float32(sharpness[0]) * self.first
        if self.second is not None:
            out += np.float32(sharpness[1]) * self.second
        return out


def wide(proba: Floats, given: Ints, offset: Floats, correction: Floats | None) -> Evidence:
    """Evidence over all classes, from probabilities (n, K) float32 and given labels (n,).

    offset: (K,) what is added to the log-probabilities of each class, for classes too rare to be predicted.
    correction: (n, K) estimates of the second look.
    """
    first = np.log(np.maximum(proba, np.float32(_FLOOR)))
    second = None if correction is None else np.log(np.maximum(correction, np.float32(_SECOND_FLOOR)))
    if offset.any():
        first += offset
        second = None if second is None else second + offset
    rows = np.arange(len(given))
    apart = proba.copy()
    apart[rows, given] = 0.0
    rest = apart @ np.ones(proba.shape[1], np.float32)
    return Evidence(first, second, None, given, given, proba[rows, given], rest)


@dataclass(frozen=True)
class Narrow:
    """The two classes that come into question, row by row: the given one and the likeliest other.

    own, other: (n,) float32 their probabilities. rival: (n,) class of the other. Where the given class holds half of the
    probability or more, the other is "all the rest": its class is not looked for, rival is :data:`~labelwright.types.NO_LABEL`.
    """

    own: Floats
    other: Floats
    rival: Ints

    @staticmethod
    def of(proba: Floats, given: Ints) -> Narrow:
        """From probabilities (n, K) float32 and given labels (n,). Only rows whose label holds less than half are searched."""
        own = proba[np.arange(len(given)), given]
        other, rival = 1 - own, np.full(len(given), NO_LABEL, np.int32)
        contested = np.flatnonzero(own < 0.5)
        if len(contested):
            rest, label = proba[contested], given[contested]
            rest[np.arange(len(contested)), label] = -1.0
            best = rest.argmax(axis=1)
            rival[contested], other[contested] = best, rest[np.arange(len(contested)), best]
        return Narrow(own, other, rival)

    def take(self, index: Ints | slice) -> Narrow:
        """The rows at ``index``."""
        return Narrow(self.own[index], self.other[index], self.rival[index])

    def content(self, given: Ints, classes: int, known: Ints) -> np.ndarray:
        """(n,) uint64 as of :func:`row_content`."""
        with np.errstate(over="ignore"):
            own, other = ((part * np.float32(1 << 24)).astype(np.uint64) for part in (self.own, self.other))
            named = self.rival != NO_LABEL
            tag = np.bincount(given, minlength=classes).astype(np.uint64)
            for label, part in ((given, own), (self.rival[named], other[named])):
                tag = _mixed(tag + np.bincount(label, part, minlength=classes).astype(np.uint64))
            rival = np.where(named, tag[self.rival], np.uint64(0))
            return _mixed(own ^ tag[given]) + _mixed(_mixed(other) ^ rival) + _answer_content(tag, known)

    def exact(self, given: Ints, known: Ints) -> np.ndarray:
        """(n,) uint64 as of :func:`exact_content`."""
        return exact_content(np.stack([self.own, self.other], axis=1), given, self.rival, known)

    def evidence(self, given: Ints, offset: Floats) -> Evidence:
        """Evidence over the two."""
        classes = np.stack([given, self.rival], axis=1)
        both = np.stack([self.own, self.other], axis=1)
        first = np.log(np.maximum(both, np.float32(_FLOOR)))
        if offset.any():
            first += np.where(classes >= 0, offset[classes], 0)
        rest = np.where(self.rival == NO_LABEL, self.other, 1 - self.own)
        return Evidence(first, None, classes, np.zeros(len(given), np.int64), given, self.own, rest)


def row_content(proba: Floats, given: Ints, known: Ints) -> np.ndarray:
    """(n,) uint64 from probabilities (n, K) float32, given labels and answers (n,): equal for equal rows, whatever the rows'
    and the classes' order. A class is known by its sum of probabilities and its labels, both counted in whole numbers; classes that
    are alike in both, by the rows that hold them, for as long as that tells more of them apart."""
    with np.errstate(over="ignore"):
        fine = (proba * np.float32(1 << 24)).astype(np.uint64)
        own = fine[np.arange(len(given)), given]
        tag = _mixed(_mixed(fine.sum(axis=0)) + np.bincount(given, minlength=proba.shape[1]).astype(np.uint64))
        apart = len(np.unique(tag))
        while True:
            content = _mixed(fine @ (tag | np.uint64(1))) + _mixed(own ^ tag[given]) + _answer_content(tag, known)
            if apart == len(tag):
                return content
            labelled = np.zeros_like(tag)
            np.add.at(labelled, given, content)
            tag = _mixed(_mixed(tag + np.einsum("i,ij->j", content, fine)) + labelled)
            before, apart = apart, len(np.unique(tag))
            if apart == before:
                return content


def _answer_content(tag: np.ndarray, known: Ints) -> np.ndarray:
    """(n,) uint64 of the answers (n,), by their classes' tags (K,); 0 where there is none."""
    return np.where(known == NO_LABEL, np.uint64(0), _mixed(~tag[known]))


def exact_content(values: Floats, *classes: Ints) -> np.ndarray:
    """(n,) uint64, equal only for rows that are the same number by number: values (n, C) float32, each of classes (n,)."""
    with np.errstate(over="ignore"):
        code = _bits(values) @ _scramble(values.shape[1])
        for one in classes:
            code = _mixed(code) + one.astype(np.uint64)
        return _mixed(code)


def content_order(content: np.ndarray, exact: np.ndarray, seed: int) -> Ints:
    """(n,) positions in a random order that depends on the rows' content (n,) uint64, not on their place.

    Rows of equal content are told apart by how many came before, so that none of them is favoured. Which of them comes
    first is for ``exact`` (n,) uint64 to say, see :func:`exact_content`: content may be equal where rows are not, as with
    classes that are alike, or with answers. What that leaves equal is the same row twice.
    """
    with np.errstate(over="ignore"):
        code = _mixed(content)
        order = np.lexsort((exact, code))
        ranked = code[order]
        starts = np.r_[True, ranked[1:] != ranked[:-1]]
        first = np.maximum.accumulate(np.where(starts, np.arange(len(code)), 0))
        turn = (np.arange(len(code)) - first).astype(np.uint64)
        again = _mixed(ranked + np.uint64(0x9E3779B97F4A7C15) * (turn + np.uint64(seed + 1)))
    return order[np.argsort(again, kind="stable")]


def _row_codes(logs: Floats, floor: float) -> np.ndarray:
    """(n,) uint64, equal for rows whose log-probabilities (n, C) float32 are equal above that of ``floor``."""
    seen = np.maximum(logs, np.float32(np.log(floor)))
    with np.errstate(over="ignore"):
        return _bits(seen) @ _scramble(logs.shape[1])


def _scramble(columns: int) -> np.ndarray:
    """(C,) uint64, odd: what each column counts in a code."""
    with np.errstate(over="ignore"):
        return _mixed(np.arange(1, columns + 1, dtype=np.uint64)) | np.uint64(1)


def _bits(values: Floats) -> np.ndarray:
    return np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)


def _mixed(z: np.ndarray) -> np.ndarray:
    """splitmix64."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
