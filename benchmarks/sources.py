"""What watching the sources of labels is worth: the same stream with and without it, many seeds.

Usage: python benchmarks/sources.py [--seeds N] [--json FILE]

Streams of 25 batches of 300 rows, 4 classes (true class and two features with Gaussian noise), three sources with 15 % wrong
labels, which are the next class (as people confuse neighbours). RAD Duo of two naive Bayes models. In one of the three settings,
source "c" has 70 % wrong labels from batch 12 on (burst), goes from 15 to 50 % between batches 8 and 20 (drift), or does nothing
(honest: the control, in which every alarm is false).
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.naive_bayes import GaussianNB

from labelwright.bench.provenance import provenance
from labelwright.learners import as_learner
from labelwright.loop import System
from labelwright.recipes import rad_duo
from labelwright.sourced import Sourced, SourcedSplit
from labelwright.types import Batch, Ints

BATCHES, ROWS, CLASSES = 25, 300, 4
BEGINS = {"burst": 12, "drift": 8, "honest": BATCHES}


def noise(setting: str, number: int) -> float:
    """Share of source c's labels that are wrong in a batch."""
    if setting == "burst" and number >= 12:
        return 0.7
    if setting == "drift":
        return 0.15 + 0.35 * float(np.clip((number - 8) / 12, 0, 1))
    return 0.15


def stream(seed: int, setting: str) -> list[tuple[Batch, Ints]]:
    """(batch, its true classes), the first batch clean."""
    rng, out = np.random.default_rng(seed), []
    for number in range(BATCHES):
        true = rng.integers(0, CLASSES, ROWS)
        X = np.stack([true % 2, true // 2], axis=1) * 2.0 + rng.normal(size=(ROWS, 2))
        who = rng.choice(np.array(["a", "b", "c"], object), ROWS)
        rate = np.where(who == "c", noise(setting, number), 0.15)
        given = np.where(rng.random(ROWS) < rate, (true + 1) % CLASSES, true) if number else true
        clean = np.full(ROWS, number == 0)
        out.append((Batch(f"b{number}", number, X, given, clean, sources=who), true))
    return out


def one(seed: int, setting: str, *, watch: bool) -> dict[str, Any]:
    """Wrong labels among the kept rows since the trouble began, accuracy at the end, alarms."""
    learners = [as_learner(GaussianNB(), classes=CLASSES) for _ in range(2)]
    plain = rad_duo(learners[0], learners[1], buffer=50)
    system = System(Sourced(plain.selector), plain.learners) if watch else plain  # type: ignore[arg-type]
    wrong = kept = 0
    alarms: list[tuple[int, str]] = []
    for batch, true in stream(seed, setting):
        split = system.step(batch)
        if isinstance(split, SourcedSplit):
            alarms += [(batch.number, name) for name, look in split.looks.items() if look.alarm and look.standing.bad]
        if batch.number >= min(BEGINS[setting], 12):
            here = split.kept[: len(batch)]
            kept += int(here.sum())
            wrong += int((split.label[: len(batch)][here] != true[here]).sum())
    X, y = zip(*((b.X, t) for b, t in stream(seed + 10_000, "honest")), strict=True)
    accuracy = float((system.predict(np.concatenate(X)) == np.concatenate(y)).mean())
    first = min((number for number, name in alarms if name == "c"), default=None)
    false = sum(name != "c" or setting == "honest" or number < BEGINS[setting] for number, name in alarms)
    return {"wrong_kept": wrong / kept, "accuracy": accuracy, "first_alarm": first, "false_alarms": false}


def setting_of(name: str, seeds: int) -> dict[str, Any]:
    """Mean and standard deviation over the seeds, both ways."""
    out: dict[str, Any] = {}
    for way, watch in (("watched", True), ("not watched", False)):
        runs = [one(seed, name, watch=watch) for seed in range(seeds)]
        for key in ("wrong_kept", "accuracy"):
            values = np.array([run[key] for run in runs])
            out.setdefault(way, {})[key] = {
                "mean": round(float(values.mean()), 4),
                "sd": round(float(values.std(ddof=1)), 4),
            }
        if watch:
            found = [run["first_alarm"] for run in runs if run["first_alarm"] is not None]
            out["found"] = {"of": seeds, "seeds": len(found) if name != "honest" else 0}
            if name != "honest":
                out["found"]["batches_until_alarm"] = [number - BEGINS[name] for number in found]
            out["seeds_with_false_alarm"] = sum(run["false_alarms"] > 0 for run in runs)
    return out


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = {
        **provenance(f"python benchmarks/sources.py --seeds {options.seeds}"),
        "load_before": os.getloadavg()[0],
        **{name: setting_of(name, options.seeds) for name in BEGINS},
    }
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
