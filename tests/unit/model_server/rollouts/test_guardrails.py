from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_server.errors import InvalidRollout
from model_server.rollouts.guardrails import Limits, breaches, needed, waiting_for
from model_server.rollouts.observation import ArmCounts, Observation, latency_quantile, wilson

GOOD_ARM = ArmCounts(requests=1_000, latency={200: 950, 220: 50})
HEALTHY = Observation(
    known=60,
    selected=10,
    adopted=10,
    failed=0,
    incompatible=0,
    silent=0,
    control=12,
    reports=30,
    age_s=60.0,
    candidate=GOOD_ARM,
    holdback=GOOD_ARM,
)
LIMITS = Limits()


def names(seen: Observation, limits: Limits = LIMITS) -> list[str]:
    return [breach.guardrail for breach in breaches(seen, limits)]


def test_a_healthy_stage_crosses_nothing_and_passes() -> None:
    assert names(HEALTHY) == []
    assert waiting_for(HEALTHY, LIMITS, compare=True) == ()


def test_install_failures_above_the_limit_are_a_breach_with_its_numbers() -> None:
    [breach] = breaches(replace(HEALTHY, adopted=7, failed=3), LIMITS)
    assert (breach.guardrail, breach.observed, breach.limit) == ("install_failures", 0.3, 0.05)
    assert breach.numbers == {"failed": 3, "adopted": 7, "selected": 10}


def test_one_failing_device_never_halts_a_rollout() -> None:
    assert names(replace(HEALTHY, adopted=4, failed=1)) == []
    broken = ArmCounts(requests=100, errors=100, erring=1)
    assert names(replace(HEALTHY, candidate=broken)) == []


def test_incompatible_devices_are_not_failures_and_are_not_waited_for() -> None:
    seen = replace(HEALTHY, adopted=4, incompatible=6)
    assert names(seen) == []
    assert needed(seen, LIMITS) == 4
    assert waiting_for(seen, LIMITS, compare=True) == ()


def test_silence_counts_only_past_the_deadline() -> None:
    seen = replace(HEALTHY, adopted=6, silent=4)
    assert names(seen) == []
    assert names(replace(seen, age_s=LIMITS.deadline_s + 1)) == ["silent"]


@pytest.mark.parametrize(
    ("name", "arm"),
    [
        ("errors", ArmCounts(requests=200, errors=20, erring=5)),
        ("fallbacks", ArmCounts(requests=200, fallbacks=60, falling_back=5)),
        ("refused", ArmCounts(requests=200, refused=80, refusing=5)),
    ],
)
def test_a_counter_far_above_its_limit_and_the_holdback_is_a_breach(name: str, arm: ArmCounts) -> None:
    assert names(replace(HEALTHY, candidate=arm)) == [name]


def test_a_counter_as_bad_in_the_holdback_is_not_the_candidates_fault() -> None:
    bad = ArmCounts(requests=1_000, errors=100, erring=8)
    assert names(replace(HEALTHY, candidate=bad, holdback=bad)) == []


def test_a_fault_in_one_of_twenty_requests_is_seen_in_a_small_fleet() -> None:
    seen = replace(
        HEALTHY,
        candidate=ArmCounts(requests=400, errors=20, erring=8),
        holdback=ArmCounts(requests=400),
    )
    assert names(seen) == ["errors"]


def test_a_share_below_the_ratio_is_tolerated_however_sure_it_is() -> None:
    candidate = ArmCounts(requests=100_000, errors=6_000, erring=10)
    holdback = ArmCounts(requests=100_000, errors=4_000, erring=10)
    assert names(replace(HEALTHY, candidate=candidate, holdback=holdback)) == []
    assert names(replace(HEALTHY, candidate=candidate, holdback=holdback), replace(LIMITS, errors_ratio=1.2)) == [
        "errors"
    ]


def test_without_a_holdback_the_absolute_limit_counts_alone() -> None:
    bad = ArmCounts(requests=1_000, errors=100, erring=8)
    assert names(replace(HEALTHY, candidate=bad, holdback=ArmCounts())) == ["errors"]


def test_few_requests_are_no_evidence() -> None:
    assert names(replace(HEALTHY, candidate=ArmCounts(requests=19, errors=19, erring=5))) == []


def test_a_slower_p95_than_the_holdbacks_is_a_breach() -> None:
    slow = replace(GOOD_ARM, latency={240: 1_000})  # 2**15 µs, against 2**12.5
    assert names(replace(HEALTHY, candidate=slow)) == ["latency_p95_us"]


def test_a_latency_difference_below_the_floor_is_none() -> None:
    fast, slower = {64: 1_000}, {96: 1_000}  # 16 µs and 64 µs
    seen = replace(HEALTHY, candidate=replace(GOOD_ARM, latency=slower), holdback=replace(GOOD_ARM, latency=fast))
    assert names(seen) == []
    assert names(seen, replace(LIMITS, latency_floor_us=10.0)) == ["latency_p95_us"]


def test_a_stage_waits_for_devices_reports_requests_holdback_and_time() -> None:
    empty = replace(HEALTHY, adopted=0, reports=0, age_s=1.0, candidate=ArmCounts(), holdback=ArmCounts(requests=5))
    waits = waiting_for(empty, replace(LIMITS, soak_s=10), compare=True)
    assert waits == (
        "a first device that runs the candidate",
        "devices on the candidate: 0 of 10",
        "reports of the candidate: 0 of 1",
        "requests of the candidate: 0 of 100",
        "requests of the holdback: 5 of 100",
        "seconds: 1 of 10",
    )


def test_without_a_baseline_the_holdback_is_not_waited_for() -> None:
    assert waiting_for(replace(HEALTHY, holdback=ArmCounts()), LIMITS, compare=False) == ()


def test_a_share_of_the_devices_may_be_enough() -> None:
    seen = replace(HEALTHY, adopted=9)
    assert waiting_for(seen, LIMITS, compare=True) == ("devices on the candidate: 9 of 10",)
    assert waiting_for(seen, replace(LIMITS, adopted_share=0.9), compare=True) == ()


@pytest.mark.parametrize(
    "values",
    [
        {"eror": 1.0},
        {"errors": -1.0},
        {"errors": 2.0},
        {"min_requests": 1.5},
        {"errors": float("nan")},
        {"silent": True},
    ],
)
def test_limits_that_cannot_be_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(InvalidRollout):
        Limits.from_dict(values)


def test_limits_survive_json() -> None:
    assert Limits.from_dict(Limits(min_requests=7).to_dict()) == Limits(min_requests=7)


@given(st.integers(0, 1_000), st.integers(1, 1_000))
def test_the_wilson_interval_holds_the_share(count: int, extra: int) -> None:
    total = count + extra
    low, high = wilson(count, total)
    assert 0 <= low <= count / total <= high <= 1


@given(st.dictionaries(st.integers(0, 383), st.integers(1, 50), min_size=1, max_size=30), st.floats(0, 1))
def test_a_latency_quantile_is_never_below_that_share_of_answers(latency: dict[int, int], quantile: float) -> None:
    edge = latency_quantile(latency, quantile)
    below = sum(count for number, count in latency.items() if 2 ** ((number + 1) / 16) <= edge * (1 + 1e-9))
    assert below >= quantile * sum(latency.values()) - 1e-6


@given(
    requests=st.integers(0, 10_000),
    errors=st.integers(0, 10_000),
    devices=st.integers(0, 50),
)
def test_more_errors_never_make_a_breach_go_away(requests: int, errors: int, devices: int) -> None:
    errors = min(errors, requests)
    arm = ArmCounts(requests=requests, errors=errors, erring=devices)
    if names(replace(HEALTHY, candidate=arm)) == ["errors"]:
        assert names(replace(HEALTHY, candidate=replace(arm, errors=requests))) == ["errors"]
