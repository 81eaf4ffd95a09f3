"""Speed of networks: TorchClassifier against a minimal hand-written loop, two networks against one, and the loop's own share.

    python benchmarks/deep_speed.py [--json FILE] [--rows N] [--epochs N] [--device auto]

Pictures are made up (32 x 32 x 3 bytes): speed does not depend on what they show. Ratios are the result; contestants take
turns, best of three, in one process. Needs torch. On a GPU it also prints pictures a second and the share of the peak of
bfloat16 products that they amount to.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from labelwright.bench.provenance import provenance
from labelwright.learners import Deep, Learners
from labelwright.learners.devices import find_device, find_precision
from labelwright.learners.networks import make_network
from labelwright.learners.torch_classifier import TorchClassifier
from labelwright.loop import System
from labelwright.selection import RadDuo
from labelwright.types import Batch

SHAPE = (32, 32, 3)
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Published dense bfloat16 peak of a device, operations a second."""


def by_hand(X: Any, y: Any, epochs: int, device: torch.device, precision: torch.dtype) -> None:
    """What a person would write: the same network, flips and shifts, schedule and precision; no frills."""
    net = make_network("compact", shape=SHAPE, width=0, classes=10).to(device, memory_format=torch.channels_last)
    pictures = (torch.from_numpy(X).permute(0, 3, 1, 2).to(device).float() / 255 - 0.5) / 0.25
    pictures = pictures.to(memory_format=torch.channels_last)
    labels = torch.from_numpy(y).to(device)
    optimiser = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    steps = -(-len(X) // 128)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.02, total_iters=epochs * steps)
    net.train()
    for _ in range(epochs):
        order = torch.randperm(len(X), device=device)
        for at in range(0, len(X), 128):
            index = order[at : at + 128]
            batch = F.pad(pictures[index], (2, 2, 2, 2), mode="reflect")
            down, right = np.random.randint(0, 5, 2)
            batch = batch[:, :, down : down + 32, right : right + 32]
            mirrored = torch.rand(len(batch), device=device) < 0.5
            batch = torch.where(mirrored[:, None, None, None], batch.flip(3), batch)
            with torch.autocast(device.type, precision, enabled=precision != torch.float32):
                loss = F.cross_entropy(net(batch).float(), labels[index])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()


def classifier(epochs: int, seed: int, device: str, network: str = "compact") -> TorchClassifier:
    """Ours, with the same settings."""
    return TorchClassifier(
        network,
        image_shape=SHAPE,
        epochs=epochs,
        later_epochs=epochs,
        augment="flip+crop2",
        device=device,
        random_state=seed,
    )


def best_of(calls: dict[str, Callable[[], None]], turns: int = 3) -> dict[str, float]:
    """Seconds of each call, the best of a few turns taken in rotation."""
    seconds = {name: float("inf") for name in calls}
    for _ in range(turns):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds


def loops(X: Any, y: Any, epochs: int, device: str) -> tuple[dict[str, Callable[[], None]], dict[str, float]]:
    """One step of RAD Duo with two networks, the same rows through one network alone, and the seconds within networks."""
    flat, spent = X.reshape(len(X), -1), {"networks": 0.0, "step": 0.0}

    def learner(place: int) -> Deep:
        return Deep(classifier(epochs, place, device), classes=10, replay=0)

    def timed(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return call(*arguments, **options)
            finally:
                spent["networks"] += time.perf_counter() - start

        return run

    both = Learners(learner(0), learner(1))
    system = System(RadDuo(both), both)
    system.step(Batch.of(0, flat[:256], y[:256], clean=True))
    for one in both:
        one.estimator.partial_fit = timed(one.estimator.partial_fit)
        one.estimator.predict_proba = timed(one.estimator.predict_proba)
    alone, number = learner(0), 0
    alone.partial_fit(Batch.of(0, flat[:256], y[:256]).rows)
    probe = Batch.of(1, flat, y)
    kept = probe.rows.take(np.arange(len(y)))

    def step() -> None:
        nonlocal number
        number += 1
        start = time.perf_counter()
        system.step(
            Batch.of(number, flat, y, clean=True)
        )  # all rows train, so that both contestants learn from as many
        spent["step"] += time.perf_counter() - start

    return {"two networks": step, "one network": lambda: alone.partial_fit(kept)}, spent


def operations(device: torch.device) -> float:
    """Multiplications and additions of one picture, forward and backward (three times forward)."""
    net = make_network("compact", shape=SHAPE, width=0, classes=10)
    count = 0.0

    def hook(module: Any, inputs: Any, output: Any) -> None:
        nonlocal count
        if isinstance(module, torch.nn.Conv2d):
            count += 2 * output.numel() * module.weight[0].numel()
        elif isinstance(module, torch.nn.Linear):
            count += 2 * module.weight.numel()

    for module in net.modules():
        module.register_forward_hook(hook)
    net.eval()(torch.zeros(1, 3, 32, 32))
    return 3 * count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (options.rows, *SHAPE)).astype(np.uint8)
    y = rng.integers(10, size=options.rows)
    device = find_device(options.device)
    precision = find_precision("auto", device, True)
    calls: dict[str, Callable[[], None]] = {
        "by hand": lambda: by_hand(X, y, options.epochs, device, precision),
        "TorchClassifier": lambda: classifier(options.epochs, 0, options.device).fit(X, y),
    }
    more, spent = loops(X, y, options.epochs, options.device)
    seconds = best_of({**calls, **more})
    pictures = options.rows * options.epochs
    told = {
        "pictures_a_second": round(pictures / seconds["TorchClassifier"]),
        "by_hand_pictures_a_second": round(pictures / seconds["by hand"]),
        "speed_against_by_hand": round(seconds["by hand"] / seconds["TorchClassifier"], 3),
        "two_networks_against_one": round(seconds["two networks"] / seconds["one network"], 3),
        "loop_besides_networks": round(1 - spent["networks"] / spent["step"], 4),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "precision": str(precision).removeprefix("torch."),
        "threads": torch.get_num_threads(),
    }
    peak = next((value for name, value in PEAK.items() if name in told["device"]), None)
    if peak is not None:
        told["share_of_peak"] = round(told["pictures_a_second"] * operations(device) / peak, 4)
    print(json.dumps(told, indent=1))
    if options.json:
        origin = provenance("python benchmarks/deep_speed.py")
        options.json.write_text(json.dumps({**told, "seconds": seconds, "provenance": origin}, indent=1))


if __name__ == "__main__":
    main()
