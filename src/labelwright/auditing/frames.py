"""What an audit adds up to, as frames: the noise matrix, the classes, the sources."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from labelwright.auditing.passes import Whole
from labelwright.auditing.reading import Labels
from labelwright.auditing.transition import Pairs
from labelwright.posterior import wilson
from labelwright.types import NO_LABEL, Floats, Ints

if TYPE_CHECKING:
    import pandas as pd


def averaged(counts: tuple[Pairs, Pairs], weight: float) -> Pairs:
    """Expected (true, given) pairs, averaged over both readings; weight: of the first."""
    first, second = counts
    return Pairs.of(
        np.concatenate([first.true, second.true]),
        np.concatenate([first.given, second.given]),
        first.classes,
        np.concatenate([weight * first.count, (1 - weight) * second.count]),
    )


def square_transition(
    counts: tuple[Pairs, Pairs], weight: float, names: Any
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """(value, low, high) of P(given | true), K x K; the interval holds both readings and the finite number of rows."""
    import pandas as pd

    dense = [pairs.dense() for pairs in counts]
    rows = [np.maximum(d.sum(axis=1, keepdims=True), 1e-9) for d in dense]
    mixed = weight * dense[0] + (1 - weight) * dense[1]
    total = mixed.sum(axis=1, keepdims=True)
    value = np.where(total > 0, mixed / np.maximum(total, 1e-9), np.eye(len(names)))
    bounds = [wilson(d / r, r) for d, r in zip(dense, rows, strict=True)]
    low = np.minimum(np.minimum(bounds[0][0], bounds[1][0]), value)
    high = np.maximum(np.maximum(bounds[0][1], bounds[1][1]), value)
    axes = {"index": pd.Index(names, name="true"), "columns": pd.Index(names, name="given")}
    return pd.DataFrame(value, **axes), pd.DataFrame(low, **axes), pd.DataFrame(high, **axes)


def long_transition(believed: Pairs, names: Any) -> pd.DataFrame:
    """P(given | true) of the pairs that occur, one a row."""
    import pandas as pd

    rows = np.bincount(believed.true, believed.count, minlength=believed.classes)[believed.true]
    share = believed.count / np.maximum(rows, 1e-9)
    low, high = wilson(share, rows)
    columns = {"true": names[believed.true], "given": names[believed.given]}
    return pd.DataFrame({**columns, "probability": share, "low": low, "high": high})


def by_class(labels: Labels, whole: Whole, believed: Pairs) -> pd.DataFrame:
    """See :attr:`labelwright.Audit.classes`."""
    import pandas as pd

    k = len(labels.names)
    frame = _rates(labels.codes, k, labels, whole, pd.Index(labels.names, name="class"))
    off = np.flatnonzero(believed.true != believed.given)
    off = off[np.argsort(believed.count[off], kind="stable")]
    best, most = np.full(k, NO_LABEL), np.zeros(k)
    best[believed.given[off]], most[believed.given[off]] = believed.true[off], believed.count[off]
    frame["most_confused_with"] = labels.named(best)
    frame["confused_share"] = _share(most, frame["rows"].to_numpy())
    return frame[frame["rows"] > 0].sort_values("error_rate", ascending=False, kind="stable")


def by_source(source_of: Any, labels: Labels, whole: Whole) -> pd.DataFrame:
    """See :attr:`labelwright.Audit.sources`."""
    import pandas as pd

    named = pd.Series(source_of).astype(object).where(pd.notna(source_of), "(unknown)")
    codes, names = pd.factorize(named)
    frame = _rates(codes, len(names), labels, whole, pd.Index(names, name="source"))
    return frame.sort_values("error_rate", ascending=False, kind="stable")


def _rates(group: Ints, size: int, labels: Labels, whole: Whole, index: Any) -> pd.DataFrame:
    """Labelled rows, issues and error rate with Wilson's interval of each group (n,)."""
    import pandas as pd

    here = np.flatnonzero(labels.codes != NO_LABEL)
    rows = np.bincount(group[here], minlength=size)
    wrong = np.bincount(group[here], whole.wrong[here].astype(float), minlength=size)
    issues = np.bincount(group[here[whole.score[here] < 0]], minlength=size)
    rate = _share(wrong, rows)
    low, high = wilson(rate, rows)
    return pd.DataFrame({"rows": rows, "issues": issues, "error_rate": rate, "low": low, "high": high}, index=index)


def _share(part: Any, rows: Any) -> Floats:
    return np.divide(part, rows, out=np.zeros(len(part)), where=np.asarray(rows) > 0)
