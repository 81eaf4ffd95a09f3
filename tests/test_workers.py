"""Pieces of an experiment in several processes: the same records, each shared start made once, failures named."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from labelwright.bench.pieces import Job, run_all
from labelwright.bench.workers import only_one
from labelwright.errors import SettingsError


def squared(job: Job, path: Path, tick: Callable[[str], None], *, bad: str = "") -> dict[str, Any]:
    """A piece that a worker can be sent; all of a seed share a start."""
    if job.method in bad.split():
        raise ValueError(f"{job.method} cannot be squared")
    start = path.parent / "start"
    with only_one(start):
        if not start.exists():
            with (path.parent / "made").open("a") as made:
                made.write("x")
            start.touch()
    record = {"square": int(job.method) ** 2}
    path.write_text(json.dumps(record))
    tick(path.stem)
    return record


def run(folder: Path, *, workers: int, piece: Any = squared, count: int = 5) -> tuple[Any, list[tuple[int, int]]]:
    told: list[tuple[int, int]] = []
    jobs = [Job(0, "g", str(n)) for n in range(count)]
    found = run_all(
        jobs, piece, folder=folder, steps=1, settings="s", workers=workers, progress=lambda w, d, t: told.append((d, t))
    )
    return found, told


def test_workers_make_the_same_records_and_ticks_as_one_process(tmp_path: Path) -> None:
    one, three = run(tmp_path / "1", workers=1), run(tmp_path / "3", workers=3)
    assert three == one and one[0]["g", "3"] == [{"square": 9}]
    assert one[1] == [(n, 5) for n in range(1, 6)]
    assert (tmp_path / "3" / "seed-0" / "made").read_text() == "x"
    assert run(tmp_path / "3", workers=2) == one  # read back


def test_a_piece_that_fails_in_a_worker_is_named_and_the_others_are_kept(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"piece g-1 failed \(ValueError: 1 cannot be squared\), and 1 more: g-1, g-2"
    ):
        run(tmp_path, workers=2, piece=partial(squared, bad="1 2"))
    assert sorted(p.name for p in tmp_path.rglob("g-*.json")) == ["g-0.json", "g-3.json", "g-4.json"]
    assert run(tmp_path, workers=2)[0]["g", "2"] == [{"square": 4}]  # mended, only those two run
