"""The audit: which labels of a data set are wrong, what they should be, and how far that can be believed."""

from labelwright.auditing.api import LoadedAudit, audit, load_audit
from labelwright.auditing.drop_in import find_label_issues, get_label_quality_scores
from labelwright.auditing.estimates import Estimate, TestAccuracy
from labelwright.auditing.result import Audit

__all__ = [
    "Audit",
    "Estimate",
    "LoadedAudit",
    "TestAccuracy",
    "audit",
    "find_label_issues",
    "get_label_quality_scores",
    "load_audit",
]
