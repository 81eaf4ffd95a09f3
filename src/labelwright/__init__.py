"""labelwright: learning from labels that cannot be trusted.

Names are loaded when first used, so that ``import labelwright`` stays fast.

>>> import labelwright
>>> labelwright.RobustClassifier().selector
'rad-duo'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labelwright.auditing import Audit, audit, find_label_issues, get_label_quality_scores, load_audit
    from labelwright.consensus import Ratings
    from labelwright.copynet import CopyNet
    from labelwright.estimators import RobustClassifier, load
    from labelwright.loop import System, step
    from labelwright.posterior import NoiseModel
    from labelwright.recipes import al_only, no_selection, qal, rad_duo
    from labelwright.types import Batch, Split, Verdict

__version__ = "0.1.0"

_HOMES = {
    "Audit": "auditing",
    "audit": "auditing",
    "find_label_issues": "auditing",
    "get_label_quality_scores": "auditing",
    "load_audit": "auditing",
    "Ratings": "consensus",
    "CopyNet": "copynet",
    "RobustClassifier": "estimators",
    "load": "estimators",
    "System": "loop",
    "step": "loop",
    "NoiseModel": "posterior",
    "qal": "recipes",
    "al_only": "recipes",
    "rad_duo": "recipes",
    "no_selection": "recipes",
    "Batch": "types",
    "Split": "types",
    "Verdict": "types",
}

__all__ = [
    "Audit",
    "Batch",
    "CopyNet",
    "NoiseModel",
    "Ratings",
    "RobustClassifier",
    "Split",
    "System",
    "Verdict",
    "__version__",
    "al_only",
    "audit",
    "find_label_issues",
    "get_label_quality_scores",
    "load",
    "load_audit",
    "no_selection",
    "qal",
    "rad_duo",
    "step",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"labelwright.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'labelwright' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
