"""Imports point one way, few rooms see the truth, and ``import labelwright`` is quick (design.md, Rooms)."""

from __future__ import annotations

import ast
import graphlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import labelwright

ROOT = Path(labelwright.__file__).parent
LEVELS = [
    "errors types truth safe packing toml scale",
    "posterior queries experts learners bootstrap selection sourced imitation "
    "copynet consensus spending noise tables datasets images ledger",
    "loop baselines poison recipes estimators exports streams settings interchange answers",
    "auditing bench runner streaming report web trust sites judging",
    "cli __init__ __main__",
]
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms.split()}
UPWARDS = {("ledger", "loop")}  # the loop's small dataclass helpers; the loop knows a ledger by its protocol only
SEE_TRUTH = {"truth", "experts", "bench", "runner", "datasets"}


def imports(node: ast.AST) -> Iterator[str]:
    """Modules imported under ``node``, except for type checking: ``labelwright.x.y``."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        yield from imports(child)


FILES = {path.relative_to(ROOT): path for path in ROOT.rglob("*.py")}
USES = {
    name: {used.split(".")[1] for used in imports(ast.parse(path.read_text())) if used.startswith("labelwright.")}
    for name, path in FILES.items()
}


def room_of(name: Path) -> str:
    return name.parts[0].removesuffix(".py")


def test_imports_point_one_way() -> None:
    graph: dict[str, set[str]] = {}
    for name, used in USES.items():
        here = room_of(name)
        for there in used - {here, "__version__"}:
            assert {here, there} <= set(LEVEL), f"{name} imports {there}: give both a place in LEVELS"
            assert LEVEL[there] <= LEVEL[here] or (here, there) in UPWARDS, f"{name} imports {there}, which is above it"
            graph.setdefault(here, set()).add(there)
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError: no two rooms import each other


def test_only_a_few_rooms_see_the_truth() -> None:
    seeing = {name for name, used in USES.items() if "truth" in used}
    allowed = {name for name in FILES if room_of(name) in SEE_TRUTH or room_of(name).startswith("report")}
    assert seeing <= allowed | {Path("baselines/omniscient.py")}


def loaded_by(module: str) -> tuple[float, set[str]]:
    code = f"import time, sys, json; t = time.perf_counter(); import {module}; "
    code += "print(json.dumps([time.perf_counter() - t, list(sys.modules)]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    seconds, modules = json.loads(done.stdout)
    return seconds, set(modules)


def test_importing_is_quick_and_loads_nothing_heavy() -> None:
    heavy = {"sklearn", "torch", "pandas", "matplotlib", "sqlalchemy", "ray"}
    runs = [loaded_by("labelwright") for _ in range(3)]
    assert not heavy & runs[0][1] and min(seconds for seconds, _ in runs) < 1.0
    assert (
        not {"sklearn", "torch", "pandas", "PIL"}
        & loaded_by("labelwright.tables, labelwright.images, labelwright.noise")[1]
    )
