"""Routing: where a request goes first, and where after the device answered. Pure.

The gates are those that have an input today: the input's size and range, the mode, and whether there is a local model
and a cloud to ask. The breaker has its word when the cloud is asked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from edge_runtime.errors import ConfigurationError
from edge_runtime.hybrid.breaker import BreakerPolicy
from edge_runtime.hybrid.deferral import deferred
from edge_runtime.prediction import Reason

__all__ = ["Mode", "Route", "RoutingPolicy", "after_local", "first"]


class Mode(StrEnum):
    """Named as in Firebase AI Logic's hybrid inference."""

    PREFER_ON_DEVICE = "prefer_on_device"
    ONLY_ON_DEVICE = "only_on_device"
    PREFER_IN_CLOUD = "prefer_in_cloud"
    ONLY_IN_CLOUD = "only_in_cloud"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingPolicy:
    """How one app wants its requests answered. Raises `ConfigurationError` for values that cannot work.

    ``threshold`` (0 to 1) overrides the one in the signed manifest. ``out_of_range`` says what happens to values that
    training did not see: ``refuse`` raises `InputOutOfRange`, ``route`` asks the cloud, ``accept`` predicts and counts.
    ``largest_local_bytes`` sends larger inputs to the cloud. ``cloud_timeout_s`` bounds a whole cloud call, checked
    between reads. The cache keeps at most ``cache_bytes`` of cloud answers for ``cache_age_s``; 0 switches it off.
    ``static_default`` is the last link of the fallback chain: arrays or nested lists by output name, or an empty
    mapping for an answer without output; None means that `NoAnswer` is raised instead.
    """

    mode: Mode = Mode.PREFER_ON_DEVICE
    threshold: float | None = None
    out_of_range: Literal["refuse", "route", "accept"] = "refuse"
    largest_local_bytes: int | None = None
    use_cloud_when_deferred: bool = True
    cloud_timeout_s: float = 2.0
    connect_timeout_s: float = 0.5
    breaker: BreakerPolicy = field(default_factory=BreakerPolicy)
    cache_bytes: int = 1_048_576
    cache_age_s: float = 900.0
    static_default: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "mode", Mode(self.mode))
        except ValueError as error:
            raise ConfigurationError(f"mode must be one of {', '.join(Mode)}, not {self.mode!r}") from error
        if self.out_of_range not in ("refuse", "route", "accept"):
            raise ConfigurationError(f"out_of_range must be refuse, route or accept, not {self.out_of_range!r}")
        if self.threshold is not None and not 0.0 <= self.threshold <= 1.0:
            raise ConfigurationError(f"threshold must lie between 0 and 1, not {self.threshold}")
        for name in ("cloud_timeout_s", "connect_timeout_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigurationError(f"{name} must be a positive number of seconds, not {value}")
        if self.static_default is not None and not isinstance(self.static_default, Mapping):
            raise ConfigurationError(f"static_default must map output names to values, not {self.static_default!r}")
        if self.cache_bytes < 0 or not self.cache_age_s >= 0:
            raise ConfigurationError("cache_bytes and cache_age_s cannot be negative")


@dataclass(frozen=True, slots=True)
class Route:
    """``to``: ``device``, ``cloud`` or ``chain`` (neither; go down the fallback chain); ``reason`` says why."""

    to: Literal["device", "cloud", "chain"]
    reason: Reason


_DEVICE = Route("device", Reason.CONFIDENT)
_ROUTES = {
    (to, reason): Route(to, reason)
    for to in ("cloud", "chain")
    for reason in (Reason.PREFERRED_CLOUD, Reason.NO_LOCAL_MODEL, Reason.GATE_SIZE, Reason.GATE_RANGE, Reason.NO_CLOUD)
}

_TRUSTED = Route("device", Reason.CONFIDENT)
_UNSCORED = Route("device", Reason.UNSCORED)
_ASK = Route("cloud", Reason.DEFERRED)
_KEEP = Route("chain", Reason.LOW_CONFIDENCE_KEPT)


def first(policy: RoutingPolicy, *, local: bool, cloud: bool, out_of_range: bool, size: int) -> Route:
    """Where a checked request goes first.

    ``local``: there is a model to run; ``cloud``: an endpoint is configured, a cloud model named, and its inputs were
    given; ``out_of_range``: values that training did not see; ``size``: bytes of the local inputs.
    """
    mode = policy.mode
    if mode is Mode.ONLY_IN_CLOUD or mode is Mode.PREFER_IN_CLOUD:
        if cloud:
            return _ROUTES["cloud", Reason.PREFERRED_CLOUD]
        return _ROUTES["chain", Reason.NO_CLOUD]
    fired: Reason | None = None
    if not local:
        fired = Reason.NO_LOCAL_MODEL
    elif out_of_range and policy.out_of_range == "route":
        fired = Reason.GATE_RANGE
    elif policy.largest_local_bytes is not None and size > policy.largest_local_bytes:
        fired = Reason.GATE_SIZE
    if fired is None:
        return _DEVICE
    return _ROUTES["cloud" if cloud and mode is not Mode.ONLY_ON_DEVICE else "chain", fired]


def after_local(policy: RoutingPolicy, *, cloud: bool, confidence: float | None, threshold: float | None) -> Route:
    """What to do with the device's finite answer: ``device`` trusts it, ``cloud`` asks, ``chain`` keeps it as degraded.

    ``confidence`` and ``threshold`` are None where the model has no confidence rule: then it is trusted.
    """
    if not deferred(confidence, threshold):
        return _TRUSTED if confidence is not None and threshold is not None else _UNSCORED
    if cloud and policy.use_cloud_when_deferred and policy.mode is not Mode.ONLY_ON_DEVICE:
        return _ASK
    return _KEEP
