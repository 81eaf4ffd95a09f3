"""The audit on people's own mistakes: short texts, each rated for sentiment by 14 to 20 people.

    python benchmarks/audit_people.py FOLDER [--output experiments/results/audit-people.json]

FOLDER: ``hutto_ICWSM_2014`` out of the source distribution of the PyPI package vaderSentiment 3.3.2 (pip download
--no-binary :all:, then unpack ``additional_resources/hutto_ICWSM_2014.tar.gz``); not committed. A text's true label is the
sign of its mean rating (texts within 0.5 of zero are left out), its given label is that of one rater drawn at random.
Judge: logistic regression on TF-IDF, 5-fold out of sample.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402
from audit_quality import against_cleanlab  # noqa: E402

SETS = ("movieReviewSnippets", "tweets", "amazonReviewSnippets", "nytEditorialSnippets")


def rated(folder: Path, name: str) -> list[tuple[str, list[int]]]:
    """(text, ratings from -4 to 4) of every text that has both."""
    texts, ratings = {}, {}
    for line in (folder / f"{name}_GroundTruth.txt").read_text(encoding="utf-8", errors="replace").splitlines():
        parts = line.split("\t")
        if len(parts) >= 3:
            texts[parts[0]] = parts[2]
    for line in (folder / f"{name}_anonDataRatings.txt").read_text().splitlines():
        parts = line.split("\t")
        ratings[parts[0]] = [int(x) for x in re.findall(r"-?\d+", parts[3])]
    return [(texts[key], ratings[key]) for key in ratings if key in texts]


def measured(rows: list[tuple[str, list[int]]], seed: int) -> dict[str, Any]:
    """One set, one draw of raters: ours and cleanlab's, in percent."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    import labelwright

    rng = np.random.default_rng(seed)
    clear = [(text, said) for text, said in rows if abs(np.mean(said)) > 0.5]
    true = np.array([int(np.mean(said) > 0) for _, said in clear])
    one = [int(rng.choice(said)) for _, said in clear]
    given = np.array([int(r > 0) if r else int(rng.integers(2)) for r in one])
    X = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True).fit_transform([text for text, _ in clear])
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    proba = cross_val_predict(LogisticRegression(C=5, max_iter=500), X, given, cv=folds, method="predict_proba")
    ours, wrong = labelwright.audit(given, proba), given != true
    return {
        "rows": len(true),
        "wrong_share": 100 * float(wrong.mean()),
        "model_accuracy": 100 * float((proba.argmax(axis=1) == true).mean()),
        "noise_rate": [100 * x for x in (ours.noise_rate, ours.noise_rate.low, ours.noise_rate.high)],
        **against_cleanlab(ours, given, proba, wrong),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    from labelwright.bench.provenance import provenance

    found = {}
    for name in SETS:
        rows = rated(options.folder, name)
        runs = [measured(rows, seed) for seed in range(options.seeds)]
        found[name] = {key: np.mean([run[key] for run in runs], axis=0).tolist() for key in runs[0]}
        print(name, json.dumps({k: np.round(v, 2).tolist() for k, v in found[name].items()}), flush=True)
    if options.output is not None:
        command = f"python benchmarks/audit_people.py FOLDER --seeds {options.seeds}"
        options.output.write_text(json.dumps({**found, "provenance": provenance(command)}, indent=1))


if __name__ == "__main__":
    main()
