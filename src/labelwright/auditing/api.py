"""The one-shot job: which labels are wrong, what should they be, and can that be believed?"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from labelwright.auditing.crossval import chosen_classifier, cross_validated, read_features, shown_rows
from labelwright.auditing.passes import judge_all, one_thread
from labelwright.auditing.reading import Labels, Probabilities, read_answers, read_labels, read_probabilities
from labelwright.auditing.result import Audit, assembled, restored
from labelwright.errors import DataError, SettingsError, SourceError
from labelwright.scale import Mapper
from labelwright.types import NO_LABEL

Progress = Callable[[str, int, int], None]
_SURE, _AGREES, _ENOUGH = 0.99, 0.999, 200
_FEW = 50


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
    scikit-learn classifier for it, or a name that ``labelwright audit --classifier`` takes; default: extremely randomised
    trees, logistic regression for text, a network for pictures where torch is installed.
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
    seed = 0 if random_state is None else int(random_state)
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
                _check_sample(proba, named, notes)
            if X is not None and features is None:
                features = read_features(X, len(named)).X
        elif X is not None:
            named = read_labels(labels, classes, None if classes is None else len(classes))
            proba, features = _predicted(named, X, classifier, features, folds, seed, workers, tell, notes)
        else:
            raise SettingsError("an audit needs pred_probs, or X to make them from; give one of them")
        known = read_answers(answers, named)
        _same_length(named, sources=sources, ids=ids, features=features)
        missing = int((named.codes == NO_LABEL).sum())
        if missing:
            have = (
                "1 row has no label: it gets its" if missing == 1 else f"{missing:,} rows have no label: they get their"
            )
            notes.append(f"{have} likeliest one and {'is' if missing == 1 else 'are'} not judged")
        if len(named) - missing < _FEW:
            notes.append(
                f"only {len(named) - missing} rows have a label: so few can hardly be judged; take every figure as a guess"
            )
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
    model = classifier
    if classifier is None or isinstance(classifier, str):
        model = chosen_classifier(classifier or "auto", read, seed)
    k = len(named.names)
    if k < 2:
        raise DataError(
            f"all labels are {named.names.tolist()[0]!r}; a label can be judged only against at least one other class"
        )
    proba = cross_validated(
        model,
        read.X,
        named.codes,
        k,
        folds=folds,
        seed=seed,
        workers=workers,
        progress=lambda done, total: tell("cross-validation", done, total),
    )
    name = type(model).__name__
    notes.append(f"probabilities: {name}, {folds}-fold cross-validation, calibrated")
    notes.extend(read.told)
    few = np.bincount(named.codes[named.codes >= 0], minlength=k)
    lonely = [str(named.names[c]) for c in np.flatnonzero(few == 1)]
    if lonely:
        notes.append(
            f"{len(lonely)} classes have one row only ({', '.join(lonely[:5])}): no model has seen another, so their labels "
            "are doubted on weak grounds"
        )
    return Probabilities(proba), read.X if features is None else features


def _same_length(named: Labels, **given: Any) -> None:
    for name, values in given.items():
        if values is None:
            continue
        rows = values.shape[0] if hasattr(values, "shape") else len(values)
        if rows != len(named):
            raise DataError(f"there are {len(named)} labels but {rows} {name}; give one a row")


def _check_sample(proba: Probabilities, named: Labels, notes: list[str]) -> None:
    """Warn when the probabilities look as if the model had been trained on these very labels, or never seen them."""
    rows = np.flatnonzero(named.codes != NO_LABEL)
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), 4096, 500 + 1_000_000 // proba.classes)).astype(int)]
    if len(rows) < _ENOUGH:
        return
    sample, label = proba.rows(rows), named.codes[rows]
    own = sample[np.arange(len(rows)), label]
    mean, agrees = float(own.mean()), float((sample.argmax(axis=1) == label).mean())
    gain = own - sample.mean(axis=0)[label]
    told = None
    if mean > _SURE and agrees > _AGREES:
        told = (
            f"the probabilities look in-sample: the mean self-confidence is {mean:.3f} and {100 * agrees:.1f} % of the labels "
            "are predicted as given. A model that was trained on these labels repeats them; use cross-validated probabilities"
        )
    elif gain.mean() <= 3 * gain.std() / np.sqrt(len(rows)) and len(np.unique(label)) > 1:
        told = (
            "the probabilities tell nothing about the labels: a row's class gets no more than any other row gives it. Check "
            "that the rows, and the columns, are in the labels' order"
        )
    if told is not None:
        notes.append(told)
        warnings.warn(told, stacklevel=3)


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


def find_label_issues(
    labels: Any, pred_probs: Any, *, return_indices_ranked_by: str | None = None, **ignored: Any
) -> Any:
    """For people who come from cleanlab: (n,) mask of label issues, or their positions, ranked.

    return_indices_ranked_by: None for the mask; "self_confidence", "normalized_margin" or "confidence_weighted_entropy" for
    positions: all three rank by our ``label_score``, the worst first. Raises SettingsError for another word or option.

    >>> int(find_label_issues([0, 1] * 20, np.array([[0.9, 0.1], [0.1, 0.9]] * 20)).sum())
    0
    """
    known = {"filter_by", "frac_noise", "num_to_remove_per_class", "min_examples_per_class", "n_jobs", "verbose"}
    strange = set(ignored) - known
    if strange:
        raise SettingsError(f"the option {sorted(strange)[0]!r} is unknown; labelwright.audit() tells more than a mask")
    ranks = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")
    if return_indices_ranked_by is not None and return_indices_ranked_by not in ranks:
        raise SettingsError(
            f"return_indices_ranked_by={return_indices_ranked_by!r} is unknown; expected one of {', '.join(ranks)}"
        )
    found = audit(labels, pred_probs)
    if return_indices_ranked_by is None:
        return found.flagged
    return found.ranking[found.flagged[found.ranking]]


def get_label_quality_scores(labels: Any, pred_probs: Any, *, method: str | None = None, **ignored: Any) -> Any:
    """For people who come from cleanlab: (n,) ``label_score`` in [0, 1], lower is worse, whatever ``method`` says.

    >>> get_label_quality_scores([0, 1] * 20, np.array([[0.9, 0.1], [0.1, 0.9]] * 20)).shape
    (40,)
    """
    return audit(labels, pred_probs).label_score
