"""One budget in money over several ways of asking: an expert's word, a cheap yes or no, cheap labels of the crowd.

Each question is put to the source, about the row, where it is worth most per cost: the expected drop of the chance that a label drawn from
the belief is wrong, 1 - sum of p squared, when the answer is taken in by Bayes' rule (the value of information, one step ahead).
How good each source is comes from its answers, as one coin (Raykar et al. 2010, section 2, one parameter a source).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from labelwright.errors import SettingsError
from labelwright.types import Bools, Floats, Ints

Ask = Callable[[str, int, int], int]
"""(source's name, row, class) -> the class said; of a check, 1 for yes and 0 for no to "is it that class?"."""
AGAIN = 50
"""Answers after which the sources' accuracies are estimated anew."""


@dataclass
class Source:
    """A way of asking. cost: of one answer, above 0. accuracy: how often it is thought to be right, before it has said anything,
    as if seen in ``strength`` answers. check: it says yes or no to one class. times: how often it may be asked about one row
    (other people each time).

    >>> Source("crowd", 0.1, 0.7, times=5).right
    0.7
    """

    name: str
    cost: float
    accuracy: float
    check: bool = False
    times: int = 1
    strength: float = 20.0
    right: float = field(init=False)

    def __post_init__(self) -> None:
        if self.cost <= 0 or not 0 < self.accuracy < 1 or self.times < 1 or self.strength <= 0:
            raise SettingsError(
                f"the source {self.name!r} has cost={self.cost}, accuracy={self.accuracy}, times={self.times}, "
                f"strength={self.strength}; expected above 0, between 0 and 1, 1 or more, above 0"
            )
        self.right = self.accuracy

    def likelihood(self, classes: int, said: Ints, about: Ints) -> Floats:
        """(n, K) P(what it said | each true class). said, about: (n,), see :data:`Ask`."""
        n, rows = len(said), np.arange(len(said))
        if self.check:
            out = np.where(said[:, None] == 1, 1 - self.right, self.right) * np.ones((n, classes))
            out[rows, about] = np.where(said == 1, self.right, 1 - self.right)
            return out
        out = np.full((n, classes), (1 - self.right) / max(classes - 1, 1))
        out[rows, said] = self.right
        return out

    def worth(self, belief: Floats) -> Floats:
        """(n,) expected drop of the risk 1 - sum p^2 by one answer about each row; a check is about the likeliest class.

        >>> sure, unsure = np.array([[0.98, 0.01, 0.01]]), np.array([[0.5, 0.4, 0.1]])
        >>> expert = Source("expert", 1.0, 0.97)
        >>> bool(expert.worth(unsure)[0] > expert.worth(sure)[0])
        True
        """
        square = (belief**2).sum(axis=1)
        q = self.right
        if self.check:
            top = belief.max(axis=1)
            rest = square - top**2
            yes, no = (1 - q) + (2 * q - 1) * top, q + (1 - 2 * q) * top
            kept = (q**2 * top**2 + (1 - q) ** 2 * rest) / yes + ((1 - q) ** 2 * top**2 + q**2 * rest) / no
            return np.maximum(kept - square, 0.0)
        w = (1 - q) / max(belief.shape[1] - 1, 1)
        chance = w + (q - w) * belief
        kept = ((w**2 * square[:, None] + (q**2 - w**2) * belief**2) / np.maximum(chance, 1e-12)).sum(axis=1)
        return np.maximum(kept - square, 0.0)


@dataclass(frozen=True)
class Spent:
    """What was bought. belief: (n, K) after the answers. asked: (n,) whether anything was asked about the row. cost: in all.
    counts: answers of each source. accuracy: what each source is thought to be by now."""

    belief: Floats
    asked: Bools
    cost: float
    counts: dict[str, int]
    accuracy: dict[str, float]

    @property
    def label(self) -> Ints:
        """(n,) the likeliest class."""
        return self.belief.argmax(axis=1)


class _Book:
    """The answers so far, and what follows from them."""

    def __init__(self, start: Floats, sources: Sequence[Source]):
        self.start, self.belief, self.sources = start, start.copy(), {s.name: s for s in sources}
        self.rows: dict[str, list[int]] = {s.name: [] for s in sources}
        self.said: dict[str, list[int]] = {s.name: [] for s in sources}
        self.about: dict[str, list[int]] = {s.name: [] for s in sources}

    def enter(self, name: str, row: int, said: int, about: int) -> None:
        for part, value in ((self.rows, row), (self.said, said), (self.about, about)):
            part[name].append(value)
        seen = self.sources[name].likelihood(self.belief.shape[1], np.array([said]), np.array([about]))
        self.belief[row] *= seen[0]
        self.belief[row] /= self.belief[row].sum()

    def learn(self) -> None:
        """Estimate the accuracies, and believe anew from the start.

        From rows with several answers only: elsewhere a source is compared with the models alone, and where models are sure and
        wrong, good sources would look bad.
        """
        heard = {name: self._heard(name) for name in self.sources}
        several = np.bincount(np.concatenate([rows for rows, _, _ in heard.values()]), minlength=len(self.start)) > 1
        for name, source in self.sources.items():
            rows, said, about = (part[several[heard[name][0]]] for part in heard[name])
            share = self.belief[rows, about if source.check else said]
            good = np.where(said == 1, share, 1 - share) if source.check else share
            right = (source.accuracy * source.strength + good.sum()) / (source.strength + len(rows))
            source.right = float(np.clip(right, 0.02, 0.995))
        self.belief = self._believed(np.log(np.maximum(self.start, 1e-12)), heard)

    def _heard(self, name: str) -> tuple[Ints, Ints, Ints]:
        rows, said, about = (np.array(part[name], np.int64) for part in (self.rows, self.said, self.about))
        return rows, said, about

    def _believed(self, log: Floats, heard: dict[str, tuple[Ints, Ints, Ints]]) -> Floats:
        """(n, K) belief by Bayes' rule, from the logarithm of a first one and the answers."""
        for name, (rows, said, about) in heard.items():
            if len(rows):
                np.add.at(log, rows, np.log(self.sources[name].likelihood(log.shape[1], said, about)))
        belief = np.exp(log - log.max(axis=1, keepdims=True))
        return np.asarray(belief / belief.sum(axis=1, keepdims=True))


def spend(belief: Floats, sources: Sequence[Source], ask: Ask, budget: float) -> Spent:
    """Ask where an answer is worth most per cost, until the money is spent or nothing is worth asking.

    belief: (n, K) probabilities of each row's true class, e.g. the posterior. ask: puts one question. budget: money, >= 0.
    Raises SettingsError without sources, or for a budget below 0.

    >>> belief = np.array([[0.9, 0.1], [0.5, 0.5]])
    >>> spent = spend(belief, [Source("expert", 1.0, 0.98)], lambda source, row, about: 1, budget=1.0)
    >>> spent.asked.tolist(), spent.label.tolist(), spent.counts
    ([False, True], [0, 1], {'expert': 1})
    """
    if not sources or budget < 0:
        raise SettingsError(f"{len(sources)} sources and a budget of {budget}; expected at least 1, and 0 or more")
    book = _Book(np.asarray(belief, float), sources)
    left, total = budget, 0
    asked, times = np.zeros(len(belief), bool), {s.name: np.zeros(len(belief), np.int64) for s in sources}
    heap = _offers(book.belief, sources, times, np.arange(len(belief)))
    while heap:
        worth, row, name, stamp = heapq.heappop(heap)
        source = book.sources[name]
        if -worth <= 1e-9:
            break
        if source.cost > left + 1e-9 or stamp != sum(int(t[row]) for t in times.values()):
            continue  # too dear by now, or an offer from before the row's last answer
        about = int(book.belief[row].argmax())
        book.enter(name, row, ask(name, row, about), about)
        left, total = left - source.cost, total + 1
        asked[row] = True
        times[name][row] += 1
        if total % AGAIN == 0:
            book.learn()
            heap = _offers(book.belief, sources, times, np.arange(len(belief)))
        else:
            for offer in _offers(book.belief, sources, times, np.array([row])):
                heapq.heappush(heap, offer)
    book.learn()
    counts = {name: len(rows) for name, rows in book.rows.items()}
    return Spent(book.belief, asked, budget - left, counts, {s.name: s.right for s in sources})


def _offers(
    belief: Floats, sources: Sequence[Source], times: dict[str, Ints], rows: Ints
) -> list[tuple[float, int, str, int]]:
    """A heap of (-worth per cost, row, source, answers about the row so far)."""
    stamp = np.sum([t[rows] for t in times.values()], axis=0)
    out: list[tuple[float, int, str, int]] = []
    for source in sources:
        open_ = times[source.name][rows] < source.times
        worth = source.worth(belief[rows[open_]]) / source.cost
        out += [
            (-w, r, source.name, s)
            for w, r, s in zip(worth.tolist(), rows[open_].tolist(), stamp[open_].tolist(), strict=True)
        ]
    heapq.heapify(out)
    return out
