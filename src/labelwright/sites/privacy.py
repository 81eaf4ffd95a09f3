"""Differential privacy of what a site shares: Gaussian noise, and what it adds up to.

One row replaced by another changes the summed gradient by at most 2 sqrt(2) ROW_NORM (the difference of two rows of
probabilities has a norm of at most sqrt(2), a row of features one of at most ROW_NORM; one goes, one comes), and the pair
counts by at most sqrt(2) (a row of probabilities, of norm at most 1, leaves one column and another enters one). The noise
is ``noise`` times that. Everything else that the site shares is computed from these noisy sums, so it costs nothing more.
The number of rows is taken as public, and what stays at the site (verdicts, ledger) is not covered.
"""

from __future__ import annotations

from math import log, sqrt

from labelwright.sites.model import ROW_NORM

GRADIENT = 2 * sqrt(2.0) * ROW_NORM
COUNTS = sqrt(2.0)


def epsilon(noise: float, releases: int, delta: float) -> float:
    """The epsilon of (epsilon, delta) after so many noisy sums, each with noise of ``noise`` times its sensitivity.

    rho = releases / (2 noise^2); epsilon = rho + 2 sqrt(rho ln(1/delta)). Source: Bun and Steinke, *Concentrated
    Differential Privacy*, TCC 2016, propositions 1.3 and 1.6. Infinite without noise.

    >>> round(epsilon(10.0, 80, 1e-5), 2)
    4.69
    """
    if noise <= 0:
        return float("inf")
    rho = releases / (2 * noise**2)
    return rho + 2 * sqrt(rho * log(1 / delta))


def releases(rounds: int, steps: int) -> int:
    """Noisy sums of a whole plan: a gradient a step, the pair counts once a round."""
    return rounds * (steps + 1)
