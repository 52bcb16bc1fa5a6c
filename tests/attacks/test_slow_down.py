"""A hostile server, or cache, that asks devices to stay away: it can, for a day, and it stops nothing that runs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from devices.static_server import Handler
from edge_runtime.errors import Outcome
from edge_runtime.waits import JITTER
from tests.support.world import World

TIMESTAMP = "/metadata/timestamp.json"
DAY = 86_400.0


def busy(status: int, retry_after: str) -> Callable[[Handler], None]:
    return lambda handler: handler.send(status, b"", Retry_After=retry_after)


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_cache_is_left_alone_for_as_long_as_it_asks_also_over_a_restart(world: World, status: int) -> None:
    device = world.device()
    world.server.faults[TIMESTAMP] = busy(status, "3600")
    assert device.check().outcome is Outcome.SERVER_UNREACHABLE
    world.server.faults.clear()
    world.server.clear()
    device.restart()
    waits = device.check()
    assert (waits.outcome, waits.requests, waits.active) == (Outcome.DEFERRED_SERVER, 0, 1)
    assert world.server.requests == []
    world.clock.advance(3600 * (1 + JITTER))
    assert device.check().outcome is Outcome.INSTALLED


def test_a_download_that_is_told_to_wait_goes_on_later(world: World) -> None:
    device = world.device()
    artifact = next(path for path in world.repository.file("models/tiny/2/tiny-fp32.onnx").parent.iterdir())
    path = f"/{artifact.relative_to(world.server.folder)}"
    assert path.startswith("/targets/")
    for file in artifact.parent.iterdir():
        world.server.faults[f"/{file.relative_to(world.server.folder)}"] = busy(503, "600")
    assert device.check().outcome is not Outcome.INSTALLED
    assert device.check().outcome is Outcome.DEFERRED_SERVER
    world.server.faults.clear()
    world.clock.advance(600 * (1 + JITTER))
    assert device.check().outcome is Outcome.INSTALLED


@pytest.mark.parametrize("retry_after", [str(10 * 365 * 86_400), "Sun, 22 Nov 2036 12:00:00 GMT"])
def test_ten_years_are_a_day(world: World, retry_after: str) -> None:
    device = world.device()
    world.server.faults[TIMESTAMP] = busy(503, retry_after)
    device.check()
    world.server.faults.clear()
    world.clock.advance(DAY - 1)
    assert device.check().outcome is Outcome.DEFERRED_SERVER
    world.clock.advance(DAY * JITTER + 1)
    assert device.check().requests > 0


@pytest.mark.parametrize(
    "retry_after", ["-1", "NaN", "inf", "1e300", "9" * 400, "soon", "Sun, 22 Nov 1926 12:00:00 GMT"]
)
def test_what_is_no_time_is_no_reason_to_wait(world: World, retry_after: str) -> None:
    device = world.device()
    world.server.faults[TIMESTAMP] = busy(503, retry_after)
    assert device.check().outcome is Outcome.SERVER_UNREACHABLE
    world.server.faults.clear()
    assert device.check().outcome is Outcome.INSTALLED


def test_a_wall_clock_that_is_set_does_not_make_the_wait_longer(world: World) -> None:
    device = world.device()
    world.server.faults[TIMESTAMP] = busy(503, "3600")
    device.check()
    world.server.faults.clear()
    world.clock.now -= timedelta(hours=3)
    device.restart()
    assert device.check().outcome is Outcome.INSTALLED
