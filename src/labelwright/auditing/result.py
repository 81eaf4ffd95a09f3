"""What an audit found: :class:`Audit`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from labelwright.auditing.duplicates import dense_rows, near_duplicates, spread_out
from labelwright.auditing.evidence import DENSE
from labelwright.auditing.judge import Judge
from labelwright.auditing.passes import Fit, Whole, evidence_of, fit, judge_all
from labelwright.auditing.reading import Labels, Probabilities, read_answers
from labelwright.auditing.running import Running
from labelwright.auditing.second_look import place
from labelwright.auditing.transition import Pairs, wilson
from labelwright.errors import DataError, SettingsError
from labelwright.types import NO_LABEL, Floats, Ints

if TYPE_CHECKING:
    import pandas as pd

_SQUARE = 1000
_DRAWS = 400


class Estimate(float):
    """A number with an interval (95 % unless said otherwise): a float that has ``low`` and ``high``.

    >>> rate = Estimate(0.2, 0.1, 0.3)
    >>> rate + 0.0, rate.low, rate.high
    (0.2, 0.1, 0.3)
    """

    low: float
    high: float

    def __new__(cls, value: float, low: float, high: float) -> Estimate:
        out = super().__new__(cls, value)
        out.low, out.high = min(float(low), float(value)), max(float(high), float(value))
        return out

    def __repr__(self) -> str:
        return f"{float(self):.4g} ({self.low:.4g} to {self.high:.4g})"

    def __getnewargs__(self) -> tuple[float, float, float]:  # type: ignore[override]
        return float(self), self.low, self.high

    @property
    def interval(self) -> tuple[float, float]:
        """(low, high)."""
        return self.low, self.high


@dataclass(frozen=True)
class TestAccuracy:
    """Accuracy of a model on a test set whose labels are in doubt.

    before: against the labels as given. after: expected against the true labels, with an interval that holds both the
    few rows and the two readings of the doubt. flagged: rows in doubt; they are told, never changed.
    """

    before: Estimate
    after: Estimate
    flagged: int

    def __str__(self) -> str:
        return (
            f"accuracy {100 * self.before:.2f} % against the labels as given; about {100 * self.after:.2f} % "
            f"(95 % interval {100 * self.after.low:.2f} to {100 * self.after.high:.2f} %) if the {self.flagged} doubted labels "
            "are judged as the audit does. No label was changed"
        )


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

    @cached_property
    def issues(self) -> pd.DataFrame:
        """One row a row, in input order: ``is_label_issue``, ``given_label``, ``predicted_label``, ``label_score`` (0 to 1,
        lower is worse, 0.5 is the decision line), ``probability`` of the predicted label. The index holds the rows' ids,
        or their positions."""
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
        """Share of wrong labels. The interval holds both readings of the doubt and the finite number of rows; with answers,
        what these leave open."""
        m = max(self.whole.rows, 1)
        if (self.known != NO_LABEL).any():
            drawn = self._drawn_rates()[:, 0]
            return Estimate(drawn.mean(), *np.quantile(drawn, [0.025, 0.975]))
        rates = [1 - float(c.count[c.true == c.given].sum()) / m for c in self.whole.counts]
        w = self.judge.weight
        low, _ = wilson(min(rates), m)
        _, high = wilson(max(rates), m)
        return Estimate(w * rates[0] + (1 - w) * rates[1], max(0.0, float(low)), min(1.0, float(high)))

    @cached_property
    def precision(self) -> Estimate:
        """Estimated share of the doubted labels that are wrong, with an interval; sharpened by every answer."""
        drawn = self._drawn_rates()[:, 1]
        return Estimate(drawn.mean(), *np.quantile(drawn, [0.025, 0.975]))

    @cached_property
    def recall(self) -> Estimate:
        """Estimated share of the wrong labels that are doubted, with an interval; sharpened by every answer."""
        drawn = self._drawn_rates()[:, 2]
        return Estimate(drawn.mean(), *np.quantile(drawn, [0.025, 0.975]))

    def _drawn_rates(self) -> Floats:
        """(draws, 3) noise rate, precision, recall as they might be: the line from score to probability is drawn from its
        posterior, then how many rows are wrong under it; an answered row counts as what it is."""
        rng = np.random.default_rng(self.seed)
        score = self.whole.score[self.ranking].astype(float)
        open_ = np.isfinite(score)
        asked = self.ranking[~open_]
        found = (self.known[asked] != self.labels.codes[asked]).sum()
        m, flagged = len(score), int((score < 0).sum())
        settled = self._settled_flags(asked)
        score = score[open_]
        edges = np.unique(np.quantile(score, np.linspace(0, 1, 2000))) if len(score) > 4000 else score
        if len(score) > 4000:
            place_ = np.searchsorted(edges, score)
            weight, total = np.bincount(place_).astype(float), np.bincount(place_, score)
            here = weight > 0
            score, weight = total[here] / weight[here], weight[here]
        else:
            weight = np.ones(len(score))
        out = []
        for line in self.judge.line.draws(_DRAWS, rng):
            chance, doubted = line(score), score < 0
            hit = _drawn(chance[doubted], weight[doubted], rng) + settled
            all_wrong = hit + _drawn(chance[~doubted], weight[~doubted], rng) + found - settled
            out.append((all_wrong / max(m, 1), hit / max(flagged, 1), hit / max(all_wrong, 1e-9)))
        return np.clip(np.array(out), 0.0, 1.0)

    def _settled_flags(self, asked: Ints) -> int:
        return int((self.whole.score[asked] < 0).sum())

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
        import pandas as pd

        k, w = self.judge.classes, self.judge.weight
        if k > _SQUARE:
            frame = self._long_transition()
            return frame, frame, frame
        dense = [counts.dense() for counts in self.whole.counts]
        rows = [np.maximum(d.sum(axis=1, keepdims=True), 1e-9) for d in dense]
        mixed = w * dense[0] + (1 - w) * dense[1]
        total = mixed.sum(axis=1, keepdims=True)
        value = np.where(total > 0, mixed / np.maximum(total, 1e-9), np.eye(k))
        bounds = [wilson(d / r, r) for d, r in zip(dense, rows, strict=True)]
        low = np.minimum(np.minimum(bounds[0][0], bounds[1][0]), value)
        high = np.maximum(np.maximum(bounds[0][1], bounds[1][1]), value)
        names = {
            "index": pd.Index(self.labels.names, name="true"),
            "columns": pd.Index(self.labels.names, name="given"),
        }
        return pd.DataFrame(value, **names), pd.DataFrame(low, **names), pd.DataFrame(high, **names)

    @cached_property
    def _believed(self) -> Pairs:
        """Expected (true, given) pairs, averaged over both readings."""
        w = self.judge.weight
        first, second = self.whole.counts
        return Pairs.of(
            np.concatenate([first.true, second.true]),
            np.concatenate([first.given, second.given]),
            self.judge.classes,
            np.concatenate([w * first.count, (1 - w) * second.count]),
        )

    def _long_transition(self) -> pd.DataFrame:
        import pandas as pd

        both = self._believed
        rows = np.bincount(both.true, both.count, minlength=self.judge.classes)[both.true]
        share = both.count / np.maximum(rows, 1e-9)
        low, high = wilson(share, rows)
        names = self.labels.names
        return pd.DataFrame(
            {"true": names[both.true], "given": names[both.given], "probability": share, "low": low, "high": high}
        )

    @cached_property
    def classes(self) -> pd.DataFrame:
        """Class by class, as given: ``rows``, ``issues``, ``error_rate`` with ``low`` and ``high``, and the true class that its
        wrong labels most often hide (``most_confused_with``, ``confused_share`` of its rows). The worst first."""
        import pandas as pd

        k, codes = self.judge.classes, self.labels.codes
        here = codes != NO_LABEL
        rows = np.bincount(codes[here], minlength=k)
        issues = np.bincount(codes[self.flagged], minlength=k)
        rate, low, high = self._rates_by(codes, k)
        counts = self._believed
        off = np.flatnonzero(counts.true != counts.given)
        off = off[np.argsort(counts.count[off], kind="stable")]
        best, most = np.full(k, NO_LABEL), np.zeros(k)
        best[counts.given[off]], most[counts.given[off]] = counts.true[off], counts.count[off]
        share = np.divide(most, rows, out=np.zeros(k), where=rows > 0)
        frame = pd.DataFrame(
            {
                "rows": rows,
                "issues": issues,
                "error_rate": rate,
                "low": low,
                "high": high,
                "most_confused_with": self.labels.named(best),
                "confused_share": share,
            },
            index=pd.Index(self.labels.names, name="class"),
        )
        return frame[rows > 0].sort_values("error_rate", ascending=False, kind="stable")

    @cached_property
    def sources(self) -> pd.DataFrame | None:
        """Who labelled, the worst first: ``rows``, ``issues``, ``error_rate`` with ``low`` and ``high``; None without sources."""
        import pandas as pd

        if self.source_of is None:
            return None
        codes, names = pd.factorize(
            pd.Series(self.source_of).astype(object).where(pd.notna(self.source_of), "(unknown)")
        )
        labelled = np.where(self.labels.codes != NO_LABEL, codes, NO_LABEL)
        rows = np.bincount(labelled[labelled >= 0], minlength=len(names))
        rate, low, high = self._rates_by(labelled, len(names))
        frame = pd.DataFrame(
            {
                "rows": rows,
                "issues": np.bincount(codes[self.flagged], minlength=len(names)),
                "error_rate": rate,
                "low": low,
                "high": high,
            },
            index=pd.Index(names, name="source"),
        )
        return frame.sort_values("error_rate", ascending=False, kind="stable")

    def _rates_by(self, group: Ints, size: int) -> tuple[Floats, Floats, Floats]:
        """Error rate of each group (n,), negative: none; with Wilson's interval."""
        here = (group >= 0) & (self.labels.codes != NO_LABEL)
        rows = np.bincount(group[here], minlength=size)
        wrong = np.bincount(group[here], self.whole.wrong[here].astype(float), minlength=size)
        rate = np.divide(wrong, rows, out=np.zeros(size), where=rows > 0)
        low, high = wilson(rate, rows)
        return rate, low, high

    # ------------------------------------------------------------ questions and answers

    def questions(self, count: int = 20) -> pd.DataFrame:
        """Whom to ask next: the ``count`` open rows whose label is least probable, no two of them almost the same.

        Columns as :attr:`issues`, with the row's ``position``. Give what experts say to :meth:`answered`.
        """
        if count < 1:
            raise SettingsError(f"{count} questions were asked for; give 1 or more")
        open_ = self.ranking[self.known[self.ranking] == NO_LABEL]
        pool = open_[: max(10 * count, 200)]
        where = dense_rows(self.features)[pool] if self.features is not None else self._places(pool)
        chosen = spread_out(pool, where, count)
        frame = self.issues.iloc[chosen].copy()
        frame.insert(0, "position", chosen)
        return frame

    def _places(self, rows: Ints) -> Floats:
        """Where rows stand by their probabilities; a little by their label, too."""
        where = place(self.proba.rows(rows))
        return np.c_[where, 0.01 * self.labels.codes[rows]]

    def answered(self, answers: Any) -> Audit:
        """The audit with experts' answers (row position -> true label), on top of those it had: answered rows are settled,
        and threshold, noise and the estimates of precision and recall are sharpened. Raises DataError for an unknown row or label."""
        fresh = read_answers(answers, self.labels)
        known = np.where(fresh != NO_LABEL, fresh, self.known)
        return assembled(
            self.labels,
            self.proba,
            known,
            seed=self.seed,
            source_of=self.source_of,
            features=self.features,
            ids=self.ids,
            rows=self.rows,
            notes=self.notes,
        )

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

        frame = self.issues if self.ids is not None else self.issues.rename_axis("id")
        write_table(pa.Table.from_pandas(frame.reset_index(), preserve_index=False), path)

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


def _drawn(chance: Floats, weight: Floats, rng: np.random.Generator) -> float:
    """How many of ``weight`` rows are wrong, each with its ``chance``: the sum's normal approximation."""
    mean, variance = float((weight * chance).sum()), float((weight * chance * (1 - chance)).sum())
    return float(np.clip(rng.normal(mean, np.sqrt(variance)), 0.0, weight.sum()))


def assembled(
    labels: Labels, proba: Probabilities, known: Ints, *, seed: int, progress: Any = None, **more: Any
) -> Audit:
    """Fit, judge all rows, and put the audit together. progress: told (rows done) of the final pass."""
    fitted = fit(proba, labels.codes, known, seed=seed)
    whole = judge_all(fitted.judge, proba, labels.codes, known, fitted=fitted, progress=progress)
    return Audit(labels, proba, fitted.judge, whole, known, seed=seed, fit=fitted, **more)


def restored(state: Mapping[str, Any]) -> tuple[Judge, list[Any]]:
    """Judge and class names from :meth:`Audit.state`. Raises SettingsError when it is none."""
    if not isinstance(state, Mapping) or not {"classes", "judge"} <= set(state):
        raise SettingsError(
            "this is no state of an audit: 'classes' and 'judge' are missing; write one with Audit.save"
        )
    return Judge.restored(state["judge"]), list(state["classes"])
