"""One network trained by one method on labels of which some are wrong, and all that Table III and Fig. 7 ask of it.

Every method has the same rows, wrong labels, network, order, epochs and held-out rows; only the method differs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from labelwright.bench.deep import pictures
from labelwright.bench.pieces import Tick
from labelwright.errors import DataError, SettingsError
from labelwright.noise import symmetric
from labelwright.noise.checks import Corruption
from labelwright.posterior import NoiseModel
from labelwright.types import Floats, Ints

SHARES = (0.0, 0.25, 0.5, 1.0)
"""Of the test rows that come with a given label (methods section 4)."""
CURVE_ROWS = 2000
CLOSE = 1.0
"""Points: a network is steady once it stays so near its last epochs."""


@dataclass(frozen=True)
class Setting:
    """rows: of training, None for all. held: rows held out, labelled as badly, to choose the epoch and to estimate T."""

    dataset: str
    profile: str
    rows: int | None = 10_000
    held: int = 1000
    epochs: int = 30
    network: str = "compact"
    augment: str = "flip+crop2"
    rate: float = 0.05
    nesterov: bool = True
    weight_decay: float = 5e-4
    seeds: int = 3
    noise: float = 0.3

    @property
    def settings(self) -> str:
        """All that a run depends on, in words."""
        return repr(replace(self, seeds=0, noise=0.0))


_PLAIN: dict[str, Any] = {"network": "cnn12", "rate": 0.01, "nesterov": False, "weight_decay": 1e-4, "rows": None}
SETTINGS: Mapping[tuple[str, str], Setting] = {
    (s.dataset, s.profile): s
    for s in (
        Setting("mnist", "compact", augment="crop2"),
        Setting("fashion-mnist", "compact"),
        Setting("cifar10", "compact"),
        Setting("gtsrb", "compact", augment="crop2"),
        Setting("mnist", "paper", epochs=50, augment="crop2", **_PLAIN),
        Setting("cifar10", "paper", epochs=200, augment="flip+crop4", **_PLAIN),
        Setting("cifar100", "paper", epochs=200, augment="flip+crop4", **_PLAIN),
    )
}


def find_setting(dataset: str, profile: str) -> Setting:
    """Raises SettingsError for a data set without one.

    >>> find_setting("mnist", "compact").rows
    10000
    """
    if (dataset, profile) not in SETTINGS:
        known = ", ".join(f"{d} ({p})" for d, p in SETTINGS)
        raise SettingsError(f"there is no setting for {dataset!r} in the profile {profile!r}; expected one of {known}")
    return SETTINGS[dataset, profile]


@dataclass(frozen=True)
class Drawn:
    """One seed's rows. true, given: (n,) classes. test_given: an input at test time, drawn at the same rate (section 4)."""

    X: Any
    true: Ints
    given: Ints
    X_held: Any
    held_given: Ints
    X_test: Any
    y_test: Ints
    test_given: Ints
    shape: tuple[int, int, int]
    classes: int


def draw(
    setting: Setting,
    seed: int,
    data_dir: str | None,
    *,
    half: bool = False,
    noise: Corruption | None = None,
    after: int | None = None,
) -> Drawn:
    """half: half of the training rows of each class. noise: symmetric at the setting's rate when None. after: another seed, whose
    training rows are taken only when there are no others."""
    data, rng = pictures(setting.dataset, data_dir), np.random.default_rng([seed, 5])
    order = rng.permutation(len(data.y))
    count = len(order) - setting.held if setting.rows is None else setting.rows
    if after is not None:
        seen = np.isin(order, np.random.default_rng([after, 5]).permutation(len(data.y))[:count])
        order = np.concatenate([order[~seen], order[seen]])
    if count + setting.held > len(order) or count < 2:
        raise DataError(f"{setting.dataset} has {len(order)} rows, but {count + setting.held} are needed; take fewer")
    rows, held = np.sort(order[:count]), np.sort(order[count : count + setting.held])
    corrupt = symmetric(setting.noise, classes=data.classes) if noise is None else noise
    given = corrupt(data.y[rows], data.X[rows], rng)
    held_given = corrupt(data.y[held], data.X[held], rng)
    test_given = corrupt(data.y_test, data.X_test, np.random.default_rng([seed, 6]))
    part = balanced_half(data.y[rows], rng) if half else np.arange(count)
    return Drawn(
        data.X[rows[part]], data.y[rows[part]], given[part], data.X[held], held_given, data.X_test, data.y_test, test_given,
        data.shape, data.classes,
    )  # fmt: skip


def balanced_half(y: Ints, rng: np.random.Generator) -> Ints:
    """Positions of half of the rows of each class, sorted.

    >>> balanced_half(np.array([0, 0, 1, 1, 1, 1]), np.random.default_rng(0)).size
    3
    """
    parts = [rng.permutation(np.flatnonzero(y == label)) for label in np.unique(y)]
    return np.sort(np.concatenate([part[: (len(part) + 1) // 2] for part in parts]))


def classifier(setting: Setting, drawn: Drawn, seed: int, method: Any, device: str, **options: Any) -> Any:
    """The network of the setting, to be trained by ``method``."""
    from labelwright.learners.torch_classifier import TorchClassifier

    return TorchClassifier(
        setting.network,
        image_shape=drawn.shape,
        epochs=setting.epochs,
        learning_rate=setting.rate,
        nesterov=setting.nesterov,
        weight_decay=setting.weight_decay,
        augment=setting.augment,
        device=device,
        method=method,
        random_state=seed,
        **options,
    )


class Follower:
    """After each epoch: accuracy on some test rows, for a curve; and on the held-out rows as labelled, to choose an epoch."""

    def __init__(self, drawn: Drawn, tick: Callable[[], None]):
        self.drawn, self.tick, self.model = drawn, tick, None
        self.curve: list[float] = []
        self.best, self.epoch = -1.0, 0
        self.kept: dict[str, Any] = {}

    def __call__(self, epoch: int) -> bool:
        model: Any = self.model
        some = slice(0, CURVE_ROWS)
        self.curve.append(accuracy(model.predict_proba(self.drawn.X_test[some]), self.drawn.y_test[some]))
        agreed = accuracy(model.predict_proba(self.drawn.X_held), self.drawn.held_given)
        if agreed > self.best:
            self.best, self.epoch = agreed, epoch
            self.kept = {name: value.detach().clone() for name, value in model.trainer_.network.state_dict().items()}
        self.tick()
        return False


def measured(
    setting: Setting, drawn: Drawn, seed: int, method: Any, *, trusted: float, device: str, tick: Callable[[], None]
) -> dict[str, Any]:
    """Train by one method and measure it. trusted: share of the rows whose truth it is told.

    alone: accuracy without given labels, in percent; fused: with all, by Bayes' rule with the noise matrix estimated on the
    held-out rows; own: with all, by CopyNet's Expert. Each also for the chosen epoch.
    """
    follower = Follower(drawn, tick)
    model = classifier(setting, drawn, seed, method, device, on_epoch=follower)
    follower.model = model
    sure = np.random.default_rng([seed, 7]).permutation(len(drawn.given))[: round(trusted * len(drawn.given))]
    true = np.full(len(drawn.given), None, object)
    true[sure] = drawn.true[sure]
    begun = time.perf_counter()
    model.fit(drawn.X, drawn.given, trusted=true)
    out: dict[str, Any] = {"seconds": time.perf_counter() - begun, "truth": len(sure), "curve": follower.curve}
    out |= judged(model, drawn, seed)
    out |= {"steady": steady(follower.curve), "chosen_epoch": follower.epoch, **_said(model.objective_)}
    model.trainer_.network.load_state_dict(follower.kept)
    model.trainer_.averaged = None
    out["chosen"] = {
        name: value for name, value in judged(model, drawn, seed).items() if name in ("alone", "own", "fused")
    }
    return out


def judged(model: Any, drawn: Drawn, seed: int) -> dict[str, Any]:
    """Accuracies of a trained model on the test rows, with and without given labels."""
    proba = model.predict_proba(drawn.X_test)
    noise = NoiseModel.start(drawn.classes).updated(model.predict_proba(drawn.X_held), drawn.held_given)
    fused = noise.posterior(proba, drawn.test_given)
    out: dict[str, Any] = {
        "alone": accuracy(proba, drawn.y_test),
        "fused": accuracy(fused, drawn.y_test),
        "noise_estimate": noise.rate,
        "shares": {"fused": by_share(proba, fused, drawn, seed)},
    }
    expert = own_fusion(model, proba, drawn.test_given)
    if expert is not None:
        out["own"] = accuracy(expert, drawn.y_test)
        out["shares"]["own"] = by_share(proba, expert, drawn, seed)
    return out


def own_fusion(model: Any, proba: Floats, given: Ints) -> Floats | None:
    """What CopyNet's Expert makes of probabilities and given labels; None for a model that has none."""
    from labelwright.learners.imitating import Cascade, expert_proba

    return expert_proba(model, proba, given) if isinstance(model.trainer_.network, Cascade) else None


def by_share(alone: Floats, with_label: Floats, drawn: Drawn, seed: int) -> list[float]:
    """Accuracy where a share of the test rows, the same rows for every method, comes with a label."""
    order = np.random.default_rng([seed, 8]).permutation(len(drawn.y_test))
    out = []
    for share in SHARES:
        has = order[: round(share * len(order))]
        mixed = alone.copy()
        mixed[has] = with_label[has]
        out.append(accuracy(mixed, drawn.y_test))
    return out


def steady(curve: list[float]) -> int:
    """The first epoch, from 1, after which accuracy never again falls a point below the mean of the last fifth of epochs.

    >>> steady([50.0, 80.0, 70.0, 79.5, 80.0])
    4
    """
    level = float(np.mean(curve[-max(1, len(curve) // 5) :])) - CLOSE
    low = [at for at, value in enumerate(curve) if value < level]
    return low[-1] + 2 if low else 1


def _said(objective: Any) -> dict[str, Any]:
    """What a method tells of itself: the rate it estimated, its noise matrix, D2L's dimensionalities."""
    out: dict[str, Any] = {}
    if hasattr(objective, "rate"):
        out["rate"] = float(objective.rate)
    if "transition" in objective.state:
        out["transition"] = objective.state["transition"].cpu().numpy().round(4).tolist()
    if hasattr(objective, "lids"):
        out |= {"lids": [round(lid, 3) for lid in objective.lids], "turned": objective.turned}
    return out


def accuracy(proba: Floats, y: Ints) -> float:
    """In percent."""
    return 100.0 * float((proba.argmax(axis=1) == y).mean())


def run_piece(
    setting: Setting,
    drawn: Drawn,
    seed: int,
    method: Any,
    path: Path,
    *,
    trusted: float,
    device: str,
    tick: Tick,
) -> dict[str, Any]:
    """:func:`measured`, its record written whole or not at all."""
    from labelwright.learners.tensors import write_whole

    record = measured(setting, drawn, seed, method, trusted=trusted, device=device, tick=lambda: tick(path.stem))
    write_whole(path, json.dumps(record, indent=1).encode())
    return record
