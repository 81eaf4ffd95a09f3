"""Forward correction: the network's probabilities pass through the noise matrix (Patrini et al. 2017). Needs torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from labelwright.errors import DataError, SettingsError
from labelwright.learners.objectives import Method, Minibatch, Objective, Task
from labelwright.types import Floats

_RARE = 0.06
"""Of a class with a smaller share of the rows than this, the row most sure of it is its anchor, whatever its rank: the 97th percentile
would leave out half of such a class, or all of it."""


@dataclass(frozen=True)
class Forward(Method):
    """Loss -log (p T)_given, with ``T[true, given]``.

    transition: (K, K) nested tuples or an array, rows sum to one; None estimates it from a network trained by cross-entropy first,
    which doubles the time. Source: methods section 6; Patrini et al. 2017, equation 12 and theorem 3.

    >>> Forward(((0.8, 0.2), (0.3, 0.7))).transition[1]
    (0.3, 0.7)
    """

    transition: tuple[tuple[float, ...], ...] | None = None

    def __post_init__(self) -> None:
        if self.transition is None:
            return
        try:  # an array, too: as a setting it has to be compared and saved
            rows = tuple(tuple(float(share) for share in row) for row in self.transition)
        except (TypeError, ValueError) as error:
            raise SettingsError(
                f"transition={self.transition!r} is no matrix; expected K rows of K shares, or None to estimate it"
            ) from error
        object.__setattr__(self, "transition", rows)

    def begin(self, task: Task) -> Objective:
        """See :class:`~labelwright.learners.objectives.Method`. Raises DataError for a matrix that is none."""
        k = task.classes
        if self.transition is None:
            given = task.given if task.given.ndim == 1 else task.given.argmax(1)
            count = np.bincount(given.cpu().numpy(), minlength=k)
            matrix = anchored(task.plain(None), count / count.sum())
        else:
            matrix = np.asarray(self.transition, float)
        if matrix.shape != (k, k) or (matrix < 0).any() or not np.allclose(matrix.sum(axis=1), 1, atol=1e-3):
            raise DataError(
                f"the noise matrix has shape {matrix.shape}; expected {(k, k)}, no negatives, rows summing to 1"
            )
        return Corrected(torch.as_tensor(matrix, dtype=torch.float32, device=task.given.device))


def anchored(proba: Floats, share: Floats) -> Floats:
    """(K, K) noise matrix: row k is what the network says of class k's anchor, the surest row below the 97th percentile.

    proba: (n, K) of a network trained on the labels as they are given. share: (K,) of the rows given each class; of a rare one the
    anchor is the surest row of all (in the authors' code: of all classes where there are 100).

    >>> anchored(np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.1, 0.9]]), np.array([0.5, 0.5])).tolist()
    [[0.7, 0.3], [0.2, 0.8]]
    """
    own = proba.copy()
    top = own >= np.percentile(proba, 97, axis=0, method="higher")
    own[top & (share >= _RARE)] = 0.0
    out: Floats = proba[own.argmax(axis=0)]
    return np.asarray(out / out.sum(axis=1, keepdims=True))


class Corrected(Objective):
    """-log (p T)_given. transition: (K, K) float32, ``transition[true, given]``."""

    def __init__(self, transition: Tensor):
        super().__init__()
        self.state["transition"] = transition

    def loss(self, logits: Tensor, batch: Minibatch) -> Tensor:
        """See :class:`~labelwright.learners.objectives.Objective`."""
        said = F.softmax(logits, 1) @ self.state["transition"]
        return -said.gather(1, batch.target[:, None])[:, 0].clamp_min(1e-7).log()
