"""The rollout plan: reading it, and what a device makes of it."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.bundle.errors import ManifestError, UnsupportedFormat
from edge_runtime.update.plan import PARTS, Ceiling, Plan, State, arm, bucket, ceiling_share, in_holdback, wanted

PLAN = Plan(
    model="exercise",
    channel="stable",
    rollout="r-1",
    salt="salt",
    candidate=3,
    baseline=2,
    share=PARTS // 2,
    holdback=PARTS // 5,
    predicate=None,
    state=State.RUNNING,
    attempt=1,
)


def device_in(low: int, high: int, salt: str = "salt") -> str:
    """The first device id whose bucket is in [low, high)."""
    return next(d for d in (f"device-{i}" for i in range(100_000)) if low <= bucket(salt, d) < high)


INSIDE = device_in(0, PARTS // 2)
OUTSIDE = device_in(PARTS // 2, PARTS * 4 // 5)
HELD_BACK = device_in(PARTS * 4 // 5, PARTS)


def ask(plan: Plan, device: str, current: int | None, age_s: float = 0.0, ceiling: Ceiling = ()) -> int | None:
    return wanted(plan, device, {"arch": "arm64"}, current=current, age_s=age_s, ceiling=ceiling)


def change(plan: Plan, **values: object) -> Plan:
    return dataclasses.replace(plan, **values)  # type: ignore[arg-type]


def test_a_plan_reads_back_what_it_wrote() -> None:
    plan = change(PLAN, predicate={"all": [{"eq": ["arch", "arm64"]}, {"ge": ["ram_bytes", 1e9]}]}, baseline=None)
    assert Plan.from_json(plan.to_json()) == plan
    assert Plan.from_json(plan.to_json()).to_json() == plan.to_json()


def test_unknown_members_of_a_plan_are_ignored() -> None:
    body = json.loads(PLAN.to_json()) | {"colour": "green"}
    assert Plan.from_json(json.dumps(body).encode()) == PLAN


@pytest.mark.parametrize(
    ("key", "value", "where"),
    [
        ("model", "Exercise", "model"),
        ("channel", "../stable", "channel"),
        ("rollout", "", "rollout"),
        ("salt", "a\0b", "salt"),
        ("candidate", 0, "candidate"),
        ("candidate", True, "candidate"),
        ("candidate", 1.0, "candidate"),
        ("baseline", 3, "baseline"),
        ("share", PARTS + 1, "share"),
        ("share", -1, "share"),
        ("holdback", "5%", "holdback"),
        ("predicate", [], "predicate"),
        ("state", "paused", "state"),
        ("attempt", 0, "attempt"),
    ],
)
def test_a_bad_member_is_refused_with_its_key_path(key: str, value: object, where: str) -> None:
    body = json.loads(PLAN.to_json()) | {key: value}
    with pytest.raises(ManifestError) as caught:
        Plan.from_json(json.dumps(body).encode())
    assert caught.value.key_path == where


@pytest.mark.parametrize("key", sorted(json.loads(PLAN.to_json())))
def test_a_missing_member_is_refused_unless_it_may_be_null(key: str) -> None:
    body = json.loads(PLAN.to_json())
    del body[key]
    data = json.dumps(body).encode()
    if key in {"baseline", "predicate"}:
        assert getattr(Plan.from_json(data), key) is None
    else:
        with pytest.raises(ManifestError, match=key):
            Plan.from_json(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b'{"format":1,"format":1}',
        b'{"share":NaN}',
        b" " * 9000,
        b'{"predicate":' + b'{"not":' * 50 + b"null" + b"}" * 50 + b"}",
    ],
    ids=["empty", "list", "cut", "not-utf8", "twice", "nan", "long", "deep"],
)
def test_what_is_not_a_plan_is_refused(data: bytes) -> None:
    with pytest.raises(ManifestError):
        Plan.from_json(data)


def test_a_newer_format_is_named() -> None:
    body = json.loads(PLAN.to_json()) | {"format": 2}
    with pytest.raises(UnsupportedFormat, match="format"):
        Plan.from_json(json.dumps(body).encode())


def test_buckets_are_the_documented_ones() -> None:
    # From sha256sum and bc, not from this code.
    assert bucket("salt", "device-1") == 25997112
    assert bucket("salt", "device-2") == 11734352


def test_buckets_are_spread_evenly() -> None:
    tenths = [0] * 10
    for i in range(5000):
        tenths[bucket("another salt", f"watch-{i}") * 10 // PARTS] += 1
    assert min(tenths) > 400
    assert max(tenths) < 600


def test_a_running_plan_gives_the_candidate_to_devices_inside_the_share_only() -> None:
    assert ask(PLAN, INSIDE, 2) == 3
    assert ask(PLAN, OUTSIDE, 2) == 2
    assert ask(PLAN, OUTSIDE, 1) == 2
    assert ask(change(PLAN, baseline=None), OUTSIDE, 1) == 1


def test_the_holdback_stays_on_the_baseline_until_the_rollout_is_complete() -> None:
    everyone = change(PLAN, share=PARTS)
    assert ask(everyone, HELD_BACK, 2) == 2
    assert in_holdback(everyone, HELD_BACK)
    assert ask(change(everyone, state=State.COMPLETE), HELD_BACK, 2) == 3
    assert not in_holdback(change(everyone, state=State.COMPLETE), HELD_BACK)


def test_a_smaller_share_does_not_take_the_candidate_away() -> None:
    assert ask(change(PLAN, share=0), INSIDE, 3) == 3
    assert ask(change(PLAN, share=0), HELD_BACK, 3) == 3


def test_a_halt_keeps_adopters_and_lets_nobody_join() -> None:
    halted = change(PLAN, state=State.HALTED)
    assert ask(halted, INSIDE, 3) == 3
    assert ask(halted, INSIDE, 2) == 2
    assert ask(halted, INSIDE, 1) == 2


def test_a_rollback_returns_adopters_to_the_baseline() -> None:
    back = change(PLAN, state=State.ROLLED_BACK)
    assert ask(back, INSIDE, 3) == 2
    assert ask(back, OUTSIDE, 2) == 2
    assert ask(change(back, baseline=None), INSIDE, 3) is None
    assert ask(change(back, baseline=None), INSIDE, 1) == 1


def test_a_disabled_plan_asks_for_nothing() -> None:
    assert ask(change(PLAN, state=State.DISABLED), INSIDE, 2) is None


def test_the_predicate_decides_who_may_join() -> None:
    assert ask(change(PLAN, predicate={"eq": ["arch", "arm64"]}), INSIDE, 2) == 3
    assert ask(change(PLAN, predicate={"eq": ["arch", "x86_64"]}), INSIDE, 2) == 2


def test_the_ceiling_slows_a_rollout_by_age_also_when_it_is_complete() -> None:
    ceiling = [(0.0, 0), (3600.0, PARTS)]
    for state in (State.RUNNING, State.COMPLETE):
        plan = change(PLAN, share=PARTS, state=state)
        assert ask(plan, INSIDE, 2, age_s=3599.0, ceiling=ceiling) == 2
        assert ask(plan, INSIDE, 2, age_s=3600.0, ceiling=ceiling) == 3


def test_ceiling_shares_are_those_of_the_last_age_reached() -> None:
    ceiling = [(10.0, 1), (20.0, 5), (30.0, PARTS)]
    assert [ceiling_share(ceiling, age) for age in (0, 9.9, 10, 19, 20, 30, 1e9)] == [0, 0, 1, 1, 5, PARTS, PARTS]
    assert ceiling_share((), 0.0) == PARTS


def test_arms_follow_what_runs_first_and_the_bucket_second() -> None:
    assert arm(PLAN, INSIDE, 3) == "candidate"
    assert arm(PLAN, HELD_BACK, 3) == "candidate"
    assert arm(PLAN, INSIDE, 2) == "baseline"
    assert arm(PLAN, HELD_BACK, 2) == "holdback"
    assert arm(change(PLAN, state=State.COMPLETE), HELD_BACK, 2) == "baseline"
    assert arm(None, INSIDE, 2) == "none"
    assert arm(PLAN, INSIDE, None) == "none"


@given(
    share=st.integers(0, PARTS),
    holdback=st.integers(0, PARTS),
    device=st.text(min_size=1, max_size=20),
    more=st.integers(0, PARTS),
    current=st.sampled_from([None, 1, 2, 3]),
)
def test_a_larger_share_never_takes_the_candidate_from_a_device(
    share: int, holdback: int, device: str, more: int, current: int | None
) -> None:
    plan = change(PLAN, share=share, holdback=holdback)
    if ask(plan, device, current) == 3:
        assert ask(change(plan, share=min(PARTS, share + more)), device, current) == 3
    if current != 3 and bucket("salt", device) >= min(share, PARTS - holdback):
        assert ask(plan, device, current) == 2
