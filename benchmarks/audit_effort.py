"""Labels corrected per expert answer: whom to ask first, and what each answer is worth.

    python benchmarks/audit_effort.py [--seeds 3] [--output experiments/results/audit-effort.json]

All cells of audit_cells.py, the audit's defaults. The expert is always right. Orders: ours (the running posterior, updated by
every answer), ours without updates, cleanlab's (the better of self_confidence and normalized_margin, cell by cell, an advantage
that no user has), random (corrects the noise rate per answer, computed), perfect (corrects one). For each: errors found per
answer until half of the errors are found (a perfect order has 1), and the area under "share of errors found" against
"share of the rows answered". Needs what audit_quality.py needs.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from audit_cells import Cell, cells  # first: it sets the number of threads
from sklearn.metrics import average_precision_score

import labelwright
from labelwright.bench.provenance import provenance

POINTS = 200


def until_half(hits: np.ndarray, errors: int) -> float:
    """Errors found per answer when half of all have been found. hits: (n,) whether each answer in turn corrected a label."""
    half = (errors + 1) // 2
    answers = int(np.searchsorted(np.cumsum(hits), half)) + 1
    return half / answers


def area(hits: np.ndarray, errors: int) -> float:
    """Area under the share of errors found against the share of rows answered, 0 to 1."""
    return float((np.cumsum(hits) / errors).mean())


def asked_in_turn(audit: labelwright.Audit, true: np.ndarray) -> np.ndarray:
    """(n,) whether each answer corrected a label, asking by the running posterior to the last row with a wrong label."""
    running = audit.running()
    given = audit.labels.codes
    wrong = given != true
    left, hits = int(wrong.sum()), np.zeros(len(given), bool)
    for turn in range(len(given)):
        row = running.ask()
        hits[turn] = wrong[row]
        running.tell(row, int(true[row]))
        left -= int(wrong[row])
        if left == 0:
            break
    return hits


def measured(cell: Cell) -> dict[str, Any]:
    """One cell: every order's figures and curve."""
    from cleanlab.rank import get_label_quality_scores

    given, true, proba = cell.load()
    wrong = given != true
    errors = int(wrong.sum())
    audit = labelwright.audit(given, proba)
    plain = proba / proba.sum(axis=1, keepdims=True)
    start = time.perf_counter()
    orders = {"ours": asked_in_turn(audit, true)}
    seconds = time.perf_counter() - start
    orders["without updates"] = wrong[audit.ranking]
    theirs = [
        wrong[np.argsort(get_label_quality_scores(given, plain, method=m), kind="stable")]
        for m in ("self_confidence", "normalized_margin")
    ]
    orders["cleanlab"] = max(theirs, key=lambda hits: area(hits, errors))
    orders["perfect"] = np.arange(len(given)) < errors
    marks = np.linspace(0, len(given) - 1, POINTS).astype(int)
    out = {
        "dataset": cell.dataset,
        "noise": cell.noise,
        "model": cell.model,
        "seed": cell.seed,
        "rows": len(given),
        "errors": errors,
        "auprc": 100 * average_precision_score(wrong, -audit.whole.score),
        "ms_per_answer": 1000 * seconds / max(1, int(np.flatnonzero(orders["ours"]).max()) + 1),
        "orders": {
            name: {
                "per_answer_until_half": until_half(hits, errors),
                "area": area(hits, errors),
                "curve": np.round((np.cumsum(hits) / errors)[marks], 4).tolist(),
            }
            for name, hits in orders.items()
        },
    }
    best = max(until_half(hits, errors) for hits in theirs)
    out["orders"]["cleanlab"]["per_answer_until_half"] = best
    out["orders"]["random"] = {"per_answer_until_half": errors / len(given), "area": 0.5}
    return out


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The two things asked for, and where they do not hold."""
    good = [r for r in found if r["auprc"] >= 90]
    short = [r for r in good if r["orders"]["ours"]["per_answer_until_half"] < 0.9]
    smaller = [r for r in found if r["orders"]["ours"]["area"] <= r["orders"]["cleanlab"]["area"]]

    def named(rows: list[dict[str, Any]], what: str) -> list[str]:
        return [
            f"{r['dataset']} {r['noise']} {r['model']} seed {r['seed']}: {r['orders']['ours'][what]:.5f} "
            f"(cleanlab {r['orders']['cleanlab'][what]:.5f})"
            for r in rows
        ]

    def mean(order: str, what: str) -> float:
        return float(np.mean([r["orders"][order][what] for r in found]))

    return {
        "runs": len(found),
        "auprc_at_least_90": len(good),
        "of_these_at_least_0.9_until_half": len(good) - len(short),
        "least_until_half_of_these": min(r["orders"]["ours"]["per_answer_until_half"] for r in good),
        "short": named(short, "per_answer_until_half"),
        "area_larger_than_cleanlab": len(found) - len(smaller),
        "smaller": named(smaller, "area"),
        "mean_until_half": {
            o: mean(o, "per_answer_until_half") for o in ("ours", "without updates", "cleanlab", "random")
        },
        "mean_area": {o: mean(o, "area") for o in ("ours", "without updates", "cleanlab", "perfect")},
    }


def draw(found: list[dict[str, Any]], path: Path) -> None:
    """Share of errors found against answers per error, mean of seeds, one panel a data set and noise."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    datasets = list(dict.fromkeys(r["dataset"] for r in found))
    noises = list(dict.fromkeys(r["noise"] for r in found))
    looks = {
        "perfect": ("#8a929d", ":"), "ours": ("#2f6aa8", "-"), "without updates": ("#7550a5", "--"), "cleanlab": ("#bd4630", "-."),
    }  # fmt: skip
    figure, axes = plt.subplots(
        len(datasets), len(noises), figsize=(2.9 * len(noises), 2.4 * len(datasets)), squeeze=False, sharey=True
    )
    for axis, (dataset, noise) in zip(axes.flat, [(d, n) for d in datasets for n in noises], strict=True):
        rows = [r for r in found if (r["dataset"], r["noise"]) == (dataset, noise) and r["model"] == "logistic"]
        for order, (colour, dash) in looks.items():
            if rows:
                x = np.linspace(0, 1, POINTS) * rows[0]["rows"] / np.mean([r["errors"] for r in rows])
                y = 100 * np.mean([r["orders"][order]["curve"] for r in rows], axis=0)
                axis.plot(np.r_[0, x], np.r_[0, y], color=colour, ls=dash, lw=1.5, label=order)
        axis.plot(
            [0, 2.5],
            [0, 250 * rows[0]["errors"] / rows[0]["rows"]] if rows else [0, 0],
            color="#d19a3a",
            lw=1,
            label="random",
        )
        axis.set(xlim=(0, 2.5), ylim=(0, 102))
        axis.set_title(f"{dataset}, {noise.replace('-', ' ')} %", fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    for axis in axes[-1]:
        axis.set_xlabel("answers per wrong label")
    for axis in axes[:, 0]:
        axis.set_ylabel("wrong labels found, %")
    axes[0, -1].legend(fontsize=7, frameon=False, loc="lower right")
    figure.suptitle("Wrong labels found against expert answers (logistic regression, mean of seeds)", fontsize=11)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--output", type=Path)
    parser.add_argument(
        "--ready-only", action="store_true", help="leave out cells whose probabilities are not made yet"
    )
    options = parser.parse_args()
    chosen = [cell for cell in cells(options.seeds) if cell.path.exists() or not options.ready_only]
    with ProcessPoolExecutor(options.workers) as pool:
        found = list(pool.map(measured, chosen))
    result = summary(found)
    print(json.dumps(result, indent=1))
    if options.output is not None:
        draw(found, options.output.with_suffix(".png"))
        command = f"python benchmarks/audit_effort.py --seeds {options.seeds}"
        told = [
            {**r, "orders": {o: {k: v for k, v in f.items() if k != "curve"} for o, f in r["orders"].items()}}
            for r in found
        ]
        options.output.write_text(json.dumps({**result, "cells": told, "provenance": provenance(command)}, indent=1))


if __name__ == "__main__":
    main()
