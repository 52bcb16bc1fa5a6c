"""Has a histogram of a fleet moved further from its approved baseline than we tolerate? Pure: arrays in, evidence out.

**What is tested.** A fleet's day gives noised sums S over its devices of ``weight × shares`` per cell, and the noised
sum N of the weights. With frozen baseline shares p, the drift is d = E[S]/E[N] - p and its size is
Σ d² / max(p, floor), which is the population stability index (PSI) to second order. The null hypothesis of a day is
*size ≤ tolerance*, an effect size: fleets are never exactly constant, and a point null would reject every day of a
large one.

**The statistic.** X = S - N p has mean M d, where M is the expected weight, and covariance at most

    privacy:  v I + v₀ p pᵀ           v, v₀: the variances of the noise, which are public
    devices:  M diag(p + d) + M d dᵀ  because a share vector s ≥ 0 with Σ s ≤ 1 has s sᵀ ≼ diag(s)

The second line holds for *any* difference between devices, including each one being of a single kind, so device
heterogeneity needs no estimate; it costs (cells - 1)/devices of effect size at most, .009 for 2,000. A delete-one-group
jackknife would estimate it, and is the better choice where there is no privacy noise. Here each of its G group sums
needs the noise of a whole release: the total then carries G times the variance, and the variance estimate is noise
itself. Under the same ε and 2,000 devices its effect size scatters by .018, this one by .0033
(`tests/property/test_drift.py`). Effect = (Σ X²/max(p, floor) - trace of the scaled covariance) / N².

**The evidence.** For a sub-Gaussian X with covariance proxy C, W = diag(1/max(p, floor)) and Λ the eigenvalues of
W½ C W½, every 0 < λ < 1/(2 max Λ) gives E exp(λ XᵀWX) ≤ Π (1-2λΛ)^-½ exp(λ M²·size / (1-2λ max Λ)), by
E exp(λ|y|²) = E exp(√(2λ) gᵀy) with g standard normal. Dividing by the right side at size = tolerance leaves an
*e-value*: its mean is at most 1 under the null, whatever was seen before. Bets λ from timid to bold are averaged,
and so are histograms.

**The alarm.** R_t = (1 + R_{t-1}) e_t, averaged over bets and histograms, is an e-Shiryaev-Roberts process: mean
at most t without drift, so it passes a threshold c within T days with probability at most T/c (Shin, Ramdas, Rinaldo,
"E-detectors", NEJSDS 2023; Doob's inequality). c = 7300 bounds false alarms at 5 % a year.

**Assumptions.** Devices of a day are independent given the past; the sum over devices is close to Gaussian (it is
one of hundreds of bounded vectors, mostly below the noise, which is exactly sub-Gaussian); N is within 4 standard
deviations of M. The baseline is what was approved: its sampling error from *devices* is part of it (the same fleet
reports tomorrow; a fleet that is replaced altogether moves by up to about cells/devices, which the tolerance has to
cover), its *privacy* error is added to the tolerance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BETS",
    "Baseline",
    "Day",
    "DayEvidence",
    "DriftSettings",
    "Watch",
    "detectable",
    "effect_size",
    "freeze",
    "weigh",
]

Floats = NDArray[np.float64]

# λ as a share of its upper end 1/(2 max Λ): bold bets find large drift in a day, timid ones small drift in weeks.
BETS: tuple[float, ...] = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2)
_DEVIATIONS = 4.0  # N is taken to be within so many standard deviations of M


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftSettings:
    """``tolerance`` is an effect size (PSI units); ``floor`` keeps rare cells from deciding; ``threshold`` is the
    number of days per false alarm that the alarm promises at least (7300: at most 5 % a year)."""

    tolerance: float = 0.02
    floor: float = 0.02
    threshold: float = 7300.0

    def __post_init__(self) -> None:
        if not (0 < self.tolerance < math.inf and 0 < self.floor <= 1 and 1 < self.threshold < math.inf):
            raise ValueError("tolerance is above 0, floor above 0 and at most 1, threshold above 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """One histogram of one day, noised: ``sums`` (cells,) of weighted shares, ``weight``, and the public variances of
    the noise on a cell and on the weight. Units are device-days."""

    sums: Floats
    weight: float
    cell_variance: float
    weight_variance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A frozen histogram: ``shares`` (cells,) sum to 1; ``tolerance`` already holds the baseline's privacy error and
    the amount by which the approved days differed among themselves; ``privacy_error`` is the former's effect size."""

    shares: Floats
    tolerance: float
    privacy_error: float

    def asked(self, settings: DriftSettings) -> float:
        """The tolerance that was asked for, with the privacy error: distances add, effect sizes are their squares."""
        return (math.sqrt(settings.tolerance) + math.sqrt(self.privacy_error)) ** 2


@dataclass(frozen=True, slots=True, kw_only=True)
class DayEvidence:
    """``effect`` is the estimated effect size (its mean is not above the true one; negative means none was seen),
    ``deviation`` its standard deviation without drift, ``log_e`` (bets,) the natural logarithms of the e-values."""

    effect: float
    deviation: float
    log_e: Floats


def freeze(days: Sequence[Day], settings: DriftSettings) -> Baseline:
    """The baseline from the approved days. Raises ValueError if they carry no positive weight."""
    pooled = _pool(days)
    shares = _shares(pooled)
    weights = 1 / np.maximum(shares, settings.floor)
    privacy_error = (
        float(np.sum(weights)) * pooled.cell_variance + float(weights @ shares**2) * pooled.weight_variance
    ) / pooled.weight**2
    tolerance = max(settings.tolerance, _spread(days, settings))
    return Baseline(
        shares=shares,
        tolerance=(math.sqrt(tolerance) + math.sqrt(privacy_error)) ** 2,
        privacy_error=privacy_error,
    )


def effect_size(shares: Floats, reference: Floats, settings: DriftSettings) -> float:
    """Σ (shares - reference)² / max(reference, floor) of two share vectors, without any correction for noise."""
    return float(np.sum((shares - reference) ** 2 / np.maximum(reference, settings.floor)))


def weigh(day: Day, baseline: Baseline, settings: DriftSettings) -> DayEvidence:
    """The effect size of one day and its evidence against drift ≤ tolerance. ``day.weight`` must be positive."""
    scale = 1 / np.sqrt(np.maximum(baseline.shares, settings.floor))
    residual = scale * (day.sums - day.weight * baseline.shares)
    size = float(residual @ residual)
    expected = _covariance(day, baseline.shares, day.weight) * np.outer(scale, scale)
    variance = 2 * float(np.sum(expected**2))  # of a quadratic form of a Gaussian: 2 tr(C²)
    bets, charge = _bets(day, baseline, settings)
    return DayEvidence(
        effect=(size - float(np.trace(expected))) / day.weight**2,
        deviation=math.sqrt(variance) / day.weight**2,
        log_e=bets * size - charge,
    )


def detectable(day: Day, baseline: Baseline, settings: DriftSettings, *, histograms: int, days: int) -> float:
    """The effect size whose alarm is expected within ``days`` days like this one, when it is the only one of
    ``histograms`` that drifts. Devices are taken to be alike, which makes drift harder to see than it is."""
    scale = 1 / np.sqrt(np.maximum(baseline.shares, settings.floor))
    noise = float(scale @ scale) * day.cell_variance + float((scale * baseline.shares) @ (scale * baseline.shares)) * (
        day.weight_variance
    )
    bets, charge = _bets(day, baseline, settings)
    needed = math.log(settings.threshold * histograms * len(BETS)) / days
    return float(np.min((needed + charge - bets * noise) / (bets * day.weight**2)))


def _bets(day: Day, baseline: Baseline, settings: DriftSettings) -> tuple[Floats, Floats]:
    """λ of every bet, and what it pays: the logarithm of the largest mean that exp(λ XᵀWX) can have under the null."""
    scale = 1 / np.sqrt(np.maximum(baseline.shares, settings.floor))
    most = day.weight + _DEVIATIONS * math.sqrt(day.weight_variance)
    # The largest share that a cell can have under the null.
    highest = baseline.shares + math.sqrt(baseline.tolerance) / scale
    bound = _covariance(day, highest, most) * np.outer(scale, scale)
    bound[np.diag_indices_from(bound)] += most * baseline.tolerance  # M d dᵀ: in this scale |d|² is the size
    eigenvalues = np.maximum(np.linalg.eigvalsh(bound), 0.0)
    largest = float(eigenvalues[-1])
    bets = np.array(BETS) / (2 * largest)
    shrink = 1 - 2 * bets[:, None] * eigenvalues
    return bets, bets * most**2 * baseline.tolerance / (1 - 2 * bets * largest) - 0.5 * np.log(shrink).sum(axis=1)


def _covariance(day: Day, shares: Floats, weight: float) -> Floats:
    """The bound on the covariance of X for cell shares ``shares`` and expected weight ``weight``."""
    centre = np.minimum(shares, 1.0)
    covariance = day.weight_variance * np.outer(centre, centre)
    covariance[np.diag_indices_from(covariance)] += day.cell_variance + weight * shares
    return covariance


def _pool(days: Sequence[Day]) -> Day:
    return Day(
        sums=np.sum([day.sums for day in days], axis=0),
        weight=sum(day.weight for day in days),
        cell_variance=sum(day.cell_variance for day in days),
        weight_variance=sum(day.weight_variance for day in days),
    )


def _shares(day: Day) -> Floats:
    positive = np.maximum(day.sums, 0.0)
    total = float(positive.sum())
    if total <= 0 or day.weight <= 0:
        raise ValueError("the approved days hold no reports")
    return np.asarray(positive / total, dtype=np.float64)


def _spread(days: Sequence[Day], settings: DriftSettings) -> float:
    """How far single approved days certainly lie from the others: weekdays and weekends are no drift."""
    if len(days) < 2:
        return 0.0
    spread = 0.0
    for index, day in enumerate(days):
        others = _pool([*days[:index], *days[index + 1 :]])
        rest = Baseline(shares=_shares(others), tolerance=settings.tolerance, privacy_error=0.0)
        seen = weigh(day, rest, settings)
        spread = max(spread, seen.effect - 3 * seen.deviation)
    return spread


class Watch:
    """The averaged e-Shiryaev-Roberts process over named histograms; one `step` a day."""

    def __init__(self, names: Sequence[str], settings: DriftSettings) -> None:
        self._settings = settings
        self._log: dict[str, Floats] = {name: np.full(len(BETS), -np.inf) for name in names}

    def step(self, day: dict[str, DayEvidence]) -> None:
        """Take in one day. A histogram without evidence that day keeps its state: no reports, no bet."""
        for name, seen in day.items():
            self._log[name] = np.logaddexp(0.0, self._log[name]) + seen.log_e

    def evidence(self, name: str) -> float:
        """log10 of the histogram's own process, averaged over bets; -inf before its first day."""
        return float(_log_mean(self._log[name]) / math.log(10))

    def total(self) -> float:
        """log10 of the process averaged over all histograms."""
        return float(_log_mean(np.concatenate(list(self._log.values()))) / math.log(10))

    def alarm(self) -> bool:
        return self.total() >= math.log10(self._settings.threshold)

    def named(self) -> tuple[str, ...]:
        """The histograms whose own process passed the threshold, most evidence first."""
        limit = math.log10(self._settings.threshold)
        strong = [name for name in self._log if self.evidence(name) >= limit]
        return tuple(sorted(strong, key=self.evidence, reverse=True))


def _log_mean(values: Floats) -> float:
    top = float(values.max())
    return top if top == -math.inf else top + math.log(float(np.mean(np.exp(values - top))))
