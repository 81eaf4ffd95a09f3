"""CopyNet: a network that learns to label as the expert would, and a network that learns from it (paper, section V).

Needs torch (the extra ``torch``).
"""

from __future__ import annotations

import warnings
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.validation import check_is_fitted

from labelwright.errors import DataError, SettingsError
from labelwright.learners.labels import checked_trust, labels_like
from labelwright.learners.shapes import whole
from labelwright.learners.torch_classifier import TorchClassifier
from labelwright.types import NO_LABEL, Bools, Floats, Ints


class CopyNet(ClassifierMixin, BaseEstimator):
    """Two networks in a row: the Amateur reads the row, the Expert reads the Amateur's probabilities and the given label.

    The Expert learns the true label from the rows where somebody vouches for it, and its answer is what the Amateur learns
    from on every row. A row that comes with a label is predicted by the Expert, one without by the Amateur alone.

    amateur: a :class:`~labelwright.learners.torch_classifier.TorchClassifier` to be cloned: its network, epochs, rates,
    augmentation and checkpoint; None is one with its defaults. expert: "dense" is the paper's, layers that begin with nothing
    (hidden: units of all but the last); "fusing" is Bayes' rule with noise matrix and temperature learned, which needs fewer
    trusted rows [D].
    random_state: seed.

    Fitted attributes: ``classes_``, ``amateur_`` (the fitted TorchClassifier, both networks inside), ``unvouched_`` (classes
    without a trusted row: rows given such a label keep it as the Amateur's target, and are predicted by the Amateur).

    Source: paper, section V; methods section 4.

    >>> rng = np.random.default_rng(0)
    >>> X, y = np.repeat([[0.0, 1.0], [1.0, 0.0]], 200, axis=0), np.repeat([0, 1], 200)
    >>> given = np.where(rng.random(400) < 0.3, 1 - y, y)
    >>> true = np.where(rng.random(400) < 0.2, y, None)  # a fifth of the rows were looked at
    >>> model = CopyNet(TorchClassifier(epochs=10), random_state=0).fit(X, given, true)
    >>> model.predict(X[:1]), model.predict(X[:1], given=[1])
    (array([0]), array([0]))
    """

    def __init__(
        self,
        amateur: TorchClassifier | None = None,
        *,
        expert: str = "fusing",
        hidden: tuple[int, ...] = (512, 512, 512),
        random_state: Any = None,
    ):
        self.amateur = amateur
        self.expert = expert
        self.hidden = hidden
        self.random_state = random_state

    # ------------------------------------------------------------ learning

    def fit(self, X: Any, given: Any, true: Any) -> CopyNet:
        """Train both networks.

        X: as of TorchClassifier. given: (n,) labels, some of them wrong. true: (n,) what the expert says of a row, None or
        NaN where nobody looked. Raises DataError when nobody looked at any row. A row that is there twice with different true
        labels is not trusted, with a warning.
        """
        from labelwright.learners.imitating import Imitate

        X, given, sure, known = _told(X, given, true)
        _check_new(known[sure], given)
        model = TorchClassifier() if self.amateur is None else self.amateur
        if not isinstance(model, TorchClassifier):
            raise SettingsError(
                f"amateur={model!r} is no network; expected a TorchClassifier, or None for its defaults"
            )
        if not isinstance(self.hidden, tuple | list) or not all(whole(units) and units > 0 for units in self.hidden):
            raise SettingsError(
                f"hidden={self.hidden!r} are no layers; expected units of each, such as (512, 512, 512)"
            )
        seed = model.random_state if self.random_state is None else self.random_state
        self.amateur_ = clone(model).set_params(method=Imitate(self.expert, tuple(self.hidden)), random_state=seed)
        self.amateur_.fit(X, given, trusted=np.where(sure, known, None))
        self._take(self.amateur_)
        if len(self.unvouched_):
            warnings.warn(
                f"no trusted row has the true label {self.unvouched_[:5].tolist()}: the Expert cannot learn it, and rows given "
                "such a label are taken at their word",
                stacklevel=2,
            )
        return self

    def _take(self, amateur: TorchClassifier) -> None:
        """Fitted attributes, as both networks have them."""
        self.amateur_, self.classes_, self.n_features_in_ = amateur, amateur.classes_, amateur.n_features_in_
        self.__dict__.pop("feature_names_in_", None)  # of an earlier fit
        if hasattr(amateur, "feature_names_in_"):
            self.feature_names_in_ = amateur.feature_names_in_
        self.unvouched_ = amateur.classes_[~amateur.trainer_.network.taught.cpu().numpy()]

    def adapt(self, X: Any, given: Any, true: Any, *, layers: str | None = None, epochs: int | None = None) -> CopyNet:
        """Learn another noise pattern: retrain the Expert alone on the rows with a true label; the Amateur stays as it is.

        X, given, true: as in :meth:`fit`; the fusing Expert reads the rows without a true label too. Call it batch by batch if you
        like: the fusing Expert goes on from what it has learned, the more so the fewer rows a call brings.

        layers: of the Expert, "all" or "last" (of "fusing": the noise matrix alone); None is last of the fusing one and all of the
        dense one. epochs: a tenth of the Amateur's when None. Source: methods section 4, "Transfer".
        """
        from labelwright.learners.imitating import last_alone, retrained

        check_is_fitted(self, "amateur_")
        last = last_alone(self.amateur_, layers)
        if epochs is not None and (not whole(epochs) or epochs < 1):
            raise SettingsError(f"epochs={epochs!r} is no count; expected 1 or more, or None")
        X, given, sure, known = _told(X, given, true)
        codes = self._codes(given.astype(object), "the given labels")
        settled = np.full(len(X), NO_LABEL, np.int64)
        settled[sure] = self._codes(known[sure], "the true labels")
        turns = max(1, round(self.amateur_.epochs / 10)) if epochs is None else epochs
        proba = self.amateur_.predict_proba(X)
        retrained(self.amateur_, proba, codes, settled, last=last, epochs=turns)
        self._take(self.amateur_)
        return self

    def _codes(self, labels: Any, what: str) -> Ints:
        """(m,) classes of labels (m,) object. Raises DataError for one that was never seen in training."""
        like = labels_like(labels, self.classes_, what)
        unknown = np.setdiff1d(like, self.classes_)
        if len(unknown):
            raise DataError(
                f"{what} hold {unknown[:5].tolist()}, which training never saw; expected some of "
                f"{self.classes_[:10].tolist()}, None where a row has no label"
            )
        return np.searchsorted(self.classes_, like)

    # ------------------------------------------------------------ judging

    def predict_proba(self, X: Any, given: Any = None) -> Floats:
        """(n, K) probabilities. given: (n,) labels to heed, None or NaN where a row has none; None: no row has one.

        Raises DataError for a given label that was never seen in training.
        """
        from labelwright.learners.imitating import expert_proba

        check_is_fitted(self, "amateur_")
        proba = self.amateur_.predict_proba(X)
        has, labels = checked_trust(given, len(proba), "the given labels")
        codes = self._codes(labels[has], "the given labels")
        taught = ~np.isin(self.classes_[codes], self.unvouched_)
        has[has] = taught
        if has.any():
            proba[has] = expert_proba(self.amateur_, proba[has], codes[taught])
        return proba

    def predict(self, X: Any, given: Any = None) -> Any:
        """(n,) likeliest class; see :meth:`predict_proba`."""
        check_is_fitted(self, "amateur_")
        return self.classes_[self.predict_proba(X, given).argmax(axis=1)]

    # ------------------------------------------------------------ saving

    def save(self, path: str | Path) -> None:
        """Both networks as one safetensors file, whole or not at all."""
        check_is_fitted(self, "amateur_")
        self.amateur_.save(path)

    @staticmethod
    def load(path: str | Path) -> CopyNet:
        """What :meth:`save` wrote. Raises SourceError or SettingsError, as TorchClassifier.load does."""
        from labelwright.learners.imitating import Imitate

        found = TorchClassifier.load(path)
        if not isinstance(found.method, Imitate):
            raise SettingsError(f"{path} holds a network, but no CopyNet; load it with TorchClassifier.load")
        model = CopyNet(clone(found).set_params(method=None), expert=found.method.expert, hidden=found.method.hidden)
        model._take(found)
        return model


def _told(X: Any, given: Any, true: Any) -> tuple[Any, Any, Bools, Any]:
    """(X, given, which rows somebody vouches for, their true labels (n,) object). Raises DataError where there is none, or a row has
    no given label."""
    if issparse(X):
        raise DataError("X is sparse, which networks do not read; give X.toarray()")
    X = X if hasattr(X, "columns") else np.asarray(X)  # a frame's names are checked where it is read
    labelled, _ = checked_trust(given, len(X), "the given labels")
    if not labelled.all():
        raise DataError(
            f"{int((~labelled).sum()):,} rows have no given label, the first is row {int(labelled.argmin())}; leave them out: "
            "CopyNet learns what a given label says"
        )
    sure, known = checked_trust(true, len(X))
    if sure.any():
        sure = sure & ~_contradicted(np.asarray(X), sure, known)
    if not sure.any():
        raise DataError(
            "no row has a true label; CopyNet imitates an expert, so give the expert's label of some rows "
            "(true=, None where unknown), or use a method that needs no truth"
        )
    return X, np.asarray(given), sure, known


def _check_new(known: Any, given: Any) -> None:
    """-1 among true labels is a row that nobody looked at in other libraries; other labels that no row was given are told."""
    new = np.setdiff1d(labels_like(known, given), given)
    if new.dtype.kind in "if" and (new == -1).any():
        raise DataError("the true labels hold -1, which no row was given; a row that nobody looked at has None there")
    if len(new):
        warnings.warn(f"the true labels hold {new[:5].tolist()}, which no row was given: new classes", stacklevel=3)


def _contradicted(X: Any, sure: Bools, known: Any) -> Bools:
    """(n,) rows that are there more than once with different true labels; a warning says how many."""
    first: dict[bytes, Any] = {}
    apart: set[bytes] = set()
    keys = [blake2b(X[at].tobytes(), digest_size=16).digest() if sure[at] else b"" for at in range(len(X))]
    for at in np.flatnonzero(sure):
        if first.setdefault(keys[at], known[at]) != known[at]:
            apart.add(keys[at])
    out = np.array([bool(key) and key in apart for key in keys], bool)
    if out.any():
        warnings.warn(
            f"{int(out.sum())} trusted rows are alike but differ in their true label; they are not trusted",
            stacklevel=4,
        )
    return out


def cover_pattern(proba: Floats, given: Ints, count: int, rng: np.random.Generator) -> Ints:
    """``count`` rows that represent a noise pattern: every pair (predicted, given) in turn, the rarest first.

    proba: (n, K). given: (n,) labels of any kind. count: at least 0. Returns their positions, sorted. Drawn rows would nearly all be
    of the few common pairs.

    >>> proba, given = np.eye(2)[[0, 0, 0, 0, 1]], np.array([0, 0, 0, 1, 1])
    >>> cover_pattern(proba, given, 3, np.random.default_rng(0)).tolist()[1:]
    [3, 4]
    """
    if count < 0:
        raise SettingsError(f"count={count} is no number of rows; expected 0 or more")
    names, codes = np.unique(given, return_inverse=True)
    pair = proba.argmax(axis=1) * len(names) + codes
    shuffled = rng.permutation(len(given))
    turn = np.empty(len(given), np.int64)
    for one in np.unique(pair):
        here = shuffled[pair[shuffled] == one]
        turn[here] = np.arange(len(here))
    common = np.bincount(pair)[pair]
    return np.sort(np.lexsort((shuffled.argsort(), common, turn))[:count])
