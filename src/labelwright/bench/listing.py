"""What ran, what did not and why: data sets at hand, results in a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from labelwright.bench.imitation import SETTINGS
from labelwright.bench.profiles import PROFILES


def listed(data_dir: str | None, output: Path) -> dict[str, Any]:
    """data: name -> "ready" or what to do. experiments: a row for each, with its state.

    >>> sorted(listed(None, Path("nowhere")))
    ['data', 'experiments']
    """
    from labelwright.datasets import available
    from labelwright.images import available_images

    data = {**available(data_dir), **available_images(data_dir)}
    wanted = [("framework", "pendigits", "compact")]
    wanted += [(name, *key) for name in ("table2", "framework", "qactor") for key in PROFILES]
    wanted += [(name, *key) for name in ("table3", "fig7", "transfer") for key in SETTINGS]
    rows = [
        {
            "experiment": name,
            "dataset": dataset,
            "profile": profile,
            "state": _state(output / f"{name}-{dataset}-{profile}.json", data.get(dataset, "")),
        }
        for name, dataset, profile in wanted
    ]
    return {"data": data, "experiments": rows}


def settings_table(data_dir: str | None) -> list[list[str]]:
    """Head and rows: what Table I of the paper tells of each data set, for every profile.

    >>> settings_table(None)[1][:4]
    ['cifar10', 'compact', '10,000', '20 x 2,000']
    """
    from labelwright.images import available_images

    data = available_images(data_dir)
    rows = [["data set", "profile", "D0", "batches", "epochs D0 / batch", "L", "C", "noise", "test", "data"]]
    for (dataset, profile), p in PROFILES.items():
        cells = [dataset, profile, f"{p.clean:,}", f"{p.batches} x {p.rows:,}"]
        cells += [f"{p.first_epochs} / {p.paper.epochs}, improved {p.improved.epochs}", p.quality, p.classifier]
        cells += [f"{100 * p.noise:.0f} %", "published" if p.test is None else f"{p.test:,} drawn"]
        rows.append([*cells, "at hand" if data.get(dataset) == "ready" else "not at hand"])
    return rows


def _state(path: Path, data: str) -> str:
    try:
        found = json.loads(path.read_text())
        origin = found["provenance"]
        return f"ran with {found['seeds']} seed(s) at commit {origin['commit']}"
    except (OSError, ValueError, KeyError):
        return "did not run yet; its data is at hand" if data == "ready" else f"did not run: {data}"
