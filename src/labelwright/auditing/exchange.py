"""Doubted rows for other tools: Label Studio's JSON tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labelwright.errors import SettingsError
from labelwright.interchange import plain, prediction

if TYPE_CHECKING:
    from labelwright.auditing.result import Audit


def label_studio_tasks(audit: Audit, path: str | Path | None, count: int | None) -> list[dict[str, Any]]:
    """See :meth:`labelwright.auditing.Audit.to_label_studio`."""
    if count is not None and count < 0:
        raise SettingsError(f"count={count} is no number of tasks; expected 0 or more, or None for all")
    worst = audit.ranking[audit.flagged[audit.ranking]][:count]
    table = audit.rows.take(worst) if audit.rows is not None else None
    shown = table.to_pylist() if table is not None else [{}] * len(worst)
    tasks = []
    for row, cells in zip(worst.tolist(), shown, strict=True):
        name = audit.ids[row] if audit.ids is not None else row
        data = {key: plain(value) for key, value in cells.items()}
        data |= {
            "id": plain(name),
            "given_label": plain(audit.labels.names[audit.labels.codes[row]]),
            "label_score": round(float(audit.label_score[row]), 6),
        }
        suggestion = str(audit.labels.names[audit.whole.predicted[row]])
        probability = round(float(audit.whole.probability[row]), 6)
        told = prediction(suggestion, probability, model="labelwright-audit")
        tasks.append({"data": data, "predictions": [told]})
    if path is not None:
        from labelwright.tables import write_bytes

        write_bytes(json.dumps(tasks, ensure_ascii=False, indent=1).encode(), path)
    return tasks
