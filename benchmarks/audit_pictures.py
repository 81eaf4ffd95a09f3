"""The audit of pictures from raw pixels: a network's probabilities (the default) against those of the model for wide tables.

    python benchmarks/audit_pictures.py [--seeds 1] [--output experiments/results/audit-pictures.json]

3,000 pictures of CIFAR-10, 2,000 of MNIST, 2,000 of the traffic signs, 20 % of the labels flipped uniformly to another class. And
CIFAR-10 as an annotator mislabels it who is a network himself, trained on 6,000 other pictures: 20 and 40 % wrong in proportion to his
doubt about the picture ("hard pictures"), or half to that and half to his mean doubt about its class ("hard classes, too"). Each
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
from audit_hard_rows import as_doubted
from audit_quality import against_cleanlab

import labelwright
from labelwright.bench.provenance import provenance
from labelwright.images import load_images
from labelwright.learners.torch_classifier import TorchClassifier
from labelwright.noise import symmetric

SETS = {"cifar10": 3000, "mnist": 2000, "gtsrb": 2000}
RATE = 0.2
PEOPLE = {"hard pictures": 0.0, "hard classes, too": 0.5}
"""Share of the class's mean doubt in the annotator's."""
TAUGHT = 6000


def drawn(dataset: str, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(pictures, true labels, given labels), errors drawn at random."""
    found, rng = load_images(dataset, None), np.random.default_rng([seed, 11])
    at = np.sort(rng.permutation(len(found.y))[:rows])
    y = np.asarray(found.y)[at]
    return found.images.take(at), y, symmetric(RATE, classes=int(np.max(found.y)) + 1)(y, None, rng)


def beliefs(dataset: str, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(pictures, true labels, an annotator's probabilities)."""
    found, rng = load_images(dataset, None), np.random.default_rng([seed, 12])
    order, y = rng.permutation(len(found.y)), np.asarray(found.y)
    at, taught = np.sort(order[:rows]), np.sort(order[rows : rows + TAUGHT])
    annotator = TorchClassifier(epochs=8, random_state=seed + 100).fit(found.images.take(taught), y[taught])
    return found.images.take(at), y[at], annotator.predict_proba(found.images.take(at))


def measured(told: dict[str, Any], values: np.ndarray, y: np.ndarray, given: np.ndarray, seed: int) -> dict[str, Any]:
    """One model's probabilities, judged by both libraries."""
    start = time.perf_counter()
    found = labelwright.audit(given, X=values, random_state=seed)
    seconds = time.perf_counter() - start
    proba = found.proba.rows(slice(None)).astype(float)
    proba /= proba.sum(axis=1, keepdims=True)
    judged = against_cleanlab(found, found.labels.codes, proba, given != y)
    row = {
        **told,
        "rows": len(y),
        "seed": seed,
        "wrong": round(100 * float((given != y).mean()), 1),
        "classifier": next(note for note in found.notes if note.startswith("probabilities: ")),
        "seconds": round(seconds, 1),
        "accuracy": round(100 * float((proba.argmax(axis=1) == np.searchsorted(np.unique(given), y)).mean()), 2),
        "noise_rate": [round(float(v), 4) for v in (found.noise_rate, found.noise_rate.low, found.noise_rate.high)],
        **{name: np.round(value, 2).tolist() for name, value in judged.items()},
    }
    print(json.dumps(row), flush=True)
    return row


def runs_of(seed: int) -> list[dict[str, Any]]:
    """Every cell of one seed."""
    rows = []
    for dataset, count in SETS.items():
        X, y, given = drawn(dataset, count, seed)
        for model, values in {"network": X, "as a table": X.reshape(len(X), -1).astype(np.float32)}.items():
            told = {"dataset": dataset, "errors": "anywhere", "model": model}
            rows.append(measured(told, values, y, given, seed))
    X, y, proba = beliefs("cifar10", SETS["cifar10"], seed)
    classes = np.stack([proba[y == k].mean(axis=0) for k in range(proba.shape[1])])
    for errors, share in PEOPLE.items():
        for rate in (0.2, 0.4):
            given = as_doubted((1 - share) * proba + share * classes[y], y, rate, np.random.default_rng([seed, 13]))
            rows.append(measured({"dataset": "cifar10", "errors": errors, "model": "network"}, X, y, given, seed))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    runs = [row for seed in range(options.seeds) for row in runs_of(seed)]
    if options.output:
        command = f"python benchmarks/audit_pictures.py --seeds {options.seeds}"
        options.output.write_text(json.dumps({"runs": runs, "provenance": provenance(command)}, indent=1))


if __name__ == "__main__":
    main()
