"""How much noise in which batch: schedules, and a stream made wrong by one (methods section 7)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from labelwright.errors import DataError, SettingsError
from labelwright.noise.checks import Corruption, check_rate, checked_labels
from labelwright.types import Floats, Ints

Schedule = Callable[[int], float]


def constant(rate: float) -> Schedule:
    """The same rate in every batch.

    >>> constant(0.3)(7)
    0.3
    """
    return lambda number: _clamp(rate)


def uniform(low: float, high: float, rng: np.random.Generator) -> Schedule:
    """A rate drawn uniformly from [low, high] for each batch; the same batch number always gets the same rate.

    >>> rate = uniform(0.2, 0.4, np.random.default_rng(0))
    >>> 0.2 <= rate(3) <= 0.4, rate(3) == rate(3)
    (True, True)
    """
    seed = _seed(rng)
    return lambda number: _clamp(np.random.default_rng((seed, number)).uniform(low, high))


def gaussian(mean: float, std: float, rng: np.random.Generator) -> Schedule:
    """A rate drawn from N(mean, std²) for each batch, clamped to [0, 1]; repeatable like :func:`uniform`.

    >>> gaussian(0.3, 0.0, np.random.default_rng(0))(5)
    0.3
    """
    seed = _seed(rng)
    return lambda number: _clamp(np.random.default_rng((seed, number)).normal(mean, std))


def sine(mean: float, amplitude: float, *, period: float, phase: float = 0.0) -> Schedule:
    """mean + amplitude·sin(2π·(number / period + phase)), clamped to [0, 1]; period in batches, phase in turns.

    >>> [round(sine(0.3, 0.1, period=4)(number), 3) for number in range(4)]
    [0.3, 0.4, 0.3, 0.2]
    """
    return lambda number: _clamp(mean + amplitude * math.sin(2 * math.pi * (number / period + phase)))


def linear(start: float, end: float, *, batches: int) -> Schedule:
    """From ``start`` at batch 0 evenly to ``end`` at batch ``batches - 1``, then ``end``.

    >>> [round(linear(0.0, 0.6, batches=4)(number), 3) for number in range(5)]
    [0.0, 0.2, 0.4, 0.6, 0.6]
    """
    return lambda number: _clamp(start + (end - start) * min(1.0, number / max(1, batches - 1)))


def bursts(calm: float, burst: float, *, chance: float, rng: np.random.Generator, length: int = 1) -> Schedule:
    """Mostly ``calm``, but each stretch of ``length`` batches is at ``burst`` with probability ``chance``.

    Raises SettingsError when ``chance`` is not in [0, 1] or ``length`` is below 1.

    >>> rate = bursts(0.1, 0.8, chance=0.5, rng=np.random.default_rng(0), length=2)
    >>> {rate(number) for number in range(40)} == {0.1, 0.8}, rate(4) == rate(5)
    (True, True)
    """
    check_rate(chance)
    if length < 1:
        raise SettingsError(f"A burst of {length} batches was asked for, at least 1 is needed; set length=1 or more.")
    seed = _seed(rng)

    def rate(number: int) -> float:
        hit = np.random.default_rng((seed, number // length)).random() < chance
        return _clamp(burst if hit else calm)

    return rate


def after_clean(schedule: Schedule, *, batches: int = 1) -> Schedule:
    """Rate 0 for the first ``batches`` batches (D0 of the paper), then ``schedule`` from its own batch 0.

    >>> [after_clean(constant(0.3))(number) for number in range(3)]
    [0.0, 0.3, 0.3]
    """
    return lambda number: 0.0 if number < batches else _clamp(schedule(number - batches))


def corrupt(
    y: Ints,
    X: Floats | None,
    model: Callable[[float], Corruption],
    schedule: Schedule,
    sizes: int | Sequence[int],
    rng: np.random.Generator,
) -> Ints:
    """Labels of a stream, made wrong batch by batch.

    y: (n,) true classes. X: (n, ...) features or None. model: rate -> noise model. schedule: batch -> rate.
    sizes: rows of each batch, summing to n, or one size for all (the last batch may be smaller).
    Returns (n,) given labels. Raises DataError when the sizes do not cover the rows.

    >>> from labelwright.noise import symmetric
    >>> model = lambda rate: symmetric(rate, classes=2)
    >>> y = np.zeros(6, np.int64)
    >>> corrupt(y, None, model, after_clean(constant(1.0)), [2, 4], np.random.default_rng(0)).tolist()
    [0, 0, 1, 1, 1, 1]
    """
    true = checked_labels(y)
    given = true.copy()
    for number, (start, stop) in enumerate(_bounds(sizes, len(true))):
        part = None if X is None else X[start:stop]
        given[start:stop] = model(schedule(number))(true[start:stop], part, rng)
    return given


def _clamp(rate: float) -> float:
    return float(min(1.0, max(0.0, rate)))


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**63))


def _bounds(sizes: int | Sequence[int], n: int) -> list[tuple[int, int]]:
    if isinstance(sizes, int):
        if sizes < 1:
            raise SettingsError(f"The batch size is {sizes}, expected 1 or more; pass the rows per batch.")
        return [(start, min(start + sizes, n)) for start in range(0, n, sizes)]
    if sum(sizes) != n or min(sizes, default=0) < 0:
        raise DataError(f"The batch sizes sum to {sum(sizes)} but there are {n} rows; give sizes that cover all rows.")
    ends = np.cumsum(sizes).tolist()
    return list(zip([0, *ends[:-1]], ends, strict=True))
