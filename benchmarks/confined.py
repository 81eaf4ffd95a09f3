"""Confined against unconfined, in the same run: judging 1,000,000 x 64 rows inside 64 MB, and RAD Duo training two networks.

Unconfined is the same work by the same code on plaintext chunks, in a process of its own with the same number of threads: no
encryption, no wire, no filter, no budget. Times are from the end of the warm-up to the end of the work, the best of ``--repeats``
runs that take turns; for the confined side that includes attestation, keys, decryption, and the sealed results. The processes' own
seconds of CPU stand beside, as they say more on a machine that others use too.

    python benchmarks/confined.py --json experiments/results/confined.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from trust_run_help import Estate

from labelwright.bench.provenance import provenance
from labelwright.trust import tier
from labelwright.trust.host import environment

WIDTH, CLASSES = 64, 10
PLAIN = """
import json, sys, time
from pathlib import Path
import numpy as np
from labelwright.trust.workload import Workload
from labelwright.trust.rehearsal import rehearse
from labelwright.types import Batch
folder, mode = Path(sys.argv[1]), sys.argv[2]
workload = Workload.of(json.loads((folder / f"{mode}.json").read_text()))
rehearse(workload)
from labelwright.trust import tier
from labelwright.trust.work import _SYSTEMS
from labelwright.trust.room import Room
start, cpu, counts = time.perf_counter(), time.process_time(), np.zeros(6, int)
if mode == "judge":
    models = [tier.read((folder / f"{name}.safetensors").read_bytes())[0] for name in ("quality", "classifier")]
    judge = tier.Judge(*models)
else:
    system = _SYSTEMS[mode](Room(workload, None, None, None))
for number, path in enumerate(sorted((folder / mode).glob("*.npz"))):
    with np.load(path) as held:
        X, given, clean = held["X"], held["given"], held["clean"]
    if mode == "judge":
        verdict = judge.judge(number, X, given, clean=clean).verdict
    else:
        verdict = system.step(Batch.of(number, X, given, clean=clean)).verdict
    counts += np.bincount(verdict, minlength=6)
seconds = time.perf_counter() - start
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) << 10
print(json.dumps({"seconds": seconds, "cpu": time.process_time() - cpu, "peak": peak, "verdicts": counts.tolist()}))
"""


def chunks(rows: int, size: int, *, noise: float = 0.2) -> Any:
    """Chunks of Gaussian clouds, ``noise`` of the labels wrong, the first chunk clean."""
    centres = np.random.default_rng(99).normal(size=(CLASSES, WIDTH))
    for number, start in enumerate(range(0, rows, size)):
        rng = np.random.default_rng(number)
        n = min(size, rows - start)
        y = rng.integers(CLASSES, size=n)
        X = (centres[y] + 2 * rng.normal(size=(n, WIDTH))).astype(np.float32)
        wrong = (rng.random(n) < noise) & (number > 0)
        given = np.where(wrong, (y + rng.integers(1, CLASSES, size=n)) % CLASSES, y)
        yield {"X": X, "given": given, "keys": np.arange(start, start + n), "clean": np.full(n, number == 0)}


def prepared(folder: Path, mode: str, rows: int, size: int, memory: str, learn: dict[str, Any]) -> tuple[Estate, Any]:
    """Sealed rows for the host, the same rows in plain, and the workload."""
    estate = Estate(folder / f"estate-{mode}", classes=CLASSES)
    (folder / mode).mkdir(parents=True)

    def both() -> Any:
        for number, chunk in enumerate(chunks(rows, size)):
            np.savez(folder / mode / f"{number:06d}.npz", **chunk)
            yield chunk

    estate.seal(both(), rows=size)
    if mode == "judge":
        for id, model in models().items():
            content = tier.write(model)
            (folder / f"{id}.safetensors").write_bytes(content)
            estate.seal_model(id, content)
    workload = estate.workload(mode, memory, learn=learn)
    (folder / f"{mode}.json").write_bytes(workload.canonical)
    return estate, workload


def models() -> dict[str, tier.Model]:
    """A linear quality model, and a network of 64 hidden units, both fitted by least squares on clean rows."""
    first = next(chunks(4000, 4000))
    target = np.eye(CLASSES)[first["given"]]
    weight = np.linalg.lstsq(np.c_[first["X"], np.ones(4000)], target, rcond=None)[0].astype(np.float32)
    rng = np.random.default_rng(0)
    hidden = (rng.normal(size=(64, WIDTH)) / 8).astype(np.float32)
    out = np.maximum(first["X"] @ hidden.T, 0.01 * (first["X"] @ hidden.T))
    last = np.linalg.lstsq(out, 8 * (target - 0.5), rcond=None)[0].astype(np.float32)
    zeros = np.zeros(64, np.float32)
    network = tier.Network(
        [(hidden, zeros), (last.T.copy(), np.zeros(CLASSES, np.float32))],
        np.ones(WIDTH, np.float32),
        np.zeros(WIDTH, np.float32),
    )
    return {"quality": tier.Linear(6 * weight[:-1], 6 * weight[-1], True), "classifier": network}


def measured(folder: Path, mode: str, estate: Estate, workload: Any, repeats: int) -> dict[str, Any]:
    """Both sides, taking turns; the best of each. Raises SystemExit when their verdicts differ."""
    confined, plain, verdicts = [], [], set()
    for _ in range(repeats):
        command = [sys.executable, "-c", PLAIN, str(folder), mode]
        done = subprocess.run(command, capture_output=True, text=True, env=environment(workload.threads))
        if done.returncode:
            raise SystemExit(done.stderr)
        plain.append(json.loads(done.stdout))
        host = estate.host(workload)
        result = host.run(workload)
        confined.append(
            {
                "seconds": host.told["seconds"],
                "cpu": host.told["cpu_seconds"],
                "peak": result.told["peak"],
                **host.told["confinement"],
            }
        )
        words = ("trusted", "rescued", "asked", "corrected", "rejected", "buffered")
        verdicts |= {tuple(plain[-1]["verdicts"]), tuple(result.report["verdicts"].get(word, 0) for word in words)}
    if len(verdicts) != 1:
        raise SystemExit(f"confined and unconfined verdicts differ: {verdicts}")
    best, rival = (min(run["seconds"] for run in runs) for runs in (confined, plain))
    return {
        "rows": int(sum(next(iter(verdicts)))),
        "memory_budget_mb": workload.memory >> 20,
        "confined_seconds": round(best, 3),
        "unconfined_seconds": round(rival, 3),
        "time_ratio": round(best / rival, 3),
        "speed_share": round(rival / best, 3),
        "confined_cpu_seconds": round(min(run["cpu"] for run in confined), 3),
        "unconfined_cpu_seconds": round(min(run["cpu"] for run in plain), 3),
        "cpu_ratio": round(min(run["cpu"] for run in confined) / min(run["cpu"] for run in plain), 3),
        "confined_peak_mb": round(max(run["peak"] for run in confined) / (1 << 20), 1),
        "bare_process_mb": round(confined[0]["resident"] / (1 << 20), 1),
        "unconfined_peak_mb": round(max(run["peak"] for run in plain) / (1 << 20), 1),
        "memory_held_by": confined[0]["memory"],
        "all_seconds": {
            "confined": [round(r["seconds"], 2) for r in confined],
            "unconfined": [round(r["seconds"], 2) for r in plain],
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--training-rows", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    told: dict[str, Any] = {
        "isolation": "none",
        "targets": {"judging_speed_share": 0.5, "judging_peak_mb": 64, "training_time_ratio": 1.15},
    }
    with tempfile.TemporaryDirectory() as place:
        for name, mode, rows, size, memory, learn in (
            ("judging", "judge", options.rows, 4096, "64 MB", {}),
            ("training", "rad-duo", options.training_rows, 2000, "512 MB", {"epochs": 8, "later_epochs": 3}),
        ):
            estate, workload = prepared(Path(place), mode, rows, size, memory, learn)
            told[name] = measured(Path(place), mode, estate, workload, options.repeats)
            print(name, json.dumps(told[name]), flush=True)
    if options.json:
        origin = provenance("python benchmarks/confined.py --json experiments/results/confined.json")
        options.json.write_text(json.dumps({**told, "provenance": origin}, indent=1) + "\n")


if __name__ == "__main__":
    main()
