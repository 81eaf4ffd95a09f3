"""The ledger as something a person likes to read: one self-contained HTML file, and its figures.

:func:`write_report` writes it, :func:`report_data` gives the same as JSON values. Both read batch by batch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from labelwright.errors import LedgerError
from labelwright.report.data import report_data
from labelwright.report.page import page

if TYPE_CHECKING:
    from labelwright.runner import StateFolder

__all__ = ["report_data", "write_report"]


def write_report(state: StateFolder, output: Path | None = None, *, truth: bool = True, models: bool = True) -> Path:
    """Write the report and its figures; returns the report's path.

    output: the HTML file, ``STATE/report.html`` by default; figures always go to ``STATE/figures/`` as PNG and SVG.
    truth: compare with the truth column, where the run has one. models: as in :func:`report_data`. Raises LedgerError
    when there is no ledger, or a file cannot be written.
    """
    from labelwright.report.figures import figures  # matplotlib takes a moment that --json should not wait for

    data = report_data(state, truth=truth, models=models)
    path = state.path / "report.html" if output is None else Path(output)
    try:
        html = page(data, figures(data, state.path / "figures"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(html, encoding="utf-8", errors="replace")
    except OSError as error:
        raise LedgerError(
            f"the report cannot be written to {path} ({error.strerror}); make the folder writable or choose another --output"
        ) from error
    return path
