"""Any scikit-learn classifier as a learner of the loop.

``partial_fit`` is used where it exists (:class:`Incremental`, with bounded replay); other classifiers are refitted
on the rows kept so far (:class:`Refit`, bounded too).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from labelwright.errors import SettingsError
from labelwright.learners.memory import Fetch, RowMemory
from labelwright.learners.scoring import Scorer, judge_many
from labelwright.scale import InProcess, Mapper
from labelwright.types import Floats, Ints, Rows

LEAST_GAP = 1e-3
"""Nats that every row's gap is raised by, so that rows already learned are replayed now and then."""


def divergence(target: Floats, proba: Floats) -> Floats:
    """(n,) Kullback-Leibler divergence, in nats, of ``proba`` (n, K) from ``target`` (n, K), both rows of probabilities.

    >>> divergence(np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([[0.5, 0.5], [0.5, 0.5]])).round(3).tolist()
    [0.693, 0.0]
    """
    ratio = np.log(np.maximum(target, 1e-6)) - np.log(np.maximum(proba, 1e-4))
    return np.maximum((target * ratio).sum(axis=1), 0.0)


class Learner:
    """A classifier over the classes 0..K-1, whatever subset of them its training rows held.

    estimator: any scikit-learn classifier. classes: K.
    Subclasses say how it learns, in :meth:`partial_fit`. mapper: judges batches of more than 20,000 rows.
    """

    mapper: Mapper = InProcess()

    def __init__(self, estimator: Any, *, classes: int):
        if not hasattr(estimator, "fit") or not hasattr(estimator, "predict"):
            raise SettingsError(f"{estimator!r} is not a classifier; expected fit and predict, as in scikit-learn")
        self.estimator, self.classes = estimator, classes
        self.fitted = False
        self._only: int | None = None

    def partial_fit(self, rows: Rows) -> None:
        """Learn from ``rows``."""
        raise TypeError("use Incremental or Refit, or as_learner(), which chooses")

    @property
    def scorer(self) -> Scorer:
        """What judges, without the rows remembered."""
        return Scorer(self.estimator, self.classes, self._only)

    def judge(self, X: Floats) -> tuple[Floats, Floats]:
        """(decision, proba), each (n, K): scores on any scale, and probabilities."""
        return judge_many(self.scorer, X, self.mapper)

    def proba(self, X: Floats) -> Floats:
        """(n, K) probabilities."""
        return self.judge(X)[1]

    def predict(self, X: Floats) -> Ints:
        """(n,) the likeliest class."""
        return self.judge(X)[0].argmax(axis=1)

    def _fit_estimator(self, rows: Rows) -> None:
        present = np.unique(rows.y)
        self._only = int(present[0]) if len(present) == 1 else None
        if self._only is None:
            self.estimator.fit(rows.X, rows.y)
        self.fitted = True


class Refit(Learner):
    """Refits on all kept rows at every step, at most ``max_rows`` of them (a uniform sample beyond that).

    >>> from sklearn.tree import DecisionTreeClassifier
    >>> learner = Refit(DecisionTreeClassifier(random_state=0), classes=3)
    >>> learner.partial_fit(Rows(np.array([[0.0], [1.0]]), np.array([0, 2]), np.array([0, 1])))
    >>> learner.proba(np.array([[1.0]])).tolist()
    [[0.0, 0.0, 1.0]]
    """

    def __init__(self, estimator: Any, *, classes: int, max_rows: int = 20_000, seed: int = 0):
        super().__init__(estimator, classes=classes)
        self.memory = RowMemory(max_rows, seed=seed)

    def partial_fit(self, rows: Rows) -> None:
        """Remember ``rows`` and fit anew."""
        self.memory.add(rows)
        if len(self.memory.rows):
            self._fit_estimator(self.memory.rows)

    def state(self) -> dict[str, Any]:
        """The remembered rows; the model is fitted anew from them."""
        return self.memory.state()

    def restore(self, state: Mapping[str, Any], fetch: Fetch) -> None:
        """As it was when :meth:`state` was called."""
        self.memory.restore(state, fetch)
        self.partial_fit(Rows.none(self.memory.rows.X.shape[1] if len(self.memory.rows) else 0))


class Incremental(Learner):
    """Learns by ``partial_fit``: ``epochs`` passes over each batch mixed with up to ``replay`` remembered rows.

    memory: how many rows to remember for replay (a uniform sample of what was kept; methods section 2).
    """

    def __init__(
        self, estimator: Any, *, classes: int, epochs: int = 5, replay: int = 1000, memory: int = 5000, seed: int = 0
    ):
        super().__init__(estimator, classes=classes)
        self.epochs, self.replay, self.seed = epochs, replay, seed
        self.memory = RowMemory(memory, seed=seed)
        self.steps = 0

    def partial_fit(self, rows: Rows) -> None:
        """Learn from ``rows`` and a replayed sample of earlier ones."""
        rng = np.random.default_rng([self.seed, self.steps])
        self.steps += 1
        if not len(rows):
            return
        training = rows.plus(self._replayed(rng)) if self.replay else rows
        self._learn(training, rng)
        if self.replay:
            self.memory.add(rows)
        self.fitted = True

    def _replayed(self, rng: np.random.Generator) -> Rows:
        return self.memory.sample(self.replay, rng)

    def _learn(self, training: Rows, rng: np.random.Generator) -> None:
        for _ in range(self.epochs):
            order = rng.permutation(len(training))
            self.estimator.partial_fit(training.X[order], training.y[order], classes=np.arange(self.classes))

    def state(self) -> dict[str, Any]:
        """The model (bytes, no pickle) and the remembered rows."""
        model = np.frombuffer(self._dumped(), np.uint8) if self.fitted else np.empty(0, np.uint8)
        return {"model": model, "steps": self.steps, "memory": self.memory.state()}

    def _dumped(self) -> bytes:
        from skops.io import dumps

        return bytes(dumps(self.estimator))

    def _loaded(self, model: bytes) -> Any:
        from labelwright.safe import load_model

        return load_model(model)

    def restore(self, state: Mapping[str, Any], fetch: Fetch) -> None:
        """As it was when :meth:`state` was called."""
        raw = np.asarray(state["model"], np.uint8).tobytes()
        if raw:
            self.estimator = self._loaded(raw)
            self.fitted = True
        self.steps = int(state["steps"])
        self.memory.restore(state["memory"], fetch)


class Deep(Incremental):
    """A network (:class:`~labelwright.learners.torch_classifier.TorchClassifier`): each batch mixed with up to ``replay``
    remembered rows, soft labels where rows have shares. How many epochs, and how fast, the estimator says.

    prioritized: of twice as many remembered rows, rather replay those that the network has yet to learn, in proportion to
    the Kullback-Leibler divergence of its probabilities from their labels (as in prioritized experience replay, Schaul et
    al. 2016; the weight is our own [D]). Not for rows whose labels are wrong: it would learn those first.

    >>> from labelwright.learners.torch_classifier import TorchClassifier
    >>> learner = Deep(TorchClassifier(epochs=2, random_state=0), classes=2)
    >>> learner.partial_fit(Rows(np.eye(2).repeat(8, axis=0), np.repeat([0, 1], 8), np.arange(16)))
    >>> learner.proba(np.eye(2)).shape
    (2, 2)
    """

    def __init__(
        self,
        estimator: Any,
        *,
        classes: int,
        replay: int = 4000,
        memory: int = 20_000,
        seed: int = 0,
        prioritized: bool = False,
    ):
        super().__init__(estimator, classes=classes, replay=replay, memory=memory, seed=seed)
        self.prioritized = prioritized

    def _replayed(self, rng: np.random.Generator) -> Rows:
        if not self.prioritized or not self.fitted or self.replay >= len(self.memory.rows):
            return super()._replayed(rng)
        some = self.memory.sample(2 * self.replay, rng)
        target = np.eye(self.classes, dtype=np.float32)[some.y] if some.share is None else some.share
        gap = divergence(target, self.estimator.predict_proba(some.X, mirror=False))
        # Without replacement in proportion to the weights: the smallest exponential times (Efraimidis and Spirakis 2006).
        order = np.argsort(rng.exponential(size=len(some)) / (gap + LEAST_GAP), kind="stable")
        return some.take(np.sort(order[: self.replay]))

    def _learn(self, training: Rows, rng: np.random.Generator) -> None:
        self.estimator.partial_fit(training.X, training.y, classes=np.arange(self.classes), target=training.share)

    def _dumped(self) -> bytes:
        return bytes(self.estimator.to_bytes())

    def _loaded(self, model: bytes) -> Any:
        """The stored weights under the present settings."""
        now = self.estimator
        found = type(now).from_bytes(model, "the stored network", device=now.device, precision=now.precision)
        return found.set_params(**now.get_params(deep=False))


class Learners:
    """The quality model and the classifier; they may be one and the same (QAL, slim).

    >>> from sklearn.naive_bayes import GaussianNB
    >>> one = Incremental(GaussianNB(), classes=2)
    >>> len(list(Learners(one, one)))
    1
    """

    def __init__(self, quality: Refit | Incremental, classifier: Refit | Incremental):
        self.quality, self.classifier = quality, classifier

    def __iter__(self) -> Any:
        yield self.quality
        if self.classifier is not self.quality:
            yield self.classifier

    @property
    def fitted(self) -> bool:
        """True once every learner can judge."""
        return all(learner.fitted for learner in self)

    def proba(self, X: Floats) -> Floats:
        """(n, K) mean of both models' probabilities (methods section 2: both together as the final word)."""
        return np.asarray(np.mean([learner.proba(X) for learner in self], axis=0))

    def partial_fit(self, rows: Rows) -> None:
        """Every learner learns from ``rows``."""
        for learner in self:
            learner.partial_fit(rows)

    def state(self) -> dict[str, Any]:
        """Each learner's state, in order."""
        return {f"learner-{i}": learner.state() for i, learner in enumerate(self)}

    def restore(self, state: Mapping[str, Any], fetch: Fetch) -> None:
        """As they were when :meth:`state` was called."""
        for i, learner in enumerate(self):
            learner.restore(state[f"learner-{i}"], fetch)


def as_learner(
    estimator: Any, *, classes: int, seed: int = 0, max_rows: int = 20_000, prioritized: bool = False
) -> Refit | Incremental:
    """A learner for any scikit-learn classifier: a network with replay and soft labels where ``partial_fit`` takes a
    ``target``, incremental where it takes ``classes``, else refitted. prioritized: as of :class:`Deep`, for networks.

    >>> from sklearn.linear_model import SGDClassifier
    >>> type(as_learner(SGDClassifier(), classes=2)).__name__
    'Incremental'
    """
    takes = getattr(estimator, "partial_fit", None)
    if takes is not None and "target" in inspect.signature(takes).parameters:
        return Deep(estimator, classes=classes, seed=seed, memory=max_rows, prioritized=prioritized)
    if takes is not None and "classes" in inspect.signature(takes).parameters:
        return Incremental(estimator, classes=classes, seed=seed)
    return Refit(estimator, classes=classes, seed=seed, max_rows=max_rows)
