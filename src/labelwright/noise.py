"""Ways in which labels go wrong: noise models, schedules over batches, attacks (methods section 7).

A noise model is a function ``(y, X, rng) -> given``; factories such as :func:`symmetric` make one. A
schedule is a function ``batch number -> rate``; :func:`corrupt` applies a model batch by batch at
the scheduled rates. None of them changes its inputs, and all randomness is the caller's ``rng``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from labelwright.errors import DataError, SettingsError, SourceError
from labelwright.types import Floats, Ints

Corruption = Callable[[Ints, Floats | None, np.random.Generator], Ints]
Schedule = Callable[[int], float]

MNIST_PAIRS: Mapping[int, int] = {7: 1, 2: 7, 3: 8, 5: 6, 6: 5}
CIFAR10_PAIRS: Mapping[int, int] = {9: 1, 2: 0, 3: 5, 5: 3, 4: 7}
_COARSE = (
    "4 1 14 8 0 6 7 7 18 3 3 14 9 18 7 11 3 9 7 11 6 11 5 10 7 6 13 15 3 15 0 11 1 10 12 14 16 9 11 5 "
    "5 19 8 8 15 13 14 17 18 10 16 4 17 4 2 0 17 4 18 17 10 3 2 12 12 16 12 1 9 19 2 10 0 1 16 12 9 13 15 13 "
    "16 19 2 4 6 19 5 5 8 19 18 1 2 15 6 0 17 8 14 13"
)
CIFAR100_GROUPS: tuple[int, ...] = tuple(int(group) for group in _COARSE.split())
"""Superclass of each of the 100 fine classes of CIFAR-100, in the order of the published labels."""


# ---------------------------------------------------------------- noise models


def symmetric(rate: float, *, classes: int) -> Corruption:
    """Flip exactly floor(rate * n) rows, drawn without replacement, uniformly to the other labels.

    rate: in [0, 1]. classes: K, at least 2. Source: methods section 7, "Symmetric".
    Raises SettingsError for a rate outside [0, 1] or fewer than 2 classes.

    >>> y = np.zeros(10, np.int64)
    >>> given = symmetric(0.35, classes=3)(y, None, np.random.default_rng(0))
    >>> int((given != y).sum())
    3
    """
    _check(rate, classes)

    def apply(y: Ints, X: Floats | None, rng: np.random.Generator) -> Ints:
        given = _labels(y, classes)
        chosen = rng.choice(len(given), exact_count(rate, len(given)), replace=False)
        given[chosen] = _another(given[chosen], classes, rng)
        return given

    return apply


def asymmetric(rate: float, mapping: Mapping[int, int]) -> Corruption:
    """Flip exactly floor(rate * n_c) of the n_c rows of each class c in ``mapping`` to ``mapping[c]``.

    rate: in [0, 1]. mapping: true class -> wrong class, e.g. :data:`MNIST_PAIRS`, :data:`CIFAR10_PAIRS`;
    other classes stay clean. Source: methods section 7, "Asymmetric".
    Raises SettingsError for a rate outside [0, 1], or a class mapped to itself.

    >>> asymmetric(1.0, MNIST_PAIRS)(np.array([7, 5, 6, 0]), None, np.random.default_rng(0)).tolist()
    [1, 6, 5, 0]
    """
    _check(rate)
    same = [source for source, target in mapping.items() if source == target]
    if same:
        raise SettingsError(f"The mapping sends class {same[0]} to itself; map it to another class or leave it out.")

    def apply(y: Ints, X: Floats | None, rng: np.random.Generator) -> Ints:
        true = _labels(y)
        given = true.copy()
        for source, target in mapping.items():
            rows = np.flatnonzero(true == source)
            given[rng.choice(rows, exact_count(rate, len(rows)), replace=False)] = target
        return given

    return apply


def pair_flip(rate: float, classes: int) -> Corruption:
    """Flip floor(rate * n_c) rows of each class c to c + 1, the last class to 0.

    rate: in [0, 1]. classes: K, at least 2. Raises SettingsError as :func:`symmetric` does.

    >>> pair_flip(1.0, 3)(np.array([0, 1, 2]), None, np.random.default_rng(0)).tolist()
    [1, 2, 0]
    """
    _check(rate, classes)
    return asymmetric(rate, {label: (label + 1) % classes for label in range(classes)})


def superclass(rate: float, groups: Sequence[int] = CIFAR100_GROUPS) -> Corruption:
    """Flip rows uniformly to the other classes of their own superclass.

    rate: in [0, 1]; exactly floor(rate * m) of the m rows whose superclass has more than one class are
    flipped. groups: (K,) superclass of each class. Source: methods section 7, "CIFAR-100".
    Raises SettingsError for a rate outside [0, 1] or when every superclass has one class only.

    >>> superclass(1.0, [0, 0, 1])(np.array([0, 1, 2]), None, np.random.default_rng(0)).tolist()
    [1, 0, 2]
    """
    _check(rate)
    group = np.asarray(groups)
    peers = [np.flatnonzero((group == group[label]) & (np.arange(len(group)) != label)) for label in range(len(group))]
    can_flip = np.array([len(p) > 0 for p in peers], bool)
    if not can_flip.any():
        raise SettingsError(f"Every superclass of {list(groups)} has one class; give groups that share classes.")

    def apply(y: Ints, X: Floats | None, rng: np.random.Generator) -> Ints:
        given = _labels(y, len(group))
        eligible = np.flatnonzero(can_flip[given])
        for row in rng.choice(eligible, exact_count(rate, len(eligible)), replace=False):
            given[row] = rng.choice(peers[given[row]])
        return given

    return apply


def instance_weights(width: int, classes: int, rng: np.random.Generator) -> Floats:
    """(K, d, K) projections W_y ~ N(0, 1) of :func:`instance_dependent`, float32; share them across batches.

    >>> instance_weights(4, 3, np.random.default_rng(0)).shape
    (3, 4, 3)
    """
    return rng.standard_normal((classes, width, classes), dtype=np.float32)


def instance_dependent(rate: float, classes: int, *, weights: Floats | None = None) -> Corruption:
    """Flip each row with its own probability, to labels that its features suggest.

    q ~ TruncNorm(rate, 0.1, [0, 1]) per row; s = x·W_y with s_y = -inf; P(given) = q·softmax(s), P(y) = 1 - q
    (methods section 7). The share of flipped rows is therefore only near ``rate``.
    weights: (K, d, K) from :func:`instance_weights`, drawn anew at each call when None: pass them to keep
    the noise the same function of the features in all batches.
    Raises SettingsError for a bad rate, DataError when X is missing or its width differs from ``weights``.

    >>> y = np.array([0, 1, 2, 0])
    >>> given = instance_dependent(0.5, 3)(y, np.eye(4), np.random.default_rng(1))
    >>> given.shape, bool((given < 3).all())
    ((4,), True)
    """
    _check(rate, classes)

    def apply(y: Ints, X: Floats | None, rng: np.random.Generator) -> Ints:
        true = _labels(y, classes)
        flat = _features(X, len(true))
        W = instance_weights(flat.shape[1], classes, rng) if weights is None else weights
        if W.shape != (classes, flat.shape[1], classes):
            raise DataError(
                f"The weights have shape {W.shape} but the features need {(classes, flat.shape[1], classes)}; "
                "draw them with instance_weights(width, classes, rng)."
            )
        flip_chance = _truncated_normal(rate, 0.1, len(true), rng)
        given = true.copy()
        for label in np.unique(true):
            rows = np.flatnonzero(true == label)
            scores = np.asarray(flat[rows] @ W[label], np.float64)
            scores[:, label] = -np.inf
            chance = np.exp(scores - scores.max(axis=1, keepdims=True))
            target = _draw(chance, rng)
            flips = rng.random(len(rows)) < flip_chance[rows]
            given[rows[flips]] = target[flips]
        return given

    return apply


def human(labels: npt.ArrayLike) -> Corruption:
    """Labels that people really gave, e.g. one array of :func:`read_cifar_n`.

    labels: (n,) class of each row, in the order of the rows. Raises DataError when the number of rows differs.

    >>> human([1, 0])(np.array([0, 0]), None, np.random.default_rng(0)).tolist()
    [1, 0]
    """
    said = _labels(labels)

    def apply(y: Ints, X: Floats | None, rng: np.random.Generator) -> Ints:
        if len(y) != len(said):
            raise DataError(
                f"There are {len(said)} human labels for {len(y)} rows; pass one per row, in the same order."
            )
        return said.copy()

    return apply


def open_set(rate: float, outsiders: Floats) -> Callable[[Ints, Floats, np.random.Generator], tuple[Ints, Floats]]:
    """Replace the features of exactly floor(rate * n) rows by rows of none of the K classes; labels stay.

    outsiders: (m, ...) features shaped like the rows of X; drawn without replacement while they last.
    The result maps (y, X, rng) to (given, X): labels equal to ``y`` and a changed copy of X.
    Raises SettingsError for a bad rate, DataError when shapes differ or there are no outsiders.

    >>> given, X = open_set(0.5, np.ones((3, 2)))(np.array([0, 1]), np.zeros((2, 2)), np.random.default_rng(0))
    >>> given.tolist(), int(X.sum())
    ([0, 1], 2)
    """
    _check(rate)

    def apply(y: Ints, X: Floats, rng: np.random.Generator) -> tuple[Ints, Floats]:
        given, mixed = _labels(y), np.array(X)
        if len(outsiders) == 0 or outsiders.shape[1:] != mixed.shape[1:]:
            raise DataError(
                f"The outsiders have shape {outsiders.shape} but rows have shape {mixed.shape[1:]}; "
                "give at least one row of the same shape."
            )
        count = exact_count(rate, len(given))
        rows = rng.choice(len(given), count, replace=False)
        mixed[rows] = outsiders[rng.choice(len(outsiders), count, replace=count > len(outsiders))]
        return given, mixed

    return apply


# ---------------------------------------------------------------- attacks


def far_first(rate: float, margin: Floats | Callable[[Floats], Floats], *, classes: int) -> Corruption:
    """Flip the floor(rate * n) rows furthest inside their own class: the errors that bend a model most.

    margin: (n,) distance of each row to the surrogate's decision boundary, or a function X -> (n, K) scores;
    then the margin is the score of the true class minus the best other score. Ties fall at random.
    Targets: the class with the lowest score, or a uniform other class when only margins are known.
    Source: methods section 7, "Attacks". Raises SettingsError for a bad rate, DataError when shapes differ.

    >>> flip = far_first(0.5, np.array([0.1, 9.0]), classes=2)
    >>> flip(np.array([0, 0]), None, np.random.default_rng(0)).tolist()
    [0, 1]
    """
    return _by_margin(rate, margin, classes, far=True)


def near_first(rate: float, margin: Floats | Callable[[Floats], Floats], *, classes: int) -> Corruption:
    """Flip the floor(rate * n) rows nearest to the boundary: the errors that are hardest to see.

    Arguments and errors as :func:`far_first`; with scores the target is the runner-up class.

    >>> flip = near_first(0.5, np.array([0.1, 9.0]), classes=2)
    >>> flip(np.array([0, 0]), None, np.random.default_rng(0)).tolist()
    [1, 0]
    """
    return _by_margin(rate, margin, classes, far=False)


def targeted(rate: float, source: int, target: int) -> Corruption:
    """Flip exactly floor(rate * n_source) rows of class ``source`` to ``target``, all else clean.

    >>> targeted(1.0, 1, 0)(np.array([0, 1, 2]), None, np.random.default_rng(0)).tolist()
    [0, 0, 2]
    """
    return asymmetric(rate, {source: target})


def poisoned_source(corruption: Corruption, sources: npt.ArrayLike, poisoned: object) -> Corruption:
    """Apply ``corruption`` to the rows of one labeller among several, the others stay honest.

    sources: (n,) who labelled each row. poisoned: the one who lies.
    Raises DataError when ``sources`` has another length than the labels, or never names ``poisoned``.

    >>> flip = poisoned_source(targeted(1.0, 0, 1), ["ann", "bob"], "bob")
    >>> flip(np.array([0, 0]), None, np.random.default_rng(0)).tolist()
    [0, 1]
    """
    names = np.asarray(sources)

    def apply(y: Ints, X: Floats | None, rng: np.random.Generator) -> Ints:
        given = _labels(y)
        if len(names) != len(given):
            raise DataError(f"There are {len(names)} sources for {len(given)} rows; give one source per row.")
        rows = np.flatnonzero(names == poisoned)
        if not len(rows):
            raise DataError(
                f"No row comes from {poisoned!r}, only from {sorted(set(names.tolist()))}; name one of them."
            )
        given[rows] = corruption(given[rows], None if X is None else X[rows], rng)
        return given

    return apply


# ---------------------------------------------------------------- schedules


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
    _check(chance)
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

    >>> model = lambda rate: symmetric(rate, classes=2)
    >>> y = np.zeros(6, np.int64)
    >>> corrupt(y, None, model, after_clean(constant(1.0)), [2, 4], np.random.default_rng(0)).tolist()
    [0, 0, 1, 1, 1, 1]
    """
    true = _labels(y)
    given = true.copy()
    for number, (start, stop) in enumerate(_bounds(sizes, len(true))):
        part = None if X is None else X[start:stop]
        given[start:stop] = model(schedule(number))(true[start:stop], part, rng)
    return given


# ---------------------------------------------------------------- files of human labels


def read_cifar_n(path: str | Path) -> dict[str, Ints]:
    """Human labels of CIFAR-10N / CIFAR-100N: name -> (n,) classes, e.g. ``aggre_label``, ``worse_label``.

    path: an .npz, an .npy holding one plain array (returned as ``labels``), or the published .pt file, which
    needs torch and is read with ``weights_only=True``. Pickled arrays are refused.
    Raises SourceError when the file is missing, of another kind, or would need pickle.

    >>> import tempfile, os
    >>> file = os.path.join(tempfile.mkdtemp(), "n.npz")
    >>> np.savez(file, worse_label=np.array([1, 0]))
    >>> read_cifar_n(file)["worse_label"].tolist()
    [1, 0]
    """
    file = Path(path)
    if not file.is_file():
        raise SourceError(f"There is no file {file}; give the .npz, .npy or .pt file of CIFAR-N.")
    if file.suffix == ".pt":
        return {name: _labels(values) for name, values in _read_torch(file).items()}
    if file.suffix not in (".npz", ".npy"):
        raise SourceError(f"{file} ends in {file.suffix!r}, expected .npz, .npy or .pt; convert it with numpy.savez.")
    try:
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"labels": _labels(loaded)}
        with loaded:
            return {name: _labels(loaded[name]) for name in loaded.files}
    except (ValueError, OSError, EOFError) as error:
        raise SourceError(
            f"{file} cannot be read as plain integer arrays ({error}); pickled files are never loaded: "
            "save the labels as integers with numpy.savez."
        ) from error


def _read_torch(file: Path) -> Mapping[str, npt.ArrayLike]:
    try:
        import torch
    except ImportError as error:
        raise SourceError(f"Reading {file} needs torch, which is not installed; install it or give an .npz.") from error
    # The published file holds NumPy arrays; these names are all that rebuilding one takes.
    from numpy._core.multiarray import _reconstruct

    rebuild = [(_reconstruct, "numpy.core.multiarray._reconstruct"), _reconstruct, np.ndarray, np.dtype]
    try:
        with torch.serialization.safe_globals([*rebuild, type(np.dtype("int64"))]):
            loaded = torch.load(file, map_location="cpu", weights_only=True)
        return dict(loaded)
    except Exception as error:  # torch raises many kinds for one cause: the file is not what it should be
        raise SourceError(f"{file} cannot be read safely ({error}); save the labels with numpy.savez.") from error


# ---------------------------------------------------------------- helpers


def exact_count(rate: float, n: int) -> int:
    """floor(rate * n), safe from rounding: 0.29 of 100 is 29, though 0.29 * 100 is 28.999… in floats.

    >>> exact_count(0.29, 100), exact_count(0.35, 10)
    (29, 3)
    """
    return min(n, math.floor(rate * n + 1e-9))


def _check(rate: float, classes: int | None = None) -> None:
    if not 0.0 <= rate <= 1.0:
        raise SettingsError(f"The rate is {rate}, expected a share in [0, 1]; write 0.3 for 30 %.")
    if classes is not None and classes < 2:
        raise SettingsError(
            f"There are {classes} classes, at least 2 are needed for a label to be wrong; check classes."
        )


def _labels(y: npt.ArrayLike, classes: int | None = None) -> Ints:
    """A fresh (n,) int64 copy, checked."""
    array = np.asarray(y)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise DataError(
            f"The labels have shape {array.shape} and type {array.dtype}, expected a list of integers; "
            "encode classes as 0..K-1."
        )
    if array.size and (array.min() < 0 or (classes is not None and array.max() >= classes)):
        top = "K-1" if classes is None else str(classes - 1)
        raise DataError(
            f"The labels run from {array.min()} to {array.max()}, expected 0..{top}; check the number of classes."
        )
    return array.astype(np.int64)


def _features(X: Floats | None, n: int) -> Floats:
    if X is None or len(X) != n:
        got = "no features" if X is None else f"features of {len(X)} rows"
        raise DataError(f"Got {got} for {n} labels, expected one row of features per label; pass X.")
    return np.asarray(X).reshape(n, -1)


def _another(true: Ints, classes: int, rng: np.random.Generator) -> Ints:
    """A uniformly drawn label other than each of ``true``."""
    return (true + rng.integers(1, classes, size=len(true))) % classes


def _draw(weights: Floats, rng: np.random.Generator) -> Ints:
    """One column per row, with probability proportional to its weight."""
    total = np.cumsum(weights, axis=1)
    point = rng.random((len(weights), 1)) * total[:, -1:]
    return np.asarray((total <= point).sum(axis=1), np.int64)


def _truncated_normal(mean: float, std: float, n: int, rng: np.random.Generator) -> Floats:
    out = rng.normal(mean, std, n)
    while (outside := (out < 0) | (out > 1)).any():
        out[outside] = rng.normal(mean, std, int(outside.sum()))
    return out


def _by_margin(rate: float, margin: Floats | Callable[[Floats], Floats], classes: int, *, far: bool) -> Corruption:
    _check(rate, classes)

    def apply(y: Ints, X: Floats | None, rng: np.random.Generator) -> Ints:
        given = _labels(y, classes)
        n = len(given)
        scores: Floats | None = None
        if callable(margin):
            scores = np.array(margin(_same_rows(X, n)), np.float64)
            _check_shape("scores", scores.shape, (n, classes))
            own = np.arange(n), given
            others = scores.copy()
            others[own] = -np.inf
            distance = scores[own] - others.max(axis=1)
        else:
            distance = np.asarray(margin, np.float64)
            _check_shape("margins", distance.shape, (n,))
        shuffled = rng.permutation(n)
        order = np.argsort(-distance[shuffled] if far else distance[shuffled], kind="stable")
        rows = shuffled[order[: exact_count(rate, n)]]
        given[rows] = _another(given[rows], classes, rng) if scores is None else _aim(scores[rows], given[rows], far)
        return given

    return apply


def _aim(scores: Floats, true: Ints, far: bool) -> Ints:
    """The least (far) or the most (near) plausible class other than the true one."""
    ranked = -scores if far else scores.copy()
    ranked[np.arange(len(true)), true] = -np.inf
    return np.asarray(ranked.argmax(axis=1), np.int64)


def _same_rows(X: Floats | None, n: int) -> Floats:
    _features(X, n)
    return np.asarray(X)


def _check_shape(what: str, got: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if got != expected:
        raise DataError(f"The {what} have shape {got}, expected {expected}; compute them on exactly these rows.")


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
