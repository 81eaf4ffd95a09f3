"""Table II of the paper: No-Sel, RAD Duo and Full-Clean with networks, by the paper's way of training and an improved one.

Every comparison is within one way: No-Sel and Full-Clean train by the same replay, averaging and epochs, and where replay is
prioritized, by prioritized replay too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from labelwright.bench.deep import DeepStream, control, draw, final_accuracies, networks, run_stream, start_state
from labelwright.bench.deep_figures import table2_figure
from labelwright.bench.pieces import USUAL, How, Job, Tick, averaged, cells, percent, run_all, written
from labelwright.bench.profiles import Profile, find_profile
from labelwright.bench.provenance import provenance
from labelwright.errors import DataError
from labelwright.imitation import NoImitator, PosteriorImitator, SoftImitator
from labelwright.loop import System
from labelwright.selection import RadDuo, Slim

RECIPES = ("paper", "improved")
METHODS: Mapping[str, tuple[str, ...]] = {
    "paper": ("no-sel", "rad-duo", "full-clean"),
    "improved": (
        "no-sel", "rad-duo", "rad-duo+correct", "rad-duo+soft", "full-clean",
        "no-sel+prioritized", "rad-duo+soft+prioritized", "full-clean+prioritized",
    ),
}  # fmt: skip
ABLATIONS = ("opt-sel", "opt-sel+prioritized", "rad-duo+buffer", "slim", "slim+soft")
"""Of the improved way: a perfect filter that only drops (what filtering can reach at best), the buffer, one network."""
BEST = "rad-duo+soft+prioritized"
"""The improved variant that headlines quote, named beforehand: on seeds 10 and 11, which no table reports."""
BUFFER = 1000
SURE = 0.9


def system(
    method: str, profile: Profile, recipe: str, stream: DeepStream, seed: int, *, device: str = "auto"
) -> System:
    """A method as a configuration of the loop."""
    name, *more = method.split("+")
    slim = name == "slim"
    both = networks(
        profile, profile.way(recipe), stream, seed, device=device, one=slim, prioritized="prioritized" in more
    )
    known = control(name, both, stream.truth)
    if known is not None:
        return known
    selector = (Slim if slim else RadDuo)(
        both, buffer=BUFFER if "buffer" in more else 0, both="soft" in more, seed=seed
    )
    imitator = SoftImitator(SURE) if "soft" in more else PosteriorImitator(SURE) if "correct" in more else NoImitator()
    return System(selector, both, imitator=imitator)


def run_table2(
    dataset: str,
    how: How = USUAL,
    *,
    recipes: Sequence[str] = RECIPES,
    ablations: bool = False,
) -> dict[str, Any]:
    """Every method of both ways on the same rows, networks and seeds; finished pieces are not run again.

    Writes ``table2-<dataset>-<profile>.json`` and ``.png`` into ``output`` (``fig2-…`` for the paper's way alone), pieces
    into ``output/pieces``.
    """
    setting = find_profile(dataset, how.profile)
    seeds = how.range(setting.seeds)
    folder = how.pieces(f"table2-{dataset}")
    jobs = [
        Job(s, recipe, method)
        for s in seeds
        for recipe in recipes
        for method in (*METHODS[recipe], *(ABLATIONS if ablations and recipe == "improved" else ()))
    ]
    piece = partial(run_piece, setting=setting, folder=folder, device=how.device, data_dir=how.data_dir)
    found = run_all(
        jobs, piece, folder=folder, steps=setting.batches, settings=setting.settings, more=len(seeds), workers=how.workers,
        progress=how.progress,
    )  # fmt: skip
    alone = [
        _alone(
            setting, s, Job(s, "", "").folder(folder), device=how.device, data_dir=how.data_dir, tick=lambda what: None
        )
        for s in seeds
    ]
    name = "fig2" if tuple(recipes) == ("paper",) else "table2"
    command = how.command(name, dataset, len(seeds))
    command += " --ablations" if ablations else ""
    named = {f"{group}/{method}": runs for (group, method), runs in found.items()}
    result = assembled(setting, {**named, "d0-only": alone}, provenance(command, how.device))
    written(result, how.file(f"{name}-{dataset}"), table2_figure)
    return result


def run_piece(
    job: Job, path: Path, tick: Tick, *, setting: Profile, folder: Path, device: str, data_dir: str | None
) -> dict[str, Any]:
    """One method by one way on one seed."""
    stream = draw(setting, job.seed, data_dir)
    start = begun(setting, stream, job.seed, job.folder(folder), device=device, tick=tick)
    if job.method.startswith("slim"):  # the classifier alone
        start = {"learners": {"learner-0": start["learners"]["learner-1"]}}
    parts = system(job.method, setting, job.group, stream, job.seed, device=device)
    return run_stream(parts, stream, start=start, path=path, tick=tick)


def begun(
    setting: Profile, stream: DeepStream, seed: int, folder: Path, *, device: str, tick: Tick
) -> Mapping[str, Any]:
    """The state after D0, and what D0 alone reaches in ``d0.json``."""
    from labelwright.learners.tensors import write_whole

    start = start_state(setting, stream, seed, folder / "d0.state", device=device, tick=tick)
    if not (folder / "d0.json").exists():
        alone = networks(setting, setting.paper, stream, seed, device=device)
        alone.restore(start["learners"], stream.fetch)
        told = {**final_accuracies(alone, stream), "training_s": float(start["seconds"])}
        write_whole(folder / "d0.json", json.dumps(told).encode())
    return start


def _alone(
    setting: Profile, seed: int, folder: Path, *, device: str, data_dir: str | None, tick: Tick
) -> dict[str, Any]:
    """What D0 alone reaches; measured again where the file was lost or is damaged."""
    path = folder / "d0.json"
    for _ in range(2):
        try:
            return dict(json.loads(path.read_text()))
        except (OSError, ValueError):
            path.unlink(missing_ok=True)
            begun(setting, draw(setting, seed, data_dir), seed, folder, device=device, tick=tick)
    raise DataError(f"{path} cannot be written; name another --output")


def assembled(
    setting: Profile, found: Mapping[str, Sequence[Mapping[str, Any]]], origin: Mapping[str, Any]
) -> dict[str, Any]:
    """Means, intervals, what was recovered, and the paper's figures."""
    methods = {name: averaged(runs) for name, runs in found.items()}
    put_recovered(methods)
    for name, row in methods.items():
        recipe, _, method = name.partition("/")
        published = (setting.published or {}).get(method)
        if published is not None and recipe == "paper":
            row["published"] = published
            row["deviation"] = round(row["c"]["mean"] - published, 2)
    return {
        "experiment": "table2",
        "dataset": setting.dataset,
        "profile": setting.name,
        "noise": setting.noise,
        "seeds": len(found["d0-only"]),
        "best": BEST,
        "methods": methods,
        "provenance": dict(origin),
    }


def put_recovered(methods: Mapping[str, dict[str, Any]]) -> None:
    """Into each row what it recovered between No-Sel and Full-Clean of the same way and the same replay; of prioritized replay
    also what it recovered between those with evenly drawn replay, as ``recovered_evenly``."""
    for name, row in methods.items():
        recipe, _, method = name.partition("/")
        prioritized = "+prioritized" if method.endswith("+prioritized") else ""
        for told, replay in {"recovered": prioritized, "recovered_evenly": ""}.items():
            low, high = (methods.get(f"{recipe}/{control}{replay}") for control in ("no-sel", "full-clean"))
            if method and low and high and (prioritized or told == "recovered"):
                row[told] = {
                    who: share_of_way(row[who]["mean"], low[who]["mean"], high[who]["mean"]) for who in ("c", "mean")
                }


def share_of_way(value: float, low: float, high: float) -> float | None:
    """Of the way from ``low`` to ``high``; None where there is no way.

    >>> share_of_way(78.0, 76.0, 80.0)
    0.5
    """
    return round((value - low) / (high - low), 4) if high - low > 1e-9 else None


def table(result: Mapping[str, Any]) -> list[list[str]]:
    """Head and rows for people: accuracies in percent."""
    rows = [
        ["way", "method", "C alone", "±", "L and C", "±", "recovered C / both", "of evenly drawn", "kept P / R", "noise left", "η est.",
         "T off by", "judging s", "training s", "paper", "deviation"]
    ]  # fmt: skip
    for name, row in result["methods"].items():
        recipe, _, method = name.partition("/")
        shares = [row.get(which) for which in ("recovered", "recovered_evenly")]
        kept = [percent(row.get(which)) for which in ("kept_precision", "kept_recall")]
        judged = method.startswith(("rad", "slim"))
        rows.append(
            [
                recipe if method else "",
                method or name,
                *cells(row.get("c")),
                *cells(row.get("mean")),
                *(" / ".join(percent(share[who]) for who in ("c", "mean")) if share else "" for share in shares),
                " / ".join(kept) if any(kept) else "",
                percent(row.get("noise_left_mean")),
                percent(row.get("noise_estimate")) if judged else "",
                f"{row['transition_off_by']:.3f}" if judged and "transition_off_by" in row else "",
                f"{row['judging_s']:.0f}" if "judging_s" in row else "",
                f"{row['training_s']:.0f}" if "training_s" in row else "",
                f"{row['published']:.2f}" if "published" in row else "",
                f"{row['deviation']:+.2f}" if "deviation" in row else "",
            ]
        )
    return rows
