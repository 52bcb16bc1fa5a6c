"""What a check decides, from the plan and what is on the device."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from edge_runtime import slots as s
from edge_runtime.device import Device
from edge_runtime.errors import Outcome
from edge_runtime.slots import Installed, Slots
from edge_runtime.update.decision import Action, Decision, decide, waits
from edge_runtime.update.plan import PARTS, Ceiling, Plan, State, bucket
from tests.support.world import PLAN

DEVICE = Device(id="device-1")
NO_CEILINGS: Mapping[int, Ceiling] = {1: (), 2: (), 3: ()}


def on(*releases: int) -> Slots:
    """The first is active, the second previous."""
    installed = [Installed(release=r, artifact="m.onnx", manifest_sha256="0" * 64) for r in releases]
    previous = installed[1] if len(installed) > 1 else None
    return Slots(active=installed[0] if installed else None, previous=previous, settled=bool(installed))


def ask(
    slots: Slots,
    *,
    ages: Mapping[int, float] | None = None,
    ceilings: Mapping[int, Ceiling] = NO_CEILINGS,
    **changes: object,
) -> Decision:
    plan: Plan = dataclasses.replace(PLAN, **changes)  # type: ignore[arg-type]
    return decide(plan, DEVICE, slots, ages=ages or {}, ceilings=ceilings)


def test_a_device_inside_the_share_installs_the_candidate() -> None:
    decision = ask(on(1))
    assert (decision.action, decision.release, decision.outcome) == (Action.INSTALL, 2, Outcome.INSTALLED)


def test_what_is_here_already_needs_nothing() -> None:
    assert ask(on(2)).action is Action.NOTHING
    assert ask(on(2)).outcome is Outcome.UNCHANGED


def test_a_rolled_back_candidate_goes_back_to_the_slot_that_is_still_here() -> None:
    decision = ask(on(2, 1), state=State.ROLLED_BACK)
    assert (decision.action, decision.release, decision.outcome) == (Action.RETURN, 1, Outcome.RETURNED)


def test_a_rolled_back_candidate_downloads_a_baseline_that_is_not_here() -> None:
    decision = ask(on(2), state=State.ROLLED_BACK)
    assert (decision.action, decision.release, decision.outcome) == (Action.INSTALL, 1, Outcome.RETURNED)


def test_a_rolled_back_candidate_without_baseline_goes_back_to_whatever_was_before() -> None:
    assert ask(on(2, 1), state=State.ROLLED_BACK, baseline=None).release == 1
    nothing = ask(on(2), state=State.ROLLED_BACK, baseline=None)
    assert (nothing.action, nothing.release) == (Action.RETURN, None)


def test_a_rolled_back_candidate_is_left_also_when_the_baseline_cannot_be_taken() -> None:
    for slots in (
        dataclasses.replace(on(2, 3), revoked=(1,)),
        s.deny(on(2, 3), 1, 1, PLAN.rollout),
    ):
        decision = ask(slots, state=State.ROLLED_BACK)
        assert (decision.action, decision.release) == (Action.RETURN, 3)


def test_a_disabled_plan_switches_off() -> None:
    assert ask(on(1), state=State.DISABLED).action is Action.DISABLE


def test_a_release_that_failed_here_waits_for_another_attempt() -> None:
    slots = s.deny(on(1), 2, 1, PLAN.rollout)
    assert ask(slots).outcome is Outcome.DENIED_AFTER_ROLLBACK
    assert ask(slots).action is Action.NOTHING
    assert ask(slots, attempt=2).action is Action.INSTALL
    assert ask(slots, rollout="r-2").action is Action.INSTALL


def test_a_revoked_or_too_old_release_is_not_taken() -> None:
    assert ask(dataclasses.replace(on(1), revoked=(2,))).outcome is Outcome.REVOKED
    assert ask(dataclasses.replace(on(3), min_release=3)).outcome is Outcome.REVOKED


def test_a_release_that_nobody_signed_is_not_taken() -> None:
    assert ask(on(1), ceilings={1: ()}).outcome is Outcome.PLAN_INVALID
    assert ask(on(3, 1), ceilings={1: ()}).outcome is Outcome.PLAN_INVALID
    assert ask(on(2, 1), ceilings={1: ()}, state=State.ROLLED_BACK).action is Action.RETURN
    assert ask(on(3), ceilings={2: ()}, share=0).outcome is Outcome.PLAN_INVALID


def test_a_fresh_device_takes_the_baseline_at_once() -> None:
    decision = ask(on(), share=0, ceilings={1: ((0, 0),), 2: ()})
    assert (decision.action, decision.release) == (Action.INSTALL, 1)


def test_a_device_that_a_plan_made_empty_is_not_fresh() -> None:
    emptied = dataclasses.replace(on(), settled=True)
    assert ask(emptied, share=0, ceilings={1: ((0, 0),), 2: ()}).action is Action.NOTHING


def test_a_new_baseline_waits_for_its_ceiling_where_something_else_runs() -> None:
    ceilings: Mapping[int, Ceiling] = {1: ((0, 0), (3600, PARTS)), 2: ()}
    assert ask(on(3), share=0, ceilings=ceilings, ages={1: 3599.0}).action is Action.NOTHING
    assert ask(on(3), share=0, ceilings=ceilings, ages={1: 3600.0}).action is Action.INSTALL
    # One that ran here before does not wait.
    assert ask(on(3, 1), share=0, ceilings=ceilings).action is Action.RETURN
    # And a candidate that is rolled back is left at once, for what ran before it.
    assert ask(on(2, 3), ceilings=ceilings, state=State.ROLLED_BACK).release == 3


def test_the_ceiling_is_a_share_of_devices() -> None:
    at = bucket(PLAN.salt, DEVICE.id)
    assert ask(on(1), ceilings={1: (), 2: ((0, at),)}).action is Action.NOTHING
    assert ask(on(1), ceilings={1: (), 2: ((0, at + 1),)}).action is Action.INSTALL


def test_an_age_is_worth_keeping_while_a_ceiling_still_rises() -> None:
    ceilings: Mapping[int, Ceiling] = {1: (), 2: ((0, 1), (3600, PARTS))}
    assert waits(PLAN, ages={2: 10.0}, ceilings=ceilings)
    assert not waits(PLAN, ages={2: 3600.0}, ceilings=ceilings)
    assert not waits(PLAN, ages={}, ceilings=NO_CEILINGS)


def test_an_install_is_urgent_where_what_runs_is_rolled_back_or_nothing_does() -> None:
    assert not ask(on(1)).urgent
    assert ask(on(2), state=State.ROLLED_BACK).urgent
    assert ask(on()).urgent
    assert ask(s.disable(on(1), disabled=True)).urgent
