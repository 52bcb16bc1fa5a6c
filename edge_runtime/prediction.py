"""What `predict` answers with, and why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["REASON_CELLS", "Prediction", "Reason", "Source"]


class Source(StrEnum):
    """Who answered."""

    DEVICE = "device"
    CLOUD = "cloud"
    CACHE = "cache"  # the cloud's answer to this very input, kept from before
    DEFAULT = "default"  # the static default of the routing policy


class Reason(StrEnum):
    """Why that source answered: what was decided, or what went wrong last on the way to it."""

    # The device's own answer, trusted.
    CONFIDENT = "Confident"  # its confidence reached the threshold
    UNSCORED = "Unscored"  # the model has no confidence rule
    # The cloud was asked.
    DEFERRED = "Deferred"  # the device's confidence was below the threshold
    PREFERRED_CLOUD = "PreferredCloud"  # the mode asks the cloud first
    GATE_SIZE = "GateSize"  # the input is larger than the policy runs locally
    GATE_RANGE = "GateRange"  # values outside what training saw
    # The device did not answer.
    NO_LOCAL_MODEL = "NoLocalModel"  # switched off by the plan, revoked, or it would not load
    ENGINE_FAILED = "EngineFailed"
    NON_FINITE_OUTPUT = "NonFiniteOutput"
    # The cloud did not answer, so a later link of the chain did.
    LOW_CONFIDENCE_KEPT = "LowConfidenceKept"  # below the threshold; there was no cloud to ask
    NO_CLOUD = "NoCloud"  # wanted, but none is configured, or its inputs were not given
    CLOUD_UNREACHABLE = "CloudUnreachable"
    CLOUD_REFUSED = "CloudRefused"
    BREAKER_OPEN = "BreakerOpen"


# Cell of each reason in the telemetry histogram ``reasons``. Never reorder: add at the end, 16 at most.
REASON_CELLS: dict[Reason, int] = {reason: cell for cell, reason in enumerate(Reason)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One answer.

    ``output`` maps the manifest's output names to arrays without the batch axis; it is empty for the static default of
    a policy that gives none. ``label`` and ``index`` name the winning class and ``confidence`` (0 to 1) is its
    calibrated probability; each is None where the model or the source has none. ``degraded`` says that this is not the
    answer the policy wanted. ``release`` is the device's release, ``cloud`` the ``model/release`` that answered.
    ``latency_us`` is the time inside `predict`.
    """

    output: dict[str, NDArray[Any]]
    label: str | None
    index: int | None
    confidence: float | None
    source: Source
    reason: Reason
    release: int | None
    cloud: str | None
    degraded: bool
    latency_us: float
