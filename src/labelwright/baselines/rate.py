"""The share of wrong labels, for methods that want to be told it. Needs torch."""

from __future__ import annotations

from labelwright.learners.objectives import Task
from labelwright.posterior import NoiseModel


def noise_rate(task: Task) -> float:
    """Estimated from networks that judge rows they have not seen, by the posterior of methods section 5; never the truth."""
    given = task.given.cpu().numpy()
    return NoiseModel.start(task.classes).updated(task.crossed(), given).rate
