"""What ran, what did not and why: data sets at hand, results in a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from labelwright.bench.profiles import PROFILES


def listed(data_dir: str | None, output: Path) -> dict[str, Any]:
    """data: name -> "ready" or what to do. experiments: a row for each, with its state.

    >>> sorted(listed(None, Path("nowhere")))
    ['data', 'experiments']
    """
    from labelwright.datasets import available
    from labelwright.images import available_images

    data = {**available(data_dir), **available_images(data_dir)}
    rows = []
    for dataset, profile in PROFILES:
        path = output / f"table2-{dataset}-{profile}.json"
        rows.append(
            {
                "experiment": "table2",
                "dataset": dataset,
                "profile": profile,
                "state": _state(path, data.get(dataset, "")),
            }
        )
    return {"data": data, "experiments": rows}


def _state(path: Path, data: str) -> str:
    try:
        found = json.loads(path.read_text())
        origin = found["provenance"]
        return f"ran with {found['seeds']} seed(s) at commit {origin['commit']}"
    except (OSError, ValueError, KeyError):
        return "did not run yet; its data is at hand" if data == "ready" else f"did not run: {data}"
