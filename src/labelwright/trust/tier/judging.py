"""The project's own selectors over models that do not learn: judging rows, chunk by chunk, in little memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from labelwright.errors import DataError, SettingsError
from labelwright.learners.base import Learners
from labelwright.posterior import NoiseModel
from labelwright.selection import JudgingSelector, QualityOnly, RadDuo, Slim
from labelwright.trust.tier.models import Model
from labelwright.types import Answers, Batch, Bools, Corrections, Floats, Ints, Rows, Split

SELECTORS: Mapping[str, type[JudgingSelector]] = {"rad-duo": RadDuo, "q-only": QualityOnly, "slim": Slim}


class Fixed:
    """A model of the tier as a learner of the loop that has learned all it will.

    >>> from labelwright.trust.tier.models import Linear
    >>> import numpy as np
    >>> Fixed(Linear(np.eye(2), np.zeros(2))).predict(np.array([[0.0, 1.0]])).tolist()
    [1]
    """

    fitted = True

    def __init__(self, model: Model):
        self.model, self.classes = model, model.classes

    def judge(self, X: Floats) -> tuple[Floats, Floats]:
        """(decision, proba), each (n, K). Raises DataError for rows of another width."""
        if X.ndim != 2 or X.shape[1] != self.model.width:
            raise DataError(
                f"the rows have the shape {X.shape[1:]} and the model reads {self.model.width} numbers; seal others"
            )
        return self.model.judge(X)

    def predict(self, X: Floats) -> Ints:
        """(n,) the likeliest class."""
        return self.judge(X)[0].argmax(axis=1)

    def partial_fit(self, rows: Rows) -> None:
        """It has learned all it will."""


@dataclass(frozen=True)
class Judged:
    """What was decided about the rows of a chunk, each (n,). score: probability that the given label is right."""

    keys: Ints
    given: Ints
    verdict: Ints
    score: Floats


class Judge:
    """Judges chunk after chunk; what it learns of the noise goes on from one to the next.

    quality, classifier: models of the same K classes. selector: one of rad-duo, q-only, slim.
    Memory holds one chunk and K x K counts. Raises SettingsError when they do not fit.

    >>> import numpy as np
    >>> from labelwright.trust.tier.models import Linear
    >>> judge = Judge(Linear(np.eye(2), np.zeros(2)), Linear(np.eye(2), np.zeros(2)))
    >>> judge.judge(0, np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0, 1])).verdict.tolist()
    [0, 4]
    """

    def __init__(self, quality: Model, classifier: Model, *, selector: str = "rad-duo", **options: Any):
        if selector not in SELECTORS:
            raise SettingsError(f"the selector {selector!r} is unknown; expected one of {', '.join(SELECTORS)}")
        if (quality.classes, quality.width) != (classifier.classes, classifier.width):
            raise SettingsError(
                f"the quality model has {quality.classes} classes of {quality.width} features and the classifier {classifier.classes} "
                f"of {classifier.width}; give two models of the same data"
            )
        learners = Learners(cast(Any, Fixed(quality)), cast(Any, Fixed(classifier)))
        self.selector = SELECTORS[selector](learners, **options)

    @property
    def noise(self) -> NoiseModel:
        """How labels go wrong, as far as seen."""
        return self.selector.noise

    def judge(
        self, number: int, X: Floats, given: Ints, *, keys: Ints | None = None, clean: Bools | bool = False
    ) -> Judged:
        """The verdicts of chunk ``number``. X: (n, d). given: (n,) classes 0..K-1. Raises DataError for other labels."""
        if len(given) and not 0 <= given.min() <= given.max() < self.selector.noise.classes:
            raise DataError(
                f"chunk {number} has labels from {given.min()} to {given.max()}; expected 0 to {self.selector.noise.classes - 1}"
            )
        batch = Batch.of(number, X, given, clean=clean)
        split = self.selector.split(batch)
        self._moved(split)
        return Judged(batch.keys if keys is None else keys, split.given, split.verdict, split.label_score)

    def _moved(self, split: Split) -> None:
        width = split.rows.X.shape[1]
        self.selector.update(split, Answers.none(width), Corrections.none(width))
