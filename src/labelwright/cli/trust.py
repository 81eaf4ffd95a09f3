"""trust: seal, attest, verify and run on a host that is not trusted."""

from __future__ import annotations

import typer

from labelwright.cli.app import app

trust = typer.Typer(
    help="Learning where the host cannot read the data, and proving it.", rich_markup_mode="rich", no_args_is_help=True
)
app.add_typer(trust, name="trust")

from labelwright.cli import trust_evidence, trust_expert, trust_run, trust_seal, trust_workload  # noqa: E402, F401  (they add their commands to trust)
