"""Rows to compare with: the nearest trusted examples of a class, and which values of a row are odd among trusted ones."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from labelwright.errors import LabelwrightError
from labelwright.ledger import History
from labelwright.tables import Encoder, together
from labelwright.types import NO_LABEL, Bools, Floats, Ints, Verdict

log = logging.getLogger("labelwright")

PER_CLASS = 200
BATCHES = 40
ROWS = 20_000
RARE = 0.01
FEW = 100
FRESH = 10.0
"""Seconds after which newer examples are looked for."""


@dataclass(frozen=True)
class Spread:
    """What trusted rows look like in one column. low, high: where 98 of 100 numbers lie; counts: of the values, else."""

    low: float = 0.0
    high: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    rows: int = 0

    def odd(self, value: Any) -> str:
        """Why a value is odd, in words; "" when it is not.

        >>> Spread(low=0.0, high=12.0, rows=500).odd(40)
        'unusual: 98 of 100 lie between 0 and 12'
        """
        if self.rows < FEW or value is None:
            return ""
        if isinstance(value, int | float) and not isinstance(value, bool) and not self.counts:
            inside = self.low <= value <= self.high
            return "" if inside else f"unusual: 98 of 100 lie between {self.low:.6g} and {self.high:.6g}"
        times = self.counts.get(str(value), 0)
        return f"rare: {times} of {self.rows:,} rows" if self.counts and times < RARE * self.rows else ""


@dataclass(frozen=True)
class Sample:
    """Trusted rows: keys (n,), label (n,), features X (n, d); spreads of their columns. sure (n,): a person vouches for it."""

    keys: Ints
    label: Ints
    sure: Bools
    X: Floats
    spreads: dict[str, Spread]


class Examples:
    """Trusted rows of the latest batches, renewed in the background as the ledger grows.

    history: of the ledger. hidden: columns that people must not see.
    """

    def __init__(self, history: History, hidden: frozenset[str]):
        self.history, self.hidden = history, hidden
        self.avoided: set[int] = set()  # rows that test people: an example would tell their label
        self._encoder: Encoder | None = None
        self._sample: Sample | None = None
        self._turn, self._at, self._seen = threading.Lock(), 0.0, -1

    def near(self, row: pa.Table, label: int, count: int = 4, *, but: int = -1) -> list[int]:
        """Keys of the trusted rows of a class that are nearest to this one (Euclidean, as the models see them), near first; of
        those that a person vouches for, where there are enough."""
        sample = self._renewed()
        encoder = self._encoder
        if sample is None or encoder is None or label == NO_LABEL:
            return []
        mine = np.flatnonzero((sample.label == label) & (sample.keys != but))
        if sample.sure[mine].sum() >= count:
            mine = mine[sample.sure[mine]]
        if not len(mine):
            return []
        with self._turn:  # the encoder counts what did not fit
            x = encoder.transform(row)[0]
        gap = ((sample.X[mine] - x) ** 2).sum(axis=1)
        return [int(sample.keys[mine[at]]) for at in np.argsort(gap, kind="stable")[:count]]

    def rival(self, row: pa.Table, label: int) -> int | None:
        """The class other than ``label`` whose trusted rows are nearest; None when there is none."""
        sample, encoder = self._renewed(), self._encoder
        others = np.flatnonzero(sample.label != label) if sample is not None else np.empty(0, np.int64)
        if sample is None or encoder is None or not len(others):
            return None
        with self._turn:
            x = encoder.transform(row)[0]
        return int(sample.label[others[((sample.X[others] - x) ** 2).sum(axis=1).argmin()]])

    def odd(self, column: str, value: Any) -> str:
        """Why a value is odd among trusted rows; "" when it is not, or nothing is known."""
        sample = self._renewed()
        spread = sample.spreads.get(column) if sample else None
        return spread.odd(value) if spread else ""

    def _renewed(self) -> Sample | None:
        """The present sample; a newer one is made beside, and waited for only when there is none."""
        if time.monotonic() - self._at > FRESH and self._turn.acquire(blocking=self._sample is None):
            try:
                if time.monotonic() - self._at > FRESH:
                    self._at = time.monotonic()
                    if self._sample is None:
                        self._renew()
                    else:
                        threading.Thread(target=self._renew, daemon=True).start()
            finally:
                self._turn.release()
        return self._sample

    def _renew(self) -> None:
        try:
            numbers = [int(entry["number"]) for entry in self.history.batches()]
            if not numbers or numbers[-1] == self._seen:
                return
            stored = self.history.encoder()
            if self._encoder is None and stored is not None:
                self._encoder = Encoder.from_bytes(stored)
            if stored is not None:
                self._sample, self._seen = self._gathered(numbers, Encoder.from_bytes(stored)), numbers[-1]
        except LabelwrightError as error:  # the page goes on without examples
            log.warning("no newer examples: %s", error)

    def _gathered(self, numbers: list[int], encoder: Encoder) -> Sample | None:
        """Up to 200 rows of each class, out of the first batch (its owner vouches for most) and the newest 40."""
        held: Counter[int] = Counter()
        keys: list[Ints] = []
        labels: list[Ints] = []
        vouched: list[Bools] = []
        tables: list[pa.Table] = []
        out = [*self.history.erased(), *self.avoided]
        for number in dict.fromkeys([numbers[0], *numbers[::-1][:BATCHES]]):
            records = self.history.records(number)
            trusted = np.isin(records.verdict, (Verdict.TRUSTED, Verdict.ASKED)) & (records.label != NO_LABEL)
            chosen = []
            for at in np.flatnonzero(trusted & ~np.isin(records.keys, out)).tolist():
                label = int(records.label[at])
                if held[label] < PER_CLASS and len(keys) < ROWS:
                    held[label] += 1
                    chosen.append(at)
            table = self.history.table(number) if chosen else None
            if table is None:
                continue
            keys.append(records.keys[chosen])
            labels.append(records.label[chosen])
            asked = records.verdict[chosen] == Verdict.ASKED
            vouched.append(asked | np.array([records.decider[at] == "owner" for at in chosen], bool))
            tables.append(table.take(chosen))
            if sum(held.values()) >= ROWS or (
                len(held) == len(self.history.classes) and min(held.values()) >= PER_CLASS
            ):
                break
        if not tables:
            return None
        table = together(tables)
        X, spreads = encoder.transform(table), self._spreads(table)
        return Sample(np.concatenate(keys), np.concatenate(labels), np.concatenate(vouched), X, spreads)

    def _spreads(self, table: pa.Table) -> dict[str, Spread]:
        out = {}
        for name in table.column_names:
            kind = table.schema.field(name).type
            if name in self.hidden:
                continue
            if pa.types.is_integer(kind) or pa.types.is_floating(kind):
                values = np.array([v for v in table.column(name).to_pylist() if v is not None], float)
                values = values[np.isfinite(values)]
                if len(values):
                    low, high = np.quantile(values, (0.01, 0.99))
                    out[name] = Spread(float(low), float(high), rows=len(values))
            elif pa.types.is_string(kind) or pa.types.is_boolean(kind) or pa.types.is_dictionary(kind):
                counts = Counter(str(v) for v in table.column(name).to_pylist() if v is not None)
                if len(counts) <= max(20, table.num_rows // 20):  # categories, not free text
                    out[name] = Spread(counts=dict(counts), rows=sum(counts.values()))
        return out
