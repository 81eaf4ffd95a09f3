"""Sealed data: sealing and opening against raw AES-256-GCM on one core in the same run, and the time from attestation to the first key.

    python benchmarks/sealing.py [--megabytes 128] [--rounds 7] [--output FILE]

Raw: ``cryptography``'s AESGCM over the same number of bytes in pieces of the same size, nothing else. Sealing: batches of float32 rows to
chunks under a signed manifest, in memory; opening: chunks to read-only arrays, each checked against the manifest. Contestants take turns,
the best of all rounds counts, in seconds of processor time, so that other programs on the machine weigh less; wall time stands beside.
The key broker is a process of its own on loopback, with the project's verifier and development (sim) evidence; each attestation begins
with a new nonce, a new key and new connections, and ends with the data key in hand.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from labelwright.bench.provenance import provenance
from labelwright.trust import seal

KEY = bytes(range(32))
FEATURES = 64
MB = 1 << 20


def best(contestants: dict[str, Callable[[], Any]], rounds: int) -> dict[str, tuple[float, float]]:
    """name -> (processor seconds, wall seconds) of its best round; contestants take turns."""
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, contest in contestants.items():
            own, wall = time.process_time(), time.perf_counter()
            contest()
            took[name].append((time.process_time() - own, time.perf_counter() - wall))
    return {name: (min(t[0] for t in times), min(t[1] for t in times)) for name, times in took.items()}


def batches(total: int) -> list[dict[str, np.ndarray]]:
    """Rows of ``FEATURES`` float32, in batches of 1,000 as a run has them."""
    rng = np.random.default_rng(0)
    n = total // (4 * FEATURES + 17)
    X, y = rng.normal(size=(n, FEATURES)).astype(np.float32), rng.integers(10, size=n)
    keys, clean = np.arange(n), np.zeros(n, bool)
    return [
        {
            "X": X[at : at + 1000],
            "given": y[at : at + 1000],
            "keys": keys[at : at + 1000],
            "clean": clean[at : at + 1000],
        }
        for at in range(0, n, 1000)
    ]


def speeds(total: int, chunk: int, rounds: int) -> dict[str, Any]:
    """Ratios for one chunk size."""
    rows, owner = batches(total), seal.new_key()
    n = sum(len(part["X"]) for part in rows)
    per_chunk = max(1, chunk // (4 * FEATURES + 17))
    model = b"".join(np.ascontiguousarray(part["X"]).tobytes() for part in rows)
    store = seal.Memory()

    def sealed() -> seal.Manifest:
        return seal.seal_data(rows, store, key=KEY, signing_key=owner, id="d", rows_per_chunk=per_chunk, num_rows=n)

    manifest = sealed()
    models = seal.Memory()
    made = seal.seal_bytes(model, models, key=KEY, signing_key=owner, id="m", version=1, chunk_bytes=chunk)
    cipher, nonce = AESGCM(KEY), bytes(12)
    plains = [os.urandom(size) for size in manifest.sizes]
    raws = [cipher.encrypt(nonce, plain, b"") for plain in plains]
    held: dict[str, Any] = {}

    def raw_seal() -> None:
        held["raw"] = [cipher.encrypt(nonce, plain, b"") for plain in plains]

    def raw_open() -> None:
        for sealed_bytes in raws:
            cipher.decrypt(nonce, sealed_bytes, b"")

    def opened() -> None:
        fresh = seal.Manifest.read(store[seal.NAME], owner.public_key())
        for index in range(fresh.count):
            seal.open_chunk(fresh, KEY, index, store[fresh.chunk(index)])

    def model_sealed() -> None:
        seal.seal_bytes(model, models, key=KEY, signing_key=owner, id="m", version=1, chunk_bytes=chunk)

    def model_opened() -> None:
        fresh = seal.Manifest.read(models[seal.NAME], owner.public_key())
        for index in range(fresh.count):
            seal.open_bytes(fresh, KEY, index, models[fresh.chunk(index)])

    took = best({"raw_seal": raw_seal, "seal": sealed, "raw_open": raw_open, "open": opened}, rounds)
    models_took = best({"raw_seal": raw_seal, "seal": model_sealed, "raw_open": raw_open, "open": model_opened}, rounds)
    size, model_size = sum(manifest.sizes), sum(made.sizes)
    rate = {name: size / MB / own for name, (own, _) in took.items()}
    of_model = {
        name: (size if name.startswith("raw") else model_size) / MB / own for name, (own, _) in models_took.items()
    }
    return {
        "chunk_bytes": chunk,
        "bytes": size,
        "chunks": manifest.count,
        "megabytes_a_second": rate,
        "wall_megabytes_a_second": {name: size / MB / wall for name, (_, wall) in took.items()},
        "sealing_of_raw": rate["seal"] / rate["raw_seal"],
        "opening_of_raw": rate["open"] / rate["raw_open"],
        "model_sealing_of_raw": of_model["seal"] / of_model["raw_seal"],
        "model_opening_of_raw": of_model["open"] / of_model["raw_open"],
    }


def first_key(times: int) -> dict[str, Any]:
    """Seconds from the first message to the data key, over loopback."""
    from labelwright.trust.attester import collect
    from labelwright.trust.broker import Client, KeyFolder, http_send

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        keys = KeyFolder(folder / "keys", "benchmark")
        keys.data_key("d")
        pin = seal.jwk_of(keys.broker_key)
        (folder / "policy.toml").write_text('kinds = ["sim"]\nsim = true\naccept = ["affirming", "warning"]\n')
        command = [sys.executable, "-c", "from labelwright.cli import main; main()", "trust", "broker"]
        options = [
            "--policy",
            str(folder / "policy.toml"),
            "--keys",
            str(folder / "keys"),
            "--port",
            "0",
            "--json",
        ]
        environment = {**os.environ, "LABELWRIGHT_KEYS_PASSPHRASE": "benchmark"}
        process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True, env=environment)
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]
            took = []
            for _ in range(times):
                begun = time.perf_counter()
                client = Client(http_send(url), pin)
                got = client.keys(lambda data: collect("sim", data), bytes(32), ["default/key/d"])
                took.append(time.perf_counter() - begun)
                assert len(got["default/key/d"]) == 32
        finally:
            process.kill()
            process.wait()
    return {
        "times": times,
        "first_ms": 1000 * took[0],
        "median_ms": 1000 * statistics.median(took),
        "worst_ms": 1000 * max(took),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--times", type=int, default=40)
    parser.add_argument("--output", type=Path, default=Path("experiments/results/sealing.json"))
    given = parser.parse_args()
    out: dict[str, Any] = {
        "megabytes": given.megabytes,
        "rounds": given.rounds,
        **provenance("python benchmarks/sealing.py"),
        "load_before": os.getloadavg()[0],
        "chunks": [speeds(given.megabytes * MB, chunk, given.rounds) for chunk in (1 * MB, 4 * MB, 12 * MB)],
        "attestation_to_first_key": first_key(given.times),
    }
    given.output.write_text(json.dumps(out, indent=1) + "\n")
    print(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
