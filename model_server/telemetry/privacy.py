"""Differential privacy for cohort sums: how large the noise is, and how it is drawn. Pure; randomness is passed in.

A released cohort sum is a vector of integers with discrete Gaussian noise of one variance on every cell. Adding or
removing one contribution moves the sum by at most its L2 norm, the *sensitivity*. Then the release is ρ-zCDP with
ρ = sensitivity² / (2 variance) (Canonne, Kamath, Steinke, "The Discrete Gaussian for Differential Privacy", NeurIPS
2020, theorem 14), and (ε, δ)-differentially private by their corollary 13. No floating-point noise is ever drawn, so
the guarantee does not depend on how a sampler rounds (Mironov, CCS 2012).
"""

from __future__ import annotations

import math
from typing import Protocol

__all__ = ["NoiseSource", "composed_epsilon", "discrete_gaussian", "noise_variance", "zcdp_budget"]

_STEPS = 200  # of a bisection or a golden-section search: far past the precision of a float


class NoiseSource(Protocol):
    """Uniform integers: ``random.SystemRandom()`` in production, a seeded ``random.Random`` in simulations."""

    def randrange(self, stop: int, /) -> int:
        """A uniform integer of 0 … stop - 1."""
        ...


def zcdp_budget(epsilon: float, delta: float) -> float:
    """The largest ρ for which ρ-zCDP implies (ε, δ)-differential privacy. ρ(1, 1e-6) = .02436, σ = 4.53 sensitivities.

    Raises ValueError unless ε > 0 and 0 < δ < 1.
    """
    if not (epsilon > 0 and math.isfinite(epsilon) and 0 < delta < 1):
        raise ValueError(f"no privacy is described by epsilon {epsilon} and delta {delta}")
    low, high = 0.0, epsilon  # ρ = ε never fits: it has δ near one half
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if _log_delta(middle, epsilon) <= math.log(delta) else (low, middle)
    return low


def composed_epsilon(rho: float, releases: int, delta: float) -> float:
    """The ε of ``releases`` releases of ρ-zCDP about the same person together, at ``delta``: zCDP adds up."""
    total = rho * releases
    low, high = 0.0, total + 2 * math.sqrt(total * math.log(1 / delta))  # Bun and Steinke's simpler bound
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if _log_delta(total, middle) <= math.log(delta) else (middle, high)
    return high


def noise_variance(sensitivity_squared: int, epsilon: float, delta: float) -> int:
    """The variance, in squared grid units and rounded up, of the noise that makes one release (ε, δ)-private.

    ``sensitivity_squared`` is the largest squared L2 norm of one contribution, in squared grid units.
    """
    if sensitivity_squared < 1:
        raise ValueError("a contribution that cannot move the sum needs no noise, and is a mistake")
    return math.ceil(sensitivity_squared / (2 * zcdp_budget(epsilon, delta)))


def _log_delta(rho: float, epsilon: float) -> float:
    """ln of the smallest δ for which ρ-zCDP implies (ε, δ): the infimum over α > 1 of corollary 13."""
    if rho <= 0:
        return -math.inf

    def bound(log_excess: float) -> float:
        excess = math.exp(log_excess)  # α - 1
        alpha = 1 + excess
        return excess * (alpha * rho - epsilon) - math.log(excess) - alpha * math.log1p(1 / excess)

    # One valley in ln(α - 1). Any α is valid, so an inexact minimum errs towards more noise.
    low, high = -20.0, 20.0
    shrink = (math.sqrt(5) - 1) / 2
    for _ in range(_STEPS):
        left, right = high - shrink * (high - low), low + shrink * (high - low)
        if bound(left) < bound(right):
            high = right
        else:
            low = left
        if high - low < 1e-9:
            break
    return min(0.0, bound((low + high) / 2))


def discrete_gaussian(variance: int, cells: int, source: NoiseSource) -> list[int]:
    """``cells`` independent draws of the discrete Gaussian with parameter ``variance`` (a whole number ≥ 1).

    Exact: integers and uniform integers only (algorithm 3 of Canonne, Kamath and Steinke). The draws' true variance
    is at most ``variance``, and each is sub-Gaussian with that parameter.
    """
    if variance < 1:
        raise ValueError("the variance must be a whole number of at least 1")
    scale = math.isqrt(variance) + 1
    draws: list[int] = []
    while len(draws) < cells:
        candidate = _discrete_laplace(scale, source)
        # Accept with probability exp(-(|x| - variance/scale)² / (2 variance)).
        gap = abs(candidate) * scale - variance
        if _accept(gap * gap, 2 * variance * scale * scale, source):
            draws.append(candidate)
    return draws


def _discrete_laplace(scale: int, source: NoiseSource) -> int:
    """A draw with probability proportional to exp(-|x| / scale), by their algorithm 2."""
    while True:
        low = source.randrange(scale)
        if not _accept_below_one(low, scale, source):
            continue
        high = 0
        while _accept_below_one(1, 1, source):
            high += 1
        magnitude = low + scale * high
        if source.randrange(2):
            return magnitude
        if magnitude:  # else zero would be counted twice
            return -magnitude


def _accept(numerator: int, denominator: int, source: NoiseSource) -> bool:
    """True with probability exp(-numerator / denominator), for any ratio ≥ 0, by their algorithm 1."""
    whole, rest = divmod(numerator, denominator)
    for _ in range(whole):
        if not _accept_below_one(1, 1, source):
            return False
    return _accept_below_one(rest, denominator, source)


def _accept_below_one(numerator: int, denominator: int, source: NoiseSource) -> bool:
    """True with probability exp(-numerator / denominator), for a ratio of 0 to 1 (algorithm 1, first case)."""
    k = 1
    while source.randrange(denominator * k) < numerator:
        k += 1
    return k % 2 == 1
