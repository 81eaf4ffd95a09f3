"""Who gave the labels: each source's noise over time, and what to do when a source turns bad.

A selector is wrapped: it judges as ever, :class:`SourceWatch` compares how often each source's labels disagree with the quality
model to what is usual for that source, and rows of a source that turned bad are judged by that source's own noise matrix.
Memory is bounded: K x K numbers a source, and at most so many sources have a place of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from labelwright.learners import Fetch, Learners, RowMemory
from labelwright.posterior import NoiseModel, wilson
from labelwright.selection import Selector
from labelwright.types import NO_LABEL, Answers, Batch, Bools, Corrections, Floats, Ints, Split, Verdict

Names = npt.NDArray[np.object_]
NOBODY = "(no source)"
OTHERS = "(other sources)"
_SURE_OF_LABEL = 0.9
_BURST = 4.0
_BURST_EXCESS = 0.10
_DRIFT, _DRIFT_STEP, _DRIFT_EXCESS, _CREEPING = 10.0, 0.75, 0.05, 2.0
_WORSE = 0.20
_WORDS = {
    "burst": "a burst of wrong labels",
    "drift": "wrong labels creep up",
    "worse": "far more wrong labels than the other sources",
}
_LEAST_ROWS, _LEAST_BASE = 20, 300
_BASE_ROWS, _PRIOR_ROWS = 20_000.0, 50.0
_CALM = 2


@dataclass(frozen=True)
class Standing:
    """What is known of one source.

    base, off: rows that made up what is usual, and how many of those the quality model disagreed with. climb: how far the
    disagreement has crept up (CUSUM). bad: "", "burst", "drift" or "worse". calm: usual batches since. model: its noise matrix, counted
    since it turned bad, or over all.
    """

    base: float = 0.0
    off: float = 0.0
    climb: float = 0.0
    bad: str = ""
    calm: int = 0
    model: NoiseModel | None = None

    @property
    def usual(self) -> float:
        """Share of rows on which the quality model usually disagrees, with one row of doubt on either side."""
        return (self.off + 1.0) / (self.base + 2.0)


@dataclass(frozen=True)
class Look:
    """One batch's view of one source. rows, off: judged, disagreed with. rate, low, high: share of wrong labels, 95 %."""

    rows: int
    off: int
    rate: float
    low: float
    high: float
    standing: Standing
    alarm: str = ""

    def told(self) -> dict[str, Any]:
        """As JSON values."""
        numbers = {"rate": self.rate, "low": self.low, "high": self.high}
        rounded = {name: round(float(value), 4) for name, value in numbers.items()}
        return {"rows": self.rows, "disagree": self.off, **rounded, "state": self.standing.bad or "usual"}


@dataclass(frozen=True)
class SourcedSplit(Split):
    """A split whose rows of bad sources are believed by those sources' own noise matrices. who: (n,) the source of each."""

    who: Names = field(default_factory=lambda: np.empty(0, object))
    own: Mapping[str, NoiseModel] = field(default_factory=dict)
    looks: Mapping[str, Look] = field(default_factory=dict)

    @cached_property
    def posterior(self) -> Floats:
        """(n, K), see :attr:`Split.posterior`."""
        out = self.noise.posterior(self.proba, self.given)
        for name, model in self.own.items():
            mine = self.who == name
            out[mine] = model.posterior(self.proba[mine], self.given[mine])
        out[self.clean] = 0.0
        out[self.clean, self.given[self.clean]] = 1.0
        return out


class SourceWatch:
    """The standing of every source, and what a batch says about it.

    classes: K. most: sources with a place of their own; later ones share one.

    A source turns bad by a *burst* (the batch's disagreement is 4 standard errors and 10 points above its usual), by *drift*
    (small excesses that add up, and 5 points), or is *worse* than the median of the others by 20 points from the start. What
    all other sources do at the same time is taken off first, so that a model that gets worse, or harder data, is nobody's fault.
    It is good again after two usual batches.

    >>> watch = SourceWatch(2)
    >>> for _ in range(4):
    ...     watch.learn({"ann": watch.looked("ann", 100, 8)})
    >>> watch.looked("ann", 100, 50).standing.bad, watch.looked("ann", 100, 11).standing.bad
    ('burst', '')
    """

    def __init__(self, classes: int, *, most: int = 200):
        self.classes, self.most = classes, max(4, min(most, 4_000_000 // max(1, classes * classes)))
        self.standing: dict[str, Standing] = {}

    def known_as(self, who: Names) -> Names:
        """The names under which these sources are watched."""
        room = self.most - len(self.standing)
        fresh = [name for name in dict.fromkeys(who.tolist()) if name not in self.standing]
        shared = set(fresh[max(0, room) :])
        return np.array([OTHERS if name in shared else name for name in who], object) if shared else who

    def looks(self, who: Names, disagrees: Bools, proba: Floats, given: Ints, noise: NoiseModel) -> dict[str, Look]:
        """What these rows say about each source. Pure. who, disagrees, given: (n,); proba: (n, K). noise: over all sources; it
        weighs as 50 rows in each source's estimate."""
        weight = min(1.0, _PRIOR_ROWS / max(float(noise.counts.sum()), 1.0))
        start = replace(noise, counts=weight * noise.counts, answered=np.zeros_like(noise.answered))
        out = {}
        for name in sorted(set(who.tolist())):
            mine = who == name
            shift = self._shift(who, disagrees, name)
            out[name] = self.looked(
                name, int(mine.sum()), int(disagrees[mine].sum()), shift=shift, peers=self._peers(name)
            )
            if out[name].rows < _LEAST_ROWS:
                continue
            model = start.updated(proba[mine], given[mine])
            rate = float(np.clip(1.0 - np.trace(model.counts - start.counts) / mine.sum(), 0.0, 1.0))
            low, high = wilson(rate, float(mine.sum()))
            standing = out[name].standing
            if standing.bad:
                before = self.standing.get(name, Standing())
                counted = before.model if before.bad and before.model is not None else start
                standing = replace(standing, model=counted.updated(proba[mine], given[mine]))
            out[name] = replace(out[name], rate=rate, low=float(low), high=float(high), standing=standing)
        return out

    def _shift(self, who: Names, disagrees: Bools, name: str) -> float:
        """How far above their usual the other sources are in this batch: the median of those that are known well."""
        moved = []
        for other in sorted(set(who.tolist()) - {name}):
            standing, mine = self.standing.get(other, Standing()), who == other
            if standing.base >= _LEAST_BASE and mine.sum() >= _LEAST_ROWS and not standing.bad:
                moved.append(float(disagrees[mine].mean()) - standing.usual)
        return max(0.0, float(np.median(moved))) if moved else 0.0

    def _peers(self, name: str) -> float | None:
        """What is usual for the other sources that are known well: the median of two or more."""
        usual = [s.usual for other, s in self.standing.items() if other != name and s.base >= _LEAST_BASE and not s.bad]
        return float(np.median(usual)) if len(usual) > 1 else None

    def looked(self, name: str, rows: int, off: int, *, shift: float = 0.0, peers: float | None = None) -> Look:
        """What ``off`` disagreements in ``rows`` rows make of a source's standing. Pure. shift: what the others do at the same
        time. peers: what is usual for them."""
        now = self.standing.get(name, Standing())
        low, high = wilson(off / max(rows, 1), rows)
        look = Look(rows, off, off / max(rows, 1), float(low), float(high), now)
        if rows < _LEAST_ROWS or now.base < _LEAST_BASE:
            return replace(look, standing=self._usual(now, rows, off) if not now.bad else now)
        usual = min(now.usual + shift, 1.0)
        excess = off / rows - usual
        pooled = (off + now.off + 1.0) / (rows + now.base + 2.0)
        z = excess / np.sqrt(max(pooled * (1.0 - pooled), 1e-6) * (1.0 / rows + 1.0 / now.base))
        climb = max(0.0, now.climb + float(z) - _DRIFT_STEP)
        beyond = 0.0 if peers is None else off / rows - min(peers + shift, 1.0)
        worse = beyond > _WORSE and beyond > _BURST * np.sqrt(0.25 / rows)
        if now.bad:
            return self._recovering(name, look, now, rows, off, calm=z < 2.0 and not worse)
        bad = "burst" if z > _BURST and excess > _BURST_EXCESS else ""
        bad = bad or ("drift" if climb > _DRIFT and excess > _DRIFT_EXCESS else "worse" if worse else "")
        if not bad:
            joined = self._usual(now, rows, off) if climb < _CREEPING else now  # what creeps up is not made usual
            return replace(look, standing=replace(joined, climb=climb))
        compared = (
            f"{100 * usual:.0f} % are usual"
            if bad != "worse" or peers is None
            else f"{100 * peers:.0f} % of the others'"
        )
        alarm = (
            f"source {name!r}: {_WORDS[bad]}; {100 * off / rows:.0f} % of its rows disagree with the models, {compared}"
        )
        return replace(look, standing=replace(now, bad=bad, calm=0, climb=climb), alarm=alarm)

    def _recovering(self, name: str, look: Look, now: Standing, rows: int, off: int, *, calm: bool) -> Look:
        quiet = now.calm + 1 if calm else 0
        if quiet < _CALM:
            return replace(look, standing=replace(now, calm=quiet))
        back = replace(now, bad="", calm=0, climb=0.0, model=None)
        return replace(look, standing=self._usual(back, rows, off), alarm=f"source {name!r}: as usual again")

    def _usual(self, now: Standing, rows: int, off: int) -> Standing:
        """The batch joins what is usual; the past fades so that it weighs as at most so many rows."""
        keep = min(1.0, _BASE_ROWS / max(now.base + rows, 1.0))
        return replace(now, base=keep * (now.base + rows), off=keep * (now.off + off))

    def learn(self, looks: Mapping[str, Look]) -> None:
        """Move on."""
        self.standing |= {name: look.standing for name, look in looks.items()}

    def state(self) -> dict[str, Any]:
        """What :meth:`restore` needs."""
        return {
            name: {
                "base": s.base, "off": s.off, "climb": s.climb, "bad": s.bad, "calm": s.calm,
                "model": {} if s.model is None else s.model.state(),
            }
            for name, s in self.standing.items()
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        """As it was when :meth:`state` was called."""
        start = NoiseModel.start(self.classes)
        self.standing = {
            name: Standing(
                float(held["base"]), float(held["off"]), float(held["climb"]), str(held["bad"]), int(held["calm"]),
                start.restored(held["model"]) if held["model"] else None,
            )
            for name, held in state.items()
        }  # fmt: skip


class Judging(Selector, Protocol):
    """What :class:`Sourced` needs of the selector that it watches: a JudgingSelector, or one in the guise of another room."""

    @property
    def learners(self) -> Learners:
        """L and C."""

    @property
    def estimate_noise(self) -> bool:
        """Whether batches teach the noise matrix."""

    @property
    def buffer(self) -> RowMemory:
        """Rows that wait."""


class Sourced:
    """A selector that knows who gave each label. inner: judges. watch: whose labels to believe less.

    Rows of a source that turned bad are kept only where that source's own noise matrix leaves the given label at least 90 %
    sure, and they no longer teach the noise matrix of the others.
    """

    def __init__(self, inner: Judging, watch: SourceWatch | None = None):
        self.inner = inner
        self.watch = watch or SourceWatch(inner.noise.classes)
        self._of_waiting: dict[int, str] = {}

    @property
    def noise(self) -> NoiseModel:
        """How labels go wrong, over all sources that are not bad."""
        return self.inner.noise

    def split(self, batch: Batch) -> Split:
        """See :class:`~labelwright.selection.Selector`."""
        judging = self.inner.learners.fitted and not batch.clean.all()
        split = self.inner.split(batch)
        if not judging:
            return split
        who = self._who(batch, split)
        fresh = np.arange(len(split)) < len(batch)
        judged = fresh & ~split.clean
        disagrees = split.decision.argmax(axis=1) != split.given
        looks = self.watch.looks(who[judged], disagrees[judged], split.proba[judged], split.given[judged], split.noise)
        own = {name: look.standing.model for name, look in looks.items() if look.standing.model is not None}
        facts = {**split.facts, "sources": {name: looks[name].told() for name in [*looks][:50]}}
        alarms = [look.alarm for look in looks.values() if look.alarm]
        if alarms:
            facts["alarms"] = alarms
        bad = np.isin(who, list(own)) if own else np.zeros(len(split), bool)
        noise = self._without(split, fresh & ~bad) if bad.any() and self.inner.estimate_noise else split.noise
        values = {name: getattr(split, name) for name in split.__dataclass_fields__}
        made = SourcedSplit(**{**values, "noise": noise, "facts": facts}, who=who, own=own, looks=looks)
        return _stricter(made, bad)

    def _who(self, batch: Batch, split: Split) -> Names:
        """(n,) the source of each judged row, also of those that waited."""
        told = [NOBODY] * len(batch) if batch.sources is None else batch.sources.tolist()
        names = [NOBODY if name is None or name == "" else str(name) for name in told]
        waited = [self._of_waiting.get(int(key), NOBODY) for key in split.rows.keys[len(batch) :]]
        return self.watch.known_as(np.array([*names, *waited], object))

    def _without(self, split: Split, use: Bools) -> NoiseModel:
        known = np.where(split.clean, split.given, NO_LABEL)
        return self.inner.noise.updated(split.proba[use], split.given[use], known[use])

    def update(self, split: Split, answers: Answers, fixed: Corrections) -> None:
        """See :class:`~labelwright.selection.Selector`."""
        self.inner.update(split, answers, fixed)
        if not isinstance(split, SourcedSplit):
            return
        self.watch.learn(split.looks)
        waiting = set(self.inner.buffer.rows.keys.tolist())
        held = zip(split.rows.keys.tolist(), split.who.tolist(), strict=True)
        self._of_waiting = {key: name for key, name in held if key in waiting}

    def hear(self, answers: Answers) -> None:
        """See :class:`~labelwright.selection.Selector`."""
        self.inner.hear(answers)

    def state(self) -> dict[str, Any]:
        """See :class:`~labelwright.selection.Selector`."""
        waiting = {str(key): name for key, name in self._of_waiting.items()}
        return {**self.inner.state(), "sources": self.watch.state(), "of_waiting": waiting}

    def restore(self, state: Mapping[str, Any], fetch: Fetch) -> None:
        """See :class:`~labelwright.selection.Selector`."""
        self.inner.restore(state, fetch)
        self.watch.restore(state.get("sources", {}))
        self._of_waiting = {int(key): name for key, name in state.get("of_waiting", {}).items()}


def _stricter(split: SourcedSplit, bad: Bools) -> Split:
    """Rows of bad sources are kept only where their own noise matrix leaves the given label sure."""
    doubted = bad & split.kept & ~split.clean & (split.label_score < _SURE_OF_LABEL)
    if not doubted.any():
        return split
    deciders = {**split.deciders, Verdict.REJECTED: split.deciders.get(Verdict.REJECTED, "selector")}
    return replace(split.marked(np.flatnonzero(doubted), Verdict.REJECTED), deciders=deciders)


__all__ = ["Look", "SourceWatch", "Sourced", "SourcedSplit", "Standing"]
