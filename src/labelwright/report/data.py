"""What the report says, as plain data: :func:`report_data`."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from labelwright.ledger import History
from labelwright.report import reading, words
from labelwright.report.rows import belief, cells, erased
from labelwright.report.tally import Tally
from labelwright.types import NO_LABEL, Verdict

if TYPE_CHECKING:
    from labelwright.runner import StateFolder

MATRIX_CLASSES = 20
PAIRS = 15
OPEN = 20
PACKAGES = ("labelwright", "numpy", "scikit-learn", "pyarrow")


def report_data(state: StateFolder, *, truth: bool = True, models: bool = True) -> dict[str, Any]:
    """Everything the report says, as JSON values.

    truth: compare with the truth column, where the run has one; off, it is not read. models: load the models to name
    the class they believe in where the ledger does not tell it (takes seconds). Raises LedgerError when there is no
    ledger.
    """
    history = state.history()
    try:
        tally = Tally(len(history.classes))
        for entry in reading.entries(history, "batch"):
            number = int(entry["number"])
            records = history.records(number)
            tally.add(entry, records, reading.true_labels(history, number, records.keys) if truth else None)
        return _assembled(state, history, tally, truth=truth, models=models)
    finally:
        history.engine.dispose()


def _assembled(state: StateFolder, history: History, tally: Tally, *, truth: bool, models: bool) -> dict[str, Any]:
    settings, asked, aside = history.settings, history.questions(), reading.set_aside(history)
    judged = _judged(tally.truth)
    noise = _noise(tally)
    questions = _questions(history, asked, noise, judged)
    totals = _totals(tally, questions, aside["count"])
    return {
        "headline": words.headline(totals, noise),
        "totals": totals,
        "noise": noise,
        "assumptions": words.assumptions(settings, tally.notes),
        "accuracy": _accuracy(state, history),
        "batches": tally.batches,
        "confusion": _confusion(history, tally),
        "doubtful": _doubtful(state, history, tally, asked, truth=truth, models=models),
        "questions": questions,
        "set_aside": aside,
        "classes": _classes(history, tally),
        "truth": judged,
        "provenance": _provenance(state, history),
    }


def _totals(tally: Tally, questions: Mapping[str, Any], aside: int) -> dict[str, int]:
    fate, verdict = tally.fates, tally.verdicts
    return {
        "rows": tally.rows,
        "batches": len(tally.batches),
        "kept": fate["kept"] + fate["corrected"] + fate["expert"],
        "trusted": verdict["trusted"],
        "rescued": verdict["rescued"],
        "corrected": fate["corrected"],
        "expert": fate["expert"],
        "unanswered": fate["asked"],
        "asked": questions["asked"],
        "answered": questions["answered"],
        "rejected": fate["rejected"],
        "waiting": fate["waiting"],
        "set_aside": aside,
    }


def _noise(tally: Tally) -> dict[str, Any] | None:
    noise = tally.last.get("noise") or {}
    if noise.get("rate") is None:
        return None
    low, high = noise.get("interval") or (0.0, 1.0)
    disagreed = 1 - (tally.verdicts["trusted"] + tally.verdicts["rescued"]) / max(tally.rows, 1)
    return {"rate": float(noise["rate"]), "interval": [float(low), float(high)], "not_kept_as_given": disagreed}


def _accuracy(state: StateFolder, history: History) -> dict[str, Any]:
    learned = np.cumsum([int(e["body"].get("answers", 0)) for e in history.entries("commit") if e["batch"] is not None])
    ours = [
        {
            "batch": int(e["number"]),
            "accuracy": float(e["body"]["test_accuracy"]),
            "rows": e["body"].get("test_rows"),
            "answers": int(learned[int(e["number"])]) if int(e["number"]) < len(learned) else None,
        }
        for e in reading.entries(history, "measure")
        if "test_accuracy" in e["body"]
    ]
    comparison, problem = _comparison(state)
    return {"ours": ours, "last": ours[-1] if ours else None, "comparison": comparison, "problem": problem}


def _comparison(state: StateFolder) -> tuple[dict[str, Any] | None, str | None]:
    """({method: {"label", "curve" in percent}}, what is wrong with the file)."""
    path = state.path / "comparison.json"
    if not path.exists():
        return None, None
    try:
        methods = json.loads(path.read_text(encoding="utf-8"))["methods"]
        told = {
            str(key): {
                "label": str(method.get("label", key)),
                "curve": [float(v) for v in method["curve"]],
                "answers": [int(v) for v in method.get("answers") or ()],
            }
            for key, method in methods.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return None, f"comparison.json cannot be read ({type(error).__name__}: {error}); make it again."
    return {key: method for key, method in told.items() if method["curve"]} or None, None


def _confusion(history: History, tally: Tally) -> dict[str, Any]:
    transition = np.array(tally.last.get("transition") or [], float)
    names, k = list(history.classes), len(history.classes)
    if transition.shape != (k, k) or not k:
        return {"classes": names, "transition": None, "pairs": [], "sentence": "The noise was not estimated yet."}
    off = transition.copy()
    np.fill_diagonal(off, -1.0)
    top = np.argsort(-off, axis=None, kind="stable")[: min(PAIRS, k * k - k)]
    pairs = [{"true": names[i // k], "given": names[i % k], "probability": float(off.flat[i])} for i in top.tolist()]
    shown = transition.tolist() if k <= MATRIX_CLASSES else None
    return {"classes": names, "transition": shown, "pairs": pairs, "sentence": words.confusion(pairs)}


def _questions(
    history: History, asked: list[dict[str, Any]], noise: Mapping[str, Any] | None, judged: Mapping[str, Any] | None
) -> dict[str, Any]:
    order = reading.answer_order(history)
    answered = sorted((q for q in asked if q["answer"] is not None), key=lambda q: order.get(q["key"], 0))
    wrong = [int(q["answer"] not in (NO_LABEL, q["given"])) for q in answered]
    left = [q for q in asked if q["answer"] is None]
    random = judged["unvouched_share"] if judged else noise["rate"] if noise else None
    out = {
        "asked": len(asked),
        "answered": len(answered),
        "unsure": sum(q["answer"] == NO_LABEL for q in answered),
        "found_wrong": sum(wrong),
        "per_answer": sum(wrong) / len(wrong) if wrong else None,
        "random": random,
        "random_is_true": judged is not None and random is not None,
        "cost": float(sum(q["cost"] or 0 for q in answered)),
        "found": np.cumsum(wrong).tolist() if wrong else [],
        "open_total": len(left),
        "open": [
            {
                "id": q["id"],
                "given": history.name(int(q["given"])),
                "suggestion": history.name(int(q["suggestion"])),
                "confidence": float(q["confidence"]),
                "why": q["why"],
            }
            for q in left[:OPEN]
        ],
    }
    return {**out, "sentence": words.asked(out)}


def _doubtful(
    state: StateFolder, history: History, tally: Tally, asked: list[dict[str, Any]], *, truth: bool, models: bool
) -> list[dict[str, Any]]:
    worst = tally.worst()
    stored = reading.stored_rows(history, [row["key"] for row in worst])
    suggested = {int(q["key"]): (int(q["suggestion"]), float(q["confidence"])) for q in asked}
    beliefs = {row["key"]: belief(row, history.classes, suggested) for row in worst}
    nameless = {key: stored[key] for key, told in beliefs.items() if told["label"] is None and key in stored}
    if models and any(not erased(row) for row in nameless.values()):
        given = {row["key"]: row["given"] for row in worst}
        beliefs |= _believed_now(state, {key: row for key, row in nameless.items() if not erased(row)}, given)
    columns = history.settings.get("columns") or {}
    hidden = tuple(columns[c] for c in ("label", "id", "truth") if columns.get(c))
    out = []
    for row in worst:
        table = stored.get(row["key"])
        gone = "not stored" if table is None else "erased" if erased(table) else None
        true = (
            table.column(columns["truth"])[0].as_py() if truth and table is not None and columns.get("truth") else None
        )
        told = {
            "id": row["id"],
            "batch": row["batch"],
            "cells": [] if table is None or gone else cells(table, hidden),
            "gone": gone,
            "given": history.name(row["given"]),
            "score": row["score"],
            "belief": beliefs[row["key"]],
            "verdict": Verdict(row["verdict"]).word,
            "final": history.name(row["label"]),
            "decider": row["decider"],
        }
        out.append({**told, "true": None if true is None else str(true)})
    return out


def _believed_now(
    state: StateFolder, rows: Mapping[int, pa.Table], given: Mapping[int, int]
) -> dict[int, dict[str, Any]]:
    """Row key -> what the models as they are now believe of it; nothing when they cannot be loaded."""
    from labelwright.runner import reopened

    keys = list(rows)
    try:
        run = reopened(state)
        X = run.intake.encoder.transform(pa.concat_tables([rows[key] for key in keys]))
        proba = run.system.learners.classifier.proba(X)
        selector: Any = run.system.selector
        shares = selector.noise.posterior(proba, np.array([given[key] for key in keys], np.int64))
        run.ledger.engine.dispose()
    except Exception:  # a report without these names is better than none: the ledger may be of arrays, or half a run
        return {}
    best = shares.argmax(axis=1)
    found = zip(keys, best.tolist(), shares.max(axis=1).tolist(), strict=True)
    return {key: {"label": run.ledger.classes[b], "probability": p, "now": True} for key, b, p in found}


def _classes(history: History, tally: Tally) -> list[dict[str, Any]]:
    out = []
    targets: dict[int, tuple[int, int]] = {}
    for (given, label), times in tally.moves.items():
        if times > targets.get(given, (0, 0))[1]:
            targets[given] = (label, times)
    for code, name in enumerate(history.classes):
        n = int(tally.given[code])
        to, times = targets.get(code, (None, 0))
        out.append(
            {
                "class": name,
                "given": n,
                "trusted_share": float(tally.trusted[code] / n) if n else None,
                "corrected_to": None if to is None else history.name(to),
                "corrected_times": times,
                "error_rate": float(tally.doubt[code] / n) if n else None,
            }
        )
    return sorted(out, key=lambda c: -(c["error_rate"] if c["error_rate"] is not None else -1))


def _judged(counts: Mapping[str, int]) -> dict[str, Any] | None:
    """Shares from the counts of :meth:`Tally._judge`; None without truth."""
    if not counts.get("rows"):
        return None

    def share(part: str, whole: str) -> float | None:
        return counts.get(part, 0) / counts[whole] if counts.get(whole) else None

    shares = {
        "wrong_share": share("wrong", "rows"),
        "unvouched_share": share("unvouched_wrong", "unvouched"),
        "given_share": 1 - counts.get("wrong", 0) / counts["rows"],
        "kept_share": share("kept_right", "kept"),
        "kept_given_share": share("kept_given_right", "kept"),
        "dropped_precision": share("dropped_wrong", "dropped"),
        "dropped_recall": share("dropped_wrong", "wrong"),
        "doubted_precision": share("doubted_wrong", "doubted"),
        "doubted_recall": share("doubted_wrong", "wrong"),
        "corrected_share": share("corrected_right", "corrected"),
        "expert_share": share("expert_right", "expert"),
    }
    out = {**counts, **shares}
    return {**out, "sentence": words.judged(out)}


def _provenance(state: StateFolder, history: History) -> dict[str, Any]:
    entries, head = reading.head(history)
    versions = {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}
    return {
        "state": str(state.path),
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "entries": entries,
        "head": head,
        "settings": history.settings,
        "versions": versions,
        "verify": f"labelwright verify --state {state.path}",
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
