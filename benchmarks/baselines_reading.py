"""The noisy-label baselines beside a second reading of them: plain loops written from methods section 6 and the papers alone.

    python benchmarks/baselines_reading.py [--seeds 3] [--rows 2000] [--epochs 10] [--output FILE.json]

MNIST (LABELWRIGHT_DATA), 30 % symmetric noise, the compact network; the same rows, labels and recipe for both. Nothing below
shares code with ``labelwright.baselines`` or ``labelwright.learners`` but the network; it draws its own start and order, in
float32. Where a paper leaves a constant open, that of its authors' public code is taken.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import t as student
from torch import Tensor, nn

from labelwright.baselines.coteaching import CoTeaching
from labelwright.bench.imitation import SETTINGS, accuracy, classifier, draw
from labelwright.bench.provenance import provenance
from labelwright.bench.table3 import method_of
from labelwright.learners.networks import make_network

NOISE = 0.3
BATCH = 128


def bootstrap_soft(logits: Tensor, y: Tensor) -> Tensor:
    """Reed et al. 2015: 0.95 of the label, 0.05 of the prediction, through which the gradient flows too."""
    said = -(logits.softmax(1) * logits.log_softmax(1)).sum(1).mean()
    return 0.95 * F.cross_entropy(logits, y) + 0.05 * said


def bootstrap_hard(logits: Tensor, y: Tensor) -> Tensor:
    """0.8 of the label, 0.2 of the predicted class."""
    return 0.8 * F.cross_entropy(logits, y) + 0.2 * F.cross_entropy(logits, logits.argmax(1))


def gce(logits: Tensor, y: Tensor) -> Tensor:
    """Zhang and Sabuncu 2018: (1 - p_y^q) / q with q = 0.7."""
    return ((1 - logits.softmax(1).gather(1, y[:, None]) ** 0.7) / 0.7).mean()


def forward(logits: Tensor, y: Tensor) -> Tensor:
    """Patrini et al. 2017 with the true matrix of symmetric noise."""
    matrix = torch.full((10, 10), NOISE / 9).fill_diagonal_(1 - NOISE)
    return F.nll_loss((logits.softmax(1) @ matrix).log(), y)


class Reading:
    """A method that is a function of logits and labels alone. y: (n,) given labels. learned: what else is trained, for
    the optimiser."""

    learned: dict[str, Any] | None = None

    def __init__(self, y: Tensor, classes: int, epochs: int, function: Any = F.cross_entropy):
        self.y, self.classes, self.epochs, self.function = y, classes, epochs, function
        self.onehot = F.one_hot(y, classes).float()
        self.target = torch.zeros_like(self.onehot)

    def before(self, epoch: int, network: nn.Module, images: Tensor) -> None:
        """Called at the start of every epoch, numbered from 0."""

    def loss(self, logits: Tensor, rows: Tensor) -> Tensor:
        """Mean over the rows of a minibatch."""
        return self.function(logits, self.y[rows])


class Elr(Reading):
    """Liu et al. 2020: beta 0.7, lambda 3; the row's running target is renewed before the loss reads it."""

    def loss(self, logits: Tensor, rows: Tensor) -> Tensor:
        p = logits.softmax(1).clamp(1e-4, 1 - 1e-4)
        self.target[rows] = 0.7 * self.target[rows] + 0.3 * (p / p.sum(1, keepdim=True)).detach()
        return super().loss(logits, rows) + 3 * (1 - (self.target[rows] * p).sum(1)).log().mean()


class Sop(Reading):
    """Liu et al. 2022: s = u^2 y - v^2 (1 - y); u learns from cross-entropy of p + s, v from the squared error of the
    predicted class + s. Rates 10 and 10, as for symmetric noise on CIFAR-10; start 1e-8. least: of the probabilities, as in
    the authors' code; below it no gradient flows."""

    least = 1e-4

    def __init__(self, *args: Any):
        super().__init__(*args)
        self.u, self.v = ((1e-8 * torch.randn(len(self.y), n)).requires_grad_() for n in (1, self.classes))
        plain = {"lr": 10.0, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0}
        self.learned = {"params": [self.u, self.v], **plain}

    def loss(self, logits: Tensor, rows: Tensor) -> Tensor:
        y = self.onehot[rows]
        plus = (self.u[rows] ** 2 * y).clamp(0, 1)
        minus = (self.v[rows] ** 2 * (1 - y)).clamp(0, 1)
        whole = (logits.softmax(1) + plus - minus.detach()).clamp(min=self.least)
        whole = (whole / whole.sum(1, keepdim=True)).clamp(self.least, 1)
        hard = F.one_hot(logits.argmax(1), self.classes).float()
        square = ((hard + plus.detach() - minus - y) ** 2).sum(1).mean()
        return -(y * whole.log()).sum(1).mean() + square


class D2l(Reading):
    """Ma et al. 2018: from the epoch whose dimensionality leaps above the five before it, the target is partly predicted."""

    turned: int | None = None
    alpha = 1.0

    def before(self, epoch: int, network: nn.Module, images: Tensor) -> None:
        self.lids = [*(self.lids if epoch else []), dimensionality(network, images)]
        last = self.lids[-6:-1]
        late = len(self.lids) > round(self.epochs / 6) + 5
        if self.turned is None and late and self.lids[-1] - np.mean(last) > 2 * np.std(last):
            self.turned = epoch
        if self.turned is not None:
            self.alpha = float(np.exp(-epoch / self.epochs * self.lids[-1] / min(self.lids)))

    def loss(self, logits: Tensor, rows: Tensor) -> Tensor:
        guess = F.cross_entropy(logits, logits.argmax(1))
        return self.alpha * super().loss(logits, rows) + (1 - self.alpha) * guess


def dimensionality(network: nn.Module, images: Tensor, k: int = 20) -> float:
    """Mean over 1,280 rows, each among the 128 of its minibatch, in the input of the last layer."""
    network.eval()
    with torch.no_grad():
        picked = torch.randperm(len(images))[:1280].split(BATCH)
        hidden = [network.features(images[rows]).amax((2, 3)).double() for rows in picked]
    near = torch.cat([torch.cdist(x, x).sort(1).values[:, 1 : k + 1] for x in hidden])
    return float((-k / (near / near[:, -1:]).clamp(min=1e-12).log().sum(1)).mean())


READINGS: dict[str, Any] = {
    "plain": Reading, "bootstrap-soft": partial(Reading, function=bootstrap_soft),
    "bootstrap-hard": partial(Reading, function=bootstrap_hard), "gce": partial(Reading, function=gce), "elr": Elr,
    "sop": Sop, "forward": partial(Reading, function=forward), "co-teaching": Reading, "d2l": D2l,
}  # fmt: skip


def shifted(images: Tensor) -> Tensor:
    """Each moved by up to two pixels on each axis, the border mirrored."""
    wide, n = F.pad(images, (2, 2, 2, 2), mode="reflect"), len(images)
    rows = torch.arange(28)[None, :, None] + torch.randint(0, 5, (n, 1, 1))
    columns = torch.arange(28)[None, None, :] + torch.randint(0, 5, (n, 1, 1))
    return wide[torch.arange(n)[:, None, None], 0, rows, columns][:, None]


def peers(networks: nn.ModuleList, x: Tensor, y: Tensor, epoch: int) -> list[Tensor]:
    """Han et al. 2018: each network's loss on the rows its peer finds easiest; the share dropped rises over ten epochs."""
    losses = [F.cross_entropy(network(x), y, reduction="none") for network in networks]
    kept = int((1 - NOISE * min(epoch / 9, 1)) * len(y))
    easy = [loss.detach().argsort()[:kept] for loss in losses]
    return [losses[0][easy[1]].mean(), losses[1][easy[0]].mean()]


def trained(method: str, images: Tensor, y: Tensor, classes: int, epochs: int) -> tuple[nn.Module, Reading]:
    """The network, for co-teaching the first of two."""
    shape: Any = {"shape": (28, 28, 1), "width": 784, "classes": classes}
    networks = nn.ModuleList(make_network("compact", **shape) for _ in range(2 if method == "co-teaching" else 1))
    networks = networks.to(memory_format=torch.channels_last)
    reading = READINGS[method](y, classes, epochs)
    optimisers = [torch.optim.SGD(n.parameters(), 0.05, 0.9, weight_decay=5e-4, nesterov=True) for n in networks]
    if reading.learned is not None:
        optimisers[0].add_param_group(reading.learned)
    batches = -(-len(y) // BATCH)
    for epoch in range(epochs):
        reading.before(epoch, networks[0], images)
        networks.train()
        for place, rows in enumerate(torch.randperm(len(y)).tensor_split(batches)):
            x = shifted(images[rows])
            losses = peers(networks, x, y[rows], epoch) if networks[1:] else [reading.loss(networks[0](x), rows)]
            share = (epoch * batches + place) / max(1, epochs * batches - 1)
            for optimiser, loss in zip(optimisers, losses, strict=True):
                optimiser.param_groups[0]["lr"] = 0.05 * (1 - 0.98 * share)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
    return networks[0].eval(), reading


def second(method: str, drawn: Any, seed: int, epochs: int) -> tuple[float, Any]:
    """Test accuracy in percent of the reading above, and the epoch from 0 at which D2L turned."""
    torch.manual_seed(1000 + seed)
    mean, deviation = float(np.mean(drawn.X, dtype=float)), float(np.std(drawn.X, dtype=float))
    images, tests = ((torch.tensor(X).reshape(-1, 1, 28, 28) - mean) / deviation for X in (drawn.X, drawn.X_test))
    network, reading = trained(method, images, torch.tensor(drawn.given).long(), drawn.classes, epochs)
    with torch.no_grad():
        said = torch.cat([network(x).argmax(1) for x in tests.split(500)])
    return 100.0 * float((said.numpy() == drawn.y_test).mean()), getattr(reading, "turned", None)


def ours(method: str, setting: Any, drawn: Any, seed: int) -> tuple[float, Any]:
    """The same of the library."""
    named = method.replace("forward", "forward, true T")
    built = CoTeaching(NOISE) if method == "co-teaching" else method_of(named, setting, drawn.classes)
    model = classifier(setting, drawn, seed, built, "cpu").fit(drawn.X, drawn.given)
    return accuracy(model.predict_proba(drawn.X_test), drawn.y_test), getattr(model.objective_, "turned", None)


def interval(values: Sequence[float]) -> list[float]:
    """Mean and half-width of the 95 % interval (Student t), infinite for one value."""
    n = len(values)
    half = student.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n) if n > 1 else np.inf
    return [float(np.mean(values)), float(half)]


def compared(own: Sequence[tuple[float, Any]], other: Sequence[tuple[float, Any]]) -> dict[str, Any]:
    """Both intervals, that of the differences seed by seed, and whether these tell the two apart."""
    values = {"ours": [value for value, _ in own], "second": [value for value, _ in other]}
    a, b = (interval(found) for found in values.values())
    gap = interval(np.subtract(*values.values()).tolist())
    within = {"paired": abs(gap[0]) <= gap[1], "overlap": abs(a[0] - b[0]) <= a[1] + b[1]}
    turned = {"ours": [at for _, at in own], "second": [at for _, at in other]}
    return {"ours": a, "second": b, "difference": gap, **within, "values": values, "turned": turned}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("seeds", 3), ("rows", 2000), ("epochs", 10)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--methods", nargs="+", choices=READINGS, default=list(READINGS))
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    setting = replace(SETTINGS["mnist", "compact"], rows=options.rows, epochs=options.epochs, noise=NOISE)
    draws = [draw(setting, seed, None) for seed in range(options.seeds)]
    found: dict[str, Any] = {}
    for method in options.methods:
        begun = time.perf_counter()
        own = [ours(method, setting, drawn, seed) for seed, drawn in enumerate(draws)]
        found[method] = r = compared(own, [second(method, d, s, options.epochs) for s, d in enumerate(draws)])
        told = [f"{who} {r[who][0]:6.2f} ± {r[who][1]:5.2f}" for who in ("ours", "second", "difference")]
        told += ["agree" if r["paired"] or r["overlap"] else "DIFFER", f"{time.perf_counter() - begun:.0f} s"]
        print(f"{method:15}", *told, r["turned"] if method == "d2l" else "", sep="  ", flush=True)
    if options.output is not None:
        told = [f"--{name} {getattr(options, name)}" for name in ("seeds", "rows", "epochs")]
        origin = provenance(" ".join(["python benchmarks/baselines_reading.py", *told]))
        options.output.write_text(json.dumps({"noise": NOISE, "methods": found, "provenance": origin}, indent=1))


if __name__ == "__main__":
    main()
