"""Sites that clean together without sharing rows.

Each site keeps its rows, its noise matrix and its ledger. Between rounds it learns from its own rows and tells the others
model weights and sufficient statistics (:mod:`~labelwright.sites.statistics`), by gossip or through a coordinator; what
comes in passes a gate and is put together so that one bad site cannot move the rest. See docs/sites.md.
"""

from labelwright.sites.gate import Event, Gate
from labelwright.sites.plan import Member, Plan
from labelwright.sites.site import Site
from labelwright.sites.statistics import Shape, Statistics

__all__ = ["Event", "Gate", "Member", "Plan", "Shape", "Site", "Statistics"]
