"""The experts' page under load: the next item with a million waiting, 50 people answering at once, a kill in the middle, and how
quickly a browser paints.

    python benchmarks/page_load.py [--items 1000000] [--people 50] [--seconds 20]

The server is ``labelwright serve`` on SQLite in a process of its own. A person is a connection that answers an item as soon as it has it
(``/api/answer``, which returns the next). The rival, in the same run: a bare endpoint of the same framework and server that only
writes one row a request.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from labelwright.bench.provenance import provenance
from labelwright.ledger import History
from labelwright.ledger.queue import ExpertQueue
from labelwright.types import Queries, Rows, row_keys

MAIN = "from labelwright.cli import main; main()"
BARE = """
import sqlite3, sys, uvicorn
from fastapi import FastAPI
app, base = FastAPI(), sqlite3.connect(sys.argv[1], isolation_level=None, check_same_thread=False)
base.execute("pragma journal_mode=wal"); base.execute("pragma synchronous=normal"); base.execute("create table said (label text)")
@app.post("/api/answer")
async def answer():
    base.execute("insert into said values ('1')")
    return {"item": {"key": 1, "given": "0"}}
uvicorn.run(app, port=int(sys.argv[2]), log_level="error", access_log=False)
"""


def make_state(folder: Path, rows: int) -> Path:
    """A ledger over numbers in two classes, 2,000 rows a batch."""
    rng = np.random.default_rng(0)
    y = rng.integers(10, size=rows)
    X = rng.normal(size=(rows, 8)) + 2.0 * np.eye(10, 8)[y]
    given = np.where(rng.random(rows) < 0.2, rng.integers(10, size=rows), y)
    table = pa.table({**{f"f{at}": X[:, at] for at in range(8)}, "label": [str(g) for g in given]})
    pq.write_table(table, folder / "rows.parquet")
    command = [
        "run",
        folder / "rows.parquet",
        "--label",
        "label",
        "--batch-size",
        2000,
        "--budget",
        1,
        "--quality",
        "bayes",
    ]
    call(*command, "--classifier", "bayes", "--state", folder / "state")
    return folder / "state"


def call(*arguments: object) -> None:
    subprocess.run([sys.executable, "-c", MAIN, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def fill(state: Path, rows: int, items: int) -> None:
    """Questions: the ledger's rows first, then as many others of less value as make up the number."""
    history = History(f"sqlite:///{state}/ledger.db")
    queue, rng = ExpertQueue(history.engine, classes=len(history.classes)), np.random.default_rng(0)
    real = np.concatenate([row_keys(number, 2000) for number in range(rows // 2000)])
    others = (np.int64(1) << 50) + np.arange(max(0, items - len(real)))
    for keys, low in [(real, 2.0), *((part, 0.0) for part in np.array_split(others, max(1, len(others) // 100_000)))]:
        n = len(keys)
        made = Rows(rng.normal(size=(n, 8)).astype(np.float32), rng.integers(10, size=n), keys)
        list(queue.ask(Queries(made, low + rng.random(n), rng.integers(10, size=n), rng.random(n), "margin")))


@contextmanager
def server(state: Path, port: int = 0) -> Any:
    """(address, process) of labelwright serve."""
    command = [sys.executable, "-c", MAIN, "serve", "--state", str(state), "--port", str(port), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())["url"].rstrip("/"), process
    finally:
        process.terminate()
        process.wait()


def one_person(url: str, path: str, count: int) -> dict[str, float]:
    """Milliseconds of a request, one person alone, who answers in between so that the item is a new one each time."""
    connection, took = http.client.HTTPConnection(urlparse(url).netloc), []
    who = {"x-expert": "alone", "cookie": "labelwright_name=alone"}
    for _ in range(count):
        start = time.perf_counter()
        connection.request("GET", path, headers=who if path.startswith("/api") else {"cookie": who["cookie"]})
        body = connection.getresponse().read()
        took.append(1000 * (time.perf_counter() - start))
        key = (
            json.loads(body)["item"]["key"]
            if path.startswith("/api")
            else int(body.split(b'name="key" value="')[1].split(b'"')[0])
        )
        _answer(connection, "alone", key)
        time.sleep(0.02)
    return {f"p{q}_ms": float(np.percentile(took, q)) for q in (50, 95, 99)}


def _answer(connection: http.client.HTTPConnection, who: str, key: int) -> dict[str, Any]:
    body = json.dumps({"key": key, "label": str(key % 10)})
    connection.request("POST", "/api/answer", body, {"x-expert": who, "content-type": "application/json"})
    return json.loads(connection.getresponse().read())


def many_people(url: str, people: int, seconds: float, killed: Any = None) -> dict[str, Any]:
    """Acknowledged answers of all together: key -> who; and the waits in milliseconds. killed: ends the server half way."""
    said: dict[int, str] = {}
    doubled, waits, problems = [0], list[float](), list[str]()
    until = time.perf_counter() + seconds
    turn = threading.Lock()

    def work(name: str) -> None:
        connection = http.client.HTTPConnection(urlparse(url).netloc)
        key = None
        try:
            connection.request("GET", "/api/next", headers={"x-expert": name})
            key = json.loads(connection.getresponse().read())["item"]["key"]
            while time.perf_counter() < until:
                start = time.perf_counter()
                told = _answer(connection, name, key)
                passed = 1000 * (time.perf_counter() - start)
                with turn:
                    waits.append(passed)
                    if told.get("message", "").startswith("Saved"):
                        doubled[0] += key in said
                        said[key] = name
                    elif "item" not in told:
                        problems.append(str(told)[:200])
                        return
                key = told["item"]["key"]
        except (OSError, http.client.HTTPException, ValueError, TypeError) as error:
            if killed is None:
                problems.append(repr(error))

    threads = [threading.Thread(target=work, args=(f"person {at}",)) for at in range(people)]
    for thread in threads:
        thread.start()
    if killed is not None:
        time.sleep(seconds / 2)
        killed.kill()
    for thread in threads:
        thread.join()
    return {"said": said, "doubled": doubled[0], "waits": waits, "problems": problems}


def lost(state: Path, said: dict[int, str]) -> int:
    """How many acknowledged answers the database has not, or has from another person or with another label."""
    import sqlite3

    rows = sqlite3.connect(state / "ledger.db").execute("select key, expert, label from queue_replies").fetchall()
    held = {(key, who): label for key, who, label in rows}
    return sum(held.get((key, who)) != key % 10 for key, who in said.items())


def bare(folder: Path, people: int, seconds: float) -> float:
    """Requests a second of the bare endpoint."""
    port = 18_119
    process = subprocess.Popen([sys.executable, "-c", BARE, str(folder / "bare.db"), str(port)])
    done, until = [0] * people, time.perf_counter() + seconds + 4
    time.sleep(4)

    def work(at: int) -> None:
        connection = http.client.HTTPConnection(f"127.0.0.1:{port}")
        while time.perf_counter() < until:
            _answer(connection, "x", 1)
            done[at] += 1

    threads = [threading.Thread(target=work, args=(at,)) for at in range(people)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    process.terminate()
    process.wait()
    return sum(done) / seconds


def paint(url: str, times: int = 9) -> dict[str, float] | None:
    """Milliseconds to the first contentful paint, medians: in a tab that is open, as between two questions, and in a new tab with
    nothing cached; beside it a new tab with one line of text, which is the browser's own share. And the page's kilobytes."""
    chromium = shutil.which("chromium")
    if chromium is None:
        return None
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    first = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
    took: dict[str, list[float]] = {"open_tab": [], "new_tab": [], "new_tab_one_line": []}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        still = browser.new_context().new_page()
        for _ in range(times):
            for name, path in (("open_tab", "/"), ("new_tab", "/"), ("new_tab_one_line", "/health")):
                page = still if name == "open_tab" else browser.new_context().new_page()
                page.goto(url + path)
                page.wait_for_load_state("networkidle")
                took[name].append(page.evaluate(first))
        browser.close()
    connection = http.client.HTTPConnection(urlparse(url).netloc)
    size = 0
    for path in ("/", "/static/page.js"):
        connection.request("GET", path)
        size += len(connection.getresponse().read())
    return {**{f"{name}_ms": float(np.median(ms)) for name, ms in took.items()}, "kilobytes": size / 1000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--people", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--output", type=Path, default=Path("experiments/results/page-speed.json"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        state = make_state(folder, given.rows)
        fill(state, given.rows, given.items)
        out: dict[str, Any] = {
            "items": given.items,
            "people": given.people,
            **provenance("python benchmarks/page_load.py"),
        }
        with server(state) as (url, process):
            out["next_by_api"] = one_person(url, "/api/next", 200)
            out["page"] = one_person(url, "/", 200)
            out["browser"] = paint(url)
            load = many_people(url, given.people, given.seconds)
            out["load"] = {
                "answers_a_second": len(load["said"]) / given.seconds,
                "doubled": load["doubled"],
                "lost": lost(state, load["said"]),
                "problems": load["problems"][:3],
                **{f"p{q}_ms": float(np.percentile(load["waits"], q)) for q in (50, 95, 99)},
            }
        with server(state) as (url, process):
            load = many_people(url, given.people, 6.0, killed=process)
        out["killed"] = {
            "acknowledged": len(load["said"]),
            "lost": lost(state, load["said"]),
            "doubled": load["doubled"],
        }
        out["bare_endpoint_a_second"] = bare(folder, given.people, 8.0)
    given.output.write_text(json.dumps(out, indent=1) + "\n")
    print(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
