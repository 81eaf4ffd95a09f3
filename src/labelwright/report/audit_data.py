"""What an audit's report says, as values: only sums over all rows, and the few rows that are shown."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from labelwright.report.rows import cells
from labelwright.report.words import confusion, count, percent
from labelwright.tables import vector_column
from labelwright.types import NO_LABEL, Ints

if TYPE_CHECKING:
    from labelwright.auditing import Audit, Estimate

SHOWN, GROUPS, MEMBERS, ASKED = 60, 20, 6, 10
CLASSES, PAIRS, SOURCES, SQUARE = 200, 15, 50, 20
BINS = 50
MANY = 200_000
FEW_NUMBERS = 12
PACKAGES = ("labelwright", "numpy", "scipy", "scikit-learn")


def audit_data(audit: Audit, title: str = "") -> dict[str, Any]:
    """Everything that the page shows. audit: used by its public attributes only."""
    doubted = int(audit.flagged.sum())
    rows = _Rows(audit)
    open_ = audit.ranking[audit.flagged[audit.ranking] & (audit.known[audit.ranking] == NO_LABEL)]
    groups = conflicts(audit)
    return {
        "title": title or "Label audit",
        "headline": headline(audit),
        "second": second_line(audit),
        "rows": len(audit),
        "unlabelled": len(audit) - audit.whole.rows,
        "doubted": doubted,
        "share": doubted / max(audit.whole.rows, 1),
        "noise": estimate(audit.noise_rate),
        "precision": estimate(audit.precision) if doubted else None,
        "recall": estimate(audit.recall),
        "answers": int((audit.known != NO_LABEL).sum()),
        "rests_on": rests_on(audit),
        "notes": [note[:1].upper() + note[1:] for note in audit.notes],
        "scores": _histogram(audit),
        "confusion": _confusion(audit),
        "classes": _table(audit.classes, CLASSES),
        "class_count": len(audit.classes),
        "sources": None if audit.sources is None else _table(audit.sources, SOURCES),
        "source_count": 0 if audit.sources is None else len(audit.sources),
        "doubtful": rows.shown(open_[:SHOWN]),
        "open_doubted": len(open_),
        "duplicates": _duplicates(groups, rows),
        "questions": rows.named(audit.questions(ASKED)["position"].to_numpy()),
        "provenance": _provenance(audit),
    }


def headline(audit: Audit) -> str:
    """How many labels look wrong, and how many are estimated to be."""
    doubted, rows = int(audit.flagged.sum()), audit.whole.rows
    look = "looks" if doubted == 1 else "look"
    found = f"{doubted:,} of {count(rows, 'label')} {look} wrong ({percent(doubted / max(rows, 1))})"
    return f"{found}; estimated noise {percent(audit.noise_rate)} ({between(audit.noise_rate)})."


def second_line(audit: Audit) -> str:
    """How many of the doubted labels are wrong, and how that can be narrowed."""
    if not audit.flagged.any():
        return (
            f"If labels are wrong, they cannot be told from the others; at most {percent(audit.noise_rate.high)} are."
        )
    answers = int((audit.known != NO_LABEL).sum())
    how = f"after {count(answers, 'answer')}" if answers else "answer questions to narrow this"
    one = audit.flagged.sum() == 1
    which = "The chance that it is" if one else "Of these about"
    share = percent(audit.precision, 0)
    middle = f"{which} really wrong is about {share}" if one else f"{which} {share} are really wrong"
    return f"{middle} ({between(audit.precision, 0)}; {how})."


def between(value: Estimate, digits: int = 1) -> str:
    """An interval in words.

    >>> from labelwright.auditing import Estimate
    >>> between(Estimate(0.1, 0.05, 0.15))
    '5.0 to 15.0 %'
    """
    low, high = percent(value.low, digits), percent(value.high, digits)
    return f"{low.removesuffix(' %')} to {high}"


def rests_on(audit: Audit) -> str:
    """What the estimates of precision and recall rest on."""
    answers = int((audit.known != NO_LABEL).sum())
    if answers:
        found = int((audit.known[audit.known != NO_LABEL] != audit.labels.codes[audit.known != NO_LABEL]).sum())
        return (
            f"Experts answered for {count(answers, 'row')} and called {count(found, 'label')} wrong. How many others are wrong "
            "is read from a line that was fitted to these answers; more answers narrow the intervals, most of all those about rows "
            "that are near the decision line."
        )
    return (
        "Nobody has answered a question yet, so both shares rest on the probabilities alone. A model may be surer than "
        "it should be, or less sure: the intervals hold both. Answers narrow them."
    )


def estimate(value: Estimate) -> dict[str, float | str]:
    """A number with its interval, also in words."""
    return {"value": float(value), "low": value.low, "high": value.high, "between": between(value)}


def confused_pairs(audit: Audit, most: int = PAIRS) -> list[dict[str, Any]]:
    """The pairs of classes that are mistaken for each other in most rows: ``true``, ``given``, ``rows`` (expected number) and
    ``probability`` that a row of the true class comes with that label."""
    first, second = audit.whole.counts
    w, k = audit.judge.weight, audit.judge.classes
    both = type(first).of(
        np.concatenate([first.true, second.true]),
        np.concatenate([first.given, second.given]),
        k,
        np.concatenate([w * first.count, (1 - w) * second.count]),
    )
    of_true = np.bincount(both.true, both.count, minlength=k)
    off = np.flatnonzero((both.true != both.given) & (both.count >= 0.5))
    off = off[np.argsort(-both.count[off], kind="stable")][:most]
    names = audit.labels.names
    return [
        {
            "true": str(names[both.true[at]]),
            "given": str(names[both.given[at]]),
            "rows": float(both.count[at]),
            "probability": float(both.count[at] / max(of_true[both.true[at]], 1e-9)),
        }
        for at in off
    ]


def conflicts(audit: Audit) -> list[Ints] | None:
    """Groups of near-duplicates whose labels differ, as positions; None without features, and beyond 200,000 rows."""
    if audit.features is None or len(audit) > MANY:
        return None
    frame = audit.near_duplicates
    frame = frame[frame["conflict"]]
    return [np.asarray(at) for at in frame.groupby("group", sort=False)["position"].agg(list)]


def _histogram(audit: Audit) -> dict[str, list[float]]:
    score = audit.label_score
    counts, edges = np.histogram(score[np.isfinite(score)], bins=BINS, range=(0.0, 1.0))
    return {"counts": counts.tolist(), "edges": edges.tolist()}


def _confusion(audit: Audit) -> dict[str, Any]:
    names = [str(name) for name in audit.labels.names] if audit.judge.classes <= SQUARE else []
    pairs = confused_pairs(audit)
    strongest = sorted(pairs, key=lambda pair: -pair["probability"])
    return {
        "classes": names,
        "class_count": audit.judge.classes,
        "transition": audit.transition.to_numpy().tolist() if names else None,
        "pairs": pairs,
        "sentence": confusion(strongest),
    }


def _table(frame: Any, most: int) -> list[dict[str, Any]]:
    """The first rows of a frame; its index is the ``name``."""
    head = frame.head(most)
    told = head.reset_index(names="name").to_dict("records")
    for row in told:
        row["name"] = str(row["name"])
        row["between"] = f"{percent(row['low']).removesuffix(' %')} to {percent(row['high'])}"
    return list(told)


class _Rows:
    """Single rows, as a person should see them."""

    def __init__(self, audit: Audit):
        self.audit = audit

    def named(self, at: Ints) -> list[dict[str, Any]]:
        """Names, labels and scores of the rows at these positions."""
        a = self.audit
        given = a.labels.named(a.labels.codes[at])
        return [
            {
                "position": int(row),
                "id": str(row if a.ids is None else a.ids[row]),
                "given": None if label is None else str(label),
                "suggested": str(a.labels.names[a.whole.predicted[row]]),
                "probability": float(a.whole.probability[row]),
                "score": float(a.label_score[row]),
                "settled": bool(a.known[row] != NO_LABEL),
                "doubted": bool(a.flagged[row]),
            }
            for row, label in zip(at.tolist(), given, strict=True)
        ]

    def shown(self, at: Ints) -> dict[str, Any]:
        """The same with their content. pictures: whether each row is one picture and nothing else. bare: whether no
        row has content."""
        told = self.named(at)
        table = self._table(at)
        for place, row in enumerate(told):
            row["cells"] = [] if table is None else cells(table.slice(place, 1), ())
        alone = [len(row["cells"]) == 1 and bool(row["cells"][0]["picture"]) for row in told]
        bare = not any(row["cells"] for row in told)
        return {"rows": told, "pictures": bool(told) and all(alone), "bare": bare}

    def _table(self, at: Ints) -> pa.Table | None:
        if self.audit.rows is not None:
            return self.audit.rows.take(pa.array(at))
        features = self.audit.features
        if features is None or hasattr(features, "tocsr"):
            return None
        dense = np.asarray(features)[at].reshape(len(at), -1)
        table = pa.table({"x": vector_column(dense)})
        drawn = dense.shape[1] <= FEW_NUMBERS or any(cell["picture"] for cell in _first(table))
        return table if drawn else None


def _first(table: pa.Table) -> list[dict[str, Any]]:
    return cells(table.slice(0, 1), ()) if table.num_rows else []


def _duplicates(groups: Sequence[Ints] | None, rows: _Rows) -> dict[str, Any] | None:
    if groups is None:
        return None
    shown = [{**rows.shown(at[:MEMBERS]), "size": len(at)} for at in groups[:GROUPS]]
    return {
        "conflicts": len(groups),
        "groups": shown,
        "pictures": bool(shown) and all(group["pictures"] for group in shown),
    }


def _provenance(audit: Audit) -> dict[str, Any]:
    made = next((note for note in audit.notes if note.startswith("probabilities: ")), None)
    shape = f"{count(len(audit))} × {count(audit.proba.classes)}"
    how = made.removeprefix("probabilities: ") if made else "given; it was trusted that no row was seen in training"
    return {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "probabilities": f"{how} ({shape})",
        "fitted_on": audit.judge.rows,
        "seed": audit.seed,
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
