"""Plots of the experiments with networks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

COLOURS = {
    "no-sel": "#b03a2e",
    "rad-duo": "#2e6fb0",
    "rad-duo+correct": "#6c4fa3",
    "rad-duo+soft": "#7dc3a0",
    "full-clean": "#333333",
    "no-sel+prioritized": "#e0a39a",
    "rad-duo+soft+prioritized": "#12704a",
    "full-clean+prioritized": "#999999",
}
_BELOW: Mapping[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.13), "ncol": 2}


def table2_figure(result: Mapping[str, Any], path: Path) -> None:
    """C's accuracy after every batch, and, faint, after every epoch (the paper's Fig. 2: a saw-tooth at each new batch)."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    recipes = [r for r in ("paper", "improved") if any(name.startswith(f"{r}/") for name in result["methods"])]
    figure, axes = plt.subplots(1, len(recipes), figsize=(6.2 * len(recipes), 5.6), squeeze=False)
    start = result["methods"]["d0-only"]["c"]["mean"]
    for axis, recipe in zip(axes[0], recipes, strict=True):
        axis.axhline(start, color="#999999", linestyle=":", linewidth=1.2, label=f"D0 alone {start:.1f}")
        for name, row in result["methods"].items():
            method, curve = name.partition("/")[2], row.get("epochs")
            if not name.startswith(f"{recipe}/") or not curve or method not in COLOURS:
                continue
            per_batch = len(curve) / max(1, len(row["curve"]))
            x = [(at + 1) / per_batch for at in range(len(curve))]
            shade, ends = COLOURS[method], range(1, len(row["curve"]) + 1)
            axis.plot(x, curve, linewidth=0.8, color=shade, alpha=0.25)
            axis.plot(ends, row["curve"], linewidth=1.7, color=shade, label=f"{method} {row['c']['mean']:.1f}")
        lowest = min(min(row["curve"]) for name, row in result["methods"].items() if name.startswith(f"{recipe}/"))
        axis.set_ylim(bottom=min(lowest, start) - 4)
        axis.set_title({"paper": "the paper's way of training", "improved": "with replay"}[recipe], fontsize=11)
        axis.set_xlabel("batch")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        title = "last batch, all test rows, % (curves: up to 2,000 of them)"
        axis.legend(fontsize=8, frameon=False, title=title, title_fontsize=8, **_BELOW)
    axes[0][0].set_ylabel("C's accuracy after each batch (faint: epoch), %")
    figure.suptitle(
        f"{result['dataset']}, {100 * result['noise']:.0f} % symmetric noise, {result['profile']} profile, "
        f"mean of {result['seeds']} seed(s)",
        fontsize=12,
    )
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def framework_figure(result: Mapping[str, Any], path: Path) -> None:
    """C's accuracy along the stream by strategy, a panel for each kind of noise."""
    _panels(result, path, title="each strategy added", panel="{} noise")


def qactor_figure(result: Mapping[str, Any], path: Path) -> None:
    """The network's accuracy along the stream by method, a panel for each share of wrong labels."""
    _panels(result, path, title="asking an expert, in QActor's setting", panel="{} wrong labels")


def _panels(result: Mapping[str, Any], path: Path, *, title: str, panel: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    kinds = list(result["noise"])
    figure, axes = plt.subplots(1, len(kinds), figsize=(5.6 * len(kinds), 5.6), sharey=True, squeeze=False)
    shades = ["#b03a2e", "#2e6fb0", "#7fb2df", "#a3b6c2", "#c28a1a", "#e3c27a", "#1b8a5a", "#8c6bb1", "#333333"]
    for axis, kind in zip(axes[0], kinds, strict=True):
        for at, (name, row) in enumerate(result["noise"][kind].items()):
            last = name == list(result["noise"][kind])[-1]
            shade = shades[-1] if last else shades[at % (len(shades) - 1)]
            x = range(1, len(row["curve"]) + 1)
            axis.plot(x, row["curve"], color=shade, linewidth=1.6, label=f"{name} {row['c']['mean']:.1f}")
        axis.set_title(panel.format(kind), fontsize=11)
        axis.set_xlabel("batch")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=8, frameon=False, title="last batch, all test rows, %", title_fontsize=8, **_BELOW)
    axes[0][0].set_ylabel("C's accuracy, %")
    figure.suptitle(f"{result['dataset']}: {title}, mean of {result['seeds']} seed(s)", fontsize=12)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)
