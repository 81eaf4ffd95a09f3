"""An audit as something a person likes to read: one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labelwright.errors import SourceError
from labelwright.report.audit_data import audit_data
from labelwright.report.words import count
from labelwright.tables import write_bytes

if TYPE_CHECKING:
    from labelwright.auditing import Audit


def write_audit_report(audit: Audit, path: Path, *, title: str = "") -> Path:
    """Write the report of an audit; returns its path.

    Only sums and the rows that are shown are held, so it stays small however many rows and classes there are.
    The file appears whole or not at all. Raises SourceError when it cannot be written.
    """
    html = audit_page(audit_data(audit, title))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SourceError(
            f"the report cannot be written to {path} ({error.strerror}); make the folder writable or choose another"
        ) from error
    write_bytes(html.encode("utf-8", "replace"), path)
    return path


def audit_page(data: Mapping[str, Any]) -> str:
    """The page. data: as of ``audit_data``."""
    from labelwright.report.audit_figures import audit_figures  # matplotlib takes a moment
    from labelwright.report.page import shelf

    doubted = sum(n for n, edge in zip(data["scores"]["counts"], data["scores"]["edges"], strict=False) if edge < 0.5)
    alt = {
        "scores": f"Histogram of label_score from 0 to 1, with the decision line at 0.5: {count(doubted, 'row')} below it.",
        "matrix": f"Noise matrix of {len(data['confusion']['classes'])} classes. {data['confusion']['sentence']}",
    }
    shown = set() if data["doubtful"]["bare"] else {row["position"] for row in data["doubtful"]["rows"]}
    templates = shelf()
    templates.filters["scored"] = scored
    return templates.get_template("audit.html.j2").render(d=data, figures=audit_figures(data), alt=alt, shown=shown)


def scored(score: float) -> str:
    """A label_score in four digits; never 0 by rounding alone.

    >>> scored(0.00001), scored(0.25), scored(0.0)
    ('under 0.0001', '0.2500', '0')
    """
    if score == 0:
        return "0"
    return f"{score:.4f}" if score >= 0.00005 else "under 0.0001"
