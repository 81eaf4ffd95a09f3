"""How well the audit finds wrong labels, against cleanlab's defaults on the same probabilities.

    python benchmarks/audit_quality.py [--seeds 3] [--output experiments/results/audit-quality.json]

All cells of audit_cells.py. Rival: cleanlab 2.9, its default filter (F1) and the better of its self_confidence and
normalized_margin rankings cell by cell (AUPRC), an advantage that no user has. Control: the probability of the given label.
Needs: cleanlab (in the dev extra: a rival, not a dependency) and LABELWRIGHT_DATA.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from audit_cells import DATASETS, MODELS, NOISES, Cell, cells  # first: it sets the number of threads
from sklearn.metrics import average_precision_score

import labelwright
from labelwright.bench.provenance import provenance

WANTED = {"auprc_worst": -0.2, "auprc_mean": 0.5, "f1_worst": -1.0, "f1_mean": 2.0}


def f1(flagged: np.ndarray, wrong: np.ndarray) -> float:
    """F1 of a mask against the wrong labels, in percent."""
    return 200.0 * float((flagged & wrong).sum()) / max(1, int(flagged.sum() + wrong.sum()))


def rates(flagged: np.ndarray, wrong: np.ndarray) -> tuple[float, float]:
    """Precision and recall in percent."""
    hit = float((flagged & wrong).sum())
    return 100 * hit / max(1, int(flagged.sum())), 100 * hit / max(1, int(wrong.sum()))


def against_cleanlab(
    audit: labelwright.Audit, given: np.ndarray, proba: np.ndarray, wrong: np.ndarray
) -> dict[str, Any]:
    """AUPRC of the score (cleanlab's: the better of two), F1, precision and recall of the flags, in percent, of an audit and of cleanlab's
    defaults on the same out-of-sample ``proba`` (n, K); wrong: (n,) truth."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    flags = {"": audit.flagged, "_cleanlab": find_label_issues(given, proba, n_jobs=1)}
    ranks = [get_label_quality_scores(given, proba, method=m) for m in ("self_confidence", "normalized_margin")]
    return {
        "auprc": 100 * average_precision_score(wrong, -audit.whole.score),
        "auprc_cleanlab": 100 * max(average_precision_score(wrong, -rank) for rank in ranks),
        **{f"f1{who}": f1(flag, wrong) for who, flag in flags.items()},
        **{f"precision_recall{who}": rates(flag, wrong) for who, flag in flags.items()},
    }


def measured(cell: Cell) -> dict[str, Any]:
    """One cell: ours, cleanlab's, the control's."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    given, true, proba = cell.load()
    wrong = given != true
    start = time.perf_counter()
    ours = labelwright.audit(given, proba)
    seconds = time.perf_counter() - start
    plain = proba / proba.sum(axis=1, keepdims=True)
    start = time.perf_counter()
    theirs = find_label_issues(given, plain, n_jobs=1)
    their_seconds = time.perf_counter() - start
    auprc = {
        method: 100 * average_precision_score(wrong, -get_label_quality_scores(given, plain, method=method))
        for method in ("self_confidence", "normalized_margin")
    }
    mine = 100 * average_precision_score(wrong, -ours.whole.score)
    (p, r), (cp, cr) = rates(ours.flagged, wrong), rates(theirs, wrong)
    return {
        "dataset": cell.dataset,
        "noise": cell.noise,
        "model": cell.model,
        "seed": cell.seed,
        "rows": len(given),
        "model_accuracy": 100 * float((proba.argmax(axis=1) == true).mean()),
        "wrong_share": 100 * float(wrong.mean()),
        "noise_rate": [100 * x for x in (ours.noise_rate, ours.noise_rate.low, ours.noise_rate.high)],
        "ours": {"auprc": mine, "f1": f1(ours.flagged, wrong), "precision": p, "recall": r, "seconds": seconds},
        "cleanlab": {
            **{f"auprc_{m}": v for m, v in auprc.items()},
            "auprc": max(auprc.values()),
            "f1": f1(theirs, wrong),
            "precision": cp,
            "recall": cr,
            "seconds": their_seconds,
        },
        "suggestions_right": 100 * float((ours.whole.predicted == true)[wrong & ours.flagged].mean()),
    }


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The four figures that are asked for: per run (cell and seed) and per cell (mean of its seeds)."""

    def told(rows: list[tuple[float, float]]) -> dict[str, float]:
        d = np.array(rows)
        return {
            "auprc_mean": float(d[:, 0].mean()),
            "auprc_worst": float(d[:, 0].min()),
            "f1_mean": float(d[:, 1].mean()),
            "f1_worst": float(d[:, 1].min()),
            "count": len(d),
        }

    runs = [(r["ours"]["auprc"] - r["cleanlab"]["auprc"], r["ours"]["f1"] - r["cleanlab"]["f1"]) for r in found]
    groups: dict[tuple[str, ...], list[tuple[float, float]]] = {}
    for row, pair in zip(found, runs, strict=True):
        groups.setdefault((row["dataset"], row["noise"], row["model"]), []).append(pair)
    means = [(float(np.mean([p[0] for p in g])), float(np.mean([p[1] for p in g]))) for g in groups.values()]
    lower = [
        f"{row['dataset']} {row['noise']} {row['model']} seed {row['seed']}: {pair[0]:+.2f}"
        for row, pair in zip(found, runs, strict=True)
        if pair[0] < WANTED["auprc_worst"]
    ]
    return {"wanted": WANTED, "by_cell": told(means), "by_run": told(runs), "auprc_lower_than_wanted": lower}


def table(found: list[dict[str, Any]]) -> str:
    """Means over seeds, one line a cell."""
    lines = [
        f"{'cell':34s} {'AUPRC ours':>10s} {'theirs':>7s} {'diff':>6s} | {'F1 ours':>7s} {'theirs':>7s} {'diff':>6s}"
    ]
    for model in MODELS:
        for dataset in DATASETS:
            for noise in NOISES:
                rows = [r for r in found if (r["dataset"], r["noise"], r["model"]) == (dataset, noise, model)]
                if not rows:
                    continue
                a, b, c, d = (
                    float(np.mean([r[who][what] for r in rows]))
                    for who, what in (("ours", "auprc"), ("cleanlab", "auprc"), ("ours", "f1"), ("cleanlab", "f1"))
                )
                name = f"{dataset} {noise} {model}"
                lines.append(f"{name:34s} {a:10.2f} {b:7.2f} {a - b:+6.2f} | {c:7.2f} {d:7.2f} {c - d:+6.2f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    parser.add_argument(
        "--ready-only", action="store_true", help="leave out cells whose probabilities are not made yet"
    )
    options = parser.parse_args()
    chosen = [cell for cell in cells(options.seeds) if cell.path.exists() or not options.ready_only]
    found = [measured(cell) for cell in chosen]
    result = summary(found)
    print(table(found))
    print(json.dumps(result, indent=1))
    if options.output is not None:
        command = f"python benchmarks/audit_quality.py --seeds {options.seeds}"
        options.output.write_text(json.dumps({**result, "runs": found, "provenance": provenance(command)}, indent=1))


if __name__ == "__main__":
    main()
