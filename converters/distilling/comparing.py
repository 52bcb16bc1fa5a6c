"""Two arms over the same seeds: mean, spread, and a paired comparison. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["Comparison", "Spread", "Verdict", "compare", "spread"]

Verdict = Literal["paid", "did not pay", "did harm", "unknown"]

# Student's t, two-sided 95 %, for 1 to 30 degrees of freedom; the normal quantile bounds the rest closely enough.
T_95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
T_MANY = 2.042


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Of one number over seeds; ``std`` is the sample standard deviation, None for one seed."""

    mean: float
    std: float | None
    minimum: float
    maximum: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Distilled minus labels alone, seed by seed, in points (1 point = 0.01).

    ``low`` and ``high`` are a 95 % t interval of the mean difference, over seeds only: the rows, the split and the
    teacher are the same in all of them. ``sign_p`` is the two-sided sign test's p; ties are left out.
    """

    differences: tuple[float, ...]
    mean: float
    std: float | None
    low: float | None
    high: float | None
    better: int
    worse: int
    sign_p: float | None
    verdict: Verdict
    sentence: str


def spread(values: Sequence[float]) -> Spread:
    """Raises `statistics.StatisticsError` for no values."""
    return Spread(
        mean=statistics.fmean(values),
        std=statistics.stdev(values) if len(values) > 1 else None,
        minimum=min(values),
        maximum=max(values),
    )


def compare(labels: Sequence[float], distilled: Sequence[float]) -> Comparison:
    """Scores (0 to 1) of both arms, the same seed at the same place.

    It paid if the whole interval lies above 0, did harm if it lies below, and did not pay otherwise; one seed leaves it
    unknown.
    """
    differences = tuple(100 * (b - a) for a, b in zip(labels, distilled, strict=True))
    mean = statistics.fmean(differences)
    better, worse = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    std = low = high = None
    if len(differences) > 1:
        std = statistics.stdev(differences)
        freedom = len(differences) - 1
        reach = (T_95[freedom - 1] if freedom <= len(T_95) else T_MANY) * std / math.sqrt(len(differences))
        low, high = mean - reach, mean + reach
    verdict: Verdict = "did not pay"
    if low is None or high is None:
        verdict = "unknown"
    elif low > 0:
        verdict = "paid"
    elif high < 0:
        verdict = "did harm"
    return Comparison(
        differences=differences,
        mean=mean,
        std=std,
        low=low,
        high=high,
        better=better,
        worse=worse,
        sign_p=_sign_p(better, worse),
        verdict=verdict,
        sentence=_sentence(verdict, mean, std, low, high, better, len(differences)),
    )


def _sign_p(better: int, worse: int) -> float | None:
    n, most = better + worse, max(better, worse)
    if n == 0:
        return None
    tail = sum(math.comb(n, k) for k in range(most, n + 1)) / 2**n
    return min(1.0, 2 * tail)


def _sentence(
    verdict: Verdict,
    mean: float,
    std: float | None,
    low: float | None,
    high: float | None,
    better: int,
    seeds: int,
) -> str:
    if std is None or low is None or high is None:
        return f"{mean:+.1f} points with one seed, which says nothing: ask for several"
    return (
        f"{verdict}: {mean:+.1f} points, spread {std:.1f} (95 % interval {low:+.1f} to {high:+.1f} over {seeds} seeds; "
        f"better in {better} of {seeds})"
    )
