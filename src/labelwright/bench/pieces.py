"""What all experiments with networks share: pieces that are run once and read back, progress, figures of several seeds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from labelwright.bench.workers import spread
from labelwright.errors import SettingsError
from labelwright.tables import write_bytes

Tick = Callable[[str], None]
Progress = Callable[[str, int, int], None]


def _unseen(what: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class How:
    """How an experiment is run: the options that all of them share. An experiment without use for one leaves it alone.

    profile: compact, paper, or what the experiment names. seeds: repeats; the experiment's own number when None. seed: the first.
    device: auto, cpu or cuda. data_dir: folder of benchmark data; $LABELWRIGHT_DATA when None. output: folder for the JSON,
    the plot and, in ``pieces``, what is finished. workers: pieces run side by side, each in a process.
    progress: told what is being run, steps done, steps in all.

    >>> How(seeds=2, seed=5).range(3), How().range(3), str(How(profile="paper").file("live-mnist"))
    (range(5, 7), range(0, 3), 'experiments/results/live-mnist-paper.json')
    """

    profile: str = "compact"
    seeds: int | None = None
    seed: int = 0
    device: str = "auto"
    data_dir: str | None = None
    output: Path = Path("experiments/results")
    workers: int = 1
    progress: Progress = _unseen

    def range(self, usual: int) -> range:
        """The seeds to run; ``usual``: how many when none were asked for."""
        return range(self.seed, self.seed + (usual if self.seeds is None else self.seeds))

    def command(self, name: str, dataset: str, usual: int) -> str:
        """What was ordered, as it is typed.

        >>> How(seed=5).command("fig7", "mnist", 3)
        'labelwright bench fig7 --dataset mnist --profile compact --seeds 3 --seed 5'
        """
        first = f" --seed {self.seed}" if self.seed else ""
        return f"labelwright bench {name} --dataset {dataset} --profile {self.profile} --seeds {len(self.range(usual))}{first}"

    def pieces(self, name: str) -> Path:
        """Folder of the finished pieces of an experiment on a data set."""
        return self.output / "pieces" / f"{name}-{self.profile}"

    def file(self, name: str) -> Path:
        """Where its JSON goes."""
        return self.output / f"{name}-{self.profile}.json"


USUAL = How()


@dataclass(frozen=True)
class Job:
    """One piece: a method in a group (a way of training, a kind of noise) on one seed."""

    seed: int
    group: str
    method: str

    def path(self, folder: Path) -> Path:
        """Where its record is, or will be."""
        return self.folder(folder) / f"{self.group}-{self.method}.json".replace(" ", "-")

    def folder(self, folder: Path) -> Path:
        """What belongs to its seed."""
        return folder / f"seed-{self.seed}"


def run_all(
    jobs: Sequence[Job],
    run: Callable[[Job, Path, Tick], Mapping[str, Any]],
    *,
    folder: Path,
    steps: int,
    settings: str,
    more: int = 0,
    workers: int = 1,
    progress: Progress,
) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """(group, method) -> the record of each seed. A piece that has a record is read back, not run.

    run: makes the record of a job, writes it to the path, and ticks ``steps`` times. more: ticks besides. settings: what
    the pieces depend on, in words. workers: processes that run pieces side by side; ``run`` must then be picklable.
    Raises SettingsError when the folder holds pieces of other settings.
    """
    _claim(folder, settings)
    done, total = 0, len(jobs) * steps + more

    def tick(what: str) -> None:
        nonlocal done
        done = min(done + 1, total)
        progress(what, done, total)

    old = {path for job in jobs if (path := job.path(folder)).exists()}
    if workers > 1:
        paths = {job: job.path(folder) for job in jobs}
        spread([(p.stem, run, (job, p)) for job, p in paths.items() if p not in old], workers, tick)
    out: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for job in jobs:
        path = job.path(folder)
        if path.exists():
            for _ in range(steps if path in old else 0):
                tick(path.stem)
            record = _read(path)
        else:
            record = run(job, path, tick)
        out.setdefault((job.group, job.method), []).append(dict(record))
    return out


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise SettingsError(f"the piece {path} is damaged ({error}); delete it, and it is run again") from error


def _claim(folder: Path, settings: str) -> None:
    note = folder / "settings.txt"
    held = note.read_text() if note.exists() else settings
    if held != settings:
        raise SettingsError(
            f"the pieces in {folder} were made by other settings ({note} tells which); move the folder away, or name another "
            "--output"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(settings.encode(), note)


def mean_and_interval(values: Sequence[float]) -> dict[str, Any]:
    """Mean, half-width of the 95 % interval by Student's t (None for one value), and the values.

    >>> mean_and_interval([1.0, 3.0])["mean"]
    2.0
    """
    from scipy.stats import t

    n, half = len(values), None
    if n > 1:
        half = round(float(t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n)), 3)
    return {"mean": round(float(np.mean(values)), 3), "ci95": half, "values": [round(float(v), 3) for v in values]}


MEANS = ("kept_precision", "kept_recall", "noise_left_mean", "noise_estimate", "transition_off_by", "asked")
SECONDS = ("judging_s", "training_s")
CURVES = ("curve", "epochs", "noise_left")


def averaged(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Accuracies with intervals; means of counts, seconds and curves."""
    out: dict[str, Any] = {
        who: mean_and_interval([run[who] for run in runs]) for who in ("c", "l", "mean") if who in runs[0]
    }
    for names, digits in ((MEANS, 4), (SECONDS, 1)):
        for name in names:
            values = [run[name] for run in runs if run.get(name) is not None]
            if values:
                out[name] = round(float(np.mean(values)), digits)
    for name in CURVES:
        if runs[0].get(name) and len({len(run[name]) for run in runs}) == 1:  # an early version left gaps out
            out[name] = _mean_curve([run[name] for run in runs])
    return out


def _mean_curve(curves: Sequence[Sequence[float | None]]) -> list[float | None]:
    """Mean of each place over the curves that have a value there; None where none has."""
    points = ([value for value in place if value is not None] for place in zip(*curves, strict=True))
    return [round(float(np.mean(values)), 4) if values else None for values in points]


def cells(value: Mapping[str, Any] | None) -> list[str]:
    """Mean and half-width as two cells of a table."""
    if value is None:
        return ["", ""]
    return [f"{value['mean']:.2f}", "" if value["ci95"] is None else f"{value['ci95']:.2f}"]


def percent(share: float | None) -> str:
    """A share as a cell of a table.

    >>> percent(0.305), percent(None)
    ('30.5 %', '')
    """
    return "" if share is None else f"{100 * share:.1f} %"


def written(result: Mapping[str, Any], path: Path, draw: Callable[[Mapping[str, Any], Path], None]) -> None:
    """The result as JSON at ``path``, its plot beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(json.dumps(result, indent=1).encode(), path)
    draw(result, path.with_suffix(".png"))
