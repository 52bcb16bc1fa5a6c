"""Checks under the owner's rules, against a real server: what waits, what never does, and how a download goes on."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from pathlib import Path

import pytest

from edge_runtime.bundle import Delta, ReleaseDocument, delta_file, target_path, write_release
from edge_runtime.device_state import DeviceState
from edge_runtime.errors import Outcome, RuntimeClosed
from edge_runtime.update.conditions import UpdateRules, Window
from edge_runtime.update.plan import State
from model_server.releases.delta import make_delta
from tests.support import tiny
from tests.support.disks import RecordingDisk
from tests.support.world import RELEASES, TestDevice, World

FILE = "tiny-fp32.onnx"
BIG = hashlib.shake_256(b"a model").digest(400_000)
NIGHT = UpdateRules(windows=[Window.parse("02:00-05:00")], time_zone="UTC")  # the world begins at noon, UTC
CHUNK = 65_536  # httpx reads at most this


@pytest.fixture
def big(world: World) -> World:
    """The plan asks for release 3, whose artifact comes in several chunks."""
    world.repository.add_release(tiny.release(3, onnx_data=BIG))
    world.plan(candidate=3)
    return world


def part_of(device: TestDevice) -> int:
    """How many bytes of the artifact are here."""
    sizes = [path.stat().st_size for path in device.store.incoming.iterdir() if path.suffix != ".etag"]
    return max(sizes, default=0)


def ranges(world: World) -> list[str | None]:
    return [headers.get("range") for _, path, headers in world.server.requests if path.endswith(FILE)]


# A metered network


def test_a_metered_network_lets_checks_through_and_no_download(world: World) -> None:
    device = world.device()
    device.state = DeviceState(metered=True)
    result = device.check()
    assert (result.outcome, result.release, result.active) == (Outcome.DEFERRED_METERED, 2, 1)
    assert not any("tiny-fp32" in path for path in world.server.paths())
    assert str(len(RELEASES[2].files[FILE]) + len(RELEASES[2].files[f"{FILE}.golden.npz"])) in result.detail


def test_a_check_that_waits_is_one_request_and_writes_nothing(world: World) -> None:
    device = world.device()
    disk = RecordingDisk()
    device.restart(disk)
    device.state = DeviceState(metered=True)
    device.check()
    world.server.clear()
    disk.log.clear()
    for _ in range(3):
        assert device.check().outcome is Outcome.DEFERRED_METERED
    assert world.server.paths() == ["/metadata/timestamp.json"] * 3
    assert disk.log == []
    device.state = DeviceState(metered=False)
    assert device.check().outcome is Outcome.INSTALLED


def test_a_download_that_becomes_metered_stops_and_goes_on_where_it_stopped(big: World) -> None:
    device = big.device()
    device.follow(UpdateRules(bytes_per_s=1000))
    sleep = device.sleep

    def leaves_home(seconds: float) -> bool:
        device.state = DeviceState(metered=part_of(device) > 100_000)
        return sleep(seconds)

    device.updater._wait = leaves_home
    result = device.check()
    assert (result.outcome, result.release, result.active) == (Outcome.DEFERRED_METERED, 3, 1)
    have = part_of(device)
    assert 100_000 < have < len(BIG)
    for _ in range(2):
        assert device.check().outcome is Outcome.DEFERRED_METERED
    assert part_of(device) == have
    big.server.clear()
    device.follow(UpdateRules(), metered=False)
    assert device.check().outcome is Outcome.INSTALLED
    assert ranges(big) == [f"bytes={have}-"]
    assert device.store.slot(3).read_artifact() == BIG


def test_what_is_left_of_a_download_may_fit_into_the_bytes_of_a_metered_network(big: World) -> None:
    device = big.device()
    path = big.repository.url_path(f"models/tiny/3/{FILE}")
    big.server.faults[path] = lambda handler: handler.send_file(BIG, length=390_000)
    assert device.check().outcome is Outcome.DOWNLOAD_FAILED
    big.server.faults.clear()
    missing = len(BIG) - part_of(device)
    device.follow(UpdateRules(metered_bytes=missing - 1), metered=True)
    assert device.check().outcome is Outcome.DEFERRED_METERED
    device.follow(UpdateRules(metered_bytes=missing), metered=True)
    assert device.check().outcome is Outcome.INSTALLED


def offer_delta(world: World, patch: bytes) -> None:
    file = delta_file(FILE, 1)
    digest = hashlib.sha256(patch).hexdigest()
    delta = Delta(artifact=FILE, from_release=1, file=file, bytes=len(patch), sha256=digest)
    document = ReleaseDocument(model="tiny", release=2, ceiling=(), deltas=(delta,))
    world.repository.add_target("releases-tiny", target_path("tiny", 2, file), patch)
    world.repository.add_target("releases-tiny", target_path("tiny", 2, "release.json"), write_release(document))
    world.repository.publish()


def test_a_delta_within_the_bytes_goes_over_a_metered_network(world: World) -> None:
    patch = make_delta(RELEASES[1].files[FILE], RELEASES[2].files[FILE])
    offer_delta(world, patch)
    golden = len(RELEASES[2].files[f"{FILE}.golden.npz"])
    device = world.device()
    device.follow(UpdateRules(metered_bytes=len(patch) + golden - 1), metered=True)
    assert device.check().outcome is Outcome.DEFERRED_METERED
    device.follow(UpdateRules(metered_bytes=len(patch) + golden), metered=True)
    assert device.check().outcome is Outcome.INSTALLED
    assert not any(path.endswith(FILE) for path in world.server.paths())


def test_a_delta_that_fails_is_no_way_past_the_bytes(world: World) -> None:
    patch = b"no delta"
    offer_delta(world, patch)
    golden = len(RELEASES[2].files[f"{FILE}.golden.npz"])
    device = world.device()
    device.follow(UpdateRules(metered_bytes=len(patch) + golden + 100), metered=True)
    result = device.check()
    assert result.outcome is Outcome.DEFERRED_METERED
    assert [note[0] for note in result.notes] == [Outcome.DELTA_MISMATCH]
    assert not any(path.endswith(FILE) for path in world.server.paths())


def test_never_means_that_nothing_is_asked(world: World) -> None:
    device = world.device()
    device.follow(UpdateRules(metered="never"), metered=True)
    result = device.check()
    assert (result.outcome, result.requests, result.active) == (Outcome.DEFERRED_METERED, 0, 1)
    assert world.server.requests == []
    device.state = DeviceState(metered=False)
    assert device.check().outcome is Outcome.INSTALLED


# Windows and batteries


def test_a_release_waits_for_its_window_with_one_request_a_check(world: World) -> None:
    device = world.device()
    device.follow(NIGHT)
    result = device.check()
    assert (result.outcome, result.release, result.active) == (Outcome.DEFERRED_WINDOW, 2, 1)
    assert not any("models/tiny/2/manifest" in path for path in world.server.paths())
    world.server.clear()
    assert device.check().outcome is Outcome.DEFERRED_WINDOW
    assert world.server.paths() == ["/metadata/timestamp.json"]
    world.clock.advance(15 * 3600)
    assert device.check().outcome is Outcome.INSTALLED


def test_the_windows_are_in_their_time_zone(world: World) -> None:
    device = world.device()
    for zone, outcome in (("America/New_York", Outcome.DEFERRED_WINDOW), ("Pacific/Honolulu", Outcome.INSTALLED)):
        device.follow(UpdateRules(windows=NIGHT.windows, time_zone=zone))  # 07:00 there, and 02:00
        assert device.check().outcome is outcome


def test_without_a_zone_the_windows_are_in_the_systems(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "HST10")
    time.tzset()
    try:
        device = world.device()
        device.follow(UpdateRules(windows=NIGHT.windows))
        assert device.check().outcome is Outcome.INSTALLED
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_window_that_ends_stops_a_download_which_goes_on_in_the_next(big: World) -> None:
    device = big.device()
    big.clock.now += timedelta(hours=16, minutes=58)
    device.follow(UpdateRules(windows=NIGHT.windows, time_zone="UTC", bytes_per_s=1000))
    assert device.check().outcome is Outcome.DEFERRED_WINDOW
    have = part_of(device)
    assert 0 < have < len(BIG)
    big.server.clear()
    assert device.check().outcome is Outcome.DEFERRED_WINDOW
    big.clock.now += timedelta(hours=21, minutes=30)
    big.repository.now = big.clock.now
    big.repository.timestamp.expires = big.clock.now + timedelta(days=1)
    big.repository.publish_timestamp()
    assert device.check().outcome is Outcome.INSTALLED
    assert ranges(big) == [f"bytes={have}-"]


def test_a_release_that_came_as_the_window_ended_is_tried_in_the_next(world: World) -> None:
    device = world.device()
    device.follow(NIGHT)
    world.clock.now += timedelta(hours=16, minutes=59)
    path = world.repository.url_path(f"models/tiny/2/{FILE}")

    def slow(handler: object) -> None:
        world.clock.advance(120)
        handler.send_file(RELEASES[2].files[FILE])  # type: ignore[attr-defined]

    world.server.faults[path] = slow
    assert device.check().outcome is Outcome.DEFERRED_WINDOW
    assert (device.active, device.canary.tried) == (1, [])
    assert device.store.slots.staged is not None
    device.follow(UpdateRules(), metered=True)  # nothing is left to download
    world.server.clear()
    assert device.check().outcome is Outcome.INSTALLED
    assert ranges(world) == []


def test_a_release_waits_for_battery_or_power(world: World) -> None:
    device = world.device()
    device.state = DeviceState(battery=0.1, charging=False)
    assert device.check().outcome is Outcome.DEFERRED_BATTERY
    device.state = DeviceState(battery=0.1, charging=True)
    assert device.check().outcome is Outcome.INSTALLED


# What never waits


STRICT = UpdateRules(windows=NIGHT.windows, time_zone="UTC", minimum_battery=1.0)
WORST = {"metered": True, "battery": 0.01, "charging": False}


@pytest.fixture
def on_candidate(world: World) -> TestDevice:
    """A device on release 2, with release 1 still here, under every rule at its worst moment."""
    device = world.device()
    assert device.check().outcome is Outcome.INSTALLED
    device.commit()
    device.follow(STRICT, **WORST)
    return device


def test_a_rollback_to_what_is_here_waits_for_nothing(world: World, on_candidate: TestDevice) -> None:
    world.plan(state=State.ROLLED_BACK)
    assert on_candidate.check().outcome is Outcome.RETURNED
    assert on_candidate.active == 1


def test_a_revocation_waits_for_nothing(world: World, on_candidate: TestDevice) -> None:
    world.repository.set_policy("tiny", revoked=[2])
    world.repository.publish()
    assert on_candidate.check().outcome is Outcome.REVOKED
    assert on_candidate.active == 1


def test_switching_off_and_on_waits_for_nothing(world: World, on_candidate: TestDevice) -> None:
    world.plan(state=State.DISABLED)
    assert on_candidate.check().active is None
    world.plan(state=State.COMPLETE)
    assert on_candidate.check().active == 2


def test_a_rollback_that_must_download_waits_for_the_meter_only(world: World) -> None:
    device = world.device(first=None)
    device.check()
    device.commit()
    world.plan(state=State.ROLLED_BACK)
    device.follow(STRICT, **WORST)
    result = device.check()
    assert (result.outcome, result.release, result.active) == (Outcome.DEFERRED_METERED, 1, 2)
    device.follow(STRICT, **WORST | {"metered": False})
    assert device.check().outcome is Outcome.RETURNED
    assert device.active == 1


def test_where_nothing_runs_there_is_nothing_that_a_window_protects(world: World) -> None:
    device = world.device(first=None)
    device.follow(STRICT, battery=0.01)
    assert device.check().outcome is Outcome.INSTALLED


# Bandwidth


def test_a_download_keeps_to_its_rate(big: World) -> None:
    device = big.device()
    device.follow(UpdateRules(bytes_per_s=1000))
    before = big.clock.boot()
    assert device.check().outcome is Outcome.INSTALLED
    assert big.clock.boot() - before >= (len(BIG) - CHUNK) / 1000
    assert device.store.slot(3).read_artifact() == BIG


def test_a_download_that_is_held_back_is_not_one_that_the_server_is_slow_with(big: World) -> None:
    device = big.device()
    device.follow(UpdateRules(bytes_per_s=100))  # below what a server may not fall under
    assert device.check().outcome is Outcome.INSTALLED


def test_a_slow_download_makes_way_for_checks_and_goes_on(big: World) -> None:
    device = big.device()
    device.longest_s = 120
    device.follow(UpdateRules(bytes_per_s=1000))
    have = []
    for _ in range(20):
        result = device.check()
        if result.outcome is not Outcome.DEFERRED_BANDWIDTH:
            break
        have.append(part_of(device))
    assert result.outcome is Outcome.INSTALLED
    assert len(have) >= 2
    assert ranges(big) == [None, *(f"bytes={stopped}-" for stopped in have)]


def test_a_halt_arrives_during_a_slow_download(big: World) -> None:
    device = big.device()
    device.longest_s = 120
    device.follow(UpdateRules(bytes_per_s=1000))
    assert device.check().outcome is Outcome.DEFERRED_BANDWIDTH
    big.plan(candidate=3, state=State.HALTED)
    assert device.check().outcome is Outcome.UNCHANGED
    assert device.active == 1


def test_a_slow_download_without_an_etag_comes_in_one_go(big: World) -> None:
    big.server.etags = False
    device = big.device()
    device.longest_s = 120
    device.follow(UpdateRules(bytes_per_s=1000))
    assert device.check().outcome is Outcome.INSTALLED


def test_an_updater_that_stops_leaves_a_download_to_the_next_process(big: World) -> None:
    device = big.device()
    device.follow(UpdateRules(bytes_per_s=1000))

    def stops(seconds: float) -> bool:
        device.updater.stop()
        return device.updater._stopping.wait(seconds)

    device.updater._wait = stops
    with pytest.raises(RuntimeClosed):
        device.check()
    have = part_of(device)
    assert 0 < have < len(BIG)
    big.server.clear()
    device.follow(UpdateRules())
    assert device.check().outcome is Outcome.INSTALLED
    assert ranges(big) == [f"bytes={have}-"]


def test_a_state_folder_with_a_deferral_is_as_good_as_any(world: World, tmp_path: Path) -> None:
    device = world.device()
    device.follow(NIGHT)
    device.check()
    device.restart()
    assert (device.active, device.check().outcome) == (1, Outcome.DEFERRED_WINDOW)
