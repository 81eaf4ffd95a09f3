"""Ways in which labels go wrong: noise models, schedules over batches, attacks (methods section 7).

A noise model is a function ``(y, X, rng) -> given``; factories such as :func:`symmetric` make one. A
schedule is a function ``batch number -> rate``; :func:`corrupt` applies a model batch by batch at
the scheduled rates. None of them changes its inputs, and all randomness is the caller's ``rng``.
"""

from labelwright.noise.attacks import far_first, near_first, poisoned_source, targeted
from labelwright.noise.backdoors import clean_label_backdoor, dirty_label_backdoor, patch
from labelwright.noise.checks import Corruption, exact_count
from labelwright.noise.cifar_n import read_cifar_n
from labelwright.noise.models import (
    CIFAR10_PAIRS,
    CIFAR100_GROUPS,
    MNIST_PAIRS,
    asymmetric,
    human,
    instance_dependent,
    instance_weights,
    open_set,
    pair_flip,
    sparse_pairs,
    superclass,
    symmetric,
)
from labelwright.noise.schedules import (
    Schedule,
    after_clean,
    bursts,
    constant,
    corrupt,
    gaussian,
    linear,
    sine,
    uniform,
)

__all__ = [
    "CIFAR10_PAIRS",
    "CIFAR100_GROUPS",
    "MNIST_PAIRS",
    "Corruption",
    "Schedule",
    "after_clean",
    "asymmetric",
    "bursts",
    "clean_label_backdoor",
    "constant",
    "corrupt",
    "dirty_label_backdoor",
    "exact_count",
    "far_first",
    "gaussian",
    "human",
    "instance_dependent",
    "instance_weights",
    "linear",
    "near_first",
    "open_set",
    "pair_flip",
    "patch",
    "poisoned_source",
    "read_cifar_n",
    "sine",
    "sparse_pairs",
    "superclass",
    "symmetric",
    "targeted",
    "uniform",
]
