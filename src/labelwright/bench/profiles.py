"""Table II's settings, fixed once: data sets, rows, networks, rates (methods sections 2 and 9)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from labelwright.errors import SettingsError


@dataclass(frozen=True)
class Way:
    """One recipe of training. epochs: on each batch. replay: remembered rows mixed into it. memory: how many are kept.
    average: decay of averaged weights."""

    epochs: int
    replay: int = 0
    memory: int = 20_000
    average: float = 0.0


@dataclass(frozen=True)
class Profile:
    """One data set in one profile.

    clean: rows of D0, every label right. batches, rows: of the stream. first_epochs: on D0. paper, improved: ways to train
    on a batch. quality, classifier: networks of L and C. augment: as of TorchClassifier. rate, later_rate: peak learning
    rates on D0 and a batch. seeds: how many are usual. published: No-Sel, RAD Duo, Full-Clean of the paper's Table II, in
    percent, or None. split: how test rows are found: "given" by the publisher, or "drawn": a share of each class a seed.
    """

    dataset: str
    name: str
    clean: int
    batches: int
    rows: int
    first_epochs: int
    paper: Way
    improved: Way
    quality: str = "compact-small"
    classifier: str = "compact"
    augment: str = "flip+crop2"
    mirror: bool = True
    rate: float = 0.05
    later_rate: float = 0.02
    nesterov: bool = True
    weight_decay: float = 5e-4
    batch_size: int = 128
    noise: float = 0.3
    seeds: int = 3
    split: str = "given"
    test: int | None = None
    published: Mapping[str, float] | None = None

    @property
    def settings(self) -> str:
        """All that a run depends on, in words."""
        return repr(replace(self, published=None, seeds=0))

    def way(self, recipe: str) -> Way:
        """The recipe "paper" or "improved"."""
        return self.paper if recipe == "paper" else self.improved


_CIFAR10 = {"no-sel": 55.63, "rad-duo": 73.89, "full-clean": 81.26}
_CIFAR100 = {"no-sel": 30.01, "rad-duo": 33.99, "full-clean": 53.61}
_FACES = {"no-sel": 43.16, "rad-duo": 46.47, "full-clean": 67.07}

_COMPACT = (
    Profile("cifar10", "compact", 10_000, 20, 2000, 30, Way(10), Way(4, 4000), published=_CIFAR10),
    Profile("mnist", "compact", 1000, 18, 500, 30, Way(10), Way(4, 1000), augment="crop2", mirror=False),
    Profile("fashion-mnist", "compact", 1000, 18, 500, 30, Way(10), Way(4, 1000)),
    Profile("gtsrb", "compact", 3070, 10, 1000, 30, Way(10), Way(4, 2000), augment="crop2", mirror=False),
    Profile(
        "orl-faces",
        "compact",
        120,
        4,
        40,
        60,
        Way(20),
        Way(10, 10_000),
        seeds=5,
        split="drawn",
        test=120,
    ),
)
_SGD: dict[str, Any] = {"rate": 0.01, "later_rate": 0.01, "nesterov": False, "weight_decay": 1e-4}
_PAPER = (
    Profile(
        "cifar10", "paper", 10_000, 40, 1000, 60, Way(10), Way(4, 4000), "resnet20", "vgg6", augment="flip+crop4",
        published=_CIFAR10, **_SGD,
    ),
    Profile(
        "cifar100", "paper", 10_000, 4, 10_000, 60, Way(60), Way(60, 10_000), "resnet20", "resnet44", augment="flip+crop4",
        published=_CIFAR100, **_SGD,
    ),
    Profile(
        "facescrub", "paper", 639, 10, 200, 60, Way(20), Way(20, 639), "resnet20", "vgg6", augment="flip+crop4",
        published=_FACES, **_SGD,
    ),
)  # fmt: skip
PROFILES: Mapping[tuple[str, str], Profile] = {(p.dataset, p.name): p for p in (*_COMPACT, *_PAPER)}


def find_profile(dataset: str, name: str) -> Profile:
    """The profile "compact" or "paper" of a data set; a set that the paper has not is run in its way of training.

    >>> find_profile("cifar10", "compact").batches
    20
    """
    if name not in ("compact", "paper"):
        raise SettingsError(f"the profile {name!r} is unknown; expected compact or paper")
    if (dataset, name) in PROFILES:
        return PROFILES[dataset, name]
    known = sorted({d for d, _ in PROFILES})
    if dataset not in known:
        raise SettingsError(f"the data set {dataset!r} has no profile; expected one of {', '.join(known)}")
    other = next(p for (d, _), p in PROFILES.items() if d == dataset)
    if name == "compact":
        return replace(other, name="compact", quality="compact-small", classifier="compact", rate=0.05, later_rate=0.02,
                       nesterov=True, weight_decay=5e-4)  # fmt: skip
    networks: dict[str, Any] = {"quality": "resnet20", "classifier": "vgg6"}
    return replace(other, name="paper", **networks, **_SGD)
