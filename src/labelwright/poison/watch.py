"""The watch: batch after batch, it looks for structure that honest mistakes do not have, and remembers what it suspects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from labelwright.errors import SettingsError
from labelwright.poison.alarm import BURST, OPEN, PAIR, REFUTED, SOURCE, Alarm, restored
from labelwright.poison.pattern import pattern_alarms
from labelwright.poison.structure import burst_notice, deep_alarm, named_source, pair_alarm, source_alarms
from labelwright.poison.window import Seen, Window, seen
from labelwright.types import Bools, Floats, Ints

WINDOW = 10_000
WIDEST = 16_384
"""Marks are not sought in rows of more features than this."""


@dataclass(frozen=True)
class Look:
    """What one more batch shows. rows: the window with the batch in it. alarms: all there are now, settled ones too.
    fresh: (m,) keys named now and not before, of any batch in the window."""

    rows: Seen
    alarms: tuple[Alarm, ...]
    fresh: Ints

    @property
    def attack(self) -> bool:
        """Whether an attack is suspected or confirmed."""
        return any(alarm.attack for alarm in self.alarms)


class Watch:
    """Looks at one batch after another; memory is bounded by ``window`` rows.

    classes: K. window: how many of the newest rows are remembered, features and all. marks: look for triggers too.

    >>> watch = Watch(2)
    >>> watch.update(watch.look(seen(np.zeros((2, 1)), np.array([0, 1]), np.eye(2))))
    >>> watch.alarms
    ()
    """

    def __init__(self, classes: int, *, window: int = WINDOW, marks: bool = True):
        if classes < 2 or window < 1:
            raise SettingsError(
                f"a watch over {classes} classes and {window} rows sees nothing; give 2 classes and 1 row or more"
            )
        self.classes, self.marks, self.window = classes, marks, Window(window)
        self.alarms: tuple[Alarm, ...] = ()

    def sight(
        self, X: Floats, given: Ints, proba: Floats, *, sources: npt.NDArray[np.object_] | None = None, **more: Any
    ) -> Seen:
        """Rows of a batch as :func:`~labelwright.poison.window.seen` makes them. sources: (n,) names."""
        return seen(X, given, proba, source=self.window.code(sources, len(given)), **more)

    def look(self, batch: Seen) -> Look:
        """What there is to suspect once ``batch`` is in the window. Pure."""
        rows = self.window.joined(batch)
        found = [*self._found(rows.take(rows.batch == rows.batch.max(initial=-1))), *self._found(rows)]
        if self.marks and rows.X.shape[1] <= WIDEST:
            found += pattern_alarms(rows, self.classes)
        burst = burst_notice(rows)
        found += [burst] if burst is not None else []
        found = [self._with_source(alarm, rows) for alarm in found]
        alarms = _merged(self._grown(rows, batch), found, self.window.size)
        named = {int(key) for alarm in alarms if alarm.attack for key in alarm.keys}
        before = {int(key) for alarm in self.alarms if alarm.attack for key in alarm.keys}
        return Look(rows, alarms, np.array(sorted(named - before), np.int64))

    def _found(self, rows: Seen) -> list[Alarm]:
        single = (pair_alarm(rows, self.classes), deep_alarm(rows, self.classes))
        return [*(alarm for alarm in single if alarm is not None), *source_alarms(rows, self.window.names)]

    def _with_source(self, alarm: Alarm, rows: Seen) -> Alarm:
        if alarm.source is not None or alarm.kind == BURST:
            return alarm
        at = np.flatnonzero(np.isin(rows.keys, alarm.keys))
        return replace(alarm, source=named_source(rows, at, self.window.names))

    def _grown(self, rows: Seen, batch: Seen) -> tuple[Alarm, ...]:
        """Standing alarms with the rows of ``batch`` that fit them; old notices are dropped."""
        fit = [(a, batch.keys[self._fits(a, batch)]) for a in self.alarms if a.kind != BURST]
        return tuple(replace(a, keys=np.union1d(a.keys, more)) if len(more) else a for a, more in fit)

    def _fits(self, alarm: Alarm, rows: Seen) -> Bools:
        if alarm.state == REFUTED:
            return np.zeros(len(rows), bool)
        if alarm.kind == PAIR:
            return rows.suspect & (rows.believed == alarm.true) & (rows.given == alarm.given)
        if alarm.kind == SOURCE and alarm.source in self.window.names:
            return rows.suspect & (rows.source == self.window.names.index(alarm.source))
        return np.zeros(len(rows), bool)

    def update(self, look: Look) -> None:
        """Remember what was seen."""
        self.window.rows, self.alarms = look.rows, look.alarms

    def heard(self, keys: Ints, given: Ints, label: Ints) -> Ints:
        """Take experts' answers in: (n,) rows, the labels they came with, the experts' labels. Returns the keys of rows that are
        suspected no longer, because the suspicion was refuted."""
        alarms = []
        for alarm in self.alarms:
            here = np.isin(keys, alarm.keys)
            wrong = int((given[here] != label[here]).sum())
            alarms.append(alarm if alarm.state != OPEN else alarm.told(wrong, int(here.sum()) - wrong))
        changed = [new for old, new in zip(self.alarms, alarms, strict=True) if new.state == REFUTED != old.state]
        self.alarms = tuple(alarms)
        freed = np.unique(np.concatenate([np.empty(0, np.int64), *(alarm.keys for alarm in changed)]))
        still = [alarm.keys for alarm in alarms if alarm.attack]
        freed = freed[~np.isin(freed, np.concatenate([np.empty(0, np.int64), *still]))]
        return freed[~np.isin(freed, keys)]

    def told(self, names: Sequence[str]) -> dict[str, Any]:
        """All alarms as JSON values."""
        return {"alarms": [alarm.brief(names) for alarm in self.alarms]}

    def state(self) -> dict[str, Any]:
        """What :meth:`restore` needs; features come back through ``fetch``."""
        return {"window": self.window.state(), "alarms": {str(i): a.stored() for i, a in enumerate(self.alarms)}}

    def restore(self, state: Mapping[str, Any], fetch: Callable[[Ints], tuple[Ints, Floats]]) -> None:
        """As it was when :meth:`state` was called, less rows that were erased since."""
        self.window.restore(state["window"], fetch)
        self.alarms = tuple(restored(state["alarms"][str(i)]) for i in range(len(state["alarms"])))


def _merged(standing: Sequence[Alarm], found: Sequence[Alarm], most: int) -> tuple[Alarm, ...]:
    """Standing alarms and found ones, one for each thing that they are about; a refuted one is not raised again."""
    out = {alarm.about: alarm for alarm in standing}
    for alarm in found:
        old = out.get(alarm.about)
        if old is None:
            out[alarm.about] = alarm
        elif old.state != REFUTED:
            fresh = alarm.chance < old.chance
            out[alarm.about] = replace(
                old,
                keys=np.union1d(old.keys, alarm.keys)[-most:],
                first=min(old.first, alarm.first),
                source=alarm.source or old.source,
                features=alarm.features or old.features,
                expected=max(old.expected, alarm.expected),
                chance=alarm.chance if fresh else old.chance,
            )
    return tuple(out.values())


def inspect(
    X: Floats,
    given: Ints,
    proba: Floats,
    *,
    sources: npt.NDArray[np.object_] | None = None,
    classes: int | None = None,
    temperature: float = 1.0,
) -> tuple[Alarm, ...]:
    """Alarms about a whole data set at once. proba: (n, K) out-of-sample, e.g. from cross-validation.

    >>> inspect(np.zeros((2, 1)), np.array([0, 1]), np.eye(2))
    ()
    """
    watch = Watch(classes or proba.shape[1], window=max(len(given), 1))
    return watch.look(watch.sight(X, given, proba, sources=sources, temperature=temperature)).alarms
