"""Doubted rows for other tools: Label Studio's JSON tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from labelwright.auditing.result import Audit


def label_studio_tasks(audit: Audit, path: str | Path | None, count: int | None) -> list[dict[str, Any]]:
    """See :meth:`labelwright.auditing.Audit.to_label_studio`."""
    worst = audit.ranking[audit.flagged[audit.ranking]][:count]
    table = audit.rows.take(worst) if audit.rows is not None else None
    shown = table.to_pylist() if table is not None else [{}] * len(worst)
    tasks = []
    for row, cells in zip(worst.tolist(), shown, strict=True):
        name = audit.ids[row] if audit.ids is not None else row
        data = {key: _plain(value) for key, value in cells.items()}
        data |= {
            "id": _plain(name),
            "given_label": _plain(audit.labels.names[audit.labels.codes[row]]),
            "label_score": round(float(audit.label_score[row]), 6),
        }
        suggestion = str(audit.labels.names[audit.whole.predicted[row]])
        probability = round(float(audit.whole.probability[row]), 6)
        result = {"from_name": "label", "to_name": "row", "type": "choices", "value": {"choices": [suggestion]}}
        prediction = {"model_version": "labelwright-audit", "score": probability, "result": [result]}
        tasks.append({"data": data, "predictions": [prediction]})
    if path is not None:
        from labelwright.tables import write_bytes

        write_bytes(json.dumps(tasks, ensure_ascii=False, indent=1).encode(), path)
    return tasks


def _plain(value: Any) -> Any:
    """A JSON value: bytes (images) as a data URI, everything strange as text."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, dict) and isinstance(value.get("bytes"), bytes):
        import base64

        kind = "png" if value["bytes"][:4] == b"\x89PNG" else "jpeg"
        return f"data:image/{kind};base64," + base64.b64encode(value["bytes"]).decode()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list) and all(isinstance(v, int | float) for v in value):
        return value
    return str(value)
