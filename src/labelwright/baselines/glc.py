"""Gold loss correction: the noise matrix from a few rows with known truth (Hendrycks et al. 2018). Needs torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from labelwright.baselines.forward import Corrected
from labelwright.errors import DataError
from labelwright.learners.objectives import Method, Minibatch, Objective, Task
from labelwright.types import Floats, Ints


@dataclass(frozen=True)
class GLC(Method):
    """Cross-entropy with the truth on trusted rows, forward correction on the others.

    ``T[k, given]`` is the mean of what a network, trained on the untrusted rows, says of the trusted rows of class k; a class
    without any keeps its labels as they are. Takes ``trusted`` in ``TorchClassifier.fit``; raises DataError without it.
    Source: methods section 6; Hendrycks et al. 2018, section 3.1.

    >>> GLC()
    GLC()
    """

    def begin(self, task: Task) -> Objective:
        """See :class:`~labelwright.learners.objectives.Method`."""
        sure = task.vouched.cpu().numpy()
        if not sure.any():
            raise DataError("GLC needs some rows whose true label is known; give trusted=, None where unknown")
        said = task.plain(~sure if (~sure).any() else None)
        matrix = counted(said[sure], task.trusted.cpu().numpy()[sure])
        return _GLC(torch.as_tensor(matrix, dtype=torch.float32, device=task.given.device), task.trusted)


def counted(proba: Floats, true: Ints) -> Floats:
    """(K, K) mean of ``proba`` (m, K) over the rows of each true class (m,); the identity for a class without rows.

    >>> counted(np.array([[0.9, 0.1], [0.7, 0.3]]), np.array([0, 0])).tolist()
    [[0.8, 0.2], [0.0, 1.0]]
    """
    out = np.eye(proba.shape[1])
    for label in np.unique(true):
        out[label] = proba[true == label].mean(axis=0)
    return out


class _GLC(Corrected):
    def __init__(self, transition: Tensor, trusted: Tensor):
        super().__init__(transition)
        self.trusted = trusted

    def loss(self, logits: Tensor, batch: Minibatch) -> Tensor:
        true = self.trusted[batch.index]
        right = F.cross_entropy(logits, true.clamp_min(0), reduction="none")
        return torch.where(true >= 0, right, super().loss(logits, batch))
