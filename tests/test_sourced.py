"""Who gave the labels: bursts, drift and recovery per source, and what is done about it."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.naive_bayes import GaussianNB

from labelwright.learners import as_learner
from labelwright.loop import System
from labelwright.recipes import rad_duo
from labelwright.sourced import OTHERS, Look, Sourced, SourcedSplit, SourceWatch, Standing
from labelwright.types import Batch


def watched(rates: list[float], *, rows: int = 200, seed: int = 0) -> tuple[list[str], SourceWatch]:
    """The state of one source after each batch in which so many of its rows disagree."""
    watch, rng, states = SourceWatch(3), np.random.default_rng(seed), []
    for rate in rates:
        look = watch.looked("ann", rows, int(rng.binomial(rows, rate)))
        watch.learn({"ann": look})
        states.append(look.standing.bad)
    return states, watch


def test_a_burst_is_seen_in_its_first_batch_and_ends_after_two_usual_ones() -> None:
    states, _ = watched([0.2] * 10 + [0.6] * 3 + [0.2] * 3)
    assert states == [""] * 10 + ["burst"] * 4 + ["", ""]


def test_a_slow_drift_adds_up() -> None:
    states, _ = watched([0.2] * 10 + [0.2 + 0.005 * step for step in range(1, 24)])
    assert states[:12] == [""] * 12 and states[-1] == "drift", states


def test_what_is_usual_is_what_was_counted() -> None:
    _, watch = watched([])
    for off in (20, 60):
        watch.learn({"ann": watch.looked("ann", 200, off)})
    assert watch.standing["ann"].usual == (80 + 1) / (400 + 2)
    # by hand: excess 0.6 - 81/402 = 0.3985; pooled (60 + 81)/502 = 0.281; error sqrt(0.281 * 0.719 * (1/100 + 1/400)) = 0.0503
    assert watch.looked("ann", 100, 60).standing.bad == "burst"
    assert watch.looked("ann", 100, 29).standing.bad == "", "less than 10 points"


def test_honest_sources_raise_no_alarm() -> None:
    wrong = sum(any(watched([0.3] * 40, rows=60, seed=seed)[0]) for seed in range(100))
    assert wrong <= 2


def test_harder_data_for_all_is_no_sources_fault() -> None:
    watch, who = SourceWatch(2), np.repeat(np.array(["a", "b", "c"], object), 100)
    for _ in range(5):
        watch.standing = {name: Standing(base=1000, off=100) for name in "abc"}
    even = np.tile(np.arange(100) < 40, 3)
    noise = rad_duo(*[as_learner(GaussianNB(), classes=2)] * 2).selector.noise
    proba, given = np.full((300, 2), 0.5), np.zeros(300, np.int64)
    assert {look.standing.bad for look in watch.looks(who, even, proba, given, noise).values()} == {""}
    only = even & (who == "a")
    found = watch.looks(who, only | ((who != "a") & np.tile(np.arange(100) < 10, 3)), proba, given, noise)
    assert {name: look.standing.bad for name, look in found.items()} == {"a": "burst", "b": "", "c": ""}


def test_a_source_that_lies_from_the_start_is_worse_than_its_peers() -> None:
    watch = SourceWatch(2)
    watch.standing = {name: Standing(base=500, off=50) for name in "abc"} | {"liar": Standing(base=500, off=250)}
    peers = watch._peers("liar")
    assert peers == pytest.approx(51 / 502)
    assert watch.looked("liar", 100, 50, peers=peers).standing.bad == "worse"
    assert watch.looked("a", 100, 12, peers=watch._peers("a")).standing.bad == ""


def test_memory_is_bounded_and_the_state_comes_back() -> None:
    watch = SourceWatch(2, most=4)
    names = watch.known_as(np.array([f"s{i}" for i in range(9)], object))
    assert names.tolist() == ["s0", "s1", "s2", "s3"] + [OTHERS] * 5
    _, one = watched([0.2] * 10 + [0.6])
    other = SourceWatch(3)
    other.restore(one.state())
    assert other.standing == one.standing


def stream(seed: int, bad: str | None) -> list[tuple[Batch, np.ndarray]]:
    """25 batches of 300 rows by three sources; one of them has 70 % wrong labels from batch 12 on."""
    rng, out = np.random.default_rng(seed), []
    for number in range(25):
        true = rng.integers(0, 4, 300)
        X = np.stack([true % 2, true // 2], axis=1) * 2.0 + rng.normal(size=(300, 2))
        who = rng.choice(np.array(["a", "b", "c"], object), 300)
        rate = np.where((who == bad) & (number >= 12), 0.7, 0.15)
        given = np.where(rng.random(300) < rate, (true + 1) % 4, true)  # always the same wrong class, as people confuse
        batch = Batch.of(number, X, true if number == 0 else given, clean=number == 0)
        out.append((Batch(batch.id, number, X, batch.given, batch.clean, sources=who), true))
    return out


def system(*, watch: bool) -> System:
    made = rad_duo(*(as_learner(GaussianNB(), classes=4) for _ in range(2)), buffer=50)
    return System(Sourced(made.selector), made.learners) if watch else made  # type: ignore[arg-type]


def kept_wrong(seed: int, *, watch: bool) -> tuple[float, set[str]]:
    """(share of wrong labels among the kept rows after the burst began, sources that were seen as bad)."""
    made, wrong, kept, bad = system(watch=watch), 0, 0, set[str]()
    for batch, true in stream(seed, "c"):
        split = made.step(batch)
        if isinstance(split, SourcedSplit):
            bad |= {name for name, look in split.looks.items() if look.standing.bad}
        here = split.kept[: len(batch)]
        if batch.number >= 12:
            kept += int(here.sum())
            wrong += int((split.label[: len(batch)][here] != true[here]).sum())
    return wrong / kept, bad


def test_a_bad_sources_rows_are_judged_by_its_own_mistakes() -> None:
    for seed in range(3):
        plain, _ = kept_wrong(seed, watch=False)
        better, bad = kept_wrong(seed, watch=True)
        assert bad == {"c"} and better < 0.75 * plain, (plain, better)


def test_a_look_is_told_as_json() -> None:
    look = Look(10, 2, 0.2, 0.05, 0.51234, Standing(bad="drift"))
    assert look.told() == {"rows": 10, "disagree": 2, "rate": 0.2, "low": 0.05, "high": 0.5123, "state": "drift"}
