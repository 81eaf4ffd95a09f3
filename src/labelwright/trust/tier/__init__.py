"""The NumPy tier: models that judge and predict without torch, scikit-learn, pandas or pyarrow, for the smallest enclaves.

Selection and posterior are the project's own (:mod:`labelwright.selection`, :mod:`labelwright.posterior`), which need NumPy alone.
"""

from labelwright.trust.tier.judging import Fixed, Judge, Judged
from labelwright.trust.tier.models import Linear, Machine, Model, Network
from labelwright.trust.tier.saved import of_estimator, read, write

__all__ = ["Fixed", "Judge", "Judged", "Linear", "Machine", "Model", "Network", "of_estimator", "read", "write"]
