from dataclasses import replace

import pytest

from edge_runtime.errors import Outcome
from model_server.rollouts.outcomes import (
    MOST_REQUESTS,
    Counters,
    DeviceStatus,
    InstallOutcome,
    Report,
    concerns,
    status_after,
    weighed,
)

CANDIDATE = 2


def report(running: int | None, *outcomes: tuple[str, int | None], counted: int | None = None) -> Report:
    counters = Counters(
        release=counted or 1,
        arm="candidate",
        requests=1,
        errors=0,
        fallbacks=0,
        refused=0,
        latency_device={},
        latency_cloud={},
    )
    return Report(
        device="d",
        model="m",
        channel="stable",
        sequence=1,
        attributes={},
        running=running,
        arm="none",
        rollout=None,
        attempt=None,
        outcomes=[InstallOutcome(outcome=name, release=release) for name, release in outcomes],
        counters=[counters] if counted else [],
    )


def after(before: DeviceStatus, report_: Report) -> DeviceStatus:
    return status_after(before, report_, CANDIDATE)[0]


def test_a_device_that_runs_the_candidate_has_adopted_it_whatever_went_before() -> None:
    for before in DeviceStatus:
        assert after(before, report(2, (Outcome.CANARY_FAILED, 2), (Outcome.INSTALLED, 2))) is DeviceStatus.ADOPTED


@pytest.mark.parametrize(
    "outcome", [Outcome.CANARY_FAILED, Outcome.ROLLED_BACK, Outcome.VERIFICATION_FAILED, Outcome.DENIED_AFTER_ROLLBACK]
)
def test_a_device_that_could_not_or_went_back_has_failed(outcome: Outcome) -> None:
    assert after(DeviceStatus.PENDING, report(1, (outcome, 2))) is DeviceStatus.FAILED


def test_an_incompatible_device_has_not_failed() -> None:
    assert after(DeviceStatus.PENDING, report(1, (Outcome.INCOMPATIBLE, 2))) is DeviceStatus.INCOMPATIBLE


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome.value.startswith("Deferred")])
def test_a_device_that_waits_for_its_owners_rules_has_not_failed(outcome: Outcome) -> None:
    assert after(DeviceStatus.PENDING, report(1, (outcome, 2))) is DeviceStatus.PENDING
    assert after(DeviceStatus.FAILED, report(1, (outcome, 2))) is DeviceStatus.PENDING


def test_a_wrong_clock_is_about_no_release() -> None:
    for before in (DeviceStatus.PENDING, DeviceStatus.FAILED, DeviceStatus.INCOMPATIBLE):
        assert after(before, report(1, (Outcome.CLOCK_WRONG, None))) is before


def test_outcomes_about_other_releases_say_nothing() -> None:
    assert after(DeviceStatus.PENDING, report(1, (Outcome.CANARY_FAILED, 1))) is DeviceStatus.PENDING
    assert after(DeviceStatus.FAILED, report(1, (Outcome.INSTALLED, 1))) is DeviceStatus.FAILED


def test_a_device_that_silently_left_the_candidate_is_pending_again() -> None:
    assert after(DeviceStatus.ADOPTED, report(1)) is DeviceStatus.PENDING


def test_an_outcome_that_this_server_does_not_know_is_not_a_failure() -> None:
    assert after(DeviceStatus.FAILED, report(1, ("DeferredUntilNight", 2))) is DeviceStatus.PENDING


def test_a_report_is_evidence_if_anything_in_it_is_about_the_candidate() -> None:
    assert concerns(report(2), CANDIDATE)
    assert concerns(report(1, (Outcome.ROLLED_BACK, 2)), CANDIDATE)
    assert concerns(report(1, counted=2), CANDIDATE)
    assert not concerns(report(1, (Outcome.INSTALLED, 1), counted=1), CANDIDATE)


def test_heavy_counters_keep_their_shares_and_lose_their_weight() -> None:
    [one] = report(2, counted=2).counters
    heavy = replace(
        one, requests=4_000_000, errors=1_000_000, fallbacks=2**40, refused=2_000_000, latency_device={3: 30, 9: 2**40}
    )
    [light] = weighed([heavy])
    assert (light.requests, light.errors, light.fallbacks, light.refused) == (MOST_REQUESTS, 250, MOST_REQUESTS, 500)
    assert light.latency_device == {3: 0, 9: MOST_REQUESTS}
    assert weighed([one]) == [one]


def test_counters_of_a_release_and_arm_count_once_in_a_report() -> None:
    [one] = report(2, counted=2).counters
    assert weighed([one] * 32) == [one]
    other = replace(one, arm="holdback")
    assert weighed([one, other, one]) == [one, other]
