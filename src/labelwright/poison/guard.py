"""The watch in the loop: a selector that quarantines what the watch names, and a budget that asks where it settles a suspicion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from labelwright.learners import Fetch, RowMemory
from labelwright.poison.alarm import OPEN, PATTERN
from labelwright.poison.watch import Look, Watch
from labelwright.posterior import NoiseModel
from labelwright.queries import FixedBudget, queries_at
from labelwright.selection import JudgingSelector
from labelwright.types import NO_LABEL, Answers, Batch, Corrections, Floats, Ints, Queries, Rows, Split, Verdict

DECIDER = "poison watch"
PER_ALARM = 6
"""Questions that an open suspicion may take in all: four that agree settle it."""


class Guarded:
    """A selector with a watch: rows that an alarm names are quarantined, those of earlier batches too.

    selector: what splits batches otherwise. watch: what looks for attacks. quarantine: off, alarms are raised and nothing else
    changes. names: of the classes, for the ledger.

    The alarms stand in ``Split.facts["poison"]``, so the ledger holds them in the entry of the batch, before anything is learned.
    """

    def __init__(
        self, selector: JudgingSelector, watch: Watch, *, quarantine: bool = True, names: tuple[str, ...] = ()
    ):
        self.inner, self.watch, self.quarantine = selector, watch, quarantine
        self.names = names or tuple(str(code) for code in range(watch.classes))
        self._look: tuple[str, Look] | None = None

    @property
    def noise(self) -> NoiseModel:
        """The inner selector's."""
        return self.inner.noise

    @noise.setter
    def noise(self, value: NoiseModel) -> None:
        self.inner.noise = value

    @property
    def learners(self) -> Any:
        """The inner selector's."""
        return self.inner.learners

    @property
    def estimate_noise(self) -> bool:
        """The inner selector's."""
        return self.inner.estimate_noise

    @property
    def buffer(self) -> RowMemory:
        """The inner selector's."""
        return self.inner.buffer

    def split(self, batch: Batch) -> Split:
        """The inner selector's split, with the rows named in alarms quarantined."""
        split = self.inner.split(batch)
        n = len(batch)
        rows = self.watch.sight(
            batch.X,
            batch.given,
            split.proba[:n],
            sources=batch.sources,
            keys=batch.keys,
            batch=batch.number,
            clean=split.clean[:n],
            temperature=split.noise.temperature,
        )
        look = self.watch.look(rows)
        self._look = batch.id, look
        facts = {**split.facts, "poison": {"alarms": [alarm.brief(self.names) for alarm in look.alarms]}}
        split = replace(split, facts=facts)
        return self._quarantined(split, look) if self.quarantine else split

    def _quarantined(self, split: Split, look: Look) -> Split:
        named = _keys_named(look)
        here = np.flatnonzero(np.isin(split.rows.keys, named) & ~split.clean)
        split = split.marked(here, Verdict.QUARANTINED)
        split = replace(split, deciders={**split.deciders, int(Verdict.QUARANTINED): DECIDER})
        earlier = np.isin(look.rows.keys, look.fresh) & ~np.isin(look.rows.keys, split.rows.keys)
        if not earlier.any() or not self.learners.fitted:
            return split
        old = look.rows.take(earlier)
        rows = Rows(old.X.astype(split.rows.X.dtype).reshape(len(old), *split.rows.X.shape[1:]), old.given, old.keys)
        decision, proba = self.learners.quality.judge(rows.X)
        return replace(
            split,
            rows=split.rows.plus(rows),
            verdict=np.concatenate([split.verdict, np.full(len(old), int(Verdict.QUARANTINED))]),
            label=np.concatenate([split.label, old.given]),
            clean=np.concatenate([split.clean, np.zeros(len(old), bool)]),
            decision=np.concatenate([split.decision, decision]),
            proba=np.concatenate([split.proba, proba]),
        )

    def update(self, split: Split, answers: Answers, fixed: Corrections) -> None:
        """Remember; unlearn quarantined rows where a model can be refitted; take answers in."""
        self.inner.update(split, answers, fixed)
        if self._look is not None:
            self.watch.update(self._look[1])
            self._look = None
        self._unlearn(split.rows.keys[split.verdict == Verdict.QUARANTINED])
        self.hear_only(answers)

    def _unlearn(self, keys: Ints) -> None:
        for learner in self.learners:
            held = learner.memory.rows
            if len(keys) and len(held) and np.isin(held.keys, keys).any():
                learner.memory.forget(keys)
                learner.partial_fit(Rows.none(held.X.shape[1]))

    def hear(self, answers: Answers) -> None:
        """Answers to older batches' questions."""
        self.inner.hear(answers)
        self.hear_only(answers)

    def hear_only(self, answers: Answers) -> None:
        """Settle suspicions; rows that are suspected no longer are judged again with the next batch."""
        said = answers.usable
        if not len(said):
            return
        given = answers.rows.y[answers.label != NO_LABEL]
        freed = self.watch.heard(said.keys, given, said.y)
        window = self.watch.window.rows
        if not self.quarantine or not len(freed) or window is None:
            return
        back = window.take(np.isin(window.keys, freed) & ~np.isin(window.keys, self.inner.buffer.rows.keys))
        rows = Rows(back.X.reshape(len(back), *said.X.shape[1:]), back.given, back.keys)
        self.inner.buffer.rows = self.inner.buffer.rows.plus(rows)
        self.inner.waited |= {int(key): 0 for key in back.keys}

    def state(self) -> dict[str, Any]:
        """The inner selector's, and the watch's."""
        return {**self.inner.state(), "watch": self.watch.state()}

    def restore(self, state: Mapping[str, Any], fetch: Fetch) -> None:
        """As it was when :meth:`state` was called; a state without a watch begins one."""
        self.inner.restore({name: part for name, part in state.items() if name != "watch"}, fetch)
        if "watch" in state:
            self.watch.restore(state["watch"], fetch)


class SettlingBudget:
    """A budget that gives part of each batch's questions to open suspicions, and never more questions than it would have put.

    inner: what chooses otherwise. watch: whose suspicions are to be settled. share: of a batch's questions that suspicions may
    take, rounded up.
    """

    def __init__(self, inner: FixedBudget, guard: Guarded, *, share: float = 0.5, per_alarm: int = PER_ALARM):
        self.inner, self.guard, self.share, self.per_alarm = inner, guard, share, per_alarm

    @property
    def spent(self) -> int:
        """Questions put so far."""
        return self.inner.spent

    @spent.setter
    def spent(self, value: int) -> None:
        self.inner.spent = value

    def choose(self, split: Split) -> Queries:
        """The inner budget's questions, the least valuable of which give way to rows of open suspicions. Pure."""
        usual = self.inner.choose(split)
        allowed = self._allowed(split)
        wanted = self._settling(split)[: int(np.ceil(self.share * allowed))]
        if not len(wanted):
            return usual
        rest = usual.take(~np.isin(usual.rows.keys, split.rows.keys[wanted]))
        rest = rest.take(np.arange(len(rest))[: allowed - len(wanted)])
        top = float(rest.value.max(initial=0.0)) + 1.0
        asked = queries_at(split, wanted, top + np.arange(len(wanted), 0, -1.0), "suspicion")
        return Queries(
            asked.rows.plus(rest.rows),
            np.concatenate([asked.value, rest.value]),
            np.concatenate([asked.suggestion, rest.suggestion]),
            np.concatenate([asked.confidence, rest.confidence]),
            " and ".join(filter(None, ["suspicion", rest.why])),
        )

    def _allowed(self, split: Split) -> int:
        left = self.inner.left
        most = self.inner.allowance(split)
        return most if left is None else min(most, left)

    def _settling(self, split: Split) -> Ints:
        """Rows of open suspicions in this split, alternating between suspicions, surest first."""
        look = self.guard._look
        if look is None:
            return np.empty(0, np.int64)
        turns: list[tuple[int, float, int]] = []
        for alarm in look[1].alarms:
            left = self.per_alarm - alarm.wrong - alarm.right
            if not alarm.attack or alarm.state != OPEN or alarm.kind == PATTERN or left <= 0:
                continue
            at = np.flatnonzero(np.isin(split.rows.keys, alarm.keys) & ~split.clean)
            order = np.argsort(split.label_score[at], kind="stable")[:left]
            turns += [(turn, float(split.label_score[row]), int(row)) for turn, row in enumerate(at[order])]
        return np.array(list(dict.fromkeys(row for _, _, row in sorted(turns))), np.int64)

    def value(self, split: Split) -> Floats:
        """The inner budget's."""
        return self.inner.value(split)

    def update(self, queries: Queries, split: Split) -> None:
        """Count."""
        self.inner.update(queries, split)

    def state(self) -> dict[str, Any]:
        """The inner budget's."""
        return self.inner.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """As it was."""
        self.inner.restore(state)


def _keys_named(look: Look) -> Ints:
    named = [alarm.keys for alarm in look.alarms if alarm.attack]
    return np.unique(np.concatenate([np.empty(0, np.int64), *named]))
