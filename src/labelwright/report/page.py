"""The page: data and figures put into the template. Everything but the figures is escaped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from labelwright.report import words
from labelwright.report.rows import shortened
from labelwright.report.tally import FATES, binned

FATE_WORDS = {
    "kept": "kept as given",
    "corrected": "corrected",
    "expert": "settled by the expert",
    "asked": "asked, no answer yet",
    "rejected": "rejected",
    "waiting": "waiting",
}
VERDICT_WORDS = {
    "trusted": "kept as given",
    "rescued": "kept (rescued)",
    "asked": "asked",
    "corrected": "corrected",
    "rejected": "rejected",
    "buffered": "waiting",
    "quarantined": "set apart: a suspected attack",
}


def page(data: Mapping[str, Any], figures: Mapping[str, Mapping[str, str]]) -> str:
    """The report as HTML. data: as of ``report_data``. figures: name -> {"wide", "narrow"}: trusted SVG."""
    total = data["totals"]["rows"]
    counts = {fate: sum(b[fate] for b in data["batches"]) for fate in FATES}
    fates = [{"name": f, "word": FATE_WORDS[f], "count": n, "share": n / total} for f, n in counts.items() if n]
    settings = data["provenance"]["settings"]
    return (
        shelf()
        .get_template("template.html.j2")
        .render(
            d=data,
            t=data["totals"],
            figures=dict.fromkeys(("accuracy", "verdicts", "noise", "matrix", "per_answer", "answers")) | dict(figures),
            fates=fates,
            bins=binned(data["batches"]),
            alt=_alternatives(data, fates),
            words=VERDICT_WORDS,
            truth_rows=_truth_rows(data["truth"]) if data["truth"] else [],
            simulated=settings.get("expert") in ("oracle", "fallible"),
            settings=json.dumps(settings, indent=1, ensure_ascii=False),
        )
    )


def shelf() -> Environment:
    """Where templates lie: everything put into them is escaped, and what is missing is an error."""
    found = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined)
    found.filters |= {
        "percent": lambda share: _together(words.percent(share)),
        "together": _together,
        "count": words.count,
        "shortened": shortened,
    }
    found.globals["counted"] = words.count
    return found


def _together(text: str) -> str:
    """No line break between a number and its percent sign."""
    return text.replace(" %", "\u00a0%")


def _alternatives(data: Mapping[str, Any], fates: list[dict[str, Any]]) -> dict[str, str]:
    """What each figure shows, for those who cannot see it."""
    last, noise = data["accuracy"]["last"], data["noise"]
    others = [m["label"] for key, m in (data["accuracy"]["comparison"] or {}).items() if key != "ours"]
    measured = (
        f"Test accuracy over batches; last {words.percent(last['accuracy'])}." if last else "Accuracy over batches."
    )
    shares = words.listed([f"{f['word']} {f['count']:,}" for f in fates]) if fates else ""
    rate = f"; last {words.percent(noise['rate'])}" if noise else ""
    return {
        "accuracy": measured + (f" Compared with {words.listed(others)}." if others else ""),
        "verdicts": f"Stacked bars of what became of the rows of {words.count(len(data['batches']), 'batch', 'batches')}: {shares}.",
        "noise": f"Share of labels that look wrong, batch by batch{rate}. The table below holds the numbers.",
        "matrix": f"Noise matrix of {len(data['confusion']['classes'])} classes. {data['confusion']['sentence']}",
        "per_answer": f"Test accuracy against the answers that the models learned from. {measured}",
        "answers": f"Wrong labels found against answers given. {data['questions']['sentence']}",
    }


def _truth_rows(t: Mapping[str, Any]) -> list[tuple[str, float | None, int, int]]:
    """(what, share, part, whole) for the table of section "Against the truth"."""
    given = t["rows"] - t["wrong"]
    return [
        ("all labels as they came that are right (the control)", t["given_share"], given, t["rows"]),
        ("kept labels that are right", t["kept_share"], t["kept_right"], t["kept"]),
        ("the same rows with the labels they came with", t["kept_given_share"], t["kept_given_right"], t["kept"]),
        (
            "rejected or waiting rows whose label was wrong (precision)",
            t["dropped_precision"],
            t["dropped_wrong"],
            t["dropped"],
        ),
        ("wrong labels that were rejected or wait (recall)", t["dropped_recall"], t["dropped_wrong"], t["wrong"]),
        (
            "rows not kept as given whose label was wrong (precision)",
            t["doubted_precision"],
            t["doubted_wrong"],
            t["doubted"],
        ),
        ("wrong labels not kept as given (recall)", t["doubted_recall"], t["doubted_wrong"], t["wrong"]),
        ("corrections that are right", t["corrected_share"], t["corrected_right"], t["corrected"]),
        ("expert’s answers that are right", t["expert_share"], t["expert_right"], t["expert"]),
    ]
