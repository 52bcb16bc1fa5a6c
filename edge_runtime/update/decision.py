"""What a check should do, from the plan and what is on the device. Pure.

`plan.wanted` says which release the plan asks for. This adds what the device knows by itself: what failed here, what is
revoked, what it can return to without a download, and the ceiling for a baseline that it has never run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from edge_runtime.device import Device
from edge_runtime.errors import Outcome
from edge_runtime.slots import Slots, is_denied
from edge_runtime.update.plan import Ceiling, Plan, State, bucket, ceiling_share, wanted

__all__ = ["Action", "Decision", "decide", "waits"]

# A release that nobody signed: no share at any age.
_NEVER: Ceiling = ((0, 0),)


class Action(StrEnum):
    NOTHING = "nothing"
    INSTALL = "install"  # download what is not here, try it
    RETURN = "return"  # make `previous` active again; with no release in the decision, nothing
    DISABLE = "disable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """``outcome`` is what to report if the action needs no work, or once it is done. ``detail`` is for people.
    ``urgent``: it must not wait for a better time, since what runs here is rolled back, or nothing does."""

    action: Action
    release: int | None
    outcome: Outcome
    detail: str
    urgent: bool = False


def decide(
    plan: Plan, device: Device, slots: Slots, *, ages: Mapping[int, float], ceilings: Mapping[int, Ceiling]
) -> Decision:
    """``ages`` in seconds since this device first verified a release; ``ceilings`` of the signed releases that the plan
    names. ``slots`` already obeys the floor and the revocations (`slots.restrict`)."""
    if plan.state is State.DISABLED:
        return Decision(
            action=Action.DISABLE, release=None, outcome=Outcome.DISABLED, detail="the plan switches the model off here"
        )
    current = None if slots.active is None else slots.active.release
    release = wanted(
        plan,
        device.id,
        device.attributes,
        current=current,
        age_s=ages.get(plan.candidate, 0.0),
        ceiling=ceilings.get(plan.candidate, _NEVER),
    )
    if plan.state in (State.RUNNING, State.COMPLETE) and plan.candidate not in ceilings and current != plan.candidate:
        return _unsigned(plan.candidate)
    if release == current:
        return _nothing(release, Outcome.UNCHANGED, "the plan asks for what is here")
    if release is None:
        return _leave_candidate(slots, "the plan rolls the release back and names no baseline")
    must_leave = plan.state is State.ROLLED_BACK and current == plan.candidate
    refusal = _refusal(plan, release, slots, device, ages, ceilings)
    if refusal is not None:
        return _leave_candidate(slots, refusal.detail) if must_leave else refusal
    if slots.previous is not None and slots.previous.release == release and release != plan.candidate:
        return Decision(
            action=Action.RETURN, release=release, outcome=Outcome.RETURNED, detail=f"back to release {release}"
        )
    return Decision(
        action=Action.INSTALL,
        release=release,
        outcome=Outcome.RETURNED if must_leave else Outcome.INSTALLED,
        detail=f"release {release} is here and on trial",
        urgent=must_leave or current is None or slots.disabled,
    )


def waits(plan: Plan, *, ages: Mapping[int, float], ceilings: Mapping[int, Ceiling]) -> bool:
    """Whether a ceiling of a release that the plan names still rises with age, so that the age must be kept."""
    return any(
        ages.get(release, 0.0) < ceiling[-1][0]
        for release, ceiling in ceilings.items()
        if ceiling and release in (plan.candidate, plan.baseline)
    )


def _refusal(
    plan: Plan,
    release: int,
    slots: Slots,
    device: Device,
    ages: Mapping[int, float],
    ceilings: Mapping[int, Ceiling],
) -> Decision | None:
    """Why the device must not take the release that the plan asks for, or None."""
    if release not in ceilings:
        return _unsigned(release)
    if release < slots.min_release or release in slots.revoked:
        return _nothing(release, Outcome.REVOKED, f"the plan names release {release}, which is revoked")
    if is_denied(slots, release, plan.attempt, plan.rollout):
        return _nothing(
            release, Outcome.DENIED_AFTER_ROLLBACK, f"release {release} failed here in attempt {plan.attempt}"
        )
    # The ceiling bounds how fast stolen online keys can move a fleet to any release, whatever a plan calls it. A
    # baseline that ran well here, and a device on which nothing ever did, are no way around it.
    known = slots.previous is not None and slots.previous.release == release
    if release == plan.baseline and slots.settled and not known:
        allowed = ceiling_share(ceilings[release], ages.get(release, 0.0))
        if bucket(plan.salt, device.id) >= allowed:
            return _nothing(release, Outcome.UNCHANGED, f"the baseline {release} is new here and waits for its ceiling")
    return None


def _leave_candidate(slots: Slots, why: str) -> Decision:
    release = None if slots.previous is None else slots.previous.release
    to = "nothing, since no earlier release is here" if release is None else f"release {release}"
    return Decision(action=Action.RETURN, release=release, outcome=Outcome.RETURNED, detail=f"{why}: back to {to}")


def _unsigned(release: int) -> Decision:
    return _nothing(release, Outcome.PLAN_INVALID, f"the plan names release {release}, which nobody signed")


def _nothing(release: int | None, outcome: Outcome, detail: str) -> Decision:
    return Decision(action=Action.NOTHING, release=release, outcome=outcome, detail=detail)
