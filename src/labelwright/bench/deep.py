"""Networks on a stream of pictures: drawing the stream, the methods as configurations of the loop, and one resumable run.

A run writes its state after every batch, whole or not at all. Killed and started again, it ends with the same numbers.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from labelwright.baselines.omniscient import FullClean, OptSel
from labelwright.bench.pieces import Tick
from labelwright.bench.profiles import Profile, Way
from labelwright.bench.workers import only_one
from labelwright.errors import DataError, LedgerError
from labelwright.learners import Deep, Learners
from labelwright.loop import System
from labelwright.noise import symmetric
from labelwright.packing import pack, unpack
from labelwright.selection import NoSelection
from labelwright.truth import Truth
from labelwright.types import Batch, Floats, Ints, Rows, Split, Verdict

CURVE_ROWS = 2000


@dataclass(frozen=True)
class Pictures:
    """All rows of one image set in memory, as bytes: X (n, d), y (n,), and the test rows."""

    X: Any
    y: Ints
    X_test: Any
    y_test: Ints
    shape: tuple[int, int, int]
    classes: int
    note: str = ""


@lru_cache(maxsize=1)
def pictures(dataset: str, data_dir: str | None) -> Pictures:
    """An image set, decoded. Raises DataError when it is not at hand."""
    from labelwright.images import load_images

    found = load_images(dataset, data_dir)
    if found.note:
        warnings.warn(f"{dataset}: {found.note}", stacklevel=2)
    (X, y), (X_test, y_test) = _decoded(found.images, found.y), _decoded(found.images_test, found.y_test)
    shape = X.shape[1:]
    if X_test is None:
        X_test, y_test = X[:0], y[:0]
    flat, flat_test = X.reshape(len(X), -1), X_test.reshape(len(X_test), -1)
    return Pictures(flat, y, flat_test, y_test, shape, len(found.classes), found.note)


def _decoded(images: Any, y: Any) -> tuple[Any, Any]:
    """Pictures and labels of the rows that decode; a warning counts and names the others."""
    if images is None:
        return None, None
    X, bad = images.read(slice(None))
    if not bad:
        return X, y
    first = next(iter(bad.values()))
    warnings.warn(f"{len(bad)} of {len(X)} pictures do not decode and are left out: {first}", stacklevel=3)
    kept = np.setdiff1d(np.arange(len(X)), list(bad))
    return X[kept], y[kept]


@dataclass
class DeepStream:
    """One seed's stream. sizes: rows of D0 and of each batch. rates: share of wrong labels in each."""

    X: Any
    y: Ints
    given: Ints
    sizes: Sequence[int]
    X_test: Any
    y_test: Ints
    shape: tuple[int, int, int]
    classes: int
    truth: Truth = field(init=False)

    def __post_init__(self) -> None:
        self.truth = Truth({number: self.y[part] for number, part in enumerate(self._parts())})

    def _parts(self) -> Iterator[slice]:
        start = 0
        for size in self.sizes:
            yield slice(start, start + size)
            start += size

    @property
    def batches(self) -> list[Batch]:
        """D0, every label of it vouched for, and the dirty batches."""
        return [
            Batch.of(number, self.X[part], self.given[part], clean=number == 0)
            for number, part in enumerate(self._parts())
        ]

    def fetch(self, keys: Ints) -> tuple[Ints, Floats]:
        """(keys, their features)."""
        starts = np.concatenate([[0], np.cumsum(self.sizes)])
        return keys, self.X[starts[keys >> 32] + (keys & 0xFFFFFFFF)]


def draw(
    profile: Profile,
    seed: int,
    data_dir: str | None,
    *,
    rates: Callable[[int], float] | None = None,
    batches: int | None = None,
) -> DeepStream:
    """The rows, their order and their noise of one seed. Symmetric noise, exactly floor(rate * rows) a batch.

    rates: batch (from 0, D0 left out) -> share of wrong labels; the profile's when None.
    """
    data, rng = pictures(profile.dataset, data_dir), np.random.default_rng([seed, 4])
    count = profile.batches if batches is None else batches
    X, y, X_test, y_test = data.X, data.y, data.X_test, data.y_test
    if profile.split == "drawn":
        X, y = np.concatenate([X, X_test]), np.concatenate([y, y_test])
        order = _by_class(y, rng)
        need = len(order) if profile.test is None else profile.clean + count * profile.rows + profile.test
        test = order[need - (profile.test or 0) : need]
        X_test, y_test = X[test], y[test]
    else:
        order = rng.permutation(len(y))
    need = profile.clean + count * profile.rows
    if need > len(order):
        raise DataError(f"{profile.dataset} has {len(order)} rows, but {need} are needed; take fewer batches")
    rows = order[:need]
    rows[profile.clean :] = rng.permutation(rows[profile.clean :])
    sizes = [profile.clean, *[profile.rows] * count]
    y, given = y[rows], y[rows].copy()
    start = profile.clean
    for number in range(count):
        part = slice(start, start + profile.rows)
        rate = profile.noise if rates is None else rates(number)
        given[part] = symmetric(rate, classes=data.classes)(y[part], None, rng)
        start += profile.rows
    return DeepStream(X[rows], y, given, sizes, X_test, y_test, data.shape, data.classes)


def _by_class(y: Ints, rng: np.random.Generator) -> Ints:
    """Rows drawn so that every stretch holds the classes in turn."""
    shuffled = rng.permutation(len(y))
    turn = np.empty(len(y), np.int64)
    for label in np.unique(y):
        here = shuffled[y[shuffled] == label]
        turn[here] = np.arange(len(here))
    return shuffled[np.argsort(turn[shuffled], kind="stable")]


class WatchedLearners(Learners):
    """Learners that remember what they last learned from, and how long they took."""

    seconds = 0.0
    last: Rows | None = None

    def partial_fit(self, rows: Rows) -> None:
        """See :class:`~labelwright.learners.Learners`."""
        start = time.perf_counter()
        super().partial_fit(rows)
        self.last, self.seconds = rows, self.seconds + time.perf_counter() - start


def networks(
    profile: Profile,
    way: Way,
    stream: DeepStream,
    seed: int,
    *,
    device: str = "auto",
    one: bool = False,
    prioritized: bool = False,
) -> WatchedLearners:
    """L and C for one way of training; ``one``: C in both roles. prioritized: see :class:`~labelwright.learners.Deep`."""
    from labelwright.learners.torch_classifier import TorchClassifier

    def learner(network: str, place: int) -> Deep:
        estimator = TorchClassifier(
            network,
            image_shape=stream.shape,
            epochs=profile.first_epochs,
            later_epochs=way.epochs,
            batch_size=profile.batch_size,
            learning_rate=profile.rate,
            later_rate=profile.later_rate,
            nesterov=profile.nesterov,
            weight_decay=profile.weight_decay,
            augment=profile.augment,
            mirror=profile.mirror,
            average=way.average,
            device=device,
            random_state=10 * seed + place,
        )
        return Deep(
            estimator,
            classes=stream.classes,
            replay=way.replay,
            memory=max(way.memory, profile.clean),
            seed=seed,
            prioritized=prioritized,
        )

    classifier = learner(profile.classifier, 1)
    return WatchedLearners(classifier if one else learner(profile.quality, 0), classifier)


def control(method: str, learners: Learners, truth: Truth) -> System | None:
    """No-Sel, Opt-Sel or Full-Clean, the controls of every experiment; None for any other method."""
    if method == "no-sel":
        return System(NoSelection(learners, estimate_noise=False), learners)
    if method in ("opt-sel", "full-clean"):
        kind = OptSel if method == "opt-sel" else FullClean
        return System(kind(learners, truth, estimate_noise=False), learners)
    return None


def start_state(
    profile: Profile, stream: DeepStream, seed: int, path: Path, *, device: str, tick: Tick, one: bool = False
) -> Mapping[str, Any]:
    """The state of L and C after D0, the same for every method and way; made once and kept in a file."""
    with only_one(path):
        return _started(profile, stream, seed, path, device=device, tick=tick, one=one)


def _started(
    profile: Profile, stream: DeepStream, seed: int, path: Path, *, device: str, tick: Tick, one: bool
) -> Mapping[str, Any]:
    try:
        return unpack(path.read_bytes())
    except (OSError, LedgerError):
        pass
    way = Way(profile.paper.epochs, replay=1, memory=profile.improved.memory)
    learners = networks(profile, way, stream, seed, device=device, one=one)
    for place, learner in enumerate(learners):
        learner.estimator.checkpoint = path.with_suffix(f".{place}.checkpoint")
    learners.partial_fit(stream.batches[0].rows)
    tick("D0")
    state = {"learners": learners.state(), "seconds": learners.seconds}
    _write(path, pack(state))
    return unpack(path.read_bytes())


def run_stream(
    system: System,
    stream: DeepStream,
    *,
    start: Mapping[str, Any] | None,
    path: Path,
    tick: Tick,
) -> dict[str, Any]:
    """One system over the dirty batches of a stream, from the state after D0. See :class:`Record` for what it returns.

    path: where the finished record will be; beside it, the state after the last batch of an unfinished run.
    """
    record, part = Record(), path.with_suffix(".part")
    if start is not None:
        system.learners.restore(start["learners"], stream.fetch)
    first = 1
    held = _unfinished(part)
    if held is not None:
        system.restore(held["parts"], stream.fetch)
        first, record = int(held["next"]), Record(**held["record"])
    learners = system.learners
    if not isinstance(learners, WatchedLearners):
        raise TypeError("an experiment needs WatchedLearners")
    shown = slice(0, CURVE_ROWS)
    learners.classifier.estimator.on_epoch = lambda epoch: record.epochs.append(
        _accuracy(looked_at_once(learners.classifier, stream.X_test[shown]), stream.y_test[shown])
    )
    for batch in stream.batches[first:]:
        learners.seconds, begun = 0.0, time.perf_counter()
        split = system.step(batch)
        spent = time.perf_counter() - begun
        record.add(
            batch, split, learners.last, stream.truth, training=learners.seconds, judging=spent - learners.seconds
        )
        record.curve.append(_accuracy(looked_at_once(learners.classifier, stream.X_test[shown]), stream.y_test[shown]))
        record.asked = int(system.budget.spent)
        parts = {name: part.state() for name, part in system.parts.items()}
        _write(part, pack({"parts": parts, "next": batch.number + 1, "record": vars(record)}))
        tick(path.stem)
    out = {**record.told(), **final_accuracies(learners, stream)}
    _write(path, json.dumps(out, indent=1).encode())
    part.unlink(missing_ok=True)
    return out


def _unfinished(part: Path) -> dict[str, Any] | None:
    """The state of a run that was cut short; None when there is none, or an older version wrote it."""
    try:
        held = unpack(part.read_bytes())
    except (OSError, LedgerError):
        return None
    return held if set(held["record"]) == set(vars(Record())) else None


def final_accuracies(learners: Learners, stream: DeepStream) -> dict[str, float]:
    """Accuracy in percent on all test rows, each picture looked at once: C alone (the paper's predictor), L alone, the
    mean of both."""
    c = looked_at_once(learners.classifier, stream.X_test)
    if learners.quality is learners.classifier:
        return {"c": _accuracy(c, stream.y_test), "mean": _accuracy(c, stream.y_test)}
    other = looked_at_once(learners.quality, stream.X_test)
    pairs = {"c": c, "l": other, "mean": 0.5 * (c + other)}
    return {name: _accuracy(proba, stream.y_test) for name, proba in pairs.items()}


def looked_at_once(learner: Any, X: Any) -> Floats:
    """(n, K) probabilities without mirrored looks, which are for judging labels only."""
    return np.asarray(learner.estimator.predict_proba(X, mirror=False))


@dataclass
class Record:
    """What is counted along a stream. curve: C's accuracy after each batch, epochs: after each epoch, both on the first
    2,000 test rows. kept, kept_right, right: rows trusted or rescued, those of them given rightly, and all given rightly.
    trained, wrong: rows trained on, and the share of labels in them that are wrong (soft labels by their shares)."""

    curve: list[float] = field(default_factory=list)
    epochs: list[float] = field(default_factory=list)
    kept: int = 0
    kept_right: int = 0
    right: int = 0
    rows: int = 0
    trained: int = 0
    wrong: float = 0.0
    asked: int = 0
    training_s: float = 0.0
    judging_s: float = 0.0
    noise_estimate: float = 0.0
    transition_off_by: float | None = None
    pairs: list[list[float]] = field(default_factory=list)
    noise_left: list[float | None] = field(default_factory=list)

    def add(
        self, batch: Batch, split: Split, learned: Rows | None, truth: Truth, *, training: float, judging: float
    ) -> None:
        """Count one batch."""
        y = truth.of(batch.keys)
        right = batch.given == y
        kept = np.isin(split.verdict[: len(batch)], (Verdict.TRUSTED, Verdict.RESCUED))
        self.kept, self.kept_right = self.kept + int(kept.sum()), self.kept_right + int((kept & right).sum())
        self.right, self.rows = self.right + int(right.sum()), self.rows + len(batch)
        wrong, left = 0.0, None
        if learned is not None and len(learned):
            true = truth.of(learned.keys)
            told = (learned.y == true).astype(float)
            if learned.share is not None:
                told = learned.share[np.arange(len(true)), true].astype(float)
            wrong = float((1 - told).sum())
            self.trained, self.wrong = self.trained + len(learned), self.wrong + wrong
            left = wrong / len(learned)
        self.noise_left.append(left)
        self.training_s, self.judging_s = self.training_s + training, self.judging_s + judging
        self.noise_estimate = split.noise.rate
        self._compare(split, y, batch.given)

    def _compare(self, split: Split, y: Ints, given: Ints) -> None:
        """How far the estimated noise matrix is from the one of all rows so far: mean total variation of its rows."""
        k = split.noise.classes
        actual = np.array(self.pairs) if self.pairs else np.zeros((k, k))
        np.add.at(actual, (y, given), 1.0)
        self.pairs = actual.tolist()
        rows = actual.sum(axis=1) > 0
        shares = actual[rows] / actual[rows].sum(axis=1, keepdims=True)
        self.transition_off_by = float(np.abs(split.noise.transition[rows] - shares).sum(axis=1).mean() / 2)

    def told(self) -> dict[str, Any]:
        """As JSON values, with precision and recall of "kept"."""
        return {
            **{name: value for name, value in vars(self).items() if name != "pairs"},
            "kept_precision": self.kept_right / self.kept if self.kept else None,
            "kept_recall": self.kept_right / self.right if self.right else None,
            "noise_left_mean": self.wrong / self.trained if self.trained else None,
        }


def _accuracy(proba: Floats, y: Ints) -> float:
    return 100.0 * float((proba.argmax(axis=1) == y).mean())


def _write(path: Path, content: bytes) -> None:
    from labelwright.learners.tensors import write_whole

    write_whole(path, content)
