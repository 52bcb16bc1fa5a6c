"""Whether what was made fits the device that it was made for. Pure."""

from __future__ import annotations

from dataclasses import replace

from converters.report import Row
from devices.profiles import Profile, budgets, matches
from edge_runtime.bundle import Requirements

__all__ = ["unfit_targets", "within_budgets"]


def unfit_targets(profile: Profile, targets: tuple[str, ...]) -> dict[str, str]:
    """The targets that cannot run on the device, each with the reason: refused before any work is done for them."""
    possible = budgets(profile).targets
    why = profile.targets.note or "no engine runs there"
    if profile.too_small:
        return dict.fromkeys(targets, f"{profile.title} is too small: {why}")
    return {
        target: f"{profile.title} has no engine for {target}, only for {', '.join(possible)}"
        for target in targets
        if target not in possible
    }


def within_budgets(row: Row, profile: Profile, requirements: Requirements) -> Row:
    """``failed_gate`` for an artifact that is larger, or takes more memory, than the device's budgets allow."""
    if row.status != "ok" or row.bytes is None:
        return row
    reasons = matches(
        profile,
        requirements,
        target=row.target,
        artifact_bytes=row.bytes,
        peak_memory_bytes=row.peak_memory_bytes,
    )
    if not reasons:
        return row
    return replace(row, status="failed_gate", reason=f"{profile.title}: {'; '.join(reasons)}")
