"""Runs and draws Fig. 4 (60 % noise) and Fig. 5 (80 %): three data sets, all methods, accuracy after every batch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labelwright.bench.provenance import provenance
from labelwright.bench.qal import BATCHES, DATASETS, run_cell
from labelwright.errors import DataError
from labelwright.scale import Mapper

FIGURES = {"fig4": 0.6, "fig5": 0.8}
STYLE = {
    "no-sel": ("No-Sel", "#9a9a9a", "-"),
    "al-only": ("AL-only", "#c9a227", "-"),
    "q-only": ("Q-only", "#7aa6c2", "-"),
    "qal": ("QAL least distance", "#2c7fb8", "-"),
    "qal-margin": ("QAL margin (headline)", "#b2182b", "-"),
    "qal-dynamic": ("QAL dynamic", "#762a83", "--"),
    "qal-margin-2": ("QAL margin, 2 a batch", "#ef8a62", "--"),
    "opt-sel": ("Opt-Sel", "#1b7837", ":"),
    "full-clean": ("all labels right", "#000000", ":"),
}


def run_figure(
    name: str,
    folder: Path,
    *,
    kernel: str = "rbf",
    repeats: int = 100,
    seed: int = 0,
    workers: int | Mapper = 1,
    data_dir: str | None = None,
    progress: Callable[[str, int], None] = lambda dataset, done: None,
) -> dict[str, Any]:
    """Run the cells of one figure that ``folder`` does not hold yet, write them as JSON, and draw.

    Data sets that are not at hand are named under "missing" with the reason.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{kernel}.json"
    settings = {"figure": name, "noise": FIGURES[name], "kernel": kernel, "repeats": repeats, "seed": seed}
    result = _resumed(path, settings)
    for dataset in DATASETS:
        if dataset in result["cells"]:
            continue
        try:
            result["cells"][dataset] = run_cell(
                dataset,
                FIGURES[name],
                repeats=repeats,
                kernel=kernel,
                seed=seed,
                workers=workers,
                data_dir=data_dir,
                progress=lambda done, dataset=dataset: progress(dataset, done),  # type: ignore[misc]
            )
            result["missing"].pop(dataset, None)
        except DataError as error:
            result["missing"][dataset] = str(error)
        path.write_text(json.dumps(result, indent=1))
    draw(result, folder / f"{name}-{kernel}")
    return result


def _resumed(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    command = f"labelwright bench {settings['figure']} --kernel {settings['kernel']} --repeats {settings['repeats']}"
    fresh = {**settings, "cells": {}, "missing": {}, "provenance": provenance(command)}
    if path.exists():
        earlier = json.loads(path.read_text())
        if all(earlier.get(key) == value for key, value in settings.items()):
            return dict(earlier)
    return fresh


def draw(result: dict[str, Any], stem: Path) -> None:
    """One panel a data set: mean accuracy after every batch. Written as PNG and SVG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    cells = result["cells"]
    if not cells:
        return
    figure, axes = plt.subplots(1, len(cells), figsize=(4.6 * len(cells), 4.2), squeeze=False)
    for axis, (dataset, cell) in zip(axes[0], cells.items(), strict=True):
        for method, (label, colour, line) in STYLE.items():
            if method in cell["methods"]:
                curve = cell["methods"][method]["curve"]
                width = 2.6 if method == "qal-margin" else 1.4
                axis.plot(range(len(curve)), curve, color=colour, ls=line, lw=width, label=label)
        filtered = [cell["methods"][m]["curve"] for m in ("q-only", "qal-margin") if m in cell["methods"]]
        low = min(min(curve) for curve in filtered) if filtered else 0
        axis.set(
            title=f"{dataset}, {100 * result['noise']:.0f} % wrong labels",
            xlabel="batches of 50 rows",
            ylim=(low - 12, 100),
        )
        axis.set_xlim(0, BATCHES)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel(f"test accuracy, % (mean of {result['repeats']})")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="lower center", ncol=5, frameon=False, fontsize=9)
    figure.suptitle(f"QAL with a one-vs-rest SVM, {result['kernel']} kernel", fontsize=11)
    figure.tight_layout(rect=(0, 0.11, 1, 1))
    for suffix in (".png", ".svg"):
        figure.savefig(stem.with_suffix(suffix), dpi=110)
    plt.close(figure)


def table(result: dict[str, Any]) -> list[list[str]]:
    """Rows of text: method, then mean ± 95 % interval for each data set."""
    cells = result["cells"]
    head = ["method", *cells]
    rows = [head]
    for method, (label, _, _) in STYLE.items():
        if all(method in cell["methods"] for cell in cells.values()):
            figures = [cell["methods"][method] for cell in cells.values()]
            rows.append([label, *(f"{f['mean']:.2f} ± {f['ci95'] or 0:.2f}" for f in figures)])
    return rows
