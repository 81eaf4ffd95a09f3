"""The owner's dashboard: where the stream stands, noise over time, budget, people, and alarms."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np

from labelwright.ledger import queue_view as view
from labelwright.web.desk import Desk

BURST = 1.5
"""A batch is a burst when its noise rate is surely above this many times the usual one, and 5 points above it."""
CONCENTRATED = 0.5
WAITED = 3600.0
POINTS = 400


def board(desk: Desk) -> dict[str, Any]:
    """Everything on the dashboard, as JSON values."""
    batches, engine, now = desk.history.batches(), desk.history.engine, desk.queue.clock()
    progress = view.progress(engine, now)
    measures = [e["body"]["test_accuracy"] for e in desk.history.entries("measure") if "test_accuracy" in e["body"]]
    spent = sum(1 for _ in desk.history.entries("answer"))
    settings = desk.settings
    asked = progress["waiting"] + progress["answered"]
    return {
        "batches": len(batches),
        "rows": sum(int(entry["body"]["rows"]) for entry in batches),
        "last": batches[-1]["at"] if batches else None,
        "noise": batches[-1]["body"]["noise"] if batches else None,
        "accuracy": {"first": measures[0], "last": measures[-1]} if measures else None,
        "merged": spent,
        "asked": asked,
        "left": None if settings.budget_total is None else max(0, settings.budget_total - asked),
        "progress": progress,
        "people": _people(engine, progress, len(desk.classes)),
        "bought": {**view.bought(engine), "random": desk.bought("")["random"]},
        "alarms": alarms(batches, progress, now, asks=settings.budget > 0 or settings.dynamic, classes=desk.classes),
        "gold": desk.gold_rows,
        "blind": desk.queue.blind,
        "series": series(batches),
    }


def _people(engine: Any, progress: dict[str, Any], classes: int) -> list[dict[str, Any]]:
    """Speed, agreement and gold rows of each person, the busiest first."""
    measured, agreement = view.measured(engine), view.agreement(engine)
    out = []
    for name, counts in progress["experts"].items():
        own = measured.get(name, {})
        kinds = {kind: counts.get(kind, 0) for kind in ("answer", "unsure", "none", "broken", "skip")}
        out.append(
            {
                "name": name,
                **kinds,
                "seconds": counts["seconds"],
                "agreement": agreement.get(name),
                "gold": own.get("gold"),
                "agreed": own.get("agreed"),
                "swayed": own.get("swayed"),
            }
        )
    return sorted(out, key=lambda p: -p["answer"])


def series(batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Noise batch by batch: the estimate of each batch alone, that of all so far, and its interval; at most 400 points."""
    step = -(-len(batches) // POINTS) or 1
    out, before = [], (0, 0.0)
    for entry in batches[::step]:
        noise, rows = entry["body"]["noise"], int(entry["body"]["rows"])
        rate = noise.get("rate")
        here = None if rate is None else _alone(before, (before[0] + rows, float(rate)))
        before = (before[0] + rows, float(rate) if rate is not None else before[1])
        out.append(
            {"noise_so_far": rate, "noise_interval": noise.get("interval"), "noise_here": here, "true_noise": None}
        )
    return out


def _alone(before: tuple[int, float], now: tuple[int, float]) -> float:
    """The rate of one batch, from the rates of all before and all so far.

    >>> round(_alone((100, 0.1), (200, 0.2)), 3)
    0.3
    """
    rows = now[0] - before[0]
    return float(np.clip((now[0] * now[1] - before[0] * before[1]) / rows, 0.0, 1.0)) if rows else now[1]


def alarms(
    batches: list[dict[str, Any]], progress: dict[str, Any], now: float, *, asks: bool, classes: tuple[str, ...]
) -> list[str]:
    """What the owner should look at, in sentences: a burst of noise, a pair of classes that takes most of it (as planted
    labels do), questions that nobody answers, people without questions."""
    return [
        text
        for text in (
            *_planted(batches),
            _burst(batches),
            _pair(batches, classes),
            _starving(batches, progress, now, asks),
        )
        if text
    ]


def _burst(batches: list[dict[str, Any]]) -> str:
    rates = [point["noise_here"] for point in series(batches) if point["noise_here"] is not None]
    if len(rates) < 4:
        return ""
    usual, last, rows = float(np.median(rates[:-1])), rates[-1], int(batches[-1]["body"]["rows"])
    doubt = 2 * np.sqrt(last * (1 - last) / max(rows, 1))
    if last - doubt < max(BURST * usual, usual + 0.05):
        return ""
    return f"A burst of noise: about {100 * last:.0f} % of the last batch's labels look wrong, {100 * usual:.0f} % are usual."


def _planted(batches: list[dict[str, Any]]) -> list[str]:
    """What the watch says of attacks; its notices of bursts are :func:`_burst`'s."""
    facts = batches[-1]["body"].get("facts", {}) if batches else {}
    return [alarm["sentence"] for alarm in facts.get("poison", {}).get("alarms", []) if alarm["kind"] != "burst"]


def _pair(batches: list[dict[str, Any]], classes: tuple[str, ...]) -> str:
    if not batches or len(classes) < 4 or "poison" in batches[-1]["body"].get("facts", {}):
        return ""  # where a watch ran, it knows better
    body = batches[-1]["body"]
    off = np.array(body["transition"], float)
    rate = float(body["noise"]["rate"] or 0)
    np.fill_diagonal(off, 0.0)
    total = off.sum()
    if not total or rate < 0.05 or off.max() < max(CONCENTRATED * total, 0.2):
        return ""
    true, given = np.unravel_index(off.argmax(), off.shape)
    return (
        f"Suspected attack: most wrong labels are “{classes[int(true)]}” that came as “{classes[int(given)]}” "
        f"({100 * off.max():.0f} % of that class); honest mistakes spread over more pairs."
    )


def _starving(batches: list[dict[str, Any]], progress: dict[str, Any], now: float, asks: bool) -> str:
    if not batches or not asks:
        return ""
    if progress["waiting"]:
        asked = datetime.fromisoformat(batches[-1]["at"]).timestamp()
        idle = now - max(asked, progress["latest"] or 0.0)
        if idle > WAITED:
            return f"{progress['waiting']:,} questions wait, and nobody has answered for {idle / 3600:.1f} hours."
    elif not progress["answered"] and len(batches) > 3:
        return "Nothing was asked yet: no row was suspicious, or the budget is 0."
    return ""
