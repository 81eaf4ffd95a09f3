"""One budget in money, split by value per cost over an expert, the expert's yes or no, and a crowd; against each alone, and against an
expert who is asked about rows at random.

3,000 rows, 20 % of the labels wrong (symmetric), out-of-sample probabilities by logistic regression, the posterior; the labels left wrong
after spending 2, 5 and 10 % of what an expert's word on every row would cost. All sources are simulated from the true labels: an
expert right in 98 of 100 answers (1 each) or yes-and-nos (0.3 each), and a crowd of ten people whose skill and price differ by setting.
Nobody tells the method how good they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from labelwright.bench.pieces import USUAL, How, mean_and_interval, written
from labelwright.bench.provenance import provenance
from labelwright.bootstrap import cross_validated
from labelwright.datasets import load
from labelwright.noise import symmetric
from labelwright.posterior import NoiseModel
from labelwright.spending import Ask, Source, spend
from labelwright.types import Floats, Ints, Rows

ROWS, RATE, SHARES = 3000, 0.2, (0.02, 0.05, 0.1)
SURE, CHECK = 0.98, 0.3
SEEN = {"expert": 0, "check": 1, "crowd": 2}
STRATEGIES = {
    "expert alone": ("expert",),
    "yes or no alone": ("check",),
    "crowd alone": ("crowd",),
    "all, by value per cost": ("expert", "check", "crowd"),
}
RANDOM = "expert, rows at random"


@dataclass(frozen=True)
class Crowd:
    """Ten people whose skill lies between ``low`` and ``high``; price of each answer."""

    low: float
    high: float
    price: float


CROWDS = {"cheap": Crowd(0.5, 0.85, 0.1), "poor": Crowd(0.4, 0.6, 0.25), "good and dear": Crowd(0.7, 0.9, 0.4)}


def sources(names: tuple[str, ...], crowd: Crowd) -> list[Source]:
    """The sources of these names, as the method thinks of them before they have said anything."""
    every = {
        "expert": Source("expert", 1.0, 0.95),
        "check": Source("check", CHECK, 0.95, check=True),
        "crowd": Source("crowd", crowd.price, 0.7, times=7),
    }
    return [every[name] for name in names]


def simulated(y: Ints, classes: int, crowd: Crowd, seed: int) -> Ask:
    """People who know the truth and err. The n-th answer of a source about a row hangs on the seed alone."""
    skill = np.random.default_rng([seed, 1]).uniform(crowd.low, crowd.high, 10)
    times: dict[tuple[str, int], int] = {}

    def ask(source: str, row: int, about: int) -> int:
        n = times[source, row] = times.get((source, row), 0) + 1
        rng = np.random.default_rng([seed, row, n, SEEN[source]])
        if source == "check":
            right = int(y[row] == about)
            return right if rng.random() < SURE else 1 - right
        good = SURE if source == "expert" else skill[rng.integers(10)]
        return int(y[row]) if rng.random() < good else int((y[row] + rng.integers(1, classes)) % classes)

    return ask


def _judged(dataset: str, seed: int, data_dir: str | None) -> tuple[Ints, Ints, Floats]:
    """(true labels, given labels, posterior) of 3,000 rows."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    data, rng = load(dataset, data_dir), np.random.default_rng([seed, 2])
    chosen = rng.permutation(len(data.y))[:ROWS]
    X, y, classes = StandardScaler().fit_transform(data.X[chosen]), data.y[chosen], len(data.classes)
    given = symmetric(RATE, classes=classes)(y.copy(), None, rng)
    proba = cross_validated(LogisticRegression(max_iter=200), Rows(X, given, np.arange(len(y))), classes, seed=seed)
    return y, given, NoiseModel.start(classes).updated(proba, given).posterior(proba, given)


def run_money(dataset: str = "pendigits", how: How = USUAL) -> dict[str, Any]:
    """Every strategy on the same rows. Writes ``money-<dataset>-<profile>.json`` and ``.png`` into ``output``. device and workers are
    not used."""
    seeds = how.range(5)
    cells: dict[str, dict[str, list[dict[str, Any]]]] = {}
    before: list[float] = []
    for done, one in enumerate(seeds):
        y, _, posterior = _judged(dataset, one, how.data_dir)
        before.append(100 * float((posterior.argmax(axis=1) != y).mean()))
        for name, crowd in CROWDS.items():
            for share in SHARES:
                here = cells.setdefault(f"{name}, {100 * share:.0f} %", {})
                for strategy, record in _spent(y, posterior, crowd, share * len(y), one).items():
                    here.setdefault(strategy, []).append(record)
        how.progress("seeds", done + 1, len(seeds))
    told = {
        cell: {
            strategy: {"wrong": mean_and_interval([r["wrong"] for r in runs]), "counts": [r["counts"] for r in runs]}
            for strategy, runs in found.items()
        }
        for cell, found in cells.items()
    }
    result = {
        "experiment": "money",
        "dataset": dataset,
        "profile": how.profile,
        "seeds": len(seeds),
        "wrong_before": mean_and_interval(before),
        "cells": told,
        **provenance(how.command("money", dataset, len(seeds))),
    }
    written(result, how.file(f"money-{dataset}"), figure)
    return result


def _spent(y: Ints, posterior: Floats, crowd: Crowd, money: float, seed: int) -> dict[str, dict[str, Any]]:
    """Percent of labels left wrong, by strategy."""
    classes, out = posterior.shape[1], {}
    for strategy, names in STRATEGIES.items():
        bought = spend(posterior, sources(names, crowd), simulated(y, classes, crowd, seed), money)
        out[strategy] = {"wrong": 100 * float((bought.label != y).mean()), "counts": bought.counts}
    label, ask = posterior.argmax(axis=1), simulated(y, classes, crowd, seed)
    rows = np.random.default_rng([seed, 3]).permutation(len(y))[: int(money)]
    label[rows] = [ask("expert", int(row), 0) for row in rows]
    out[RANDOM] = {"wrong": 100 * float((label != y).mean()), "counts": {"expert": len(rows)}}
    return out


def figure(result: Mapping[str, Any], path: Path) -> None:
    """Labels left wrong against money, one panel a crowd."""
    from matplotlib.figure import Figure

    colours = dict(zip([*STRATEGIES, RANDOM], ("#2f6aa8", "#7550a5", "#a76d02", "#1c8a78", "#8a929d"), strict=True))
    drawn = Figure(figsize=(9.5, 3.6), layout="constrained")
    axes = drawn.subplots(1, len(CROWDS), sharey=True)
    for axis, (name, crowd) in zip(axes, CROWDS.items(), strict=True):
        for strategy, colour in colours.items():
            means = [result["cells"][f"{name}, {100 * share:.0f} %"][strategy]["wrong"]["mean"] for share in SHARES]
            x = [0, *(100 * share for share in SHARES)]
            wide = 2.6 if strategy.startswith("all") else 1.6
            axis.plot(
                x, [result["wrong_before"]["mean"], *means], color=colour, lw=wide, marker="o", ms=3, label=strategy
            )
        axis.set_title(
            f"{name} crowd: {crowd.low:g}–{crowd.high:g} right, {crowd.price:g} each", fontsize=8, loc="left"
        )
        axis.set_xlabel("money, % of an expert on every row")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set(ylabel="labels left wrong, %", ylim=(0, None))
    drawn.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False, fontsize=8)
    drawn.savefig(path, dpi=140)


def table(result: Mapping[str, Any]) -> list[list[str]]:
    """Labels left wrong in percent, head first."""
    strategies = [*STRATEGIES, RANDOM]
    rows = [["data", "before", *strategies]]
    for cell, found in result["cells"].items():
        told = []
        for strategy in strategies:
            wrong = found[strategy]["wrong"]
            told.append(f"{wrong['mean']:.2f}" + ("" if wrong["ci95"] is None else f" ± {wrong['ci95']:.2f}"))
        rows.append([cell, f"{result['wrong_before']['mean']:.2f}", *told])
    return rows
