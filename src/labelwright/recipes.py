"""The paper's systems as configurations of one loop."""

from __future__ import annotations

from labelwright.experts import Expert, NoExpert
from labelwright.imitation import Imitator, NoImitator
from labelwright.learners import Incremental, Learners, Refit
from labelwright.loop import System
from labelwright.queries import Budget, FixedBudget
from labelwright.selection import NoSelection, QualityOnly, RadDuo

OneLearner = Refit | Incremental


def no_selection(learner: OneLearner) -> System:
    """No-Sel: train on everything as given."""
    learners = Learners(learner, learner)
    return System(NoSelection(learners, estimate_noise=False), learners)


def rad_duo(
    quality: OneLearner,
    classifier: OneLearner,
    *,
    buffer: int = 0,
    imitator: Imitator | None = None,
    budget: Budget | None = None,
    expert: Expert | None = None,
) -> System:
    """RAD Duo (paper, section III-A): quality model, then classifier; no human unless a budget and an expert are given.

    >>> from sklearn.naive_bayes import GaussianNB
    >>> from labelwright.learners import as_learner
    >>> nb = lambda: as_learner(GaussianNB(), classes=2)
    >>> type(rad_duo(nb(), nb(), buffer=100).selector).__name__
    'RadDuo'
    """
    learners = Learners(quality, classifier)
    return System(
        RadDuo(learners, buffer=buffer),
        learners,
        budget=budget or FixedBudget(0),
        expert=expert or NoExpert(),
        imitator=imitator or NoImitator(),
    )


def qal(learner: OneLearner, budget: Budget, expert: Expert) -> System:
    """QAL (paper, section III-B): one model filters, and the expert is asked about a few of the rows it doubts."""
    learners = Learners(learner, learner)
    return System(QualityOnly(learners, estimate_noise=False), learners, budget=budget, expert=expert)


def al_only(learner: OneLearner, budget: Budget, expert: Expert) -> System:
    """AL-only: no filter; the expert is asked about any rows (make the budget with ``among="all"``)."""
    learners = Learners(learner, learner)
    return System(NoSelection(learners, estimate_noise=False), learners, budget=budget, expert=expert)
