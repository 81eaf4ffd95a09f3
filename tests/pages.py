"""State folders with open questions, a server in a process of its own, and a browser: for the tests of the experts' page."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from helpers import call_cli, write_reviews
from PIL import Image
from sklearn.datasets import load_digits

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def go(page: Any, address: str) -> None:
    """Open an address and wait for the page's scripts, which come after its first paint."""
    page.goto(address)
    if getattr(page, "scripted", True):
        page.wait_for_function("() => window.htmx !== undefined")


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.round(pixels * (255 / pixels.max())).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


def write_digits(path: Path, n: int = 300, *, noise: float = 0.3, seed: int = 0) -> list[str]:
    """A Parquet file of pictures in the Hugging Face layout: image, label (30 % wrong), true. Returns the true labels."""
    X, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(y))[:n]
    given = np.where(rng.random(n) < noise, (y[chosen] + rng.integers(1, 10, n)) % 10, y[chosen])
    images = pa.array([{"bytes": png(X[at].reshape(8, 8)), "path": f"{at}.png"} for at in chosen])
    true = [NAMES[label] for label in y[chosen]]
    table = pa.table({"image": images, "label": [NAMES[g] for g in given], "true": true})
    pq.write_table(table, path)
    return true


def digits_state(folder: Path, *options: object, n: int = 300) -> Path:
    """A state folder with open questions about digits; the first 100 rows are vouched for and right."""
    write_digits(folder / "digits.parquet", n)
    table = pq.read_table(folder / "digits.parquet")
    label = np.array(table["label"].to_pylist(), object)
    label[:100] = table["true"].to_pylist()[:100]
    pq.write_table(table.set_column(1, "label", pa.array(label)), folder / "digits.parquet")
    state = folder / "state"
    done = call_cli(
        "run", folder / "digits.parquet", "--label", "label", "--truth", "true", "--batch-size", 100, "--clean-rows", 100, "--budget",
        15, "--quality", "linear", "--classifier", "linear", "--state", state, *options,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return state


def reviews_state(folder: Path, *options: object) -> Path:
    """A state folder with open questions about texts with numbers and categories."""
    write_reviews(folder / "reviews.csv")
    state = folder / "state"
    done = call_cli(
        "run", folder / "reviews.csv", "--label", "label", "--id", "rid", "--truth", "true", "--batch-size", 200, "--budget", 10,
        "--quality", "linear", "--classifier", "linear", "--state", state, *options,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return state


@contextmanager
def served(state: Path, *options: object, port: int = 0) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """``labelwright serve`` in a process of its own: (address, process)."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    code = "from labelwright.cli import main; main()"
    command = [sys.executable, "-c", code, "serve", "--state", state, "--port", port, "--json", *options]
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"the server ended with {process.wait()}"
        yield json.loads(line)["url"].rstrip("/"), process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def browser() -> Iterator[Any]:
    """Debian's chromium, driven by Playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield found
        found.close()
