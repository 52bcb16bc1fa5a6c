"""One report a device-day, whatever restarts, releases and clocks do."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from edge_runtime.disk import RealDisk
from edge_runtime.errors import ReportError
from edge_runtime.telemetry.layout import Layout
from edge_runtime.telemetry.spool import KEPT_DAYS, Recorder, Spool
from edge_runtime.telemetry.wire import PrivacyMode, Report, ReportArm, decode_report
from tests.support import tiny

ARTIFACT = tiny.release().artifact
LAYOUT = Layout.of(ARTIFACT)
WINDOW = {"window": tiny.windows(1)}


class Days:
    """A device's spools over days and restarts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.today = 20_000
        self._ids = itertools.count()

    def spool(self, mode: PrivacyMode = PrivacyMode.CENTRAL) -> Spool:
        return Spool(
            self.folder,
            RealDisk(),
            model="tiny",
            mode=mode,
            today=lambda: self.today,
            random=lambda size: next(self._ids).to_bytes(size, "big"),
        )


@pytest.fixture
def days(tmp_path: Path) -> Days:
    return Days(tmp_path / "telemetry")


def record(recorder: Recorder | None, times: int) -> None:
    assert recorder is not None
    for _ in range(times):
        recorder.histograms.observe(WINDOW, 1, 0.5, 0)


def read(data: bytes) -> Report:
    return decode_report(data, lambda *_: LAYOUT)


def test_a_day_that_is_over_waits_until_it_is_dropped(days: Days) -> None:
    spool = days.spool()
    record(spool.recorder(1, ARTIFACT, ReportArm.NONE), 3)
    assert spool.waiting() == []
    days.today += 1
    assert spool.waiting() == [20_000]
    report = read(spool.report(20_000))
    assert (report.header.day, report.header.mode) == (20_000, PrivacyMode.CENTRAL)
    assert sum(report.counts["classes"]) == 3
    spool.drop(20_000)
    assert spool.waiting() == []


def test_each_day_counts_for_itself_under_an_id_of_its_own(days: Days) -> None:
    spool = days.spool()
    recorder = spool.recorder(1, ARTIFACT, ReportArm.NONE)
    record(recorder, 3)
    days.today += 1
    spool.roll()
    record(recorder, 5)
    days.today += 1
    reports = [read(spool.report(day)) for day in spool.waiting()]
    assert [sum(r.counts["classes"]) for r in reports] == [3, 5]
    assert len({r.header.daily_id for r in reports}) == 2


def test_a_restart_goes_on_with_the_same_day_and_id(days: Days) -> None:
    first = days.spool()
    record(first.recorder(1, ARTIFACT, ReportArm.NONE), 3)
    first.save()
    before = read(first.report(20_000)).header.daily_id
    second = days.spool()
    record(second.recorder(1, ARTIFACT, ReportArm.NONE), 4)
    report = read(second.report(20_000))
    assert sum(report.counts["classes"]) == 7
    assert report.header.daily_id == before


def test_a_restart_on_a_later_day_finds_the_earlier_one_waiting(days: Days) -> None:
    spool = days.spool()
    record(spool.recorder(1, ARTIFACT, ReportArm.NONE), 3)
    spool.save()
    days.today += 2
    later = days.spool()
    assert later.waiting() == [20_000]
    with pytest.raises(ReportError, match="nothing"):
        later.report(20_002)


def test_the_release_that_answered_most_speaks_for_the_day(days: Days) -> None:
    spool = days.spool()
    record(spool.recorder(1, ARTIFACT, ReportArm.BASELINE), 3)
    record(spool.recorder(2, ARTIFACT, ReportArm.CANDIDATE), 5)
    days.today += 1
    (day,) = spool.waiting()
    header = read(spool.report(day)).header
    assert (header.release, header.arm) == (2, ReportArm.CANDIDATE)


def test_the_same_release_and_arm_share_one_recorder(days: Days) -> None:
    spool = days.spool()
    assert spool.recorder(1, ARTIFACT, ReportArm.NONE) is spool.recorder(1, ARTIFACT, ReportArm.NONE)
    assert spool.recorder(1, ARTIFACT, ReportArm.NONE) is not spool.recorder(1, ARTIFACT, ReportArm.HOLDBACK)


def test_reports_that_nobody_takes_are_dropped_in_time(days: Days) -> None:
    spool = days.spool()
    recorder = spool.recorder(1, ARTIFACT, ReportArm.NONE)
    for _ in range(KEPT_DAYS + 5):
        record(recorder, 1)
        days.today += 1
        spool.roll()
    assert spool.waiting() == list(range(days.today - KEPT_DAYS, days.today))


def test_a_clock_set_back_leaves_no_report_of_the_future(days: Days) -> None:
    spool = days.spool()
    record(spool.recorder(1, ARTIFACT, ReportArm.NONE), 1)
    days.today -= 100
    spool.roll()
    assert spool.waiting() == []
    assert list(days.folder.iterdir()) == []


def test_a_damaged_file_costs_that_day_only(days: Days) -> None:
    spool = days.spool()
    record(spool.recorder(1, ARTIFACT, ReportArm.NONE), 3)
    spool.save()
    (days.folder / "20000.report").write_bytes(b"EST1 damaged")
    (days.folder / "notes.txt").write_text("not ours")
    again = days.spool()
    record(again.recorder(1, ARTIFACT, ReportArm.NONE), 2)
    assert sum(read(again.report(20_000)).counts["classes"]) == 2


def test_switched_off_nothing_is_counted_or_written(days: Days) -> None:
    spool = days.spool(PrivacyMode.OFF)
    assert spool.recorder(1, ARTIFACT, ReportArm.NONE) is None
    days.today += 1
    assert spool.waiting() == []
    spool.save()
    assert not days.folder.exists()


def test_a_day_nobody_counted_has_no_report(days: Days) -> None:
    with pytest.raises(ReportError, match="19999"):
        days.spool().report(19_999)
