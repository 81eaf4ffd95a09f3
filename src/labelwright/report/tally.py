"""Counting over batches, each seen once: what the report needs fits in memory however long the stream was."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from labelwright.ledger import Records
from labelwright.report.reading import UNKNOWN
from labelwright.types import NO_LABEL, Floats, Ints, Verdict

DOUBTFUL = 10
NOTES = 5
FATES = ("kept", "corrected", "expert", "asked", "rejected", "waiting")
"""What can have become of a row: kept as given, given another label, settled by an expert, asked without an answer
yet, dropped, waiting in the buffer."""


def fates(records: Records) -> dict[str, Any]:
    """Each of :data:`FATES` as a mask over the rows."""
    verdict, said = records.verdict, records.label != NO_LABEL
    return {
        "kept": np.isin(verdict, (Verdict.TRUSTED, Verdict.RESCUED)),
        "corrected": verdict == Verdict.CORRECTED,
        "expert": (verdict == Verdict.ASKED) & said,
        "asked": (verdict == Verdict.ASKED) & ~said,
        "rejected": np.isin(verdict, (Verdict.REJECTED, Verdict.QUARANTINED)),
        "waiting": verdict == Verdict.BUFFERED,
    }


def doubts(records: Records, settled: Any) -> Floats:
    """(n,) probability that the given label is wrong; 0 or 1 where an expert settled it."""
    return np.where(settled, (records.label != records.given).astype(float), 1.0 - records.score)


@dataclass
class Tally:
    """Sums over the batches added so far. classes: K. truth: counts of :meth:`_judge`, empty without truth."""

    classes: int
    rows: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    fates: Counter[str] = field(default_factory=Counter)
    batches: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    moves: Counter[tuple[int, int]] = field(default_factory=Counter)
    truth: Counter[str] = field(default_factory=Counter)
    last: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.given, self.doubt, self.trusted = np.zeros((3, self.classes))
        self._worst: list[tuple[float, int, dict[str, Any]]] = []

    def add(self, entry: Mapping[str, Any], records: Records, true: Ints | None) -> None:
        """Count one batch. true: (n,) its true classes, see :func:`~labelwright.report.reading.true_labels`."""
        masks = fates(records)
        doubt = doubts(records, masks["expert"])
        sums = {name: int(mask.sum()) for name, mask in masks.items()}
        self.rows += len(records.keys)
        self.fates.update(sums)
        self.verdicts.update(Verdict(int(v)).word for v in records.verdict)
        self._by_class(records, masks, doubt)
        self._doubtful(entry, records, masks["expert"] | (np.array(records.decider, object) == "owner"))
        self.batches.append(self._batch(entry, sums, doubt, records.given, true))
        if true is not None:
            self._judge(records, masks, true)
        note = str(entry["body"].get("note") or "")
        if note and note not in self.notes and len(self.notes) < NOTES:
            self.notes.append(note)
        self.last = dict(entry["body"])

    def worst(self) -> list[dict[str, Any]]:
        """The most doubtful rows, lowest score first."""
        return [row for _, _, row in sorted(self._worst, key=lambda item: (-item[0], -item[1]))]

    def _batch(
        self, entry: Mapping[str, Any], sums: dict[str, int], doubt: Floats, given: Ints, true: Ints | None
    ) -> Any:
        noise = entry["body"].get("noise") or {}
        known = true != UNKNOWN if true is not None else np.zeros(0, bool)
        wrong = float((given != true)[known].mean()) if true is not None and known.any() else None
        return {
            "batch": entry["batch"],
            "number": int(entry["number"]),
            "at": entry["at"],
            "rows": len(given),
            **sums,
            "noise_so_far": noise.get("rate"),
            "noise_interval": noise.get("interval"),
            "noise_here": float(doubt.mean()) if len(doubt) else None,
            "true_noise": wrong,
        }

    def _by_class(self, records: Records, masks: dict[str, Any], doubt: Floats) -> None:
        k = self.classes
        self.given += np.bincount(records.given, minlength=k)
        self.doubt += np.bincount(records.given, weights=doubt, minlength=k)
        self.trusted += np.bincount(records.given[masks["kept"]], minlength=k)
        moved = (records.label != NO_LABEL) & (records.label != records.given)
        self.moves.update(zip(records.given[moved].tolist(), records.label[moved].tolist(), strict=True))

    def _doubtful(self, entry: Mapping[str, Any], records: Records, settled: Any) -> None:
        open_rows = np.flatnonzero(~settled)
        for at in open_rows[np.argsort(records.score[open_rows], kind="stable")[:DOUBTFUL]]:
            key = int(records.keys[at])
            row = {"key": key, "id": records.ids[at], "batch": entry["batch"], "decider": records.decider[at]}
            row |= {name: int(getattr(records, name)[at]) for name in ("verdict", "given", "label")}
            row |= {"score": float(records.score[at]), "proba": float(records.proba[at])}
            item = (-row["score"], -key, row)
            if len(self._worst) < DOUBTFUL:
                heapq.heappush(self._worst, item)
            else:
                heapq.heappushpop(self._worst, item)

    def _judge(self, records: Records, masks: dict[str, Any], true: Ints) -> None:
        known = true != UNKNOWN
        wrong = known & (records.given != true)
        kept = known & (records.label != NO_LABEL)
        dropped = known & (masks["rejected"] | masks["waiting"])
        doubted = known & ~masks["kept"]
        right = records.label == true
        unvouched = known & (np.array(records.decider, object) != "owner")
        counts = {
            "rows": known,
            "wrong": wrong,
            "unvouched": unvouched,
            "unvouched_wrong": unvouched & wrong,
            "kept": kept,
            "kept_right": kept & right,
            "kept_given_right": kept & ~wrong,
            "dropped": dropped,
            "dropped_wrong": dropped & wrong,
            "doubted": doubted,
            "doubted_wrong": doubted & wrong,
            "corrected": known & masks["corrected"],
            "corrected_right": known & masks["corrected"] & right,
            "expert": known & masks["expert"],
            "expert_right": known & masks["expert"] & right,
        }
        self.truth.update({name: int(mask.sum()) for name, mask in counts.items()})


def binned(batches: list[dict[str, Any]], limit: int = 60) -> list[dict[str, Any]]:
    """Neighbouring batches together, so that at most ``limit`` groups are left. Each has a label, e.g. "7–12"."""
    size = max(1, -(-len(batches) // limit))
    out = []
    for start in range(0, len(batches), size):
        part = batches[start : start + size]
        label = f"{start + 1}" if len(part) == 1 else f"{start + 1}–{start + len(part)}"
        out.append({"label": label, "first": start + 1, "last": start + len(part)})
        out[-1] |= {name: sum(b[name] for b in part) for name in ("rows", *FATES)}
        out[-1]["noise_so_far"] = part[-1]["noise_so_far"]
    return out
