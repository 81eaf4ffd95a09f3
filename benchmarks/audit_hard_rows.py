"""The audit on errors that lie on hard rows, as people's do, and not anywhere: against cleanlab, its defaults, on the same probabilities.

    python benchmarks/audit_hard_rows.py [--seeds 2] [--output experiments/results/audit-hard-rows.json]

pendigits, satimage, letter; 10 and 20 % wrong. A weak annotator, logistic regression on 400 rows, mislabels a row in proportion to its own
doubt about the true class, and as the class that it finds likeliest in its stead (drawn). Judges as in audit_cells.py: logistic
regression, and boosted trees but for letter; 5-fold out of sample.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from audit_cells import FOLDS, classifier, rows_of  # first: it sets the number of threads
from audit_quality import against_cleanlab
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.preprocessing import StandardScaler

import labelwright
from labelwright.bench.provenance import provenance

RATES = (0.1, 0.2)
JUDGES = {"pendigits": ("logistic", "boosted"), "satimage": ("logistic", "boosted"), "letter": ("logistic",)}


def mislabelled(X: np.ndarray, y: np.ndarray, rate: float, seed: int) -> np.ndarray:
    """(n,) labels of the weak annotator, about ``rate`` of them wrong."""
    rng = np.random.default_rng([seed, 9])
    X = StandardScaler().fit_transform(X)
    seen = rng.choice(len(y), 400, replace=False)
    weak = LogisticRegression(max_iter=300, C=0.3).fit(X[seen], y[seen])
    proba = np.zeros((len(y), int(y.max()) + 1))
    proba[:, weak.classes_] = weak.predict_proba(X)
    return as_doubted(proba, y, rate, rng)


def as_doubted(proba: np.ndarray, y: np.ndarray, rate: float, rng: np.random.Generator) -> np.ndarray:
    """(n,) labels of an annotator who believes ``proba`` (n, K): wrong in proportion to his doubt about the true class ``y`` (n,), about
    ``rate`` of all, and then the class that he finds likely in its stead (drawn)."""
    proba = proba.astype(float)
    rows = np.arange(len(y))
    doubt = 1 - proba[rows, y]
    wrong = rng.random(len(y)) < np.minimum(doubt * rate * len(y) / doubt.sum(), 1.0)
    proba[rows, y] = 0.0
    proba /= np.maximum(proba.sum(axis=1, keepdims=True), 1e-12)
    other = (proba.cumsum(axis=1) < rng.random(len(y))[:, None]).sum(axis=1).clip(0, proba.shape[1] - 1)
    return np.where(wrong, other, y)


def measured(dataset: str, rate: float, model: str, seed: int) -> dict[str, Any]:
    """One cell, ours and cleanlab's, in percent."""
    X, y = rows_of(dataset)
    given = mislabelled(X, y, rate, seed)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    proba = cross_val_predict(classifier(model, seed), X, given, cv=folds, method="predict_proba").astype(np.float32)
    wrong = given != y
    return {
        "wrong_share": 100 * wrong.mean(),
        "model_accuracy": 100 * (proba.argmax(axis=1) == y).mean(),
        **against_cleanlab(labelwright.audit(given, proba), given, proba / proba.sum(axis=1, keepdims=True), wrong),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    found: dict[str, Any] = {}
    for dataset, models in JUDGES.items():
        for rate in RATES:
            for model in models:
                runs = [measured(dataset, rate, model, seed) for seed in range(options.seeds)]
                row = {name: np.mean([run[name] for run in runs], axis=0).round(2).tolist() for name in runs[0]}
                found[f"{dataset} {100 * rate:.0f} % {model}"] = row
                print(f"{dataset} {rate} {model}", json.dumps(row), flush=True)
    gains = {name: [row[name] - row[f"{name}_cleanlab"] for row in found.values()] for name in ("auprc", "f1")}
    told = {name: {"mean": round(float(np.mean(g)), 2), "worst": round(min(g), 2)} for name, g in gains.items()}
    print(json.dumps(told, indent=1))
    if options.output is not None:
        command = f"python benchmarks/audit_hard_rows.py --seeds {options.seeds}"
        options.output.write_text(json.dumps({"gain": told, "cells": found, **provenance(command)}, indent=1))


if __name__ == "__main__":
    main()
