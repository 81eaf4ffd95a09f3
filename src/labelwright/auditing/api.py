"""The one-shot job: which labels are wrong, what should they be, and can that be believed?"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from labelwright.auditing.crossval import as_they_are, chosen_classifier, cross_validated, read_features, shown_rows
from labelwright.auditing.passes import judge_all, one_thread
from labelwright.auditing.reading import Labels, Probabilities, read_answers, read_labels, read_probabilities
from labelwright.auditing.result import Audit, assembled, restored
from labelwright.auditing.sample import GIVEN, MADE, unlabelled, warned
from labelwright.errors import DataError, SettingsError, SourceError
from labelwright.scale import Mapper

Progress = Callable[[str, int, int], None]


def audit(
    labels: Any,
    pred_probs: Any = None,
    *,
    X: Any = None,
    classifier: Any = None,
    features: Any = None,
    answers: Any = None,
    sources: Any = None,
    ids: Any = None,
    classes: Sequence[Any] | None = None,
    folds: int = 5,
    workers: int | Mapper | None = None,
    random_state: int | None = None,
    progress: Progress | bool | None = None,
) -> Audit:
    """Find the wrong labels of a whole data set.

    labels: (n,) given labels: integers 0..K-1, other integers, strings; None, NaN or "" where missing; or a .npy file.
    pred_probs: (n, K) out-of-sample probabilities: array, frame, .npy file (mapped) or Parquet file. Without them they are
    made from ``X`` by cross-validation.
    X: (n, d) numbers, (n, height, width[, channels]) pictures, a DataFrame, an Arrow table or a list of texts. classifier: any
    scikit-learn classifier for it (a Pipeline gets a DataFrame or texts as they are, others numbers), or a name that ``labelwright audit
    --classifier`` takes; default: extremely randomised trees, logistic regression for text, a network for pictures where torch is
    installed.
    features: (n, d) embeddings by which near-duplicates are found; default: X.
    answers: true labels that experts have given: {position: label}, pairs, or one a row with missing values.
    sources: (n,) who labelled each row. ids: (n,) the rows' names. classes: (K,) names of the columns of ``pred_probs``.
    folds, workers: of the cross-validation; by default one thread a core, else so many, or a :class:`~labelwright.scale.Mapper`.
    random_state: None is 0; the same gives the same.
    progress: True for bars on the terminal, or a function of (stage, done, total).

    Raises DataError, SourceError or SettingsError with one sentence about what to do.
    Source: methods section 5; docs/audit.md tells what was added.

    >>> import labelwright
    >>> rng = np.random.default_rng(0)
    >>> y = np.repeat([0, 1, 2], 50)
    >>> X = rng.normal(size=(150, 2)) + 4 * np.eye(3)[y][:, :2]
    >>> given = y.copy()
    >>> given[[3, 60]] = [1, 2]
    >>> found = labelwright.audit(given, X=X, random_state=0)
    >>> bool(found.issues.is_label_issue[3]), int(found.issues.predicted_label[3])
    (True, 0)
    """
    seed = _seed(random_state)
    tell, close = _progress(progress)
    try:
        notes: list[str] = []
        rows = shown_rows(X)
        if pred_probs is not None:
            count = len(labels) if hasattr(labels, "__len__") and not isinstance(labels, str) else None
            proba = read_probabilities(pred_probs, count, classes)
            named = read_labels(labels, proba.columns, proba.classes)
            if len(named) != len(proba):
                proba = read_probabilities(proba.array, len(named), classes)
            # Threads of the linear algebra go on spinning, and take the cores from those that come after.
            with one_thread():
                warned(GIVEN, proba, named, notes)
            if X is not None and features is None:
                features = read_features(X, len(named)).X
        elif X is not None:
            named = read_labels(labels, classes, None if classes is None else len(classes))
            proba, features = _predicted(named, X, classifier, features, folds, seed, workers, tell, notes)
        else:
            raise SettingsError("an audit needs pred_probs, or X to make them from; give one of them")
        known = read_answers(answers, named)
        _same_length(named, sources=sources, ids=ids, features=features)
        notes.extend(unlabelled(named))
        return assembled(
            named,
            proba,
            known,
            seed=seed,
            source_of=None if sources is None else np.asarray(sources),
            features=features,
            ids=None if ids is None else np.asarray(ids),
            rows=rows,
            notes=tuple(notes),
            progress=lambda done: tell("judging", done, len(named)),
        )
    finally:
        close()


def _predicted(
    named: Labels,
    X: Any,
    classifier: Any,
    features: Any,
    folds: int,
    seed: int,
    workers: int | Mapper | None,
    tell: Progress,
    notes: list[str],
) -> tuple[Probabilities, Any]:
    if folds < 2:
        raise SettingsError(f"{folds} folds were asked for; cross-validation needs 2 or more")
    read = read_features(X, len(named))
    model, k = classifier, len(named.names)
    if classifier is None or isinstance(classifier, str):
        model = chosen_classifier(classifier or "auto", read, seed, k)
    if k < 2:
        raise DataError(
            f"all labels are {named.names.tolist()[0]!r}; a label can be judged only against at least one other class"
        )
    raw = as_they_are(classifier, X)
    proba = cross_validated(
        model,
        read.X if raw is None else raw,
        named.codes,
        k,
        folds=folds,
        seed=seed,
        workers=workers,
        progress=lambda done, total: tell("cross-validation", done, total),
    )
    name = type(model).__name__
    few = np.bincount(named.codes[named.codes >= 0], minlength=k)
    notes.append(f"probabilities: {name}, {min(folds, int(few.max()))}-fold cross-validation, calibrated")
    notes.extend(read.told)
    warned(MADE, Probabilities(proba), named, notes)
    lonely = [str(named.names[c]) for c in np.flatnonzero(few == 1)]
    if lonely:
        notes.append(
            f"{len(lonely)} classes have one row only ({', '.join(lonely[:5])}): no model has seen another, so their labels "
            "are doubted on weak grounds"
        )
    return Probabilities(proba), read.X if features is None else features


def _seed(state: Any) -> int:
    if state is None:
        return 0
    if isinstance(state, np.random.RandomState):
        return int(state.randint(2**31))
    if isinstance(state, np.random.Generator):
        return int(state.integers(2**31))
    if not isinstance(state, int | np.integer) or not 0 <= state < 2**32:
        raise SettingsError(f"random_state={state!r} is no seed; expected a whole number of 0 or more, below 2**32")
    return int(state)


def _same_length(named: Labels, **given: Any) -> None:
    for name, values in given.items():
        if values is None:
            continue
        if name in ("sources", "ids") and (isinstance(values, str | Mapping) or np.ndim(values) != 1):
            raise DataError(f"{name} have to be one a row, shape (n,); got {type(values).__name__} of another shape")
        rows = values.shape[0] if hasattr(values, "shape") else len(values)
        if rows != len(named):
            raise DataError(f"there are {len(named)} labels but {rows} {name}; give one a row")


def _progress(wanted: Progress | bool | None) -> tuple[Progress, Callable[[], None]]:
    """A function to tell progress to, and one to call at the end."""
    if callable(wanted):
        return wanted, lambda: None
    if not wanted:
        return lambda stage, done, total: None, lambda: None
    from rich.console import Console
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    bars = Bars(console=console, disable=not console.is_terminal, transient=True)
    bars.start()
    tasks: dict[str, Any] = {}

    def tell(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            tasks[stage] = bars.add_task(stage, total=total)
        bars.update(tasks[stage], completed=done, total=total)

    return tell, bars.stop


class LoadedAudit:
    """A judge from an earlier audit: judges new rows without fitting again. Made by :func:`load_audit`."""

    def __init__(self, state: dict[str, Any]):
        self.judge, self.classes = restored(state)

    def audit(
        self,
        labels: Any,
        pred_probs: Any,
        *,
        answers: Any = None,
        sources: Any = None,
        ids: Any = None,
        features: Any = None,
    ) -> Audit:
        """Judge a new batch by what was fitted: same classes, probabilities of the same (kind of) model.

        Raises DataError when the classes do not fit.
        """
        proba = read_probabilities(pred_probs)
        if proba.classes != self.judge.classes:
            raise DataError(
                f"the probabilities have {proba.classes} columns but the audit was of {self.judge.classes} classes; give the same"
            )
        if proba.columns is not None and list(map(str, proba.columns)) != list(map(str, self.classes)):
            raise DataError(
                f"the columns of the probabilities are named {', '.join(map(str, proba.columns[:6]))}, but the audit was of "
                f"{', '.join(map(str, self.classes[:6]))}; give them in that order"
            )
        named = read_labels(labels, self.classes, proba.classes)
        if len(named) != len(proba):
            read_probabilities(proba.array, len(named))
        known = read_answers(answers, named)
        _same_length(named, sources=sources, ids=ids, features=features)
        notes: list[str] = []
        warned(GIVEN, proba, named, notes)
        notes.extend(unlabelled(named))
        whole = judge_all(self.judge, proba, named.codes, known)
        return Audit(
            named,
            proba,
            self.judge,
            whole,
            known,
            source_of=None if sources is None else np.asarray(sources),
            ids=None if ids is None else np.asarray(ids),
            features=features,
            notes=tuple(notes),
        )


def load_audit(path: str | Path) -> LoadedAudit:
    """What :meth:`Audit.save` wrote. Raises SourceError when the file cannot be read, SettingsError when it is another."""
    try:
        state = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror}); check the path") from error
    except ValueError as error:
        raise SourceError(f"{path} is not whole JSON ({error}); save the audit again") from error
    return LoadedAudit(state)
