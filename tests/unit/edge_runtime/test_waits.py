"""How long a server can keep a device away: what it asks for, a little more, and never longer than a day."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from edge_runtime.disk import RealDisk, write_sealed
from edge_runtime.headers import retry_after_s
from edge_runtime.waits import JITTER, Purpose, Waits
from tests.support.disks import FullDisk
from tests.support.world import NOW, ManualClock

DAY = 86_400.0
DATE = "%a, %d %b %Y %H:%M:%S GMT"


@pytest.mark.parametrize(
    ("value", "wait_s"),
    [
        ("120", 120.0),
        (" 120 ", 120.0),
        ("0", 0.0),
        ((NOW + timedelta(seconds=90)).strftime(DATE), 90.0),
        ((NOW - timedelta(seconds=90)).strftime(DATE), None),
        ((NOW + timedelta(days=3650)).strftime(DATE), DAY),
        (str(10 * 365 * 86_400), DAY),
        ("9" * 400, None),
        ("-5", None),
        ("+5", None),
        ("1.5", None),
        ("NaN", None),
        ("nan", None),
        ("inf", None),
        ("1e300", None),
        ("0x10", None),
        ("\u0661\u0662", None),
        ("soon", None),
        ("", None),
        ("Sun, 22 Nov", None),
        ("Sun, 22 Nov 9999999999 12:02:00 GMT", None),
        (f"Sun, 22 Nov 2026 12:02:00 +{'9' * 20}", None),
        ("x" * 100_000, None),
    ],
)
def test_a_wait_is_seconds_or_a_date_and_a_day_at_most(value: str, wait_s: float | None) -> None:
    assert retry_after_s({"Retry-After": value}, NOW) == wait_s


def test_a_date_counts_from_the_answers_own_date_and_not_from_a_clock_that_may_be_wrong() -> None:
    headers = {"Retry-After": (NOW + timedelta(seconds=90)).strftime(DATE), "Date": NOW.strftime(DATE)}
    for off in (-4000, 0, 4000):
        assert retry_after_s(headers, NOW + timedelta(days=off)) == 90.0


class Fleet:
    def __init__(self, folder: Path, jitter: float = 0.0) -> None:
        self.folder, self.clock, self.jitter = folder, ManualClock(), jitter
        self.open()

    def open(self) -> None:
        """As after a restart: the boot clock may begin anew."""

        def between(least: float, most: float) -> float:
            return least + self.jitter * (most - least)

        self.waits = Waits(self.folder, RealDisk(), self.clock, between)


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


def test_a_restart_does_not_forget_a_wait(fleet: Fleet) -> None:
    fleet.waits.asked(Purpose.OUTCOMES, {"Retry-After": "3600"})
    fleet.clock.now += timedelta(seconds=1000)
    fleet.clock.since_boot = 5.0
    fleet.open()
    assert fleet.waits.left_s(Purpose.OUTCOMES) == 2600.0
    assert fleet.waits.left_s(Purpose.UPDATES) == 0.0
    fleet.clock.advance(2600)
    assert fleet.waits.left_s(Purpose.OUTCOMES) == 0.0


def test_a_clock_that_went_back_does_not_make_a_wait_longer(fleet: Fleet) -> None:
    fleet.waits.asked(Purpose.UPDATES, {"Retry-After": "3600"})
    fleet.clock.now -= timedelta(days=10_000)
    fleet.open()
    assert fleet.waits.left_s(Purpose.UPDATES) == 0.0


def test_a_short_wait_costs_no_write_and_a_longer_one_is_not_shortened(fleet: Fleet) -> None:
    fleet.waits.asked(Purpose.UPDATES, {"Retry-After": "59"})
    assert list(fleet.folder.iterdir()) == []
    fleet.waits.asked(Purpose.UPDATES, {"Retry-After": "5"})
    assert fleet.waits.left_s(Purpose.UPDATES) == 59.0
    fleet.waits.asked(Purpose.UPDATES, {})
    assert fleet.waits.left_s(Purpose.UPDATES) == 59.0


def test_devices_come_back_one_after_the_other(tmp_path: Path) -> None:
    left = []
    for jitter in (0.0, 0.5, 1.0):
        fleet = Fleet(tmp_path, jitter)
        fleet.waits.asked(Purpose.UPDATES, {"Retry-After": "100"})
        left.append(fleet.waits.left_s(Purpose.UPDATES))
    assert left == [100.0, 112.5, 125.0]
    apart = Waits(tmp_path / "real", RealDisk(), ManualClock()), Waits(tmp_path / "real", RealDisk(), ManualClock())
    for waits in apart:
        waits.wait(Purpose.UPDATES, 50.0)
    assert apart[0].left_s(Purpose.UPDATES) != apart[1].left_s(Purpose.UPDATES)


@pytest.mark.parametrize("seconds", [1e300, float("inf"), 10 * 365 * DAY])
def test_nobody_silences_a_device_for_longer_than_a_day(fleet: Fleet, seconds: float) -> None:
    fleet.waits.wait(Purpose.OUTCOMES, seconds)
    assert fleet.waits.left_s(Purpose.OUTCOMES) == DAY
    fleet.open()
    assert fleet.waits.left_s(Purpose.OUTCOMES) <= DAY * (1 + JITTER)


@pytest.mark.parametrize("kept", ["x", [], ["soon", 5], [NOW.isoformat(), 1e300], [NOW.isoformat(), "5"], [None, None]])
def test_a_file_that_says_nonsense_is_no_reason_to_wait_for_ever(fleet: Fleet, kept: object) -> None:
    write_sealed(RealDisk(), fleet.folder / "waits.json", {"format": 1, "waits": {"updates": kept}})
    fleet.open()
    assert fleet.waits.left_s(Purpose.UPDATES) <= DAY * (1 + JITTER)


def test_a_full_disk_does_not_lose_a_wait_for_this_process(tmp_path: Path) -> None:
    waits = Waits(tmp_path, FullDisk(0), ManualClock(), lambda least, most: least)
    waits.wait(Purpose.OUTCOMES, 600.0)
    assert waits.left_s(Purpose.OUTCOMES) == 600.0
