"""Numbers as sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

SELECTORS = {
    "rad-duo": "A quality model judges every label, a classifier gives a second opinion on those it doubts",
    "quality-only": "A quality model judges every label",
    "slim": "The classifier judges every label",
    "none": "Every label was kept as it came",
}
EXPERTS = {
    "oracle": "The expert was simulated: it read the true labels and never erred",
    "fallible": "The expert was simulated: it read the true labels and erred on purpose",
    "people": "People answered on the page or through answers.csv",
    "file": "People answered through answers.csv",
    "none": "Nobody was there to answer: the questions were only written down",
}


def count(n: int, noun: str = "", plural: str = "") -> str:
    """A number with its noun.

    >>> count(3000, "row"), count(1, "batch", "batches")
    ('3,000 rows', '1 batch')
    """
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}" if noun else f"{n:,}"


def percent(share: float | None, digits: int = 1) -> str:
    """A share in percent; never 0 or 100 by rounding alone.

    >>> percent(0.309), percent(0.00001), percent(0.99999), percent(None), percent(1.0)
    ('30.9 %', 'under 0.1 %', 'over 99.9 %', '–', '100 %')
    """
    if share is None:
        return "–"
    value, least = 100 * share, 10.0**-digits
    if value in (0, 100):
        return f"{value:.0f} %"
    if 0 < value < least / 2:
        return f"under {least:.{digits}f} %"
    if 100 - least / 2 <= value < 100:
        return f"over {100 - least:.{digits}f} %"
    return f"{value:.{digits}f} %"


def listed(parts: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def headline(totals: Mapping[str, int], noise: Mapping[str, Any] | None) -> str:
    """What happened, in one or two sentences."""
    if not totals["rows"]:
        told = "No batch was finished yet."
        aside = totals["set_aside"]
        return told + (
            f" {count(aside, 'row')} could not be used and {'was' if aside == 1 else 'were'} set aside."
            if aside
            else ""
        )
    text = f"{count(totals['rows'], 'row')} arrived in {count(totals['batches'], 'batch', 'batches')}"
    if noise:
        low, high = noise["interval"]
        text += f"; about {percent(noise['rate'])} of the labels look wrong"
        text += f" (95 % interval {100 * low:.1f} to {percent(high)})"
    good = [
        ("trusted", "trusted"),
        ("rescued", "rescued"),
        ("corrected", "corrected"),
        ("expert", "settled by the expert"),
    ]
    bad = [
        ("rejected", "rejected"),
        ("unanswered", "waiting for an answer"),
        ("waiting", "still waiting to be judged again"),
    ]
    kept = [f"{totals[key]:,} {word}" for key, word in good if totals[key]]
    left = [f"{totals[key]:,} {word}" for key, word in bad if totals[key]]
    if kept:
        first, *rest = kept
        number = first.split()[0]
        kept = [first.replace(" ", " is " if number == "1" else " are ", 1), *rest]
    told = "; ".join(listed(part) for part in (kept, left) if part)
    return f"{text}. {told}." if told else f"{text}."


def _model(name: Any) -> Any:
    return "the default for this kind of data" if name == "auto" else name


def assumptions(settings: Mapping[str, Any], notes: Sequence[str]) -> list[str]:
    """What the selector noted, then the settings in words."""
    out = [_sentence(note) for note in notes]
    if settings.get("selector") in SELECTORS:
        quality, classifier = (_model(settings.get(name)) for name in ("quality", "classifier"))
        names = f" (quality model: {quality}; classifier: {classifier})."
        out.append(SELECTORS[settings["selector"]] + names)
    if settings.get("clean_rows"):
        out.append(f"You vouched for the first {count(settings['clean_rows'], 'row')}.")
    if settings.get("batch_size"):
        out.append(f"Batches hold up to {count(settings['batch_size'], 'row')}.")
    if settings.get("buffer"):
        out.append(f"Up to {count(settings['buffer'], 'rejected row')} wait to be judged again with later batches.")
    if settings.get("correct"):
        out.append(f"A label is corrected when another one is at least {percent(settings['correct'], 0)} probable.")
    out += _asking(settings)
    if settings.get("seed") is not None:
        out.append(
            f"The seed is {settings['seed']}: the same data and settings give the same decisions on this machine."
        )
    return out


def _asking(settings: Mapping[str, Any]) -> list[str]:
    budget, total = settings.get("budget"), settings.get("budget_total")
    if budget is None:
        return []
    if not budget and not total:
        return ["No question was allowed (budget 0)."]
    how = f"{count(total, 'question')} in all" if total else f"{count(budget, 'question')} a batch"
    spread = ", spread as they seem worth it" if settings.get("dynamic") else ""
    asked = f"The expert may be asked {how}{spread}, chosen by {settings.get('measure', 'value')}."
    return [asked, EXPERTS[settings["expert"]] + "."] if settings.get("expert") in EXPERTS else [asked]


def confusion(pairs: Sequence[Mapping[str, Any]]) -> str:
    """The strongest confusion in a sentence."""
    if not pairs or pairs[0]["probability"] <= 0:
        return "No class seems to be mistaken for another."
    top = pairs[0]
    return (
        f"The strongest confusion: of the rows that are really “{top['true']}”, about "
        f"{percent(top['probability'])} came labelled “{top['given']}”."
    )


def asked(q: Mapping[str, Any]) -> str:
    """What the expert's answers bought."""
    if not q["asked"]:
        return "No question was put to an expert."
    if not q["answered"]:
        return f"{count(q['asked'], 'question')} put, no answer yet."
    text = f"{count(q['answered'], 'answer')} so far; {q['found_wrong']:,} found a wrong label"
    text += f" and {q['unsure']:,} could not say" if q["unsure"] else ""
    text += f". Each answer settled {q['per_answer']:.2f} wrong labels"
    if q["random"] is not None:
        basis = "the true share of wrong labels where nobody vouched for them"
        basis = basis if q["random_is_true"] else "the estimated share of wrong labels"
        text += f"; random asking would have settled {q['random']:.2f} ({basis})"
    return text + "."


def judged(t: Mapping[str, Any]) -> str:
    """How right we were, with the honest control."""
    text = f"Of the {t['kept']:,} labels that were kept, corrected or settled, {percent(t['kept_share'])} are right. "
    return text + f"Control: of all {t['rows']:,} labels as they came, {percent(t['given_share'])} were right."


def _sentence(text: str) -> str:
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
