"""Out-of-sample probabilities of a whole data set, by cross-validation: folds in parallel, calibrated."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from labelwright.auditing.duplicates import centred
from labelwright.bootstrap import Fold
from labelwright.errors import DataError, SettingsError, TooFewRowsError
from labelwright.learners.scoring import softmax
from labelwright.scale import Mapper, opened
from labelwright.types import Floats, Ints

_WIDE = 2000
_LOOKS, _EPOCHS = 60_000, (15, 60)
_TEMPERATURES = np.geomspace(0.25, 12.0, 40)
_CALIBRATION_ROWS = 20_000
_FOREST_BYTES = 1e9


@dataclass(frozen=True)
class Features:
    """X: (n, d) numbers. text: whether they come from text. told: what was assumed about each column. shape: (height, width,
    channels) where rows are pictures and nothing else."""

    X: Any
    text: bool
    told: tuple[str, ...]
    shape: tuple[int, int, int] | None = None


def read_features(X: Any, rows: int) -> Features:
    """Features from an array (two or more dimensions), a sparse matrix, a frame, an Arrow table, or a list of texts.

    Raises DataError when the number of rows differs from ``rows`` or a number is not finite.
    """
    if hasattr(X, "tocsr") and len(X.shape) == 2:
        matrix = X.tocsr()
        if matrix.shape[0] != rows:
            raise DataError(f"there are {rows} labels but X has {matrix.shape[0]} rows; give one row a label")
        return Features(matrix, matrix.shape[1] > _WIDE, ())
    if _texts(X):
        import pyarrow as pa

        X = pa.table({"text": list(X)})
    if hasattr(X, "dtype") and X.dtype.kind in "fiub":
        array = np.asarray(X)
        shape = _picture_shape(array)
        array = array.reshape(len(array), -1) if array.ndim > 1 else array[:, None]
        if len(array) != rows:
            raise DataError(f"there are {rows} labels but X has {len(array)} rows; give one row a label")
        if not np.isfinite(array).all():
            bad = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
            raise DataError(
                f"row {bad} of X holds NaN or infinity; fill it, or pass a DataFrame, whose gaps are filled"
            )
        return Features(centred(array), False, (), shape)
    return _encoded(X, rows)


def as_they_are(classifier: Any, X: Any) -> Any:
    """A frame or texts for a pipeline, which reads them by itself; None where the rows are turned into numbers for it."""
    from sklearn.pipeline import Pipeline

    if not isinstance(classifier, Pipeline):
        return None
    return np.array(list(X), object) if _texts(X) else X if hasattr(X, "iloc") and len(X.shape) == 2 else None


def _texts(X: Any) -> bool:
    """A list, array or Series of texts."""
    plain = isinstance(X, list | tuple) or (len(getattr(X, "shape", ())) == 1 and hasattr(X, "tolist"))
    return plain and len(X) > 0 and all(isinstance(one, str) for one in X)


def _encoded(X: Any, rows: int) -> Features:
    from labelwright.tables import Encoder, open_source

    if isinstance(X, np.ndarray | list | tuple):
        import pandas as pd

        X = pd.DataFrame(X)
    table = next(iter(open_source(X).chunks(max(rows, len(X), 1))))
    if table.num_rows != rows:
        raise DataError(f"there are {rows} labels but X has {table.num_rows} rows; give one row a label")
    encoder = Encoder().fit(table)
    text, told = "text" in encoder.kinds.values(), tuple(encoder.describe())
    return Features(encoder.transform(table), text, told, encoder.image_shape)


def _picture_shape(array: np.ndarray) -> tuple[int, int, int] | None:
    """Of an array (n, height, width) of bytes, or (n, height, width, channels) with 1, 3 or 4 channels."""
    if array.ndim == 3 and array.dtype == np.uint8:
        return int(array.shape[1]), int(array.shape[2]), 1
    if array.ndim == 4 and array.shape[3] in (1, 3, 4):
        return int(array.shape[1]), int(array.shape[2]), int(array.shape[3])
    return None


def shown_rows(X: Any) -> Any:
    """The rows as a person should see them: an Arrow table from a table, a frame or a list of texts; else None."""
    if hasattr(X, "column_names"):
        return X
    import pyarrow as pa

    if _texts(X):
        return pa.table({"text": list(X)})
    if hasattr(X, "dtypes") and hasattr(X, "columns") and len(X):
        from labelwright.tables import open_source

        return next(iter(open_source(X).chunks(len(X))))
    return None


def chosen_classifier(name: str, features: Features, seed: int, classes: int) -> Any:
    """A classifier by its name on the command line. "auto": a network for pictures where torch is installed, extremely
    randomised trees for tables and for pictures without torch, logistic regression for text and very wide features."""
    from labelwright.settings import NETWORKS, make_classifier, resolved

    name = resolved(name, features.shape)
    if name == "auto" and (features.text or features.X.shape[1] > _WIDE):
        name = "linear"
    model = make_classifier(name, seed, features.shape)
    if name in NETWORKS:  # few pictures are looked at more often, so that there are steps enough to learn from them
        model.set_params(epochs=int(np.clip(_LOOKS / max(1, features.X.shape[0]), *_EPOCHS)))
    if name == "auto":
        model.set_params(**_fitting_memory(features.X.shape[0], classes))
    return model


def _fitting_memory(rows: int, classes: int) -> dict[str, Any]:
    """Trees and their leaves, so that what a forest remembers of every class in every leaf stays within :data:`_FOREST_BYTES`."""
    for trees in (200, 100, 50, 25):
        leaves = int(_FOREST_BYTES / (16 * trees * classes))
        if leaves >= min(rows // 2, 4 * classes):
            break
    return {"n_estimators": trees, "max_leaf_nodes": None if leaves >= rows // 2 else max(leaves, 2)}


def cross_validated(
    classifier: Any,
    X: Any,
    codes: Ints,
    classes: int,
    *,
    folds: int = 5,
    seed: int = 0,
    workers: int | Mapper | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Floats:
    """(n, K) float32 probabilities of each row by a model that never saw it, calibrated to the given labels.

    classifier: any scikit-learn classifier; it is cloned. codes: (n,) given class; rows without one (negative) are
    predicted by the mean of all folds' models. workers: threads that fit the folds, default one a core, or any mapper; networks
    use all cores one after another. Raises TooFewRowsError with fewer than two classes of two rows.
    """
    from sklearn.model_selection import StratifiedKFold

    labelled = np.flatnonzero(codes >= 0)
    count = np.bincount(codes[labelled], minlength=classes)
    if (count >= 2).sum() < 2:
        raise TooFewRowsError(
            f"classes with two or more rows: {int((count >= 2).sum())}; labels can be judged only with 2 or more such classes"
        )
    if not hasattr(classifier, "fit") or not (
        hasattr(classifier, "predict_proba") or hasattr(classifier, "decision_function")
    ):
        raise SettingsError(f"{classifier!r} is not a classifier; expected fit and predict_proba, as in scikit-learn")
    splits = max(2, min(folds, int(count.max())))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")
        cut = list(
            StratifiedKFold(splits, shuffle=True, random_state=seed).split(np.zeros(len(labelled)), codes[labelled])
        )
    rest = np.flatnonzero(codes < 0)
    parts = [
        Fold(f"fold {i} of {splits}", labelled[train], np.r_[labelled[test], rest])
        for i, (train, test) in enumerate(cut, 1)
    ]
    shared, out = (classifier, X, codes, classes), np.zeros((len(codes), classes), np.float32)
    alone = getattr(classifier, "uses_all_cores", False)
    with opened(1 if alone else workers, threads=True) as mapper, _warnings_kept():
        found = map(partial(_one_fold, shared), parts) if alone else mapper.map(_one_fold, parts, shared=shared)
        for done, (part, proba) in enumerate(zip(parts, found, strict=True), 1):
            new = len(part.test) - len(rest)
            out[part.test[:new]] = proba[:new]
            out[rest] += proba[new:] / splits
            if progress is not None:
                progress(done, splits)
    return calibrated(out, codes)


@contextmanager
def _warnings_kept() -> Iterator[None]:
    """scikit-learn's forests set the warning filters, which all threads share: two at a time mix them up, and then complain
    that there are none. The filters are put back afterwards, and that complaint is not shown."""
    with warnings.catch_warnings():
        shown = warnings.showwarning

        def show(message: Any, *rest: Any, **more: Any) -> None:
            if "sklearn.utils.parallel.delayed" not in str(message):
                shown(message, *rest, **more)

        warnings.showwarning = show
        yield


def _one_fold(shared: tuple[Any, Any, Ints, int], part: Fold) -> Floats:
    from sklearn.base import clone

    classifier, X, codes, classes = shared
    train, test = part.train, part.test
    rows = X.iloc if hasattr(X, "iloc") else X
    model = clone(classifier).fit(rows[train], codes[train])
    if hasattr(model, "predict_proba"):
        columns = np.asarray(model.predict_proba(rows[test]))
    else:
        scores = np.asarray(model.decision_function(rows[test]))
        columns = softmax(np.stack([-scores, scores], axis=1) if scores.ndim == 1 else scores)
    out = np.zeros((len(test), classes), np.float32)
    out[:, np.asarray(model.classes_, np.int64)] = columns
    return out


def calibrated(proba: Floats, codes: Ints) -> Floats:
    """Probabilities raised to the temperature under which the given labels are likeliest, rows summing to one.

    A trace of every class is left in each row (1e-6), so that a class unseen in a fold stays possible.
    """
    rows = np.flatnonzero(codes >= 0)
    if len(rows) > _CALIBRATION_ROWS:
        rows = rows[np.linspace(0, len(rows) - 1, _CALIBRATION_ROWS).astype(int)]
    logs = np.log(np.clip(proba[rows], 1e-4, None)).astype(float)
    own = codes[rows]

    def loss(t: float) -> float:
        scaled = t * logs
        top = scaled.max(axis=1, keepdims=True)
        return float((np.log(np.exp(scaled - top).sum(axis=1)) + top[:, 0] - scaled[np.arange(len(rows)), own]).mean())

    best = min(_TEMPERATURES, key=loss)
    out = np.power(np.clip(proba, 1e-6, None), np.float32(best)) + np.float32(1e-6)
    return np.asarray(out / out.sum(axis=1, keepdims=True), np.float32)
