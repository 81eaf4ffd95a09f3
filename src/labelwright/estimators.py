"""What most users import: a scikit-learn classifier that distrusts its labels. Built on the loop."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.multiclass import check_classification_targets, unique_labels
from sklearn.utils.validation import check_is_fitted, validate_data

from labelwright.errors import SettingsError, SourceError, TooFewRowsError
from labelwright.imitation import NoImitator, PosteriorImitator
from labelwright.learners import Learners, as_learner
from labelwright.loop import System
from labelwright.selection import NoSelection, QualityOnly, RadDuo, Slim
from labelwright.types import NO_LABEL, Batch, Floats, Ints, Split, Verdict

SELECTORS = {"rad-duo": RadDuo, "quality-only": QualityOnly, "slim": Slim, "none": NoSelection}
FORMAT = 1


class RobustClassifier(ClassifierMixin, BaseEstimator):
    """A classifier for labels of which some are wrong.

    ``fit`` judges all labels by cross-validation and the posterior (methods section 5), corrects those it is sure
    of, drops the rest of the doubtful ones, and trains on what is left. ``partial_fit`` takes data batch by batch:
    the models of the earlier batches judge the labels of the next one (RAD Duo, paper section III-A).

    classifier: any scikit-learn classifier, default 200 extremely randomised trees. quality: the model that judges
    labels first, default logistic regression on standardised features. selector: "rad-duo", "quality-only", "slim" or
    "none". correct: least probability for relabelling a doubtful row, above 0.5, or None never to relabel.
    buffer: how many rejected rows wait for another look between batches. folds: of the cross-validation.
    max_rows: the most rows remembered for refitting. random_state: seed.

    Fitted attributes: ``classes_``; of the last batch ``label_score_`` (n,) probability that each given label is right,
    ``verdict_`` (n,) words, ``final_label_`` (n,) (None where rejected); ``noise_rate_``, ``noise_interval_`` and
    ``transition_`` (K, K) over all batches; ``n_features_in_``.

    With fewer than 5 rows in a class, labels cannot be judged: a warning says so and they are taken as they are.

    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> given = y.copy()
    >>> given[:10] = 2
    >>> model = RobustClassifier(random_state=0).fit(X, given)
    >>> int((model.label_score_[:10] < 0.5).sum()) >= 8
    True
    >>> round(model.score(X, y), 2) > 0.93
    True
    """

    def __init__(
        self,
        classifier: Any = None,
        *,
        quality: Any = None,
        selector: str = "rad-duo",
        correct: float | None = 0.95,
        buffer: int = 1000,
        folds: int = 5,
        max_rows: int = 20_000,
        random_state: Any = None,
    ):
        self.classifier = classifier
        self.quality = quality
        self.selector = selector
        self.correct = correct
        self.buffer = buffer
        self.folds = folds
        self.max_rows = max_rows
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> RobustClassifier:
        """Judge, correct and learn from all rows at once. X: (n, d) finite. y: (n,) labels of any kind."""
        _check_flat(X)
        X, y = validate_data(self, X, y)
        check_classification_targets(y)
        self._start(unique_labels(y))
        return self._step(X, y)

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> RobustClassifier:
        """Judge and learn from one batch. classes: all labels there are, needed at the first call only when the first
        batch may lack some."""
        first = not hasattr(self, "system_")
        _check_flat(X)
        X, y = validate_data(self, X, y, reset=first)
        check_classification_targets(y)
        if first:
            self._start(unique_labels(y) if classes is None else np.unique(np.asarray(classes)))
        unknown = np.setdiff1d(np.unique(y), self.classes_)
        if len(unknown):
            raise ValueError(
                f"labels {list(unknown)[:5]} are none of the classes {list(self.classes_)}; name all at the first partial_fit"
            )
        return self._step(X, y)

    def predict_proba(self, X: Any) -> Floats:
        """(n, K) probability of each class, in the order of ``classes_``."""
        check_is_fitted(self, "system_")
        X = validate_data(self, X, reset=False)
        proba = np.asarray(self.system_.learners.classifier.proba(X), float)
        return proba / proba.sum(axis=1, keepdims=True)

    def predict(self, X: Any) -> Any:
        """(n,) likeliest class."""
        best = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best]

    def _start(self, classes: Any) -> None:
        if self.selector not in SELECTORS:
            raise SettingsError(f"selector={self.selector!r} is unknown; expected one of {list(SELECTORS)}")
        self.classes_ = classes
        self._seed = (
            int(np.random.RandomState(self.random_state).randint(2**31))
            if not isinstance(self.random_state, np.random.RandomState)
            else int(self.random_state.randint(2**31))
        )
        self._batches = 0
        self.system_ = self._system()

    def _system(self) -> System:
        k = len(self.classes_)
        default = ExtraTreesClassifier(200, min_samples_leaf=2, random_state=self._seed)
        judge = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))

        def learner(given: Any, fallback: Any) -> Any:
            estimator = fallback if given is None else clone(given)
            return as_learner(estimator, classes=k, seed=self._seed, max_rows=self.max_rows)

        classifier = learner(self.classifier, default)
        two = self.selector == "rad-duo"
        learners = Learners(learner(self.quality, judge) if two else classifier, classifier)
        buffer = 0 if self.selector == "none" else self.buffer
        selector = SELECTORS[self.selector](learners, buffer=buffer, folds=self.folds, seed=self._seed)
        imitator = NoImitator() if self.correct is None else PosteriorImitator(self.correct)
        return System(selector, learners, imitator=imitator)

    def _step(self, X: Floats, y: Any) -> RobustClassifier:
        codes = np.searchsorted(self.classes_, y)
        batch = Batch.of(self._batches, X, codes)
        try:
            split = self.system_.step(batch)
        except TooFewRowsError as error:
            warnings.warn(f"labels were taken as they are: {error}", stacklevel=3)
            split = self.system_.step(Batch.of(self._batches, X, codes, clean=True))
        self._batches += 1
        self._tell(split, len(batch))
        return self

    def _tell(self, split: Split, n: int) -> None:
        noise = self.system_.selector.noise  # type: ignore[attr-defined]
        self.noise_rate_, self.noise_interval_, self.transition_ = noise.rate, noise.interval(), noise.transition
        self.label_score_ = split.label_score[:n]
        fixed = self.system_.imitator.correct(split, _no_answers(split))
        at = {int(key): int(label) for key, label in zip(fixed.rows.keys, fixed.rows.y, strict=True)}
        verdict, final = split.verdict[:n].copy(), np.where(split.kept, split.label, NO_LABEL)[:n]
        for i, key in enumerate(split.rows.keys[:n]):
            if int(key) in at:
                verdict[i], final[i] = Verdict.CORRECTED, at[int(key)]
        self.verdict_ = np.array([Verdict(int(v)).word for v in verdict])
        named = self.classes_.astype(object)
        self.final_label_ = np.array([None if f == NO_LABEL else named[f] for f in final], dtype=object)

    # ------------------------------------------------------------ saving

    def save(self, path: str | Path) -> None:
        """Write the fitted model to a file (arrays, JSON and skops; no pickle). :func:`load` reads it."""
        check_is_fitted(self, "system_")
        from labelwright.packing import pack

        system, memories = self.system_, self._memories()
        rows = memories[0]
        for other in memories[1:]:
            rows = rows.plus(other.take(~np.isin(other.keys, rows.keys)))
        names = self.classes_.astype(str) if self.classes_.dtype == object else self.classes_
        state = {
            "format": FORMAT,
            "params": _packed_params(self.get_params(deep=False)),
            "classes": names,
            "object_classes": self.classes_.dtype == object,
            "n_features_in": self.n_features_in_,
            "feature_names_in": [str(name) for name in getattr(self, "feature_names_in_", ())],
            "seed": self._seed,
            "batches": self._batches,
            "rows": {"keys": rows.keys, "X": rows.X},
            "parts": {
                "learners": system.learners.state(),
                "selector": system.selector.state(),
                "budget": system.budget.state(),
            },
        }
        from labelwright.tables import write_bytes

        write_bytes(pack(state), path)

    def _memories(self) -> list[Any]:
        learners = self.system_.learners
        return [learner.memory.rows for learner in learners] + [self.system_.selector.buffer.rows]  # type: ignore[attr-defined]


def load(path: str | Path) -> RobustClassifier:
    """A classifier that :meth:`RobustClassifier.save` wrote. Raises SourceError or SettingsError in a plain sentence."""
    from labelwright.errors import LedgerError
    from labelwright.packing import unpack

    try:
        state = unpack(Path(path).read_bytes())
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror}); check the path") from error
    except LedgerError as error:
        raise SourceError(f"{path} is no saved RobustClassifier; save one with model.save(path)") from error
    if state.get("format") != FORMAT:
        raise SettingsError(
            f"{path} has format {state.get('format')}, expected {FORMAT}; use the version that wrote it"
        )
    model = RobustClassifier(**_unpacked_params(state["params"]))
    model.classes_ = state["classes"].astype(object) if state["object_classes"] else state["classes"]
    model.n_features_in_, model._seed, model._batches = state["n_features_in"], state["seed"], state["batches"]
    if state["feature_names_in"]:
        model.feature_names_in_ = np.array(state["feature_names_in"], dtype=object)
    model.system_ = model._system()
    keys, X = np.asarray(state["rows"]["keys"]), state["rows"]["X"]
    order = np.argsort(keys, kind="stable")

    def fetch(wanted: Ints) -> tuple[Ints, Floats]:
        return wanted, X[order[np.searchsorted(keys[order], wanted)]] if len(wanted) else X[:0]

    model.system_.restore(state["parts"], fetch)
    noise = model.system_.selector.noise  # type: ignore[attr-defined]
    model.noise_rate_, model.noise_interval_, model.transition_ = noise.rate, noise.interval(), noise.transition
    return model


def _packed_params(params: dict[str, Any]) -> dict[str, Any]:
    from skops.io import dumps

    held = {}
    for name, value in params.items():
        plain = value is None or isinstance(value, bool | int | float | str)
        held[name] = {"value": value} if plain else {"skops": np.frombuffer(dumps(value), np.uint8)}
    return held


def _unpacked_params(held: dict[str, Any]) -> dict[str, Any]:
    from labelwright.safe import load_model

    return {n: h["value"] if "value" in h else load_model(np.asarray(h["skops"]).tobytes()) for n, h in held.items()}


def _check_flat(X: Any) -> None:
    shape = getattr(X, "shape", ())
    if len(shape) > 2:
        side = (*shape[1:], 1) if len(shape) == 3 else tuple(shape[1:])
        raise ValueError(
            f"X has shape {tuple(shape)}, but rows are flat here: give X.reshape(len(X), -1), and for pictures a network that knows "
            f"their shape, as RobustClassifier(TorchClassifier(image_shape={side}))"
        )


def _no_answers(split: Split) -> Any:
    from labelwright.types import Answers

    return Answers.none(split.rows.X.shape[1])


__all__: Sequence[str] = ("RobustClassifier", "load")
