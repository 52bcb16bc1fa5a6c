"""The drift verdict of a model: what the fleet's days say against the approved baseline, and what they cannot. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from model_server.telemetry.baseline import Frozen
from model_server.telemetry.drift import Day, Watch, detectable, weigh
from model_server.telemetry.pooling import Monitored
from model_server.telemetry.privacy import composed_epsilon, zcdp_budget
from model_server.telemetry.settings import TelemetrySettings

__all__ = ["Approved", "FleetDay", "verdict"]

_HORIZON_DAYS = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetDay:
    """A closed day of the fleet: the noised number of ``devices``, and the histograms that can be compared with the
    baseline, empty if the cohort was below the minimum."""

    day: date
    devices: int
    histograms: Mapping[str, Day]


@dataclass(frozen=True, slots=True, kw_only=True)
class Approved:
    """A baseline in force: who froze it, from and to which day, and what it says of which histograms."""

    approved_by: str
    first_day: date
    last_day: date
    frozen: Frozen
    wanted: tuple[Monitored, ...]


def verdict(
    model: str,
    approved: Approved | None,
    days: Sequence[FleetDay],
    settings: TelemetrySettings,
    releases: Sequence[int] = (),
    unlike: Sequence[int] = (),
) -> dict[str, object]:
    """JSON of ``GET /v1/drift/{model}``. ``days`` are those after the baseline, oldest first; ``releases`` reported
    on them, and ``unlike`` did in histograms that are not the baseline's.

    ``statistic`` holds effect sizes with what noise and the devices' differences explain taken off (negative: nothing
    seen), ``evidence`` the base-10 logarithm of each histogram's own process. An alarm stands until a new baseline.
    """
    head: dict[str, object] = {
        "model": model,
        "mode": "central",
        "epsilon": settings.epsilon,
        "delta": settings.delta,
        "epsilon_year": round(composed_epsilon(zcdp_budget(settings.epsilon, settings.delta), 365, settings.delta), 1),
        "tolerance": settings.drift.tolerance,
        "threshold": settings.drift.threshold,
        "minimum_cohort": settings.minimum_cohort,
    }
    if approved is None:
        return {
            **head,
            "baseline": {"approved": False, "days": [], "devices": None},
            "days": [],
            "alarm": False,
            "since": None,
            "features": [],
            "cannot_see": "Any drift: there is no baseline. Approve one from closed days: "
            f'POST /v1/drift/{model}/baseline {{"from": …, "to": …, "approved_by": …}}.',
        }
    frozen = approved.frozen
    watch = Watch(tuple(frozen.histograms), settings.drift)
    shown: list[dict[str, object]] = []
    since: date | None = None
    named: dict[str, None] = {}
    for fleet in days:
        seen = {name: weigh(day, frozen.histograms[name], settings.drift) for name, day in fleet.histograms.items()}
        watch.step(seen)
        enough = bool(seen)
        if enough and watch.alarm():
            since = since or fleet.day
            named.update(dict.fromkeys(watch.named()))
        shown.append(
            {
                "day": fleet.day.isoformat(),
                "devices": fleet.devices if enough else None,
                "statistic": {name: round(one.effect, 5) for name, one in seen.items()},
                "evidence": {name: round(watch.evidence(name), 3) for name in seen},
                "alarm": enough and watch.alarm(),
            }
        )
    return {
        **head,
        "baseline": {
            "approved": True,
            "approved_by": approved.approved_by,
            "days": [day.isoformat() for day in frozen.days],
            "devices": frozen.devices,
            "releases": list(frozen.releases),
            "training_gap": {name: round(gap, 4) for name, gap in frozen.training_gap.items()},
            "unsteady": list(frozen.unsteady),
        },
        "days": shown,
        "alarm": since is not None,
        "since": since.isoformat() if since else None,
        "features": list(named),
        "cannot_see": _cannot_see(approved, days, settings, releases, unlike),
    }


def _cannot_see(
    approved: Approved,
    days: Sequence[FleetDay],
    settings: TelemetrySettings,
    releases: Sequence[int],
    unlike: Sequence[int],
) -> str:
    frozen = approved.frozen
    said: list[str] = []
    judged = [fleet for fleet in days if fleet.histograms]
    small = len(days) - len(judged)
    if judged:
        fleet = judged[-1]
        limits = {
            name: detectable(
                day,
                frozen.histograms[name],
                settings.drift,
                histograms=len(frozen.histograms),
                days=_HORIZON_DAYS,
            )
            for name, day in fleet.histograms.items()
        }
        low, high = min(limits.values()), max(limits.values())
        around = f"about {_two(low)}" if math.isclose(low, high, rel_tol=0.1) else f"{_two(low)} to {_two(high)}"
        said.append(
            f"Drift of an effect size below {around}, depending on the histogram, is not expected to be seen within "
            f"{_HORIZON_DAYS} days by {fleet.devices} devices at ε = {settings.epsilon:g}; the tolerance is "
            f"{settings.drift.tolerance:g}."
        )
    elif days:
        said.append("Any drift: no day since the baseline had enough devices.")
    else:
        like = " with reports in the baseline's histograms" if unlike else ""
        said.append(f"Any drift: no day{like} has closed since the baseline.")
    if unlike:
        numbers = ", ".join(map(str, unlike))
        said.append(
            f"Release(s) {numbers}: their histograms are not the baseline's, so nothing of them is compared. Approve a "
            "new baseline from their days."
        )
    if small:
        said.append(f"{small} day(s) had fewer than {settings.minimum_cohort} devices and were not judged.")
    if frozen.unsteady:
        said.append(
            "The approved days differ among themselves, so more is tolerated of: " + ", ".join(frozen.unsteady) + "."
        )
    others = sorted(set(releases) - set(frozen.releases))
    if others and any(one.predicted for one in approved.wanted):
        numbers = ", ".join(map(str, others))
        said.append(f"Classes and confidence of release(s) {numbers}: they were not part of the baseline.")
    said.append("Drift that changes no histogram, such as the right answer to the same inputs.")
    return " ".join(said)


def _two(value: float) -> str:
    return f"{value:.2g}"
