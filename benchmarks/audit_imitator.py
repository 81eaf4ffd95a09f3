"""Who judges labels better once an expert has answered: the audit's posterior, or an Expert that learned from the answers?

    python benchmarks/audit_imitator.py [--seeds 3] [--answers 200] [--output experiments/results/audit-imitator.json]

Cells of audit_cells.py with logistic regression. 200 rows, drawn by chance, are answered by an expert who is always right. Three
judges read the same out-of-sample probabilities, labels and answers: the audit; the plain posterior of methods section 5;
CopyNet's fusing Expert (:class:`labelwright.imitation.CopyImitator`), pulled towards that posterior. On the rows that nobody
answered: area under the precision-recall curve of wrong labels, and the share of rows whose likeliest label is right, in percent.
"""

from __future__ import annotations

import argparse
import json
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from audit_cells import Cell, cells  # first: it sets the number of threads
from sklearn.metrics import average_precision_score

import labelwright
from labelwright.bench.pieces import mean_and_interval
from labelwright.bench.provenance import provenance
from labelwright.imitation import CopyImitator, fused
from labelwright.posterior import NoiseModel
from labelwright.types import NO_LABEL

DATASETS = ("pendigits", "satimage", "usps")
JUDGES = ("audit", "posterior", "imitator")


def measured(cell: Cell, answers: int) -> dict[str, Any]:
    """One cell: AUPRC of wrong labels and accuracy of the likeliest label of each judge, on rows without an answer."""
    given, true, proba = cell.load()
    proba = np.clip(proba.astype(float), 1e-9, None)
    proba /= proba.sum(axis=1, keepdims=True)
    some = np.random.default_rng([cell.seed, 12]).permutation(len(true))[:answers]
    rest = np.setdiff1d(np.arange(len(true)), some)
    known = np.full(len(true), NO_LABEL)
    known[some] = true[some]
    audit = labelwright.audit(given, proba, answers={int(row): int(true[row]) for row in some})
    issues = audit.issues
    noise = NoiseModel.start(proba.shape[1]).updated(proba, given, known)
    imitator = CopyImitator()
    imitator.restore({"proba": proba[some], "given": given[some], "true": true[some]})
    judged = {
        "audit": (issues["label_score"].to_numpy(), issues["predicted_label"].to_numpy()),
        **{
            name: (share[np.arange(len(true)), given], share.argmax(axis=1))
            for name, share in (
                ("posterior", noise.posterior(proba, given)),
                ("imitator", fused(proba, given, *imitator._fitted(noise))),
            )
        },
    }
    wrong = given != true
    return {
        "cell": f"{cell.dataset} {cell.noise} seed {cell.seed}",
        **{
            name: {
                "auprc": 100 * float(average_precision_score(wrong[rest], -score[rest])),
                "right": 100 * float((label[rest] == true[rest]).mean()),
            }
            for name, (score, label) in judged.items()
        },
    }


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Means, the imitator's lead over either with its interval, and in how many cells it leads."""
    out: dict[str, Any] = {"cells": len(found)}
    for what in ("auprc", "right"):
        out[what] = {name: round(float(np.mean([r[name][what] for r in found])), 2) for name in JUDGES}
        for rival in ("audit", "posterior"):
            lead = [r["imitator"][what] - r[rival][what] for r in found]
            told = mean_and_interval(lead)
            out[what][f"imitator over {rival}"] = {
                "mean": told["mean"], "ci95": told["ci95"], "ahead": sum(x > 0 for x in lead), "behind": sum(x < 0 for x in lead),
            }  # fmt: skip
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--answers", type=int, default=200)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    chosen = [c for c in cells(options.seeds) if c.model == "logistic" and c.dataset in DATASETS]
    with ProcessPoolExecutor(options.workers) as pool:
        found = list(pool.map(partial(measured, answers=options.answers), chosen))
    result = {"answers": options.answers, **summary(found)}
    print(json.dumps(result, indent=1))
    if options.output is not None:
        command = f"python benchmarks/audit_imitator.py --seeds {options.seeds} --answers {options.answers}"
        options.output.write_text(json.dumps({**result, "rows": found, "provenance": provenance(command)}, indent=1))


if __name__ == "__main__":
    main()
