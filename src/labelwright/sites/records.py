"""A site's own ledger: one entry a round, in one transaction with the state to go on from; verdicts at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labelwright.errors import LedgerError, SettingsError
from labelwright.ledger import SqlLedger
from labelwright.settings import StateFolder
from labelwright.sites.plan import Plan
from labelwright.sites.site import Site
from labelwright.types import Answers, Batch, Queries, Verdict

PART = "sites"


class Held:
    """What the ledger keeps of a part of the program."""

    def __init__(self, value: Mapping[str, Any]):
        self.value = dict(value)

    def state(self) -> dict[str, Any]:
        """It."""
        return self.value


class Records:
    """Writes a site's ledger. folder: claimed by the caller. me: the site's name."""

    def __init__(self, folder: StateFolder, plan: Plan, me: str, settings: Mapping[str, Any] | None = None):
        told = {"selector": "sites", "plan": plan.digest, "site": me, "label": plan.label, "id": plan.id or None}
        self.ledger = SqlLedger(folder.url, settings={**told, **(settings or {})}, classes=plan.classes or None)
        self.width = plan.width

    @property
    def judged(self) -> bool:
        """Whether the verdicts are in."""
        return self.ledger.next_number > 0

    def begun(self, folder: StateFolder) -> dict[str, Any] | None:
        """The state of the last round that was finished, or None."""
        kept = folder.history().snapshot()
        if kept is None or PART not in kept[1]:
            return None
        return dict(kept[1][PART])

    def round(self, facts: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """What happened in a round, and the state after it, in one transaction."""
        self.ledger.facts = {"sites": dict(facts)}
        self.ledger.settle(Answers.none(self.width), {PART: Held(state)})
        self.ledger.facts = {}

    def verdicts(self, batch: Batch, site: Site, state: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, int]:
        """Judge the site's rows and write it down. How many of each verdict."""
        split, fixed = site.judge(batch)
        self.ledger.record(batch, split, Queries.none(batch.X.shape[1]))
        self.ledger.facts = {"sites": dict(facts)}
        self.ledger.commit(batch, split, Answers.none(batch.X.shape[1]), fixed, {PART: Held(state)})
        trusted = int((split.verdict == Verdict.TRUSTED).sum())
        return {
            "trusted": trusted,
            "corrected": len(fixed),
            "rejected": len(batch) - trusted - len(fixed),
        }


def told(folder: StateFolder) -> dict[str, Any]:
    """What a site's ledger says of its rounds: for ``labelwright sites status``. Raises LedgerError when it is no site's."""
    history = folder.history()
    if "plan" not in history.settings:
        raise LedgerError(f"{folder.path} is the state of a run, not of a site; see 'labelwright status'")
    rounds = [one["body"]["facts"]["sites"] for one in history.entries("commit") if "sites" in one["body"]["facts"]]
    aside: dict[str, dict[str, int]] = {}
    for one in rounds:
        for event in one.get("aside", []):
            mine = aside.setdefault(event["site"], {})
            mine[event["reason"]] = mine.get(event["reason"], 0) + int(event["times"])
    last = rounds[-1] if rounds else {}
    return {
        "site": history.settings["site"],
        "plan": history.settings["plan"],
        "rounds": last.get("round", 0),
        "judged": bool(history.batches()),
        "noise_rate": last.get("noise_rate"),
        "shared_noise_rate": last.get("shared_noise_rate"),
        "heard": last.get("heard", []),
        "absent": last.get("absent", []),
        "sent_bytes": last.get("sent", {}),
        "received_bytes": last.get("received", {}),
        "set_aside": aside,
        "verdicts": history.totals() if history.batches() else {},
    }


def model_of(folder: StateFolder) -> dict[str, Any]:
    """The newest state of a site: its weights and noise. Raises SettingsError when there is none yet."""
    kept = folder.history().snapshot()
    if kept is None or PART not in kept[1]:
        raise SettingsError(f"the site in {folder.path} has finished no round yet; run 'labelwright sites join' first")
    return dict(kept[1][PART])
