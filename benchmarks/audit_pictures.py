"""The audit of pictures from raw pixels: a network's probabilities (the default) against those of the model for wide tables.

    python benchmarks/audit_pictures.py [--seeds 1] [--output experiments/results/audit-pictures.json]

3,000 pictures of CIFAR-10, 2,000 of MNIST, 2,000 of the traffic signs, 20 % of the labels flipped uniformly to another class. Each
model's out-of-sample probabilities (five folds) are judged by our audit and by cleanlab's default filter and the better of its two
rankings. Needs torch, cleanlab and the folder of benchmark files (LABELWRIGHT_DATA).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, f1_score

import labelwright
from labelwright.bench.provenance import provenance
from labelwright.images import load_images
from labelwright.noise import symmetric

SETS = {"cifar10": 3000, "mnist": 2000, "gtsrb": 2000}
RATE = 0.2


def drawn(dataset: str, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(pictures, true labels, given labels)."""
    found, rng = load_images(dataset, None), np.random.default_rng([seed, 11])
    at = np.sort(rng.permutation(len(found.y))[:rows])
    y = np.asarray(found.y)[at]
    return found.images.take(at), y, symmetric(RATE, classes=int(np.max(found.y)) + 1)(y, None, rng)


def measured(dataset: str, rows: int, seed: int) -> list[dict[str, Any]]:
    """One data set and seed, both models."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    X, y, given = drawn(dataset, rows, seed)
    wrong, out = given != y, []
    for model, values in {"network": X, "as a table": X.reshape(len(X), -1).astype(np.float32)}.items():
        start = time.perf_counter()
        found = labelwright.audit(given, X=values, random_state=seed)
        seconds = time.perf_counter() - start
        proba = found.proba.rows(slice(None)).astype(float)
        proba /= proba.sum(axis=1, keepdims=True)
        codes = found.labels.codes
        theirs = [get_label_quality_scores(codes, proba, method=m) for m in ("self_confidence", "normalized_margin")]
        out.append(
            {
                "dataset": dataset,
                "rows": rows,
                "seed": seed,
                "model": model,
                "classifier": next(note for note in found.notes if note.startswith("probabilities: ")),
                "seconds": round(seconds, 1),
                "accuracy": round(
                    100 * float((proba.argmax(axis=1) == np.searchsorted(np.unique(given), y)).mean()), 2
                ),
                "auprc": round(100 * average_precision_score(wrong, -found.issues.label_score), 2),
                "f1": round(100 * f1_score(wrong, found.issues.is_label_issue), 2),
                "noise_rate": [
                    round(float(v), 4) for v in (found.noise_rate, found.noise_rate.low, found.noise_rate.high)
                ],
                "cleanlab_auprc": round(100 * max(average_precision_score(wrong, -score) for score in theirs), 2),
                "cleanlab_f1": round(100 * f1_score(wrong, find_label_issues(codes, proba)), 2),
            }
        )
        print(json.dumps(out[-1]), flush=True)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    runs = [
        row for dataset, rows in SETS.items() for seed in range(options.seeds) for row in measured(dataset, rows, seed)
    ]
    if options.output:
        command = f"python benchmarks/audit_pictures.py --seeds {options.seeds}"
        options.output.write_text(
            json.dumps({"runs": runs, "noise": RATE, "provenance": provenance(command)}, indent=1)
        )


if __name__ == "__main__":
    main()
