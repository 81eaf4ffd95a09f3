"""The report's figures: drawn once for files, twice for the page (wide and narrow), coloured by the page's CSS."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from labelwright.report.tally import FATES, binned

INK = {
    "ink": "#1d2430",
    "soft": "#5a6474",
    "line": "#d8dde4",
    "kept": "#2f6aa8",
    "corrected": "#1c8a78",
    "expert": "#a76d02",
    "asked": "#d19a3a",
    "rejected": "#bd4630",
    "waiting": "#8a929d",
    "violet": "#7550a5",
}
"""Names are the page's CSS variables; values are the light scheme, and what the files show."""

FATE_WORDS = {
    "kept": "kept as given",
    "corrected": "corrected",
    "expert": "settled by expert",
    "asked": "asked, no answer yet",
    "rejected": "rejected",
    "waiting": "waiting",
}
BASELINES = {
    "full-clean": ("ink", ":"),
    "opt-sel": ("corrected", "-."),
    "q-only": ("violet", "--"),
    "no-sel": ("rejected", "--"),
    "d0-only": ("waiting", "-."),
}
Draw = Callable[[Axes, Mapping[str, Any], bool], None]


def accuracy(axis: Axes, data: Mapping[str, Any], narrow: bool) -> None:
    """Test accuracy after every batch, ours and the baselines'."""
    methods = dict(data["accuracy"]["comparison"] or {})
    mine = data["accuracy"]["ours"]
    measured = [100 * m["accuracy"] for m in mine]
    where = [m["batch"] + 1 for m in mine]
    told = methods.pop("ours", None)
    for key, method in methods.items():
        colour, dash = BASELINES.get(key, ("soft", ":"))
        curve = method["curve"]
        axis.plot(range(1, len(curve) + 1), curve, color=INK[colour], ls=dash, lw=1.5, label=_cut(method["label"], 34))
    if not measured and told:
        measured, where = told["curve"], list(range(1, len(told["curve"]) + 1))
    if measured:
        axis.plot(
            where, measured, color=INK["kept"], lw=2.4, marker=_marker(len(where)), ms=4, label="labelwright", zorder=5
        )
    low, high = axis.get_ylim()
    middle, half = (low + high) / 2, max((high - low) / 2, 2.5)
    axis.set_ylim(max(0, middle - half), min(100.4, middle + half))
    axis.set(xlabel="batches", ylabel="test accuracy, %")
    _whole(axis)
    if methods:
        _legend(axis, 1 if narrow else 3)


def verdicts(axis: Axes, data: Mapping[str, Any], narrow: bool) -> None:
    """What became of the rows, batch by batch."""
    bins = binned(data["batches"], 30 if narrow else 60)
    size = bins[0]["last"] - bins[0]["first"] + 1
    x, base = np.array([b["first"] for b in bins], float) + (size - 1) / 2, np.zeros(len(bins))
    for fate in FATES:
        height = np.array([b[fate] for b in bins], float)
        if height.any():
            axis.bar(x, height, bottom=base, width=0.82 * size, color=INK[fate], label=FATE_WORDS[fate])
            base += height
    axis.set(xlabel="batches" if size == 1 else f"batches, {size} together", ylabel="rows")
    axis.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
    axis.set_xlim(x[0] - max(size, 1) * 0.75, x[-1] + max(size, 1) * 0.75)
    _whole(axis)
    _legend(axis, 2 if narrow else 6)


def noise(axis: Axes, data: Mapping[str, Any], narrow: bool) -> None:
    """Share of labels that look wrong: in each batch and in all so far, with the truth where it is known."""
    batches = data["batches"]
    x = np.arange(1, len(batches) + 1)
    here, true, so_far = (_percents(batches, name) for name in ("noise_here", "true_noise", "noise_so_far"))
    band = np.array([b["noise_interval"] or (np.nan, np.nan) for b in batches], float) * 100
    axis.fill_between(x, band[:, 0], band[:, 1], color=INK["kept"], alpha=0.18, lw=0)
    axis.plot(x, so_far, color=INK["kept"], lw=2.2, marker=_marker(len(x)), ms=4, label="estimate, all batches so far")
    axis.plot(x, here, color=INK["expert"], lw=1.2, marker=_marker(len(x)), ms=3, label="estimate, this batch alone")
    if np.isfinite(true).any():
        axis.plot(x, true, color=INK["ink"], lw=1.2, ls=":", marker=_marker(len(x)), ms=3, label="truth, this batch")
    every = np.concatenate([here, true, so_far, band[:, 1]])
    axis.set_ylim(0, min(100, max(5, 1.12 * np.nanmax(every))) if np.isfinite(every).any() else 100)
    axis.set(xlabel="batches", ylabel="labels that look wrong, %")
    _whole(axis)
    _legend(axis, 1 if narrow else 3)


def matrix(axis: Axes, data: Mapping[str, Any], narrow: bool) -> None:
    """Of the rows that are really of one class, how many came with which label."""
    names, transition = data["confusion"]["classes"], np.array(data["confusion"]["transition"])
    k = len(names)
    top = max(0.2, float((transition - np.diag(np.diag(transition))).max(initial=0)))
    size = (10 if k <= 8 else 9 if k <= 12 else 8) if not narrow else (9 if k <= 5 else 8)
    for true, given in np.ndindex(k, k):
        share, right = transition[true, given], true == given
        strength = (0.08 + 0.45 * share) if right else 0.03 + 0.55 * share / top  # pale enough for dark text
        colour = INK["kept" if right else "rejected"]
        axis.add_patch(Rectangle((given - 0.48, true - 0.48), 0.96, 0.96, fc=colour, alpha=strength, lw=0))
        if k <= 12 or not narrow:
            text = f"{100 * share:.0f}" if k > (5 if narrow else 8) or share in (0, 1) else f"{100 * share:.1f}"
            axis.text(given, true, text, ha="center", va="center", fontsize=size, color=INK["ink"])
    axis.set(xlim=(-0.5, k - 0.5), ylim=(k - 0.5, -0.5), aspect="equal")
    labels = [_cut(name, 12 if narrow else 18) for name in names]
    long = max(map(len, labels)) * k > (24 if narrow else 50)
    axis.set_xticks(
        range(k),
        labels,
        rotation=60 if long else 0,
        ha="right" if long else "center",
        rotation_mode="anchor" if long else None,
    )
    axis.set_yticks(range(k), labels)
    axis.set(xlabel="label that came, % of the row", ylabel="label that is true")
    axis.tick_params(length=0, labelsize=8 if k > 12 else None)
    axis.set_anchor("W")
    axis.grid(False)
    axis.spines[:].set_visible(False)


def answers(axis: Axes, data: Mapping[str, Any], narrow: bool) -> None:
    """Wrong labels found against answers given."""
    q, n = data["questions"], len(data["questions"]["found"])
    x = np.arange(n + 1)
    axis.plot(x, x, color=INK["soft"], lw=1.3, ls="--", label="perfect order")
    axis.plot(x, [0, *q["found"]], color=INK["expert"], lw=2.4, label="these answers", zorder=5)
    if q["random"] is not None:
        axis.plot(x, q["random"] * x, color=INK["ink"], lw=1.3, ls=":", label="asking at random")
    axis.set(xlabel="answers", ylabel="wrong labels found", xlim=(0, max(n, 1)), ylim=(0, 1.05 * max(n, 1)))
    axis.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    _whole(axis)
    _legend(axis, 1 if narrow else 3)


def per_answer(axis: Axes, data: Mapping[str, Any], narrow: bool) -> None:
    """Test accuracy against the answers that the models had learned from, ours and other runs'."""
    mine = data["accuracy"]["ours"]
    others = {key: m for key, m in (data["accuracy"]["comparison"] or {}).items() if key != "ours"}
    asked = [m["answers"] for m in mine]
    for at, method in enumerate(others.values()):
        where = method["answers"] if any(method["answers"]) else asked
        n = min(len(where), len(method["curve"]))
        colour, dash = (("rejected", ":"), ("corrected", "--"), ("violet", "-."), ("waiting", "-"))[at % 4]
        label = _cut(method["label"], 34)
        axis.plot(where[:n], method["curve"][:n], color=INK[colour], ls=dash, lw=1.5, label=label)
    shown = [100 * m["accuracy"] for m in mine]
    axis.plot(asked, shown, color=INK["kept"], lw=2.4, marker=_marker(len(mine)), ms=4, label="labelwright", zorder=5)
    axis.set(xlabel="answers learned from", ylabel="test accuracy, %")
    _whole(axis)
    if others:
        _legend(axis, 1 if narrow else 3)


def figures(data: Mapping[str, Any], folder: Path) -> dict[str, dict[str, str]]:
    """Draw what there is to draw: PNG and SVG files in ``folder``; name -> {"wide", "narrow"}: SVG for the page."""
    k = len(data["confusion"]["classes"])
    told = data["accuracy"]
    wanted: dict[str, tuple[bool, Draw, str, tuple[float, float], tuple[float, float]]] = {
        "accuracy": (
            bool(told["ours"] or told["comparison"]),
            accuracy,
            "Test accuracy over batches",
            (8.8, 3.4),
            (4.1, 3.5),
        ),
        "verdicts": (bool(data["batches"]), verdicts, "What became of the rows", (8.8, 3.4), (4.1, 3.5)),
        "noise": (bool(data["batches"]), noise, "Labels that look wrong", (8.8, 3.0), (4.1, 3.4)),
        "matrix": (
            data["confusion"]["transition"] is not None,
            matrix,
            "Which labels are mistaken for which",
            *matrix_sizes(k),
        ),
        "per_answer": (
            any(m["answers"] for m in told["ours"]) and all(m["answers"] is not None for m in told["ours"]),
            per_answer,
            "Accuracy per answer",
            (8.8, 3.4),
            (4.1, 3.5),
        ),
        "answers": (bool(data["questions"]["found"]), answers, "What the answers bought", (8.8, 3.4), (4.1, 3.5)),
    }
    folder.mkdir(parents=True, exist_ok=True)
    out = {}
    for name, (present, draw, title, wide, narrow) in wanted.items():
        for suffix in (".png", ".svg"):
            (folder / f"{name}{suffix}").unlink(missing_ok=True)
        if present:
            _drawn(draw, data, wide, False, title, folder / name)
            out[name] = for_page(draw, data, wide, narrow, name)
    return out


def for_page(
    draw: Draw, data: Mapping[str, Any], wide: tuple[float, float], narrow: tuple[float, float], name: str
) -> dict[str, str]:
    """A figure as SVG for the page, drawn for wide and for narrow screens. wide, narrow: sizes in inches."""
    sizes = {"wide": (wide, False), "narrow": (narrow, True)}
    return {width: _inline(_drawn(draw, data, size, n, None, f"{name}-{width}")) for width, (size, n) in sizes.items()}


def matrix_sizes(classes: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """Sizes of :func:`matrix`, wide and narrow, in inches."""
    return (min(8.8, 3.2 + 0.34 * classes), min(7.8, 2.2 + 0.31 * classes)), (4.1, 4.0)


def _drawn(
    draw: Draw, data: Mapping[str, Any], size: tuple[float, float], narrow: bool, title: str | None, to: Path | str
) -> str:
    """The figure as SVG text; or written as PNG and SVG, where ``to`` is a path without suffix."""
    style = {
        "svg.fonttype": "path" if isinstance(to, Path) else "none",
        "svg.hashsalt": str(Path(to).name),
        "font.size": 10 if narrow else 9,
        "text.parse_math": False,
        "axes.edgecolor": INK["soft"],
        "grid.color": INK["line"],
        **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), INK["ink"]),
        **dict.fromkeys(("xtick.color", "ytick.color"), INK["soft"]),
    }
    out = io.StringIO()
    with rc_context(style), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class name may use letters that the font has not
        figure = Figure(figsize=size, layout="constrained")
        axis = figure.add_subplot()
        axis.grid(axis="y", lw=0.7)
        axis.set_axisbelow(True)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
        draw(axis, data, narrow)
        if isinstance(to, Path):
            figure.suptitle(title or "", fontsize=11, x=0.01, ha="left")
            figure.savefig(to.with_suffix(".png"), dpi=160, facecolor="white", metadata={"Software": None})
            figure.savefig(to.with_suffix(".svg"), facecolor="white", metadata={"Date": None})
        else:
            figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return out.getvalue()


def _inline(svg: str) -> str:
    """An SVG for the page: no header, no metadata, no ids that only name groups, colours as CSS variables."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r'<svg ([^>]*?)width="[^"]*"', r'<svg aria-hidden="true" focusable="false" \1', svg, count=1)
    svg = re.sub(r'(<svg [^>]*?)height="[^"]*"', r"\1", svg, count=1)
    for name, value in INK.items():
        svg = re.sub(rf"(?<=: ){value}\b", f"var(--{name})", svg)
    return svg.strip()


def _percents(batches: list[dict[str, Any]], name: str) -> Any:
    return 100 * np.array([np.nan if b[name] is None else b[name] for b in batches], float)


def _marker(n: int) -> str | None:
    return "o" if n <= 40 else None


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _whole(axis: Axes) -> None:
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))


def _legend(axis: Axes, columns: int) -> None:
    axis.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1.01),
        ncols=columns,
        frameon=False,
        borderaxespad=0,
        handlelength=1.3,
        columnspacing=1.2,
    )
