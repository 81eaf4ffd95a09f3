"""Plots of Table III, Fig. 7 and transfer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

GREEN, BLUE, GREY, BLACK = "#12704a", "#2e6fb0", "#999999", "#333333"


def table3_figure(result: Mapping[str, Any], path: Path) -> None:
    """Four panels: accuracy without labels, share of rows with one, trusted fraction, D2L's dimensionality."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(13, 10))
    _dots(axes[0][0], result)
    _label_shares(axes[0][1], result)
    _fractions(axes[1][0], result)
    _turning(axes[1][1], result)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    figure.suptitle(
        f"{result['dataset']}, {100 * result['noise']:.0f} % symmetric noise, {result['profile']} profile, "
        f"mean of {result['seeds']} seed(s), last epoch"
    )
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _errors(axis: Any, *, along: str) -> None:
    """An axis of error in percent, evenly for factors: 0.5 and 1 % are as far apart as 15 and 30 %."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    one = axis.xaxis if along == "x" else axis.yaxis
    (axis.set_xscale if along == "x" else axis.set_yscale)("log")
    one.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    one.set_major_formatter(StrMethodFormatter("{x:g}"))
    one.set_minor_formatter(NullFormatter())
    (axis.set_xlabel if along == "x" else axis.set_ylabel)("error, %")


def _dots(axis: Any, result: Mapping[str, Any]) -> None:
    methods = list(result["methods"])[::-1]
    for part, shade, filled in (("half", "#7dc3a0", "none"), ("all", GREEN, GREEN)):
        found = [(at, result["methods"][n][part]) for at, n in enumerate(methods) if part in result["methods"][n]]
        if not found:
            continue
        places, rows = zip(*found, strict=True)
        error = [100 - row["alone"]["mean"] for row in rows]
        half = [row["alone"]["ci95"] or 0.0 for row in rows]
        axis.errorbar(error, places, xerr=half, fmt="o", color=shade, mfc=filled, label=f"{part} of the data")
        if part == "all":
            for at, value in zip(places, error, strict=True):
                axis.annotate(
                    f"{value:.2f}", (value, at), xytext=(0, 6), textcoords="offset points", fontsize=7, ha="center"
                )
    axis.set_yticks(range(len(methods)), methods, fontsize=8)
    _errors(axis, along="x")
    axis.set_title("without given labels at test time", fontsize=11)
    axis.legend(fontsize=8, frameon=False, loc="upper right")


def _lines(result: Mapping[str, Any]) -> dict[str, tuple[list[float], str, str]]:
    """name -> accuracies by share of test rows with a label, colour, line."""
    shades = {
        "copynet": "#c28a1a",
        "copynet-fusing": GREEN,
        "copynet-fusing 10 %": "#4c9f78",
        "copynet-fusing 2 %": "#9fcdb5",
    }
    out = {}
    for name, shade in shades.items():
        if name in result["methods"]:
            out[name] = (result["methods"][name]["all"]["shares"]["own"], shade, "-")
    for name, shade in (("plain", BLUE), ("full-clean", BLACK)):
        if name in result["methods"]:
            out[f"{name} + Bayes fusion"] = (result["methods"][name]["all"]["shares"]["fused"], shade, "--")
    return out


def _label_shares(axis: Any, result: Mapping[str, Any]) -> None:
    for name, (values, shade, line) in _lines(result).items():
        axis.plot(result["shares"], [100 - value for value in values], line, marker="o", color=shade, label=name)
    axis.axhline(100 - result["copying"], color=GREY, linestyle=":", label="copying the label")
    axis.set_xlabel("share of test rows with a given label")
    _errors(axis, along="y")
    axis.set_title("given labels at test time, all data", fontsize=11)
    axis.legend(fontsize=8, frameon=False)


def _fractions(axis: Any, result: Mapping[str, Any]) -> None:
    rows = {
        1.0: result["methods"].get("copynet-fusing"),
        **{f: result["methods"].get(f"copynet-fusing {100 * f:.0f} %") for f in (0.5, 0.1, 0.02)},
    }
    found = {fraction: row["all"] for fraction, row in sorted(rows.items()) if row}
    lines = (
        ("alone", "-o", GREEN, "Amateur alone"),
        ("own", "-s", "#4c9f78", "Expert, with labels"),
        ("fused", "--^", "#9fcdb5", "Amateur + Bayes fusion, with labels"),
    )
    for who, line, shade, label in lines:
        axis.plot(list(found), [100 - row[who]["mean"] for row in found.values()], line, color=shade, label=label)
    for fraction, name in ((1.0, "copynet"), (0.1, "copynet 10 %")):
        row = result["methods"].get(name)
        if row:
            told = "the paper's dense Expert, with labels" if fraction == 1.0 else None
            axis.plot([fraction], [100 - row["all"]["own"]["mean"]], "D", color="#c28a1a", label=told)
    plain = result["methods"].get("plain")
    if plain:
        axis.axhline(100 - plain["all"]["alone"]["mean"], color=BLUE, linestyle=":", label="plain network alone")
        fused = 100 - plain["all"]["fused"]["mean"]
        axis.axhline(fused, color=BLUE, linestyle="--", label="plain + Bayes fusion, with labels")
    axis.axhline(100 - result["copying"], color=GREY, linestyle=":", label="copying the label")
    axis.set_xscale("log")
    axis.set_xticks(list(found), [f"{100 * fraction:.0f} %" for fraction in found])
    axis.minorticks_off()
    axis.set_xlabel("trusted fraction of the training rows")
    _errors(axis, along="y")
    axis.set_title("how much truth the Expert needs", fontsize=11)
    axis.legend(fontsize=8, frameon=False)


def _turning(axis: Any, result: Mapping[str, Any]) -> None:
    row = result["methods"].get("d2l", {}).get("all")
    axis.set_title("D2L: dimensionality and its turning point, first seed", fontsize=11)
    axis.set_xlabel("epoch")
    if not row:
        return
    axis.plot(range(1, len(row["lids"])), row["lids"][1:], color=GREEN, label="local intrinsic dimensionality")
    axis.set_ylabel("local intrinsic dimensionality")
    turned = row["turned"][0]
    if turned is not None:
        axis.axvline(turned, color="#b03a2e", linestyle="--", label=f"turning point, epoch {turned}")
    beside = axis.twinx()
    beside.plot(range(1, 1 + len(row["curve"])), row["curve"], color=BLUE, alpha=0.6, label="test accuracy, %")
    beside.set_ylabel("accuracy, %")
    beside.spines[["top"]].set_visible(False)
    beside.set_ylim(top=100)
    handles = axis.get_legend_handles_labels(), beside.get_legend_handles_labels()
    axis.legend(
        handles[0][0] + handles[1][0], handles[0][1] + handles[1][1], fontsize=8, frameon=False, loc="center right"
    )


def fig7_figure(result: Mapping[str, Any], path: Path) -> None:
    """Accuracy after every epoch, a panel for each share of wrong labels (the paper's Fig. 7)."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(result["noise"]), figsize=(15, 4.8), sharey=True, squeeze=False)
    for axis, (percent, methods) in zip(axes[0], result["noise"].items(), strict=True):
        for name, row in methods.items():
            shade = GREEN if "fusing" in name else "#c28a1a" if name.startswith("copynet") else BLUE
            line = "-" if name.endswith("all") else "--"
            label = f"{name} {row['alone']['mean']:.1f}; with labels {row.get('own', row['fused'])['mean']:.1f}"
            axis.plot(range(1, 1 + len(row["curve"])), row["curve"], line, color=shade, label=label)
        axis.set_title(f"{percent} % wrong labels", fontsize=11)
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=8, frameon=False, loc="lower right")
    axes[0][0].set_ylabel("accuracy without labels at test time, %")
    figure.suptitle(f"{result['dataset']}: CopyNet (truth of all training rows), mean of {result['seeds']} seed(s)")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def transfer_figure(result: Mapping[str, Any], path: Path) -> None:
    """The better Expert's accuracy on each new pattern, and the stream whose noise fluctuates."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    expert = "fusing"
    figure, axes = plt.subplots(1, len(result["patterns"]) + 1, figsize=(20, 5.4))
    for axis, (pattern, experts) in zip(axes, result["patterns"].items(), strict=False):
        row = experts[expert]
        names = list(row)[::-1]
        values = [100 - row[name]["mean"] for name in names]
        shades = [BLACK if "nothing" in n else BLUE if "Bayes" in n else GREEN if "layer" in n else GREY for n in names]
        axis.scatter(values, range(len(names)), color=shades, zorder=3)
        axis.set_yticks(range(len(names)), names)
        for at, value in enumerate(values):
            axis.annotate(f"{value:.2f}", (value, at), xytext=(6, -3), textcoords="offset points", fontsize=7)
        _errors(axis, along="x")
        axis.tick_params(axis="y", labelsize=7)
        axis.set_title(f"from symmetric to {pattern}", fontsize=11)
        axis.set_xlabel("error with given labels, %")
    stream, last = result["stream"][expert], axes[-1]
    shades_of = {"copying": GREY, "as it was": "#9fcdb5", "adapted": GREEN, "from nothing": BLACK, "Bayes' rule": BLUE}
    x = range(1, 1 + len(stream["rate"]))
    for name, shade in shades_of.items():
        error = [max(100 - value, 0.1) for value in stream[name]]
        last.plot(x, error, color=shade, marker="o", markersize=3, label=name)
    last.axvline(len(stream["rate"]) / 2 + 0.5, color="#b03a2e", linestyle=":", label="pattern changes")
    last.set_title("rate 20 % with bursts to 60 %", fontsize=11)
    last.set_xlabel("batch")
    _errors(last, along="y")
    last.set_ylabel("labels wrong, % (0.1: none)")
    last.legend(fontsize=8, frameon=False)
    for axis in axes:
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{result['dataset']}: retraining the Expert ({expert}) alone, mean of {result['seeds']} seed(s)")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
