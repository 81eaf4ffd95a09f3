"""The figures of an audit's report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

from labelwright.report.figures import INK, for_page, matrix, matrix_sizes


def scores(axis: Axes, data: Mapping[str, Any], narrow: bool) -> None:
    """How many rows have which label_score: a logarithmic scale, else the few doubted rows could not be seen."""
    edges, counts = np.array(data["scores"]["edges"]), np.array(data["scores"]["counts"], float)
    middle, width = (edges[:-1] + edges[1:]) / 2, np.diff(edges)
    doubted = middle < 0.5
    for here, colour in ((doubted, "rejected"), (~doubted, "kept")):
        axis.bar(middle[here], counts[here] - 0.6, bottom=0.6, width=0.86 * width[here], color=INK[colour])
    top = max(10.0, 2.2 * counts.max(initial=1.0))
    axis.axvline(0.5, color=INK["ink"], lw=1.3, ls="--")
    axis.set_yscale("log")
    axis.set(xlim=(-0.005, 1.005), ylim=(0.6, top), xlabel="label_score", ylabel="rows (logarithmic)")
    height, gap = top / 1.25, 0.012
    words = ("doubted", "kept") if narrow else ("label looks wrong", "label looks right")
    axis.text(0.5 - gap, height, f"◂ {words[0]}", ha="right", va="top", color=INK["rejected"])
    axis.text(0.5 + gap, height, f"{words[1]} ▸", ha="left", va="top", color=INK["kept"])
    axis.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
    axis.yaxis.set_minor_locator(NullLocator())


def audit_figures(data: Mapping[str, Any]) -> dict[str, dict[str, str] | None]:
    """name -> {"wide", "narrow"}: SVG for the page, or None where there is nothing to draw."""
    wide, narrow = matrix_sizes(len(data["confusion"]["classes"]))
    there = data["confusion"]["transition"] is not None
    return {
        "scores": for_page(scores, data, (8.8, 2.9), (4.1, 3.2), "scores"),
        "matrix": for_page(matrix, data, wide, narrow, "matrix") if there else None,
    }
