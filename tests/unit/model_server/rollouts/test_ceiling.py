from datetime import UTC, datetime, timedelta

import pytest

from edge_runtime.update.plan import PARTS
from model_server.rollouts.ceiling import ceiling_wait

PUBLISHED = datetime(2026, 3, 2, tzinfo=UTC)
STEPS = ((0, PARTS // 100), (86_400, PARTS // 10), (172_800, PARTS))


@pytest.mark.parametrize(("hours", "allowed"), [(-1, "1%"), (0, "1%"), (25, "10%"), (100, "50%")])
def test_it_names_the_largest_share_that_any_device_may_allow_now(hours: int, allowed: str) -> None:
    wait = ceiling_wait(3, STEPS, PUBLISHED, PARTS // 2, PUBLISHED + timedelta(hours=hours))
    assert wait is not None
    assert f"ceiling of release 3 holds back: it lets at most {allowed} have it now" in wait
    assert wait.endswith("(0s=1%,1d=10%,2d=100%)")


@pytest.mark.parametrize("steps", [(), ((0, PARTS),), ((0, PARTS // 2), (60, PARTS))])
def test_a_ceiling_that_never_holds_the_stage_back_is_not_mentioned(steps: tuple[tuple[int, int], ...]) -> None:
    assert ceiling_wait(3, steps, PUBLISHED, PARTS // 2, PUBLISHED) is None
