"""The cells of the audit's benchmarks: data set x noise x model x seed, with out-of-sample probabilities.

    python benchmarks/audit_cells.py [--workers 2] [--seeds 3]     # make and keep all probabilities

Probabilities are kept as .npz files in ``data/audit-cells`` (not committed): a cell that is there is not made again.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402

FOLDER = Path(os.environ.get("LABELWRIGHT_CELLS", "data/audit-cells"))
DATASETS = ("pendigits", "letter", "satimage", "usps", "mnist")
MODELS = ("logistic", "boosted")
NOISES = ("symmetric-20", "pair-20", "instance-20", "sparse-20", "symmetric-5")
FOLDS = 5


@dataclass(frozen=True, order=True)
class Cell:
    """One setting of the benchmark, and where its probabilities are kept."""

    seed: int
    dataset: str
    noise: str
    model: str

    @property
    def path(self) -> Path:
        """The .npz file with ``given``, ``true`` (n,) and ``proba`` (n, K) float32."""
        return FOLDER / f"{self.dataset}-{self.noise}-{self.model}-{self.seed}.npz"

    def load(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(given, true, proba); made first if it is not there."""
        if not self.path.exists():
            make(self)
        with np.load(self.path) as held:
            return held["given"], held["true"], held["proba"]


def cells(seeds: int = 3) -> Iterator[Cell]:
    """All of them, none left out."""
    for seed in range(seeds):
        for model in MODELS:
            for dataset in DATASETS:
                for noise in NOISES:
                    yield Cell(seed, dataset, noise, model)


def rows_of(dataset: str) -> tuple[np.ndarray, np.ndarray]:
    """Features as published and true classes; usps: both files together, mnist: the first 5,000 rows."""
    from labelwright.datasets import load

    data = load(dataset)
    if dataset == "usps":
        return np.concatenate([data.X, data.X_test]), np.concatenate([data.y, data.y_test])
    return (data.X[:5000], data.y[:5000]) if dataset == "mnist" else (data.X, data.y)


def corrupted(noise: str, X: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    """Given labels under one of :data:`NOISES`."""
    from labelwright import noise as models

    k = int(y.max()) + 1
    kind, rate = noise.rsplit("-", 1)
    share = int(rate) / 100
    # Instance-dependent noise projects the features: they are standardised first, so that no column rules alone.
    features = (X - X.mean(axis=0)) / np.maximum(X.std(axis=0), 1e-6) / np.sqrt(X.shape[1])
    corrupt = {
        "symmetric": lambda: models.symmetric(share, classes=k),
        "pair": lambda: models.pair_flip(share, k),
        "instance": lambda: models.instance_dependent(share, k),
        "sparse": lambda: models.sparse_pairs(share, k, share=0.4),
    }[kind]()
    return corrupt(y, features.astype(np.float32), np.random.default_rng([seed, NOISES.index(noise)]))


def classifier(model: str, seed: int) -> Any:
    """The judge: logistic regression on standardised features, or histogram gradient boosting with its defaults."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if model == "logistic":
        return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return HistGradientBoostingClassifier(random_state=seed)


def make(cell: Cell) -> Path:
    """Five-fold out-of-sample probabilities of one cell, written whole or not at all."""
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    X, y = rows_of(cell.dataset)
    given = corrupted(cell.noise, X, y, cell.seed)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=cell.seed)
    proba = cross_val_predict(classifier(cell.model, cell.seed), X, given, cv=folds, method="predict_proba")
    FOLDER.mkdir(parents=True, exist_ok=True)
    temporary = cell.path.with_suffix(".part.npz")
    np.savez(temporary, given=given, true=y, proba=proba.astype(np.float32))
    temporary.replace(cell.path)
    return cell.path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    missing = [cell for cell in cells(options.seeds) if not cell.path.exists()]
    print(f"{len(missing)} cells to make", flush=True)
    with ProcessPoolExecutor(options.workers) as pool:
        jobs = {pool.submit(make, cell): cell for cell in missing}
        for done, job in enumerate(as_completed(jobs), 1):
            print(f"{done}/{len(missing)} {job.result().name}", flush=True)


if __name__ == "__main__":
    main()
