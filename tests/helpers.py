"""Small shared helpers: a user-style CSV, and running the command line."""

from __future__ import annotations

import contextlib
import csv
import io
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

WORDS = {
    "good": ("great", "love", "excellent", "happy", "fast"),
    "bad": ("broken", "terrible", "refund", "slow", "awful"),
    "meh": ("okay", "average", "fine", "normal", "usual"),
}
COMMON = ("the", "product", "delivery", "box", "price", "service", "was", "and", "it", "my", "order", "with")


def write_reviews(path: Path, n: int = 600, *, noise: float = 0.3, seed: int = 0, start: int = 0) -> None:
    """A CSV as users have them: text, number, category, missing values, an id, flipped labels and the true ones."""
    rng = np.random.default_rng([seed, start])
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["rid", "review", "price", "city", "label", "true"])
        for i in range(start, start + n):
            true = str(rng.choice(list(WORDS)))
            words = [*rng.choice(WORDS[true], 2), *rng.choice(COMMON, 5)]
            price = rng.normal({"good": 20, "bad": 35, "meh": 27}[true], 5)
            given = str(rng.choice([c for c in WORDS if c != true])) if rng.random() < noise else true
            city = "" if rng.random() < 0.05 else rng.choice(["Delft", "Porto", "Oslo"])
            writer.writerow([f"r{i}", " ".join(words), "" if rng.random() < 0.1 else f"{price:.2f}", city, given, true])


def run_cli(*arguments: object, cwd: Path | None = None, **options: object) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    command = [sys.executable, "-c", "from labelwright.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=250, **options)  # type: ignore[call-overload,no-any-return]


def call_cli(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The program in this process: quicker, for where a process of its own does not matter."""
    from labelwright.cli import main

    out, err, before, log = io.StringIO(), io.StringIO(), sys.argv, logging.getLogger("labelwright")
    logging_before = log.handlers, log.propagate, log.level  # the program sets the log up for a process of its own
    sys.argv = ["labelwright", *map(str, arguments)]
    code: object = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as ended:
        code = ended.code
    finally:
        sys.argv = before
        log.handlers, log.propagate = logging_before[:2]
        log.setLevel(logging_before[2])
    return subprocess.CompletedProcess(sys.argv, int(str(code or 0)), out.getvalue(), err.getvalue())


def run_through_kills(code: str, folder: Path, *, kills: int) -> None:
    """Run Python code that works on a folder (its only argument), killed so many times a moment after it got on, until it ends
    well."""
    rng, done = np.random.default_rng(0), 0
    for _ in range(kills + 4):
        child = subprocess.Popen([sys.executable, "-c", code, str(folder)], env={**os.environ, "OMP_NUM_THREADS": "1"})
        deadline, before = time.monotonic() + 60, files_in(folder)
        while done < kills and child.poll() is None and time.monotonic() < deadline:
            if files_in(folder) != before:
                time.sleep(0.3 * rng.random())
                child.send_signal(signal.SIGKILL)
                done += 1
                break
            time.sleep(0.01)
        if child.wait() == 0:
            break
    assert done == kills and child.returncode == 0


def files_in(folder: Path) -> set[tuple[str, int]]:
    """Names and times of the files of an experiment; not those that are still being written, nor locks."""
    names = (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".") and p.suffix != ".lock")
    return {(p.name, p.stat().st_mtime_ns) for p in names}
