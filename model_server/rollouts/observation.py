"""What is known about a rollout at one moment: plain data, for the guardrails to judge. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["ArmCounts", "Observation", "latency_quantile", "wilson"]

BINS_PER_OCTAVE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmCounts:
    """Counters of one arm. ``erring`` and ``falling_back`` count devices with at least one such request; ``latency``
    maps a bin (``floor(16 log2 microseconds)``) of on-device answers to a count."""

    requests: int = 0
    errors: int = 0
    fallbacks: int = 0
    refused: int = 0
    erring: int = 0
    falling_back: int = 0
    refusing: int = 0
    latency: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """The present stage. ``selected`` known eligible devices are meant to run the candidate; of these ``adopted`` do,
    ``failed`` could not, ``incompatible`` cannot (not a failure), ``silent`` have sent nothing since the stage began or
    for as long as the deadline, whichever is less. ``known`` counts all eligible devices, ``control`` those in the
    holdback. ``age_s`` is the stage's age."""

    known: int
    selected: int
    adopted: int
    failed: int
    incompatible: int
    silent: int
    control: int
    reports: int
    age_s: float
    candidate: ArmCounts
    holdback: ArmCounts


def wilson(count: int, total: int, z: float = 2.576) -> tuple[float, float]:
    """The Wilson score interval of a share, 99 % by default; (0, 1) without observations.

    Wilson, Probable inference, JASA 22 (1927).
    """
    if total <= 0:
        return 0.0, 1.0
    share = count / total
    centre = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    # Rounding must not push an end past the share itself.
    return max(0.0, min(share, (centre - spread) / scale)), min(1.0, max(share, (centre + spread) / scale))


def latency_quantile(latency: Mapping[int, int], quantile: float) -> float:
    """The quantile of a latency histogram, as the upper edge of the bin that holds it, in microseconds; NaN if it is
    empty. ``quantile`` is clipped to 0..1."""
    total = sum(latency.values())
    if total == 0:
        return math.nan
    rank = min(max(quantile, 0.0), 1.0) * total
    seen = 0
    for bin_number in sorted(latency):
        seen += latency[bin_number]
        if seen >= rank:
            break
    return float(2 ** ((bin_number + 1) / BINS_PER_OCTAVE))
