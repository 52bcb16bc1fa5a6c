"""Guardrails: whether a stage must be halted, and whether it has passed. Pure.

Counters are judged by the lower end of a confidence interval, so that a rollout is not halted by what chance alone
does, and never because of one device: a phone that is broken is not a release that is broken.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from model_server.errors import InvalidRollout
from model_server.rollouts.observation import ArmCounts, Observation, latency_quantile, wilson

__all__ = ["Breach", "Limits", "breaches", "needed", "waiting_for"]

MIN_EVIDENCE = 20  # requests of an arm before its counters are judged at all
LATENCY_QUANTILE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a rollout tolerates. Shares are 0 to 1, times in seconds.

    A counter breaches when its share is surely (99 %) above its absolute limit, surely above the holdback's, and more
    than its ratio times the holdback's; with no holdback to compare with, the absolute limit alone counts.
    """

    install_failures: float = 0.05  # of the selected devices that tried
    min_devices: int = 2  # devices that must show a fault before it counts
    silent: float = 0.2  # of the selected devices, once the deadline has passed
    deadline_s: float = 86_400.0
    errors: float = 0.02  # of the candidate's requests
    errors_ratio: float = 2.0
    fallbacks: float = 0.1
    fallbacks_ratio: float = 2.0
    refused: float = 0.1
    refused_ratio: float = 2.0
    latency_ratio: float = 1.5  # of the P95 on the device, over the holdback's
    latency_floor_us: float = 1_000.0  # a difference below this is no difference
    min_requests: int = 100  # of each arm, before a stage passes
    min_reports: int = 1  # from the candidate's arm, before a stage passes
    adopted_share: float = 1.0  # of the devices that can run the candidate, before a stage passes
    soak_s: float = 0.0  # how long a stage lasts at least

    def to_dict(self) -> dict[str, float]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, float]) -> Limits:
        """Limits with some values changed. Raises InvalidRollout for an unknown name or a value out of range."""
        known = {field.name: field for field in fields(cls)}
        clean: dict[str, float] = {}
        for name, value in values.items():
            if name not in known:
                raise InvalidRollout(f"{name!r} is not a limit; the limits are {', '.join(known)}")
            whole = isinstance(known[name].default, int)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
                raise InvalidRollout(f"limit {name} must be a number that is not negative, not {value!r}")
            if whole and value != int(value):
                raise InvalidRollout(f"limit {name} must be a whole number, not {value!r}")
            if name in _SHARES and value > 1:
                raise InvalidRollout(f"limit {name} is a share: write a number from 0 to 1, not {value!r}")
            clean[name] = int(value) if whole else float(value)
        return cls(**clean)  # type: ignore[arg-type]


_SHARES = frozenset({"install_failures", "silent", "errors", "fallbacks", "refused", "adopted_share"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Breach:
    """A guardrail that was crossed: its name, what was seen, what is allowed, and the counts behind it."""

    guardrail: str
    observed: float
    limit: float
    numbers: Mapping[str, float]

    @property
    def reason(self) -> str:
        return f"{self.guardrail}: {self.observed:.4g} is above {self.limit:.4g}"


def breaches(seen: Observation, limits: Limits) -> tuple[Breach, ...]:
    """Every guardrail that ``seen`` crosses, in a fixed order; empty if the stage may go on."""
    found = [
        _install_failures(seen, limits),
        _silence(seen, limits),
        _counter("errors", seen, limits.errors, limits.errors_ratio, limits.min_devices),
        _counter("fallbacks", seen, limits.fallbacks, limits.fallbacks_ratio, limits.min_devices),
        _counter("refused", seen, limits.refused, limits.refused_ratio, limits.min_devices),
        _latency(seen, limits),
    ]
    return tuple(breach for breach in found if breach is not None)


def needed(seen: Observation, limits: Limits) -> int:
    """How many devices must run the candidate for the stage to pass: the configured share of those that can."""
    return math.ceil(limits.adopted_share * max(0, seen.selected - seen.failed - seen.incompatible))


def waiting_for(seen: Observation, limits: Limits, *, compare: bool) -> tuple[str, ...]:
    """What the stage still needs before it passes, in words; empty if it has passed.

    ``compare`` says whether there is a baseline that the holdback runs.
    """
    waits: list[str] = []
    if seen.adopted == 0:
        waits.append("a first device that runs the candidate")
    for what, wanted, there in (
        ("devices on the candidate", needed(seen, limits), seen.adopted),
        ("reports of the candidate", limits.min_reports, seen.reports),
        ("requests of the candidate", limits.min_requests, seen.candidate.requests),
        ("requests of the holdback", limits.min_requests if compare and seen.control else 0, seen.holdback.requests),
        ("seconds", math.ceil(limits.soak_s), int(seen.age_s)),
    ):
        if there < wanted:
            waits.append(f"{what}: {there} of {wanted}")
    return tuple(waits)


def _install_failures(seen: Observation, limits: Limits) -> Breach | None:
    tried = seen.adopted + seen.failed
    if tried == 0 or seen.failed < limits.min_devices or seen.failed / tried <= limits.install_failures:
        return None
    return Breach(
        guardrail="install_failures",
        observed=seen.failed / tried,
        limit=limits.install_failures,
        numbers={"failed": seen.failed, "adopted": seen.adopted, "selected": seen.selected},
    )


def _silence(seen: Observation, limits: Limits) -> Breach | None:
    if seen.age_s <= limits.deadline_s or seen.selected == 0 or seen.silent < limits.min_devices:
        return None
    if seen.silent / seen.selected <= limits.silent:
        return None
    return Breach(
        guardrail="silent",
        observed=seen.silent / seen.selected,
        limit=limits.silent,
        numbers={"silent": seen.silent, "selected": seen.selected, "age_s": seen.age_s},
    )


def _counter(name: str, seen: Observation, absolute: float, ratio: float, min_devices: int) -> Breach | None:
    count, requests, devices = _of(seen.candidate, name)
    if requests < MIN_EVIDENCE or devices < min_devices:
        return None
    control_count, control_requests, _ = _of(seen.holdback, name)
    numbers: dict[str, float] = {"count": count, "requests": requests, "devices": devices}
    limit = absolute
    if control_requests >= MIN_EVIDENCE:
        if count / requests <= ratio * control_count / control_requests:
            return None
        limit = max(limit, wilson(control_count, control_requests)[1])
        numbers |= {"holdback_count": control_count, "holdback_requests": control_requests}
    low = wilson(count, requests)[0]
    if low <= limit:
        return None
    return Breach(guardrail=name, observed=count / requests, limit=limit, numbers=numbers | {"at_least": low})


def _of(arm: ArmCounts, name: str) -> tuple[int, int, int]:
    """(count, out of how many, devices) of one counter. Refused inputs never became requests that were answered."""
    if name == "errors":
        return arm.errors, arm.requests, arm.erring
    if name == "fallbacks":
        return arm.fallbacks, arm.requests, arm.falling_back
    return arm.refused, arm.requests + arm.refused, arm.refusing


def _latency(seen: Observation, limits: Limits) -> Breach | None:
    candidate, holdback = seen.candidate.latency, seen.holdback.latency
    total, control_total = sum(candidate.values()), sum(holdback.values())
    if min(total, control_total) < max(MIN_EVIDENCE, limits.min_requests):
        return None
    # A 99 % interval of a quantile runs between two order statistics: compare the ends that favour the candidate.
    low = latency_quantile(candidate, LATENCY_QUANTILE - _quantile_spread(total))
    high = latency_quantile(holdback, LATENCY_QUANTILE + _quantile_spread(control_total))
    limit = max(limits.latency_ratio * high, high + limits.latency_floor_us)
    if low <= limit:
        return None
    return Breach(
        guardrail="latency_p95_us",
        observed=latency_quantile(candidate, LATENCY_QUANTILE),
        limit=limit,
        numbers={
            "requests": total,
            "holdback_p95_us": latency_quantile(holdback, LATENCY_QUANTILE),
            "holdback_requests": control_total,
            "at_least": low,
        },
    )


def _quantile_spread(total: int) -> float:
    return 2.576 * math.sqrt(LATENCY_QUANTILE * (1 - LATENCY_QUANTILE) / total)
