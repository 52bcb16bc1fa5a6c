"""What `EdgeRuntime.stats` shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge_runtime.stats import percentile_us

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_runtime.answering import Answering
    from edge_runtime.background import Background
    from edge_runtime.device import Device
    from edge_runtime.stats import Totals
    from edge_runtime.upkeep import Upkeep

__all__ = ["summary"]


def summary(upkeep: Upkeep, answering: Answering, background: Background | None, device: Device) -> dict[str, Any]:
    """Plain values that JSON can hold."""
    loaded, check, slots = upkeep.loaded, upkeep.last_check, upkeep.store.slots
    session = None if loaded is None else loaded.session
    return {
        "device": device.id,
        "model": None if loaded is None else loaded.manifest.model,
        "release": None if loaded is None or session is None else loaded.release,
        "artifact": None if loaded is None else loaded.artifact.file,
        "engine": None if session is None else f"{session.engine.name} {session.engine.version}",
        "arm": None if loaded is None else loaded.arm,
        "trial": None if slots.trial is None else {"good": slots.trial.good, "attempt": slots.trial.attempt},
        "disabled": slots.disabled,
        "counters": [
            {"release": release, "arm": arm} | _counters(totals) for (release, arm), totals in upkeep.totals().items()
        ],
        "breaker": answering.breaker.state.value,
        "telemetry": upkeep.spool.mode.name.lower(),
        "enrolment": None
        if upkeep.enrolment is None
        else {"state": upkeep.enrolment.state, "detail": upkeep.enrolment.detail},
        "last_check": None if check is None else {"outcome": check.outcome.value, "detail": check.detail},
        "clock": None
        if check is None or check.clock is None
        else {"off_s": check.clock.off_s, "evidence": check.clock.evidence, "detail": str(check.clock)},
        "last_error": answering.last_error,
        "report_error": upkeep.report_error,
        "background_error": None if background is None else background.last_error,
    }


def _counters(totals: Totals) -> dict[str, Any]:
    return {
        "requests": totals.requests,
        "errors": totals.errors,
        "fallbacks": totals.fallbacks,
        "refused": totals.refused,
        "accepted_out_of_range": totals.accepted_out_of_range,
        "unanswered": totals.unanswered,
        "sources": {name: count for name, count in totals.sources.items() if count},
        "reasons": {name: count for name, count in totals.reasons.items() if count},
        "latency_us": {"device": _percentiles(totals.latency_device), "cloud": _percentiles(totals.latency_cloud)},
    }


def _percentiles(bins: Sequence[int]) -> dict[str, float | None]:
    return {f"p{round(share * 100)}": percentile_us(bins, share) for share in (0.5, 0.95, 0.99)}
