"""Speed and memory of the audit, against cleanlab 2.9 in the same run, on the same files.

    python benchmarks/audit_speed.py [--json FILE] [--quick]

Every measurement runs in a process of its own, on 2 threads or as many cores as there are; the file is in the page cache.
"Memory" is the largest anonymous memory (RssAnon) above what the process had before the call: pages of the mapped file do
not count. The limit is the time to read the file's bytes once, measured by a plain sum on as many threads.
Needs: cleanlab (in the dev extra: a rival, not a dependency).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

CHILD = """
import json, sys, threading, time, warnings
warnings.filterwarnings("ignore")
import numpy as np
what, folder, repeats = sys.argv[1], sys.argv[2], int(sys.argv[3])
proba = np.load(folder + "/proba.npy", mmap_mode="r")
given = np.load(folder + "/given.npy")

def anonymous():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) / 1024

def ours():
    import labelwright
    found = labelwright.audit(given, proba)
    return int(found.flagged.sum()), len(found.label_score)

def frame():
    import labelwright
    found = labelwright.audit(given, proba)
    return int(found.issues.is_label_issue.sum()), float(found.noise_rate)

def cleanlab_filter():
    from cleanlab.filter import find_label_issues
    return int(find_label_issues(given, proba, n_jobs=1).sum())

def cleanlab_batched():
    from cleanlab.experimental.label_issues_batched import find_label_issues_batched
    return len(find_label_issues_batched(labels=given, pred_probs=proba, verbose=False))

def read_once():
    from concurrent.futures import ThreadPoolExecutor
    import os
    threads = len(os.sched_getaffinity(0))
    size = max(1, 33_554_432 // (4 * proba.shape[1]))
    parts = [proba[i : i + size] for i in range(0, len(proba), size)]
    with ThreadPoolExecutor(threads) as pool:
        return float(sum(pool.map(lambda part: float(np.asarray(part).sum()), parts)))

call = {"ours": ours, "frame": frame, "filter": cleanlab_filter, "batched": cleanlab_batched, "read": read_once}[what]
import pandas  # what every contestant loads anyway is not measured
import scipy.linalg, scipy.sparse, scipy.special
if what in ("ours", "frame"):
    import labelwright
    labelwright.audit([0, 1] * 20, np.array([[0.9, 0.1], [0.1, 0.9]] * 20)).label_score
if what in ("filter", "batched"):
    import cleanlab.filter, cleanlab.experimental.label_issues_batched
before, peak, going = anonymous(), 0.0, True

def watch():
    global peak
    while going:
        peak = max(peak, anonymous())
        time.sleep(0.002)

watcher = threading.Thread(target=watch)
watcher.start()
times, said = [], None
for _ in range(repeats):
    start = time.perf_counter()
    said = call()
    times.append(time.perf_counter() - start)
going = False
watcher.join()
print(json.dumps({"seconds": float(np.median(times)), "all": times, "mb": max(0.0, peak - before), "said": said}))
"""


def data(folder: Path, n: int, k: int, seed: int = 0) -> None:
    """Made-up probabilities, 10 % of the labels wrong, written part by part."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    y = rng.integers(k, size=n)
    out = np.lib.format.open_memmap(folder / "proba.npy", mode="w+", dtype=np.float32, shape=(n, k))
    step = max(1, 4_000_000 // k)
    for start in range(0, n, step):
        part = slice(start, min(start + step, n))
        scores = 1.5 * rng.standard_normal((part.stop - start, k), dtype=np.float32)
        scores[np.arange(len(scores)), y[part]] += 3.0 + np.log(k)
        np.exp(scores, out=scores)
        out[part] = scores / scores.sum(axis=1, keepdims=True)
    out.flush()
    wrong = rng.random(n) < 0.1
    np.save(folder / "given.npy", np.where(wrong, (y + rng.integers(1, k, size=n)) % k, y))


def run(what: str, folder: Path, repeats: int = 3) -> dict[str, Any]:
    """One contestant on one file, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, what, str(folder), str(repeats)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1]}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def against(folder: Path, rivals: tuple[str, ...], repeats: int, rival_repeats: int) -> dict[str, Any]:
    """Ours, the limit, and the rivals on one file; ratios above 1 mean that ours is faster."""
    run("read", folder, 1)
    out: dict[str, Any] = {"read_once": run("read", folder, 3), "ours": run("ours", folder, repeats)}
    for rival in rivals:
        out[rival] = run(rival, folder, rival_repeats)
        if "seconds" in out[rival]:
            out[f"times_faster_than_{rival}"] = round(out[rival]["seconds"] / out["ours"]["seconds"], 1)
    gigabytes = (folder / "proba.npy").stat().st_size / 1e9
    out["limit"] = {
        "bytes_once_seconds": out["read_once"]["seconds"],
        "gb_per_second": round(gigabytes / out["read_once"]["seconds"], 1),
        "share_of_limit": round(out["read_once"]["seconds"] / out["ours"]["seconds"], 3),
    }
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="small files only")
    options = parser.parse_args()
    from labelwright.bench.provenance import provenance

    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def case(title: str, n: int, k: int, rivals: tuple[str, ...], repeats: int, rival_repeats: int = 1) -> None:
            data(folder / title, n, k)
            results[title] = against(folder / title, rivals, repeats, rival_repeats)
            (folder / title / "proba.npy").unlink()
            told = {key: value for key, value in results[title].items() if not isinstance(value, dict)}
            ours = results[title]["ours"]
            if "failed" in ours:
                raise SystemExit(f"{title}: {ours['failed']}")
            told |= {"seconds": round(ours["seconds"], 4), "us_per_row": round(1e6 * ours["seconds"] / n, 2)}
            told |= {"mb_beyond_the_file": round(ours["mb"]), "limit": results[title]["limit"]}
            told |= {f"{r}_seconds": round(results[title][r].get("seconds", -1), 3) for r in rivals}
            told |= {f"{r}_mb": round(results[title][r].get("mb", -1)) for r in rivals}
            print(title, json.dumps(told, indent=1), flush=True)

        case("interactive 2,000 x 10", 2_000, 10, ("filter",), 21, 5)
        case("20,000 x 10", 20_000, 10, ("filter",), 5, 3)
        case("200,000 x 10", 200_000, 10, ("filter",), 3, 1)
        if not options.quick:
            case("150,000 x 1,000", 150_000, 1_000, ("filter", "batched"), 5, 2)
            case("10,000,000 x 10", 10_000_000, 10, ("batched",), 1, 1)
            case("20,000 x 10,000", 20_000, 10_000, ("batched",), 3, 1)
    if options.json:
        kept = {
            **results,
            "cores": len(os.sched_getaffinity(0)),
            "provenance": provenance("python benchmarks/audit_speed.py"),
        }
        options.json.write_text(json.dumps(kept, indent=1))


if __name__ == "__main__":
    main()
