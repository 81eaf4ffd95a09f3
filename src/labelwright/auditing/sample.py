"""What probabilities look like before anything is judged by them: made by a model that saw the labels, or that knows nothing."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from labelwright.auditing.reading import Labels, Probabilities
from labelwright.types import NO_LABEL

_SURE, _AGREES = 0.99, 0.999
_FEW, _ENOUGH, _MANY = 50, 200, 1000


@dataclass(frozen=True)
class Words:
    """What is said of probabilities that repeat the labels, and of those that tell nothing about them. loud: as a warning, too."""

    repeat: str
    nothing: str
    loud: bool


GIVEN = Words(
    "the probabilities look in-sample: the mean self-confidence is {mean:.3f} and {agrees:.1f} % of the labels are predicted as "
    "given. A model that was trained on these labels repeats them; use cross-validated probabilities",
    "the probabilities tell nothing about the labels: a row's class gets no more than any other row gives it. Check that the "
    "rows, and the columns, are in the labels' order",
    loud=True,
)
MADE = Words(
    "the features tell {agrees:.1f} % of the labels as they are given. Either nearly all are right, or a column holds the label "
    "itself, such as a copy or a code of it; leave such a column out",
    "the features tell nothing about the labels: a row's class gets no more than any other row gives it, so that every label can "
    "look wrong. Give features that have to do with the labels, and do not act on this audit",
    loud=False,
)


def warned(words: Words, proba: Probabilities, named: Labels, notes: list[str]) -> None:
    """Add to ``notes`` what is odd about the probabilities; warn of it where they came from the caller."""
    told = _told(words, proba, named)
    if told is not None:
        notes.append(told)
        if words.loud:
            warnings.warn(told, stacklevel=3)


def _told(words: Words, proba: Probabilities, named: Labels) -> str | None:
    rows = np.flatnonzero(named.codes != NO_LABEL)
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), 4096, 500 + 1_000_000 // proba.classes)).astype(int)]
    if len(rows) < _FEW:
        return None
    sample, label = proba.rows(rows), named.codes[rows]
    own = sample[np.arange(len(rows)), label]
    mean, agrees = float(own.mean()), float((sample.argmax(axis=1) == label).mean())
    sure = mean > _SURE and agrees > _AGREES
    if sure or (agrees == 1.0 and len(rows) >= _MANY):
        return words.repeat.format(mean=mean, agrees=100 * agrees)
    gain = own - sample.mean(axis=0)[label]
    flat = gain.mean() <= 3 * gain.std() / np.sqrt(len(rows))
    return words.nothing if flat and len(rows) >= _ENOUGH and len(np.unique(label)) > 1 else None


def unlabelled(named: Labels) -> list[str]:
    """Notes on rows without a label, and on too few with one."""
    missing = int((named.codes == NO_LABEL).sum())
    notes = []
    if missing:
        have = "1 row has no label: it gets its" if missing == 1 else f"{missing:,} rows have no label: they get their"
        notes.append(f"{have} likeliest one and {'is' if missing == 1 else 'are'} not judged")
    if len(named) - missing < _FEW:
        notes.append(
            f"only {len(named) - missing} rows have a label: so few can hardly be judged; take every figure as a guess"
        )
    return notes
