"""The rival of the QAL benchmark: the experiment as one would first write it, with scikit-learn alone."""

from __future__ import annotations

import numpy as np
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import SVC

from labelwright.bench.qal import BATCH, BATCHES, CLEAN, METHODS, QUERIES, draw, rows_of


def _queries(scores: np.ndarray, pool: np.ndarray, count: int, measure: str) -> np.ndarray:
    if measure == "margin":
        top = np.sort(scores, axis=1)
        value = top[:, -1] - top[:, -2]
    else:
        value = np.abs(scores).min(axis=1)
    return pool[np.argsort(value[pool], kind="stable")[:count]]


def _entropy(scores: np.ndarray) -> float:
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    return float(-(p * np.log(p)).sum(axis=1).mean())


def plain_run(X: np.ndarray, y: np.ndarray, given: np.ndarray, method: str) -> float:
    """Accuracy in percent after the last batch, testing after every batch as the experiment does."""
    need = CLEAN + BATCH * BATCHES
    rows, labels = list(range(CLEAN)), list(y[:CLEAN])
    model = OneVsRestClassifier(SVC(kernel="rbf", gamma="scale")).fit(X[rows], labels)
    accuracy = float((model.predict(X[need:]) == y[need:]).mean())
    left, rate, carried, entropies = QUERIES * BATCHES, float(QUERIES), 0.0, []
    for start in range(CLEAN, need, BATCH):
        batch = np.arange(start, start + BATCH)
        scores = model.decision_function(X[batch])
        agrees = scores.argmax(axis=1) == given[batch]
        keep = np.ones(BATCH, bool) if method in ("no-sel", "al-only") else agrees
        if method == "opt-sel":
            keep = given[batch] == y[batch]
        asked = np.empty(0, int)
        if method in ("al-only", "qal", "qal-margin"):
            pool = np.arange(BATCH) if method == "al-only" else np.flatnonzero(~agrees)
            asked = _queries(scores, pool, QUERIES, "margin" if method == "qal-margin" else "least")
        if method == "qal-dynamic":
            count = min(int(carried + rate + 1e-9), left)
            asked = _queries(scores, np.flatnonzero(~agrees), count, "margin")
            left, carried = left - len(asked), carried + rate - len(asked)
            if keep.any():
                entropies = [*entropies, _entropy(scores[keep])][-2:]
                if len(entropies) == 2:
                    before, last = entropies
                    rate = float(np.clip(rate * (1 - (before - last) / last), 0, left))
        keep[asked] = False
        rows += [*batch[keep], *batch[asked]]
        labels += [*given[batch[keep]], *y[batch[asked]]]
        model = OneVsRestClassifier(SVC(kernel="rbf", gamma="scale")).fit(X[rows], labels)
        accuracy = float((model.predict(X[need:]) == y[need:]).mean())
    return 100.0 * accuracy


def plain_cell(dataset: str, noise: float, *, repeats: int) -> dict[str, float]:
    """Mean accuracy of every method, on the same rows and noise as the experiment."""
    X, y = rows_of(dataset, None)
    found: dict[str, list[float]] = {name: [] for name in METHODS}
    for repeat in range(repeats):
        trial = draw(X, y, noise, repeat)
        for name in METHODS:
            found[name].append(plain_run(trial.X, trial.y, trial.given, name))
    return {name: float(np.mean(values)) for name, values in found.items()}
