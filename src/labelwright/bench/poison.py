"""The poison table: attack x rate x defence, on pictures.

1,000 vouched rows, then 6 batches of 500 in which 1, 5 or 10 % of all rows are poisoned; the compact network, 2 epochs a batch and 500
replayed rows. Undefended: everything is learned as given. Filter: rows with which the classifier of the last batch disagrees are
dropped (Slim). Watch: the filter, and what the watch names is quarantined and unlearned from the replay. The rivals see the network
that undefended training ended with, and training is done over without the rows they flag; nobody's vouched rows are dropped. A trigger
is a white square of 3 pixels, 5 for clean labels, whose rows are faded by 0.7 (a smaller one is not learned at all).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from labelwright import noise
from labelwright.bench.deep import pictures
from labelwright.bench.pieces import USUAL, How, Job, Tick, mean_and_interval, run_all, written
from labelwright.bench.poison_figures import figure, table
from labelwright.bench.poison_rivals import RIVALS, flagged
from labelwright.bench.provenance import provenance
from labelwright.learners import Deep, Learners
from labelwright.loop import System
from labelwright.noise.checks import exact_count
from labelwright.poison import Alarm, Guarded, Watch
from labelwright.selection import NoSelection, Slim
from labelwright.types import Batch, Bools, Floats, Ints, Rows, Verdict

CLEAN, BATCHES, ROWS, TEST, SOURCES = 1000, 6, 500, 2000, 10
ATTACKS = ("far-first", "near-first", "pair", "source", "clean-label backdoor", "dirty-label backdoor", "slow")
RATES = (0.01, 0.05, 0.1)
ARMS = ("undefended", "filter", "watch", *RIVALS)
SOURCE, TARGET, LIAR, FADE = 7, 1, "source 3", 0.7


@dataclass(frozen=True)
class Planted:
    """A poisoned stream. bad: (n,) rows that the attacker touched. stamp: puts the trigger on rows, where there is one."""

    X: Floats
    y: Ints
    given: Ints
    sources: Any
    bad: Bools
    X_test: Floats
    y_test: Ints
    shape: tuple[int, int, int]
    stamp: Callable[[Floats], Floats] | None

    def batches(self, kept: Bools | None = None) -> list[Batch]:
        """D0 and the dirty batches; kept: (n,) rows that are left in."""
        out = []
        for number, start in enumerate([0, *range(CLEAN, len(self.y), ROWS)]):
            at = np.arange(start, CLEAN if number == 0 else start + ROWS)
            at = at if kept is None else at[kept[at]]
            clean = np.full(len(at), number == 0)
            out.append(Batch(f"b{number}", number, self.X[at], self.given[at], clean, sources=self.sources[at]))
        return out


def planted(attack: str, rate: float, dataset: str, seed: int, data_dir: str | None) -> Planted:
    """The stream of one cell. rate: of all dirty rows; where one class's rows are all that can be poisoned, at most all of them."""
    data, rng = pictures(dataset, data_dir), np.random.default_rng([seed, 9])
    at = rng.permutation(len(data.y))[: CLEAN + BATCHES * ROWS]
    test = rng.permutation(len(data.y_test))[:TEST]
    X, y = data.X[at].copy(), data.y[at]
    sources = np.array([f"source {code}" for code in rng.integers(SOURCES, size=len(y))], object)
    given, dirty = y.copy(), slice(CLEAN, None)
    trigger = noise.patch(data.shape, size=5 if attack.startswith("clean") else 3)
    stamp = trigger if "backdoor" in attack else None
    if attack == "clean-label backdoor":
        given[dirty], X[dirty] = noise.clean_label_backdoor(rate, SOURCE, trigger, fade=FADE)(y[dirty], X[dirty], rng)
    elif attack == "dirty-label backdoor":
        given[dirty], X[dirty] = noise.dirty_label_backdoor(rate, SOURCE, trigger)(y[dirty], X[dirty], rng)
    else:
        given[dirty] = _flipped(attack, rate, X[dirty], y[dirty], sources[dirty], data.classes, rng)
    bad = (given != y) | (data.X[at] != X).any(axis=1)
    return Planted(X, y, given, sources, bad, data.X_test[test], data.y_test[test], data.shape, stamp)


def _flipped(
    attack: str, rate: float, X: Floats, y: Ints, sources: Any, classes: int, rng: np.random.Generator
) -> Ints:
    share = min(1.0, exact_count(rate, len(y)) / max(int((y == SOURCE).sum()), 1))
    if attack in ("far-first", "near-first"):
        from sklearn.linear_model import LogisticRegression

        scaled = X.astype(np.float32) / 255
        surrogate = LogisticRegression(max_iter=30, C=0.1).fit(scaled, y)
        flip = noise.far_first if attack == "far-first" else noise.near_first
        return flip(rate, surrogate.decision_function, classes=classes)(y, scaled, rng)
    if attack == "slow":
        return noise.corrupt(
            y,
            None,
            lambda r: noise.targeted(r, SOURCE, TARGET),
            lambda number: min(1.0, 2 * share * (number + 0.5) / BATCHES),
            sizes=ROWS,
            rng=rng,
        )
    if attack == "source":
        half = noise.symmetric(min(1.0, rate * SOURCES), classes=classes)
        return noise.poisoned_source(half, sources, LIAR)(y, X, rng)
    return noise.targeted(share if attack == "pair" else 0.0, SOURCE, TARGET)(y, X, rng)


def network(shape: tuple[int, int, int], classes: int, seed: int, device: str) -> Deep:
    """The compact classifier with replay."""
    from labelwright.learners.torch_classifier import TorchClassifier

    estimator = TorchClassifier(
        "compact", image_shape=shape, epochs=10, later_epochs=2, augment="crop2", device=device, random_state=seed
    )
    return Deep(estimator, classes=classes, replay=500, memory=CLEAN + BATCHES * ROWS, seed=seed)


def _learned(
    planted: Planted, kind: str, start: Mapping[str, Any], seed: int, device: str, kept: Bools | None = None
) -> tuple[Any, System, list[Any]]:
    classes = int(planted.y.max()) + 1
    learner = network(planted.shape, classes, seed, device)
    learners = Learners(learner, learner)
    selector: Any = NoSelection(learners, estimate_noise=False) if kind == "undefended" else Slim(learners)
    if kind == "watch":
        selector = Guarded(selector, Watch(classes))
    system = System(selector, learners)
    parts = planted.batches(kept)
    learner.restore(start, lambda keys: (keys, planted.X[keys & 0xFFFFFFFF]))
    if kind == "watch":
        first = selector.split(parts[0])
        from labelwright.types import Answers, Corrections

        selector.update(first, Answers.none(first.rows.X.shape[1]), Corrections.none(first.rows.X.shape[1]))
    splits = [system.step(batch) for batch in parts[1:]]
    return learner, system, splits


def cell(
    attack: str, rate: float, dataset: str, seed: int, data_dir: str | None, device: str, start: Mapping[str, Any]
) -> dict[str, Any]:
    """All arms of one cell: accuracy, attack success, and what was detected."""
    stream = planted(attack, rate, dataset, seed, data_dir)
    out: dict[str, Any] = {"poisoned": int(stream.bad.sum())}
    for arm in ("undefended", "filter", "watch"):
        learner, system, splits = _learned(stream, arm, start, seed, device)
        caught = np.zeros(len(stream.y), bool)
        if arm == "undefended":
            plain = learner
        elif arm == "filter":
            for split in splits:
                keys = split.rows.keys[split.verdict == Verdict.REJECTED]
                caught[_places(keys)] = True
        else:
            alarms = [alarm for alarm in system.selector.watch.alarms if alarm.attack]  # type: ignore[attr-defined]
            for alarm in alarms:
                caught[_places(alarm.keys)] = True
        out[arm] = _measured(learner, stream, attack, caught)
        if arm == "watch":
            out[arm] |= {"named": _named(attack, alarms), "alarms": [_brief(alarm) for alarm in alarms]}
    for rival in RIVALS:
        caught = flagged(rival, plain.estimator, stream.X, stream.given, share=float(stream.bad.mean()))
        caught[:CLEAN] = False
        learner, _, _ = _learned(stream, "undefended", start, seed, device, kept=~caught)
        out[rival] = _measured(learner, stream, attack, caught)
    return out


def _places(keys: Ints) -> Ints:
    number, at = keys >> 32, keys & 0xFFFFFFFF
    return np.asarray(np.where(number == 0, at, CLEAN + (number - 1) * ROWS + at), np.int64)


def _measured(learner: Deep, stream: Planted, attack: str, caught: Bools) -> dict[str, Any]:
    predicted = learner.predict(stream.X_test)
    hits, success = int((caught & stream.bad).sum()), None
    if stream.stamp is not None:
        others = stream.y_test != SOURCE
        success = 100 * float((learner.predict(stream.stamp(stream.X_test[others])) == SOURCE).mean())
    elif attack in ("pair", "slow"):
        success = 100 * float((predicted[stream.y_test == SOURCE] == TARGET).mean())
    return {
        "accuracy": 100 * float((predicted == stream.y_test).mean()),
        "success": success,
        "flagged": int(caught.sum()),
        "precision": hits / caught.sum() if caught.any() else None,
        "recall": hits / stream.bad.sum() if stream.bad.any() else None,
    }


def _named(attack: str, alarms: list[Alarm]) -> bool:
    """Whether an alarm says what the attack was: the pair, the source, the class with the trigger, or flips of typical rows."""
    right: Mapping[str, Callable[[Alarm], bool]] = {
        "pair": lambda a: a.kind == "pair" and (a.true, a.given) == (SOURCE, TARGET),
        "source": lambda a: a.kind == "source" and a.source == LIAR,
        "far-first": lambda a: a.kind == "deep",
    }
    if "backdoor" in attack:
        return any(a.kind == "pattern" and a.given == SOURCE for a in alarms)
    return any(right.get("pair" if attack == "slow" else attack, _nothing)(a) for a in alarms)


def _nothing(alarm: Alarm) -> bool:
    return False


def _brief(alarm: Alarm) -> dict[str, Any]:
    return {
        "kind": alarm.kind,
        "true": alarm.true,
        "given": alarm.given,
        "source": alarm.source,
        "rows": len(alarm.keys),
        "batch": alarm.batch,
    }


def _piece(job: Job, path: Path, tick: Tick, *, dataset: str, data_dir: str | None, device: str) -> dict[str, Any]:
    attack, _, rate = job.group.rpartition(" ")
    start = _after_clean(dataset, job.seed, data_dir, device)
    record = cell(attack, float(rate), dataset, job.seed, data_dir, device, start)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))
    tick(path.stem)
    return record


_STARTS: dict[tuple[str, int], Mapping[str, Any]] = {}


def _after_clean(dataset: str, seed: int, data_dir: str | None, device: str) -> Mapping[str, Any]:
    """The network's state after the vouched rows: the same for all cells of a seed."""
    if (dataset, seed) not in _STARTS:
        stream = planted("none", 0.0, dataset, seed, data_dir)
        learner = network(stream.shape, int(stream.y.max()) + 1, seed, device)
        first = stream.batches()[0]
        learner.partial_fit(Rows(first.X, first.given, first.keys))
        _STARTS[dataset, seed] = learner.state()
    return _STARTS[dataset, seed]


def run_poison(dataset: str = "mnist", how: How = USUAL) -> dict[str, Any]:
    """Every attack at every rate (one seed by default), and the clean stream beside them. profile: "compact", or "quick" for 5 %
    alone; both share their pieces. Writes ``poison-<dataset>-<profile>.json`` and
    ``.png`` into ``output``."""
    seeds, rates = how.range(1), RATES if how.profile != "quick" else (0.05,)
    groups = ["none 0.0", *(f"{attack} {rate}" for attack in ATTACKS for rate in rates)]
    jobs = [Job(one, group, "all") for one in seeds for group in groups]
    held = run_all(
        jobs,
        partial(_piece, dataset=dataset, data_dir=how.data_dir, device=how.device),
        folder=how.output / "pieces" / f"poison-{dataset}",
        steps=1,
        settings=f"{dataset} {CLEAN} {BATCHES} {ROWS} {TEST}",
        workers=how.workers,
        progress=how.progress,
    )
    result = {
        "experiment": "poison",
        "dataset": dataset,
        "profile": how.profile,
        "seeds": len(seeds),
        "cells": {group: _averaged(records) for (group, _), records in held.items()},
        "provenance": provenance(how.command("poison", dataset, len(seeds)), how.device),
    }
    written(result, how.file(f"poison-{dataset}"), figure)
    return result


def _averaged(records: list[dict[str, Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {"poisoned": [record["poisoned"] for record in records]}
    for arm in ARMS:
        out[arm] = {}
        for name in ("accuracy", "success", "flagged", "precision", "recall"):
            values = [record[arm][name] for record in records if record[arm][name] is not None]
            out[arm][name] = mean_and_interval(values) if values else None
    out["watch"]["named"] = [record["watch"]["named"] for record in records]
    out["watch"]["alarms"] = [record["watch"]["alarms"] for record in records]
    return out


def poison_table(result: Mapping[str, Any]) -> list[list[str]]:
    """See :func:`labelwright.bench.poison_figures.table`."""
    return table(result)
