"""A clock that is far wrong, and servers that lie about the time: what a device believes, and what it only says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from devices.static_server import Handler
from edge_runtime.errors import Outcome
from edge_runtime.update.plan import State
from tests.support.world import NOW, RELEASES, ManualClock, TestDevice, World

EPOCH = datetime(1970, 1, 1, 0, 5, tzinfo=UTC)
TIMESTAMP = "/metadata/timestamp.json"


def set_clock(device: TestDevice, now: datetime) -> None:
    """The device's clock alone; the world's, and the server's Date, go on."""
    device.clock = ManualClock(now=now)
    device.restart()


def said(device: TestDevice) -> list[Outcome]:
    result = device.check()
    return [*(outcome for outcome, _, _ in result.notes), result.outcome]


@pytest.fixture
def device(world: World) -> TestDevice:
    """A device that has taken release 2 in a legitimate way."""
    made = world.device()
    assert said(made) == [Outcome.INSTALLED]
    made.commit()
    return made


def test_a_clock_that_is_ahead_is_named_in_place_of_expiry(world: World) -> None:
    device = world.device()
    set_clock(device, NOW + timedelta(days=400))
    result = device.check()
    assert (result.outcome, result.active) == (Outcome.CLOCK_WRONG, 1)
    assert "400.0 days ahead" in result.detail
    set_clock(device, NOW)
    assert said(device) == [Outcome.INSTALLED]


def test_a_clock_that_is_ahead_by_hours_is_named_where_it_is_the_cause(world: World, device: TestDevice) -> None:
    world.clock.advance(20 * 3600)  # the timestamp lives a day
    set_clock(device, NOW + timedelta(hours=26))
    result = device.check()
    assert result.outcome is Outcome.CLOCK_WRONG
    assert "6.0 hours" in result.detail


def test_an_expiry_by_a_clock_that_nothing_speaks_against_stays_one(world: World, device: TestDevice) -> None:
    world.clock.advance(2 * 86_400)
    assert said(device) == [Outcome.METADATA_EXPIRED]


def test_a_clock_that_stands_in_1970_is_named_and_updates_go_on(world: World) -> None:
    device = world.device()
    set_clock(device, EPOCH)
    assert said(device) == [Outcome.CLOCK_WRONG, Outcome.INSTALLED]


def test_a_clock_in_1970_is_named_also_where_no_server_answers(world: World, device: TestDevice) -> None:
    """As with TLS, whose certificates are not valid yet."""
    set_clock(device, EPOCH)
    world.server.faults[TIMESTAMP] = lambda handler: handler.send(503, b"")
    assert said(device) == [Outcome.CLOCK_WRONG, Outcome.SERVER_UNREACHABLE]


def test_a_clock_in_1970_does_not_bring_metadata_back_that_expired_before_what_is_signed_here(
    world: World, device: TestDevice
) -> None:
    """The thief of the timestamp key froze the device before release 2 was made; its clock was reset by a flat battery.
    By the clock alone, nothing of it has expired."""
    repository = world.repository
    world.plan(state=State.ROLLED_BACK)
    repository.timestamp.expires = datetime(2026, 11, 19, tzinfo=UTC)
    repository.publish_timestamp()
    set_clock(device, EPOCH)
    world.server.now = lambda: datetime(2026, 11, 18, tzinfo=UTC)  # as at the time
    for _ in range(2):
        result = device.check()
        assert (result.outcome, result.active) == (Outcome.METADATA_EXPIRED, 2)
        assert [note[0] for note in result.notes] == [Outcome.CLOCK_WRONG]
        device.restart()


def test_a_clock_in_1970_does_not_bring_metadata_back_that_is_older_than_this_runtime(world: World) -> None:
    device = world.device(first=None)
    world.repository.timestamp.expires = datetime(2026, 10, 31, tzinfo=UTC)
    world.repository.publish_timestamp()
    set_clock(device, EPOCH)
    assert device.check().outcome is Outcome.METADATA_EXPIRED
    assert device.active is None


@pytest.mark.parametrize("days", [-3, -30_000, 30_000])
def test_no_date_of_a_server_makes_expired_metadata_acceptable(world: World, device: TestDevice, days: int) -> None:
    world.plan(state=State.ROLLED_BACK)
    world.clock.advance(3 * 86_400)
    world.server.now = lambda: world.clock.now + timedelta(days=days)
    result = device.check()
    assert result.outcome in (Outcome.METADATA_EXPIRED, Outcome.CLOCK_WRONG)
    assert "expired" in result.detail
    assert (result.active, device.active) == (2, 2)


def test_a_server_that_lies_about_the_time_raises_a_warning_and_nothing_else(world: World) -> None:
    device = world.device()
    for days, expected in ((500, Outcome.INSTALLED), (-1, Outcome.UNCHANGED)):
        world.server.now = lambda days=days: NOW + timedelta(days=days)  # type: ignore[misc]
        assert said(device) == [Outcome.CLOCK_WRONG, expected]
    assert device.store.slot(2).read_artifact() == RELEASES[2].files["tiny-fp32.onnx"]
    world.server.now = world.clock.wall
    assert said(device) == [Outcome.UNCHANGED]


@pytest.mark.parametrize("date", ["", "x" * 5000, "Sun, 99 Nov 99999 99:99:99 GMT", "\xe9", "0", "Sun, 22 Nov 2026"])
def test_a_date_that_is_none_says_nothing(world: World, date: str) -> None:
    def undated(handler: Handler) -> None:
        handler.date_time_string = lambda timestamp=None: date  # type: ignore[method-assign]
        handler.send_file((world.server.folder / "metadata" / "timestamp.json").read_bytes())

    device = world.device()
    world.server.faults[TIMESTAMP] = undated
    world.repository.publish()
    assert said(device) == [Outcome.INSTALLED]


def test_a_release_that_claims_to_be_from_the_future_does_not_end_all_updates(world: World) -> None:
    """A manager's own clock was wrong by decades, and two people signed it."""
    import dataclasses

    release = RELEASES[3]
    future = dataclasses.replace(release.manifest, created="2099-01-01T00:00:00Z")
    world.repository.add_release(dataclasses.replace(release, manifest=future))
    world.plan(candidate=3)
    device = world.device()
    assert said(device) == [Outcome.INSTALLED]
    device.restart()
    world.repository.publish_timestamp()
    assert said(device) == [Outcome.UNCHANGED]
