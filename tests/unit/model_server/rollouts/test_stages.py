import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.update.plan import PARTS
from model_server.errors import InvalidRollout, StageTooSmall
from model_server.rollouts.stages import MIN_DEVICES, check_stages, stage_share

FLEET = random.Random(1).sample(range(PARTS), 60)
HOLDBACK = PARTS // 5


def selected(share: int, buckets: list[int], holdback: int) -> int:
    """What devices do: see `edge_runtime.update.plan.wanted`."""
    return sum(bucket < min(share, PARTS - holdback) for bucket in buckets)


def test_a_count_selects_exactly_that_many_known_devices() -> None:
    for count in (5, 10, 30):
        stage = stage_share(str(count), FLEET, holdback=HOLDBACK)
        assert stage.selected == count == selected(stage.share, FLEET, HOLDBACK)


def test_a_count_above_the_fleet_selects_all_outside_the_holdback() -> None:
    stage = stage_share("1000", FLEET, holdback=HOLDBACK)
    assert stage.share == PARTS
    assert stage.selected == sum(bucket < PARTS - HOLDBACK for bucket in FLEET) < 60


def test_all_leaves_the_holdback_out_by_the_holdback_and_not_by_the_share() -> None:
    assert stage_share("all", FLEET, holdback=HOLDBACK).share == PARTS


def test_a_percentage_is_a_share_of_all_devices_and_not_of_the_known() -> None:
    assert stage_share("50%", FLEET, holdback=0).share == PARTS // 2


@pytest.mark.parametrize("stage", ["4", "1%", "all"])
def test_a_stage_that_selects_fewer_than_five_is_refused(stage: str) -> None:
    buckets = FLEET[:4] if stage == "all" else FLEET
    with pytest.raises(StageTooSmall, match=f"at least {MIN_DEVICES}"):
        stage_share(stage, buckets, holdback=0)


def test_the_first_rollout_of_a_model_may_go_to_all_with_nobody_known() -> None:
    assert stage_share("all", [], holdback=0, first_rollout=True).selected == 0
    with pytest.raises(StageTooSmall):
        stage_share("10", [], holdback=0, first_rollout=True)


def test_a_later_stage_never_shrinks() -> None:
    first = stage_share("30", FLEET, holdback=0)
    second = stage_share("10", FLEET, holdback=0, before=first.share)
    assert second == first


@pytest.mark.parametrize(
    "stages", [[], ["0"], ["-5"], ["ten"], ["0%"], ["101%"], ["all", "10"], ["10 "], ["10"] * 33, ["1e2"]]
)
def test_stages_that_cannot_work_are_refused(stages: list[str]) -> None:
    with pytest.raises(InvalidRollout):
        check_stages(stages)


@pytest.mark.parametrize("stages", [["5", "3"], ["10", "50%", "9"], ["50%", "10", "20%"], ["5", "30", "5"]])
def test_stages_that_shrink_are_refused(stages: list[str]) -> None:
    with pytest.raises(InvalidRollout, match="stages only grow"):
        check_stages(stages)


def test_stages_of_two_kinds_are_compared_with_their_own_kind() -> None:
    stages = ("10", "1%", "10", "50.5%", "all")
    assert check_stages(stages) == stages


@given(
    buckets=st.lists(st.integers(0, PARTS - 1), min_size=5, max_size=200, unique=True),
    count=st.integers(5, 250),
    holdback=st.integers(0, PARTS // 2),
)
def test_what_is_promised_is_what_devices_do(buckets: list[int], count: int, holdback: int) -> None:
    inside = sum(bucket < PARTS - holdback for bucket in buckets)
    if inside < MIN_DEVICES:
        with pytest.raises(StageTooSmall):
            stage_share(str(count), buckets, holdback=holdback)
        return
    stage = stage_share(str(count), buckets, holdback=holdback)
    assert stage.selected == selected(stage.share, buckets, holdback) == min(count, inside)
