"""The last rows that were seen, and what was believed of them: all that a watch remembers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from labelwright.errors import DataError
from labelwright.posterior import tempered
from labelwright.types import Bools, Floats, Ints

NOBODY = -1
SURE = 0.8
"""A row's class is taken as known where the models' (tempered) probability of it is at least this."""


@dataclass(frozen=True)
class Seen:
    """Rows as a watch sees them; all arrays (n,) but ``X`` (n, d).

    given: the label that came. believed: the models' class, from probabilities that did not see the row. sure: whether they are.
    source: code of who labelled it, -1 unknown. batch: number. clean: its owner vouches for it.
    """

    keys: Ints
    X: Floats
    given: Ints
    believed: Ints
    sure: Bools
    source: Ints
    batch: Ints
    clean: Bools

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def suspect(self) -> Bools:
        """(n,) True where the label differs from what the models believe; never of a row that its owner vouches for."""
        return (self.believed != self.given) & ~self.clean

    def take(self, index: Ints | Bools | slice) -> Seen:
        """The rows at ``index``."""
        return Seen(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def plus(self, other: Seen) -> Seen:
        """These rows, then ``other``'s."""
        if not len(self):
            return other
        return Seen(**{f.name: np.concatenate([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)})


def seen(
    X: Floats,
    given: Ints,
    proba: Floats,
    *,
    keys: Ints | None = None,
    batch: int = 0,
    source: Ints | None = None,
    clean: Bools | None = None,
    temperature: float = 1.0,
) -> Seen:
    """Rows of one batch with what the models say of them.

    X: (n, ...) features. given: (n,). proba: (n, K) by models that did not learn from these rows.
    temperature: sharpens ``proba``, as of the noise model.
    Raises DataError when lengths differ, or a probability is no number.

    >>> rows = seen(np.zeros((2, 1)), np.array([0, 1]), np.array([[0.9, 0.1], [0.95, 0.05]]))
    >>> rows.suspect.tolist(), rows.sure.tolist()
    ([False, True], [True, True])
    """
    n = len(given)
    if len(X) != n or proba.shape[0] != n or proba.ndim != 2:
        raise DataError(
            f"there are {n} labels, features of {len(X)} rows and probabilities of shape {proba.shape}; give all three for the same rows"
        )
    if not np.isfinite(proba).all():
        raise DataError("a probability is no finite number; give (n, K) probabilities without NaN or infinity")
    believed = proba.argmax(axis=1)
    return Seen(
        np.arange(n, dtype=np.int64) if keys is None else keys,
        np.asarray(X).reshape(n, -1) if n else np.empty((0, int(np.prod(np.shape(X)[1:]))), np.float32),
        np.asarray(given, np.int64),
        believed,
        tempered(proba, temperature).max(axis=1, initial=0.0) >= SURE,
        np.full(n, NOBODY, np.int64) if source is None else source,
        np.full(n, batch, np.int64),
        np.zeros(n, bool) if clean is None else clean,
    )


class Window:
    """At most ``size`` rows, the newest, and at most ``most_bytes`` of features. Memory does not grow with the stream."""

    def __init__(self, size: int, *, most_bytes: int = 64 << 20):
        self.size, self.most_bytes = size, most_bytes
        self.rows: Seen | None = None
        self.names: list[str] = []

    def code(self, sources: npt.NDArray[np.object_] | None, n: int) -> Ints:
        """(n,) codes of these sources; names that come new are numbered, up to :data:`MOST_SOURCES`."""
        if sources is None:
            return np.full(n, NOBODY, np.int64)
        at = {name: code for code, name in enumerate(self.names)}
        out = np.full(n, NOBODY, np.int64)
        for row, name in enumerate(sources):
            if name is None:
                continue
            if str(name) not in at and len(at) < MOST_SOURCES:
                at[str(name)] = len(at)
                self.names.append(str(name))
            out[row] = at.get(str(name), NOBODY)
        return out

    def joined(self, rows: Seen) -> Seen:
        """The window's rows and these, the newest ``size`` of them. Pure."""
        if self.rows is not None and len(rows):
            old = self.rows.take(~np.isin(self.rows.keys, rows.keys))
            rows = old.plus(rows)
        elif self.rows is not None:
            rows = self.rows
        most = min(self.size, max(1000, self.most_bytes // max(rows.X.itemsize * rows.X.shape[1], 1)))
        return rows.take(slice(max(0, len(rows) - most), None))

    def state(self) -> dict[str, Any]:
        """All but the features: they come back through ``fetch``."""
        held = {} if self.rows is None else {f.name: getattr(self.rows, f.name) for f in fields(Seen) if f.name != "X"}
        return {"rows": held, "names": list(self.names)}

    def restore(self, state: Mapping[str, Any], fetch: Callable[[Ints], tuple[Ints, Floats]]) -> None:
        """As it was, less the rows that can no longer be had."""
        self.names, held = [str(name) for name in state["names"]], state["rows"]
        self.rows = None
        if not held or not len(held["keys"]):
            return
        keys = np.asarray(held["keys"], np.int64)
        found, X = fetch(keys)
        order = np.argsort(found, kind="stable")
        here = np.isin(keys, found)
        if not here.any():
            return
        at = order[np.searchsorted(found[order], keys[here])]
        columns = {name: np.asarray(column)[here] for name, column in held.items()}
        self.rows = Seen(X=X[at].reshape(len(at), -1), **columns)


MOST_SOURCES = 1000
"""Further sources are counted as unknown: memory stays bounded however many names a stream invents."""
