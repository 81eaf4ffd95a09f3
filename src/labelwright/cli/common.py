"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from labelwright.runner import StateFolder

State = Annotated[Path, typer.Option("--state", help="the state folder that 'run' made")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object instead of text")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="the same seed gives the same decisions")]
DataDir = Annotated[str | None, typer.Option("--data-dir", help="folder of benchmark data; default $LABELWRIGHT_DATA")]
LedgerUrl = Annotated[
    str | None,
    typer.Option(
        "--ledger", help="ledger elsewhere, e.g. postgresql+psycopg://user@host/db", envvar="LABELWRIGHT_LEDGER"
    ),
]
Workers = Annotated[int | None, typer.Option("--workers", metavar="N", help="how many at once; default: one a core")]
Ray = Annotated[
    str | None,
    typer.Option("--ray", metavar="ADDRESS", help="workers on Ray: auto, local or HOST:PORT", envvar="LABELWRIGHT_RAY"),
]


def folder(state: Path, ledger: str | None = None) -> StateFolder:
    """The state folder of these options."""
    return StateFolder(state, ledger_url=ledger)
