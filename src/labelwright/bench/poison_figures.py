"""The poison table as a figure and as rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

ARMS = {
    "undefended": "#8a929d",
    "filter": "#a76d02",
    "watch": "#2f6aa8",
    "activation clustering": "#7550a5",
    "spectral signatures": "#1c8a78",
}
PANELS = (
    ("recall", "poisoned rows found"),
    ("precision", "found rows poisoned"),
    ("success", "attack success, %"),
    ("accuracy", "test accuracy, %"),
)


def figure(result: Mapping[str, Any], path: Path) -> None:
    """One row of panels a measure; attacks side by side, rates within."""
    from matplotlib.figure import Figure

    cells = {name: cell for name, cell in result["cells"].items() if not name.startswith("none")}
    drawn = Figure(figsize=(11, 9), layout="constrained")
    axes = drawn.subplots(len(PANELS), 1, sharex=True)
    for axis, (measure, title) in zip(axes, PANELS, strict=True):
        for place, (arm, colour) in enumerate(ARMS.items()):
            points = [
                (at + 0.15 * (place - 2), cell[arm][measure]["mean"])
                for at, cell in enumerate(cells.values())
                if cell[arm][measure]
            ]
            if arm == "undefended" and measure in ("recall", "precision"):
                continue
            axis.bar([x for x, _ in points], [y for _, y in points], 0.15, color=colour, label=arm)
        axis.set_ylabel(title, fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    low = min(cell[arm]["accuracy"]["mean"] for cell in cells.values() for arm in ARMS)
    axes[-1].set_ylim(max(0, low - 3), 100)
    names = [f"{name.rpartition(' ')[0]}\n{100 * float(name.rpartition(' ')[2]):.0f} %" for name in cells]
    axes[-1].set_xticks(range(len(cells)), names, fontsize=6, rotation=60)
    drawn.legend(*axes[-1].get_legend_handles_labels(), loc="outside upper center", ncols=5, frameon=False, fontsize=8)
    drawn.savefig(path, dpi=140)


def table(result: Mapping[str, Any]) -> list[list[str]]:
    """Head and rows: a row for each attack, rate and arm."""
    rows = [["attack", "rate", "way", "flagged", "precision", "recall", "named", "success %", "accuracy %"]]
    for name, cell in result["cells"].items():
        attack, _, rate = name.rpartition(" ")
        for arm in ARMS:
            told = cell[arm]
            named = f"{sum(told['named'])} of {len(told['named'])}" if "named" in told and attack != "none" else ""
            cells = [_shown(told[m], d) for m, d in (("flagged", 0), ("precision", 2), ("recall", 2))]
            rows.append(
                [
                    attack,
                    f"{100 * float(rate):.0f} %",
                    arm,
                    *cells,
                    named,
                    _shown(told["success"], 1),
                    _shown(told["accuracy"], 1),
                ]
            )
    return rows


def _shown(value: Mapping[str, Any] | None, digits: int) -> str:
    return "" if value is None else f"{value['mean']:.{digits}f}"
