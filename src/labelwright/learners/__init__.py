"""One face over everything that learns: any scikit-learn classifier, with K fixed classes."""

from labelwright.learners.base import Deep, Incremental, Learner, Learners, Refit, as_learner
from labelwright.learners.memory import Fetch, RowMemory
from labelwright.learners.scoring import Scorer

__all__ = ["Deep", "Fetch", "Incremental", "Learner", "Learners", "Refit", "RowMemory", "Scorer", "as_learner"]
