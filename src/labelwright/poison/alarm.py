"""What a watch says: alarms (somebody plants labels) and notices (labels got worse, nobody need be to blame)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from labelwright.types import Ints

PAIR, SOURCE, DEEP, PATTERN, BURST = "pair", "source", "deep", "pattern", "burst"
KINDS = (PAIR, SOURCE, DEEP, PATTERN, BURST)
"""pair: one class given as one other. source: one labeller is wrong far more often than the rest. deep: the most typical
rows of their classes are mislabelled. pattern: rows of one class share a mark that no other class has. burst: a batch holds
more wrong labels than the ones before; a notice, never an attack by itself."""
OPEN, CONFIRMED, REFUTED = "open", "confirmed", "refuted"


@dataclass(frozen=True)
class Alarm:
    """One suspicion.

    kind: one of :data:`KINDS`. true, given: class codes, where one is named. source: who, where one is named. batch: the number
    of the batch at which it was raised. first: the earliest batch with a named row. keys: (n,) the named rows. expected: how
    many rows chance and honest mistakes would have put there. chance: p-value of as many under honest noise. features: (m,)
    places of a shared mark. state: open, confirmed or refuted by experts; wrong, right: their answers so far.

    >>> Alarm("pair", 3, true=7, given=1, keys=np.array([4, 9])).about
    ('pair', 7, 1, None)
    """

    kind: str
    batch: int
    true: int | None = None
    given: int | None = None
    source: str | None = None
    keys: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    first: int = 0
    expected: float = 0.0
    chance: float = 1.0
    features: tuple[int, ...] = ()
    state: str = OPEN
    wrong: int = 0
    right: int = 0

    @property
    def attack(self) -> bool:
        """Whether it says that somebody plants labels; False for notices and for what experts refuted."""
        return self.kind != BURST and self.state != REFUTED

    @property
    def about(self) -> tuple[str, int | None, int | None, str | None]:
        """What it is about: two alarms about the same are one."""
        if self.kind == PAIR:
            return self.kind, self.true, self.given, None
        if self.kind == SOURCE:
            return self.kind, None, None, self.source
        return self.kind, None, self.given, None

    def told(self, wrong: int, right: int) -> Alarm:
        """After experts called the labels of so many more named rows wrong, and right.

        The suspicion is settled once the odds that most named labels are wrong (uniform prior) pass 20 to 1 either way. A
        pattern is not settled by labels: the rows that carry it may well be labelled right.

        >>> Alarm("pair", 0).told(4, 0).state, Alarm("pair", 0).told(0, 4).state, Alarm("pair", 0).told(3, 2).state
        ('confirmed', 'refuted', 'open')
        """
        counted = replace(self, wrong=self.wrong + wrong, right=self.right + right)
        if self.kind in (PATTERN, BURST) or counted.wrong + counted.right == 0:
            return counted
        odds = most_are_wrong(counted.wrong, counted.right)
        state = CONFIRMED if odds >= SURE else REFUTED if odds <= 1 - SURE else OPEN
        return replace(counted, state=state)

    def sentence(self, classes: Sequence[str]) -> str:
        """For people."""
        rows = f"{len(self.keys):,} rows" if len(self.keys) != 1 else "1 row"
        said = {
            PAIR: lambda: (
                f"{rows} of {_name(classes, self.true)} came as {_name(classes, self.given)}, about "
                f"{self.expected:.0f} would be honest mistakes, and other pairs show nothing like it"
            ),
            SOURCE: lambda: (
                f"{rows} of source {self.source!r} look wrong, about {self.expected:.0f} are usual for so many rows"
            ),
            DEEP: lambda: (
                f"{rows} that are typical of their class came with another label; honest mistakes fall on doubtful rows"
            ),
            PATTERN: lambda: (
                f"{rows} given as {_name(classes, self.given)} share the same values in {len(self.features)} "
                "features, which rows of other classes do not have: a trigger"
            ),
            BURST: lambda: (
                f"{rows} of batch {self.batch} look wrong, about {self.expected:.0f} were usual; no attack by its structure"
            ),
        }[self.kind]()
        who = f", most of them from source {self.source!r}" if self.source is not None and self.kind != SOURCE else ""
        word = {
            OPEN: "Suspected attack",
            CONFIRMED: "Attack, confirmed by experts",
            REFUTED: "Suspicion refuted by experts",
        }
        head = "Burst of noise" if self.kind == BURST else word[self.state]
        return f"{head}: {said}{who} (batches {self.first} to {self.batch})."

    def brief(self, classes: Sequence[str]) -> dict[str, Any]:
        """As JSON values, with the names users know; the first 20 rows' keys."""
        return {
            "kind": self.kind,
            "attack": self.attack,
            "state": self.state,
            "true": None if self.true is None else classes[self.true],
            "given": None if self.given is None else classes[self.given],
            "source": self.source,
            "batch": self.batch,
            "first": self.first,
            "rows": len(self.keys),
            "keys": [int(key) for key in self.keys[:20]],
            "expected": round(self.expected, 2),
            "chance": self.chance,
            "features": list(self.features[:20]),
            "answers": {"wrong": self.wrong, "right": self.right},
            "sentence": self.sentence(classes),
        }

    def stored(self) -> dict[str, Any]:
        """What :func:`restored` needs."""
        held = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {**held, "features": list(self.features)}


SURE = 0.95


def restored(stored: Mapping[str, Any]) -> Alarm:
    """An alarm from :meth:`Alarm.stored`."""
    held = dict(stored)
    held["keys"] = np.asarray(held["keys"], np.int64)
    held["features"] = tuple(held["features"])
    return Alarm(**held)


def most_are_wrong(wrong: int, right: int) -> float:
    """Probability that more than half are wrong, after ``wrong`` and ``right`` were counted; uniform prior.

    P(p > 1/2 | Beta(1 + wrong, 1 + right)) = P(Binomial(wrong + right + 1, 1/2) <= wrong).

    >>> most_are_wrong(0, 0), most_are_wrong(4, 0)
    (0.5, 0.96875)
    """
    from scipy.stats import binom

    return float(binom.cdf(wrong, wrong + right + 1, 0.5))


def _name(classes: Sequence[str], code: int | None) -> str:
    return "a class" if code is None else f"{classes[code]!r}"
