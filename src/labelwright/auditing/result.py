"""What an audit found: :class:`Audit`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from labelwright.auditing import frames
from labelwright.auditing.duplicates import dense_rows, near_duplicates, spread_out
from labelwright.auditing.estimates import Estimate, TestAccuracy, drawn_rates, estimated
from labelwright.auditing.evidence import DENSE
from labelwright.auditing.judge import Judge
from labelwright.auditing.passes import Fit, Whole, evidence_of, fit, judge_all, one_thread
from labelwright.auditing.reading import Labels, Probabilities, read_answers
from labelwright.auditing.running import Running
from labelwright.auditing.second_look import place
from labelwright.auditing.transition import Pairs
from labelwright.errors import DataError, SettingsError
from labelwright.posterior import wilson
from labelwright.types import NO_LABEL, Floats, Ints

if TYPE_CHECKING:
    import pandas as pd

_SQUARE = 1000
_MODEL_ERROR = 0.1


@dataclass(frozen=True, eq=False)
class Audit:
    """What an audit found. Rows are in input order throughout; see :attr:`issues` for the rows themselves.

    labels: the given labels and class names. proba: the out-of-sample probabilities. judge: what was fitted, see
    :meth:`save`. whole: every row, judged. known: (n,) expert's classes. source_of: (n,) who labelled each row, or None.
    features: (n, d) for near-duplicates and diversity, or None. rows: the rows as the user has them, for the report.
    notes: what was assumed or looks odd, in plain words.
    """

    labels: Labels
    proba: Probabilities
    judge: Judge
    whole: Whole
    known: Ints
    seed: int = 0
    source_of: Any = None
    features: Any = None
    ids: Any = None
    rows: Any = None
    notes: tuple[str, ...] = ()
    fit: Fit | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return (
            f"<Audit of {len(self):,} rows: {int(self.flagged.sum()):,} label issues, noise rate {self.noise_rate!r}>"
        )

    # ------------------------------------------------------------ rows

    @property
    def flagged(self) -> Any:
        """(n,) True where the label looks wrong; False where there is none."""
        return self.whole.score < 0

    @cached_property
    def label_score(self) -> Floats:
        """(n,) float32 in [0, 1], lower is worse, 0.5 is the decision line; NaN without a label."""
        return np.asarray(0.5 * (1 + np.tanh(0.5 * self.whole.score)), np.float32)

    @property
    def issues(self) -> pd.DataFrame:
        """One row a row, in input order: ``is_label_issue``, ``given_label``, ``predicted_label``, ``label_score`` (0 to 1,
        lower is worse, 0.5 is the decision line), ``probability`` of the predicted label. The index holds the rows' ids,
        or their positions. A frame of its own at each call: sort it as you like."""
        return self._issues.copy()

    @cached_property
    def _issues(self) -> pd.DataFrame:
        import pandas as pd

        return pd.DataFrame(
            {
                "is_label_issue": self.flagged,
                "given_label": self.labels.named(self.labels.codes),
                "predicted_label": self.labels.names[self.whole.predicted],
                "label_score": self.label_score,
                "probability": self.whole.probability,
            },
            index=None if self.ids is None else pd.Index(self.ids, name="id"),
        )

    @cached_property
    def ranking(self) -> Ints:
        """(m,) positions of all labelled rows, the worst label first."""
        order = np.argsort(self.whole.score, kind="stable")
        return order[: self.whole.rows]

    # ------------------------------------------------------------ rates

    @cached_property
    def noise_rate(self) -> Estimate:
        """Share of wrong labels. The interval holds both readings of the doubt, the finite number of rows, and a tenth of the rate
        on either side for what the fitted rates are off themselves; with answers, what these leave open."""
        if (self.known != NO_LABEL).any():
            return estimated(self._rates[:, 0])
        m = max(self.whole.rows, 1)
        rates = [1 - float(c.count[c.true == c.given].sum()) / m for c in self.whole.counts]
        w = self.judge.weight
        low, _ = wilson(min(rates), m)
        _, high = wilson(max(rates), m)
        return Estimate(
            w * rates[0] + (1 - w) * rates[1], (1 - _MODEL_ERROR) * low, min(1.0, (1 + _MODEL_ERROR) * high)
        )

    @cached_property
    def precision(self) -> Estimate:
        """Estimated share of the doubted labels that are wrong, with an interval; sharpened by every answer."""
        return estimated(self._rates[:, 1])

    @cached_property
    def recall(self) -> Estimate:
        """Estimated share of the wrong labels that are doubted, with an interval; sharpened by every answer."""
        return estimated(self._rates[:, 2])

    @cached_property
    def _rates(self) -> Floats:
        """(draws, 3) see :func:`~labelwright.auditing.estimates.drawn_rates`; an answered row counts as what it is."""
        score = self.whole.score[self.ranking].astype(float)
        open_ = np.isfinite(score)
        asked = self.ranking[~open_]
        wrong = int((self.known[asked] != self.labels.codes[asked]).sum())
        doubted = int((self.whole.score[asked] < 0).sum())
        return drawn_rates(score[open_], self.judge.line, (len(asked), wrong, doubted), self.seed)

    @cached_property
    def transition(self) -> pd.DataFrame:
        """P(given label | true label): rows are true classes and sum to one, columns given ones. Beyond 1,000 classes a long
        frame (``true``, ``given``, ``probability``, ``low``, ``high``) of the pairs that occur."""
        return self._transition_frames[0]

    @property
    def transition_low(self) -> pd.DataFrame:
        """Lower end of the 95 % interval of :attr:`transition`."""
        return self._transition_frames[1]

    @property
    def transition_high(self) -> pd.DataFrame:
        """Upper end of the 95 % interval of :attr:`transition`."""
        return self._transition_frames[2]

    @cached_property
    def _transition_frames(self) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        if self.judge.classes > _SQUARE:
            frame = frames.long_transition(self._believed, self.labels.names)
            return frame, frame, frame
        return frames.square_transition(self.whole.counts, self.judge.weight, self.labels.names)

    @cached_property
    def _believed(self) -> Pairs:
        """Expected (true, given) pairs, averaged over both readings."""
        return frames.averaged(self.whole.counts, self.judge.weight)

    @cached_property
    def classes(self) -> pd.DataFrame:
        """Class by class, as given: ``rows``, ``issues``, ``error_rate`` with ``low`` and ``high``, and the true class that its
        wrong labels most often hide (``most_confused_with``, ``confused_share`` of its rows). The worst first."""
        return frames.by_class(self.labels, self.whole, self._believed)

    @cached_property
    def sources(self) -> pd.DataFrame | None:
        """Who labelled, the worst first: ``rows``, ``issues``, ``error_rate`` with ``low`` and ``high``; None without sources."""
        return None if self.source_of is None else frames.by_source(self.source_of, self.labels, self.whole)

    # ------------------------------------------------------------ questions and answers

    def questions(self, count: int = 20, *, purpose: str = "find") -> pd.DataFrame:
        """Whom to ask next, of the open rows; no two of them almost the same. Give what experts say to :meth:`answered`.

        purpose: "find": the ``count`` rows whose label is least probable. "measure": half drawn at random from the doubted rows,
        half from those not doubted but least sure; their answers narrow :attr:`precision` and :attr:`recall` most.
        Columns as :attr:`issues`, with the row's ``position``. Raises SettingsError for a bad count or purpose.
        """
        if not isinstance(count, int | np.integer) or count < 1 or purpose not in ("find", "measure"):
            raise SettingsError(
                f"{count} questions were asked for, to {purpose!r}; give 1 or more, and 'find' or 'measure' as the purpose"
            )
        open_ = self.ranking[self.known[self.ranking] == NO_LABEL]
        if purpose == "measure":
            chosen = self._measuring(open_, count)
        else:
            pool = open_[: max(10 * count, 200)]
            where = dense_rows(self.features)[pool] if self.features is not None else self._places(pool)
            chosen = spread_out(pool, where, count)
        frame = self._issues.iloc[chosen].copy()
        frame.insert(0, "position", chosen)
        return frame

    def _measuring(self, open_: Ints, count: int) -> Ints:
        """Rows to ask about for the sake of the estimates, in the order of the ranking."""
        rng = np.random.default_rng([self.seed, int((self.known != NO_LABEL).sum())])
        doubted = open_[self.flagged[open_]]
        near = open_[len(doubted) :][: max(2 * len(doubted), 5 * count)]
        half = min(len(doubted), max(count // 2, count - len(near)))
        drawn = [
            rng.choice(part, min(n, len(part)), replace=False) for part, n in ((doubted, half), (near, count - half))
        ]
        return open_[np.isin(open_, np.concatenate(drawn))]

    def _places(self, rows: Ints) -> Floats:
        """Where rows stand by their probabilities; a little by their label, too."""
        where = place(self.proba.rows(rows))
        return np.c_[where, 0.01 * self.labels.codes[rows]]

    def answered(self, answers: Any) -> Audit:
        """The audit with experts' answers (row position -> true label), on top of those it had: answered rows are settled,
        and threshold, noise and the estimates of precision and recall are sharpened. Raises DataError for an unknown row or label."""
        fresh = read_answers(answers, self.labels)
        known = np.where(fresh != NO_LABEL, fresh, self.known)
        if self.fit is None:  # judged by a loaded state: that judge stays, the answered rows are settled
            return replace(self, whole=judge_all(self.judge, self.proba, self.labels.codes, known), known=known)
        more = {name: getattr(self, name) for name in ("source_of", "features", "ids", "rows", "notes")}
        return assembled(self.labels, self.proba, known, seed=self.seed, **more)

    def running(self) -> Running:
        """A posterior that each answer updates at once, for asking one row after another. Raises SettingsError beyond 256
        classes, where :meth:`questions` and :meth:`answered` serve."""
        if self.judge.classes > DENSE:
            raise SettingsError(
                f"a running posterior holds rows x classes; with {self.judge.classes} classes use questions() and answered()"
            )
        if (self.labels.codes == NO_LABEL).any():
            raise SettingsError("a running posterior needs a label in every row; leave the others out")
        everything = evidence_of(
            self.judge, self.proba.rows(slice(None)), self.labels.codes, np.arange(len(self)), self.fit
        )
        out = Running(self.judge, everything, self.whole.counts)
        out.open &= self.known == NO_LABEL
        return out

    # ------------------------------------------------------------ near-duplicates, test sets

    @cached_property
    def near_duplicates(self) -> pd.DataFrame:
        """Groups of nearly equal rows: ``group``, ``position``, ``given_label``, and ``conflict``, True where the group's labels
        differ; conflicting groups first. Raises SettingsError without X or features."""
        import pandas as pd

        if self.features is None:
            raise SettingsError("near-duplicates are found by features; give features= or X=")
        group = near_duplicates(self.features)
        at = np.flatnonzero(group >= 0)
        codes = self.labels.codes[at]
        frame = pd.DataFrame({"group": group[at], "position": at, "given_label": self.labels.named(codes)})
        labelled = pd.Series(codes).where(codes != NO_LABEL)  # a missing label contradicts none
        frame["conflict"] = labelled.groupby(group[at]).transform("nunique").to_numpy() > 1
        order = np.lexsort((frame["position"], frame["group"], ~frame["conflict"]))
        return frame.iloc[order].reset_index(drop=True)

    def accuracy(self, predictions: Any) -> TestAccuracy:
        """Accuracy of a model on these rows, before and after their labels are judged; nothing is changed.

        predictions: (n,) labels that the model predicts. The audit should rest on another model's probabilities: a model
        that judges the labels it is tested on flatters itself. Raises DataError for a wrong length or an unknown label.
        """
        said = np.asarray(predictions)
        if said.shape != (len(self),):
            raise DataError(f"{said.shape} predictions were given for {len(self)} rows; give one a row")
        code = {name: i for i, name in enumerate(self.labels.names.tolist())}
        by_text = {str(name): i for name, i in code.items()}
        found = [code.get(value, by_text.get(str(value), NO_LABEL)) for value in said.tolist()]
        if NO_LABEL in found:
            stranger = said.tolist()[found.index(NO_LABEL)]
            raise DataError(f"the model predicts {stranger!r}, which is none of the classes; check its labels")
        said = np.array(found)
        here = np.flatnonzero(self.labels.codes != NO_LABEL)
        agrees = said[here] == self.labels.codes[here]
        m = len(here)
        before = float(agrees.mean())
        right = self._chance_right(here, said[here])
        w = self.judge.weight
        shares = [float(r.mean()) for r in right]
        after = w * shares[0] + (1 - w) * shares[1]
        low, _ = wilson(min(shares), m)
        _, high = wilson(max(shares), m)
        return TestAccuracy(
            Estimate(before, *wilson(before, m)), Estimate(after, float(low), float(high)), int(self.flagged.sum())
        )

    def _chance_right(self, here: Ints, said: Ints) -> list[Floats]:
        """By each reading, P(true label = what the model said) of every row."""
        out: list[list[Floats]] = [[], []]
        for start in range(0, len(here), 4096):
            at = here[start : start + 4096]
            seen = evidence_of(self.judge, self.proba.rows(at), self.labels.codes[at], at, self.fit)
            mine = said[start : start + 4096, None]
            columns = mine == (np.arange(self.judge.classes)[None, :] if seen.classes is None else seen.classes)
            known = self.known[at]
            for place_, reading in enumerate(self.judge.readings):
                chance = (reading.posterior(seen) * columns).sum(axis=1)
                out[place_].append(np.where(known != NO_LABEL, known == mine[:, 0], chance))
        return [np.concatenate(parts) for parts in out]

    # ------------------------------------------------------------ keeping, handing on

    def state(self) -> dict[str, Any]:
        """What was fitted, as JSON values; no row of the data is in it but the landmarks' probabilities."""
        return {"classes": self.labels.names.tolist(), "judge": self.judge.state()}

    def save(self, path: str | Path) -> None:
        """Write :meth:`state` as JSON, to judge tomorrow's batch by :func:`labelwright.load_audit`."""
        from labelwright.tables import write_bytes

        write_bytes(json.dumps(self.state()).encode(), path)

    def to_parquet(self, path: str | Path) -> None:
        """Write :attr:`issues` (ids first) as Parquet."""
        self._write(path)

    def to_csv(self, path: str | Path) -> None:
        """Write :attr:`issues` (ids first) as CSV."""
        self._write(path)

    def _write(self, path: str | Path) -> None:
        import pyarrow as pa

        from labelwright.tables import write_table

        frame = self._issues if self.ids is not None else self._issues.rename_axis("id")
        frame = frame.reset_index()
        try:
            table = pa.Table.from_pandas(frame, preserve_index=False)
        except pa.ArrowException:  # ids of several kinds
            table = pa.Table.from_pandas(frame.astype({"id": str}), preserve_index=False)
        write_table(table, path)

    def to_label_studio(self, path: str | Path | None = None, *, count: int | None = None) -> list[dict[str, Any]]:
        """The doubted rows as Label Studio tasks, the worst first, each with the suggested label as a prediction.

        count: at most so many (default: every doubted row). path: where to write the JSON, too. Import into a project whose
        labelling config has ``<Choices name="label" toName="row">``.
        """
        from labelwright.auditing.exchange import label_studio_tasks

        return label_studio_tasks(self, path, count)

    def report(self, path: str | Path, *, title: str = "") -> Path:
        """Write a self-contained HTML report with the doubtful rows shown as they are; returns its path."""
        from labelwright.report.audit import write_audit_report

        return write_audit_report(self, Path(path), title=title)

    def summary(self) -> dict[str, Any]:
        """The main figures as JSON values."""
        flagged = int(self.flagged.sum())
        m = max(self.whole.rows, 1)

        def told(estimate: Estimate) -> dict[str, float]:
            return {"value": float(estimate), "low": estimate.low, "high": estimate.high}

        worst = self.classes.head(5)
        return {
            "rows": len(self),
            "unlabelled": len(self) - self.whole.rows,
            "classes": self.judge.classes,
            "label_issues": flagged,
            "issue_share": flagged / m,
            "noise_rate": told(self.noise_rate),
            "precision": told(self.precision),
            "recall": told(self.recall),
            "answers": int((self.known != NO_LABEL).sum()),
            "worst_classes": [
                {"class": str(name), "rows": int(rows), "issues": int(issues), "error_rate": float(rate)}
                for name, rows, issues, rate in zip(
                    worst.index, *(worst[c].tolist() for c in ("rows", "issues", "error_rate")), strict=True
                )
            ],
            "notes": list(self.notes),
        }


def assembled(
    labels: Labels, proba: Probabilities, known: Ints, *, seed: int, progress: Any = None, **more: Any
) -> Audit:
    """Fit, judge all rows, and put the audit together. progress: told (rows done) of the final pass."""
    with one_thread():
        fitted = fit(proba, labels.codes, known, seed=seed)
        whole = judge_all(fitted.judge, proba, labels.codes, known, fitted=fitted, progress=progress)
    return Audit(labels, proba, fitted.judge, whole, known, seed=seed, fit=fitted, **more)


def restored(state: Mapping[str, Any]) -> tuple[Judge, list[Any]]:
    """Judge and class names from :meth:`Audit.state`. Raises SettingsError when it is none."""
    if not isinstance(state, Mapping) or not {"classes", "judge"} <= set(state):
        raise SettingsError(
            "this is no state of an audit: 'classes' and 'judge' are missing; write one with Audit.save"
        )
    if not isinstance(state["classes"], list):
        raise SettingsError("this is no state of an audit: its classes are no list; write one with Audit.save")
    return Judge.restored(state["judge"]), list(state["classes"])
