"""Table III of the paper: CopyNet and its controls beside the published baselines, with all and with half of the data.

Fig. 7: CopyNet under 20, 30 and 40 % of wrong labels. Both share their pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from labelwright.bench.imitation import SHARES, Setting, draw, find_setting, run_piece
from labelwright.bench.imitation_figures import fig7_figure, table3_figure
from labelwright.bench.pieces import USUAL, How, Job, Tick, mean_and_interval, run_all, written
from labelwright.bench.provenance import provenance
from labelwright.errors import SettingsError

PUBLISHED: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "mnist": {
        "copynet": (99.38, 99.07), "d2l": (86.15, 80.87), "co-teaching": (95.72, 95.36), "bootstrap-soft": (79.47, 51.45),
        "forward": (95.33, 57.21),
    },
    "cifar10": {
        "copynet": (88.30, 83.15), "d2l": (82.45, 77.06), "co-teaching": (80.29, 76.76), "bootstrap-soft": (77.14, 51.32),
        "forward": (81.68, 58.39),
    },
    "cifar100": {
        "copynet": (79.92, 74.35), "d2l": (51.13, 42.11), "co-teaching": (45.68, 35.68), "bootstrap-soft": (44.99, 32.27),
        "forward": (54.18, 48.34),
    },
}  # fmt: skip
"""The paper's Table III, 30 % wrong labels: all data, half of it. "Bootstrap" does not say which kind."""
FIG7 = {0.2: (89.0, 86.0), 0.3: (86.0, 82.0), 0.4: (83.0, 77.0)}
FIG7_METHODS = ("copynet", "copynet-fusing", "plain")
PAPER = ("d2l", "co-teaching", "bootstrap-soft", "bootstrap-hard", "forward")
TRUSTED = {
    "copynet": 1.0, "copynet 10 %": 0.1, "copynet-fusing": 1.0, "copynet-fusing 50 %": 0.5,
    "copynet-fusing 10 %": 0.1, "copynet-fusing 2 %": 0.02, "glc 10 %": 0.1, "full-clean": 1.0,
}  # fmt: skip
"""Share of the rows whose truth a method is told; 0 for all others."""
METHODS = (
    "plain", "copynet", "copynet 10 %", "copynet-fusing", "copynet-fusing 50 %", "copynet-fusing 10 %", "copynet-fusing 2 %",
    *PAPER, "forward, true T", "gce", "elr", "sop", "dividemix", "disc", "glc 10 %", "full-clean",
)  # fmt: skip
WHOLE_ONLY = ("copynet 10 %", "copynet-fusing 50 %", "copynet-fusing 10 %", "copynet-fusing 2 %")
"""Methods that sweep the trusted fraction: with all of the data only."""


def method_of(name: str, setting: Setting, classes: int) -> Any:
    """The method object of a row of the table, None for cross-entropy."""
    from labelwright.baselines.bootstrap import Bootstrap
    from labelwright.baselines.coteaching import CoTeaching
    from labelwright.baselines.d2l import D2L
    from labelwright.baselines.disc import DISC
    from labelwright.baselines.dividemix import DivideMix
    from labelwright.baselines.elr import ELR
    from labelwright.baselines.forward import Forward
    from labelwright.baselines.gce import GCE
    from labelwright.baselines.glc import GLC
    from labelwright.baselines.sop import SOP
    from labelwright.learners.imitating import Imitate

    wrong, paper = setting.noise / (classes - 1), setting.profile == "paper"
    right = tuple(tuple(1 - setting.noise if i == j else wrong for j in range(classes)) for i in range(classes))
    known: dict[str, Callable[[], Any]] = {
        "plain": lambda: None,
        "full-clean": lambda: None,
        "copynet": lambda: Imitate("dense"),
        "copynet-fusing": lambda: Imitate("fusing"),
        "d2l": lambda: D2L({"mnist": 5, "cifar10": 40, "cifar100": 60}.get(setting.dataset) if paper else None),
        "co-teaching": CoTeaching,
        "bootstrap-soft": lambda: Bootstrap("soft"),
        "bootstrap-hard": lambda: Bootstrap("hard"),
        "forward": Forward,
        "forward, true T": lambda: Forward(right),
        "gce": GCE,
        "elr": (lambda: ELR(0.9, 7.0)) if setting.dataset == "cifar100" else ELR,
        "sop": SOP,
        "dividemix": DivideMix,
        "disc": DISC,
        "glc": GLC,
    }
    return known[name if name in known else name.split(" ")[0]]()


def _jobs(
    seeds: Sequence[int], noises: Sequence[float], methods: Sequence[str], parts: Sequence[str] = ("all", "half")
) -> list[Job]:
    return [
        Job(seed, f"{100 * noise:.0f}-{part}", method)
        for seed in seeds
        for noise in noises
        for part in parts
        for method in methods
        if part == "all" or method not in WHOLE_ONLY
    ]


def _run(dataset: str, how: How, jobs: Sequence[Job]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    setting = find_setting(dataset, how.profile)
    piece = partial(_piece, setting=setting, device=how.device, data_dir=how.data_dir)
    return run_all(
        jobs, piece, folder=how.pieces(f"table3-{dataset}"), steps=setting.epochs, settings=setting.settings,
        workers=how.workers, progress=how.progress,
    )  # fmt: skip


def _piece(job: Job, path: Path, tick: Tick, *, setting: Setting, device: str, data_dir: str | None) -> dict[str, Any]:
    percent, _, part = job.group.partition("-")
    here = replace(setting, noise=int(percent) / 100)
    drawn = draw(here, job.seed, data_dir, half=part == "half")
    if job.method == "full-clean":
        drawn = replace(drawn, given=drawn.true)
    method = method_of(job.method, here, drawn.classes)
    trusted = TRUSTED.get(job.method, 0.0)
    return run_piece(here, drawn, job.seed, method, path, trusted=trusted, device=device, tick=tick)


def run_table3(
    dataset: str,
    how: How = USUAL,
    *,
    methods: Sequence[str] | None = None,
    half: bool = True,
) -> dict[str, Any]:
    """Every method on the same rows, network, epochs and seeds; finished pieces are not run again.

    methods: all when None. half: with half of the data, too.
    Writes ``table3-<dataset>-<profile>.json`` and ``.png`` into ``output``, or ``table3-<dataset>-part-<profile>`` for a part of the
    table, so that it does not take the whole one's place.
    """
    setting = find_setting(dataset, how.profile)
    seeds = how.range(setting.seeds)
    unknown = set(methods or ()) - set(METHODS)
    if unknown:
        raise SettingsError(f"{min(unknown)!r} is no row of the table; expected some of {', '.join(METHODS)}")
    parts, chosen = ("all", "half") if half else ("all",), tuple(dict.fromkeys(methods or METHODS))
    jobs = _jobs(seeds, [setting.noise], chosen, parts)
    found = _run(dataset, how, jobs)
    percent = f"{100 * setting.noise:.0f}"
    rows = {
        m: {p: merged(found[f"{percent}-{p}", m]) for p in ("all", "half") if (f"{percent}-{p}", m) in found}
        for m in chosen
    }
    _compare(rows, PUBLISHED.get(dataset, {}))
    command = how.command("table3", dataset, len(seeds))
    command += ("" if half else " --no-half") + "".join(f" --method {name!r}" for name in methods or ())
    stem = f"table3-{dataset}" + ("" if half and len(chosen) == len(METHODS) else "-part")
    result = {
        "experiment": "table3", "dataset": dataset, "profile": how.profile, "seeds": len(seeds), "noise": setting.noise,
        "copying": round(100 * (1 - setting.noise), 2), "shares": list(SHARES), "methods": rows,
        "provenance": provenance(command, how.device), "stem": stem,
    }  # fmt: skip
    written(result, how.file(stem), table3_figure)
    return result


def _compare(rows: Mapping[str, dict[str, Any]], published: Mapping[str, tuple[float, float]]) -> None:
    """Add the paper's figures, how far ours are from them, and the time as a multiple of the plain network's."""
    for name, row in rows.items():
        for part, found in row.items():
            if name in published:
                found["published"] = published[name][("all", "half").index(part)]
                found["deviation"] = round(found.get("own", found["alone"])["mean"] - found["published"], 2)
            if "plain" in rows:
                found["cost"] = round(found["seconds"] / rows["plain"][part]["seconds"], 2)


def run_fig7(dataset: str, how: How = USUAL) -> dict[str, Any]:
    """CopyNet and a plain network with Bayes fusion at 20, 30 and 40 %, with all and half of the data.

    Writes ``fig7-<dataset>-<profile>.json`` and ``.png`` into ``output``.
    """
    seeds = how.range(find_setting(dataset, how.profile).seeds)
    jobs = _jobs(seeds, list(FIG7), FIG7_METHODS)
    found = _run(dataset, how, jobs)
    rates = {f"{100 * rate:.0f}": pair for rate, pair in FIG7.items()}
    rows: dict[str, Any] = {
        percent: {f"{m} {p}": merged(found[f"{percent}-{p}", m]) for p in ("all", "half") for m in FIG7_METHODS
                  if (f"{percent}-{p}", m) in found}
        for percent in rates
    }  # fmt: skip
    if dataset == "cifar10":
        for percent, pair in rates.items():
            for part, figure in zip(("all", "half"), pair, strict=True):
                rows[percent][f"copynet {part}"]["published"] = figure
    command = how.command("fig7", dataset, len(seeds))
    result = {"experiment": "fig7", "dataset": dataset, "profile": how.profile, "seeds": len(seeds), "noise": rows,
              "provenance": provenance(command, how.device)}  # fmt: skip
    written(result, how.file(f"fig7-{dataset}"), fig7_figure)
    return result


def merged(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Several seeds' records as one: accuracies with intervals, means of the rest."""
    first = runs[0]
    out: dict[str, Any] = {
        w: mean_and_interval([run[w] for run in runs]) for w in ("alone", "own", "fused") if w in first
    }
    out["chosen"] = {w: mean_and_interval([run["chosen"][w] for run in runs]) for w in first["chosen"]}
    for name in ("seconds", "truth", "steady", "chosen_epoch", "noise_estimate", "rate"):
        if name in first:
            out[name] = round(float(np.mean([run[name] for run in runs])), 4)
    out["curve"] = np.mean([run["curve"] for run in runs], axis=0).round(2).tolist()
    out["shares"] = {w: np.mean([run["shares"][w] for run in runs], axis=0).round(2).tolist() for w in first["shares"]}
    if "lids" in first:
        out |= {"lids": first["lids"], "turned": [run["turned"] for run in runs]}
    return out


def table(result: Mapping[str, Any]) -> list[list[str]]:
    """Head and rows for people: accuracies in percent, last epoch (and the chosen one)."""
    rows = [
        ["method", "data", "truth", "alone", "±", "chosen", "with label: own", "with label: Bayes", "× plain's time",
         "steady at", "paper", "deviation"]
    ]  # fmt: skip
    rows.append(["copying the label", "", "", "", "", "", f"{result['copying']:.2f}"])
    rows[-1] += [""] * (len(rows[0]) - len(rows[-1]))
    for name, parts in result["methods"].items():
        for part, row in parts.items():
            rows.append(
                [
                    name,
                    part,
                    f"{row['truth']:,.0f}" if row["truth"] else "",
                    f"{row['alone']['mean']:.2f}",
                    "" if row["alone"]["ci95"] is None else f"{row['alone']['ci95']:.2f}",
                    f"{row['chosen']['alone']['mean']:.2f}",
                    f"{row['own']['mean']:.2f}" if "own" in row else "",
                    f"{row['fused']['mean']:.2f}",
                    "" if row.get("cost") is None else f"{row['cost']:.1f}",
                    f"{row['steady']:.0f}",
                    f"{row['published']:.2f}" if "published" in row else "",
                    f"{row['deviation']:+.2f}" if "deviation" in row else "",
                ]
            )
    return rows


def fig7_table(result: Mapping[str, Any]) -> list[list[str]]:
    """Head and rows for people."""
    rows = [["wrong", "method", "alone", "with label: own", "with label: Bayes", "steady at", "paper"]]
    for percent, methods in result["noise"].items():
        for name, row in methods.items():
            cells = [f"{row[w]['mean']:.2f}" if w in row else "" for w in ("alone", "own", "fused")]
            published = f"{row['published']:.0f}" if "published" in row else ""
            rows.append([f"{percent} %", name, *cells, f"{row['steady']:.0f}", published])
    return rows
