"""What speaks against a device's clock: what is signed, which is proof, and the server's Date, which is none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.disk import RealDisk
from edge_runtime.headers import stated_time
from edge_runtime.update.timekeeping import EARLIEST, FAR_S, WARN_S, ClockDoubt, SignedTime, doubt
from tests.support.disks import RecordingDisk
from tests.support.world import NOW

HOUR, DAY = 3600.0, 86_400.0
LATIN = st.characters(codec="latin-1")  # what a header can hold
SIGNED = NOW - timedelta(days=3)


@pytest.mark.parametrize(
    ("wall", "server_off_s", "expected"),
    [
        (NOW, None, None),
        (NOW, 0.0, None),
        (NOW, WARN_S, None),
        (NOW, -WARN_S, None),
        (NOW, WARN_S + 1, ClockDoubt(off_s=WARN_S + 1, evidence="server")),
        (NOW, -2 * DAY, ClockDoubt(off_s=-2 * DAY, evidence="server")),
        (NOW, 2 * DAY, ClockDoubt(off_s=2 * DAY, evidence="server")),
        # A Date from before what is signed is itself wrong.
        (NOW, 4 * DAY, None),
        (SIGNED - timedelta(seconds=WARN_S), None, None),
        (SIGNED - timedelta(hours=1), None, ClockDoubt(off_s=-HOUR, evidence="signed")),
        (SIGNED - timedelta(days=9), None, ClockDoubt(off_s=-9 * DAY, evidence="signed")),
        # Proof of a far-off clock is what counts; else the server knows how far.
        (SIGNED - timedelta(days=9), -12 * DAY, ClockDoubt(off_s=-9 * DAY, evidence="signed")),
        (SIGNED - timedelta(hours=1), -3 * DAY, ClockDoubt(off_s=-3 * DAY, evidence="server")),
        (SIGNED - timedelta(hours=1), 2 * DAY, ClockDoubt(off_s=-HOUR, evidence="signed")),
    ],
)
def test_a_clock_is_doubted_for_a_reason(
    wall: datetime, server_off_s: float | None, expected: ClockDoubt | None
) -> None:
    assert doubt(wall, signed=SIGNED, server_off_s=server_off_s) == expected


def test_far_is_as_long_as_a_timestamp_lives() -> None:
    assert ClockDoubt(off_s=-FAR_S, evidence="server").far
    assert not ClockDoubt(off_s=FAR_S - 1, evidence="server").far


@pytest.mark.parametrize(
    ("off_s", "text"),
    [
        (-56 * 365 * DAY, "56.0 years behind"),
        (3 * DAY, "3.0 days ahead"),
        (5 * HOUR, "5.0 hours ahead"),
        (-900, "15 min"),
    ],
)
def test_a_doubt_says_how_far(off_s: float, text: str) -> None:
    for evidence in ("signed", "server"):
        assert text in str(ClockDoubt(off_s=off_s, evidence=evidence))  # type: ignore[arg-type]


# The newest signed date


def test_the_newest_signed_date_is_kept_and_only_grows(tmp_path: Path) -> None:
    path = tmp_path / "clock.json"
    assert SignedTime(RealDisk(), path).newest == EARLIEST
    SignedTime(RealDisk(), path).learn("2026-11-20T23:00:00Z", NOW)
    assert SignedTime(RealDisk(), path).newest == datetime(2026, 11, 20, 23, tzinfo=UTC)
    disk = RecordingDisk()
    SignedTime(disk, path).learn("2026-11-20T22:00:00Z", NOW)
    assert disk.log == []
    assert SignedTime(RealDisk(), path).newest == datetime(2026, 11, 20, 23, tzinfo=UTC)


def test_a_date_after_which_everything_is_expired_is_a_mistake_and_does_not_count(tmp_path: Path) -> None:
    signed = SignedTime(RealDisk(), tmp_path / "clock.json")
    signed.learn("2099-01-01T00:00:00Z", NOW)
    assert signed.newest == EARLIEST


@pytest.mark.parametrize("content", [b"", b"{", b'{"newest": 5}', b"\0" * 99])
def test_a_damaged_file_says_nothing(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "clock.json"
    path.write_bytes(content)
    assert SignedTime(RealDisk(), path).newest == EARLIEST


# The server's Date


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Date": "Sun, 22 Nov 2026 12:00:00 GMT"}, NOW),
        ({"Date": "Sun, 22 Nov 2026 11:00:00 GMT", "Age": "3600"}, NOW),
        ({"Date": "Sun, 22 Nov 2026 13:00:00 +0100"}, NOW),
        ({"Date": "Sun, 22 Nov 2026 12:00:00 -0000"}, NOW),
        ({}, None),
        ({"Date": ""}, None),
        ({"Date": "yesterday"}, None),
        ({"Date": "Sun, 99 Nov 2026 12:00:00 GMT"}, None),
        ({"Date": "Sun, 22 Nov 2026 12:00:00 GMT" + " " * 99}, None),
        ({"Date": "Sun, 22 Nov 2026 12:00:00 GMT", "Age": "-1"}, None),
        ({"Date": "Sun, 22 Nov 2026 12:00:00 GMT", "Age": "9" * 10}, None),
        ({"Date": "Sun, 22 Nov 2026 12:00:00 GMT", "Age": "9" * 99}, None),
    ],
)
def test_an_answer_states_its_time(headers: dict[str, str], expected: datetime | None) -> None:
    found = stated_time(headers)
    if headers.get("Age") == "9" * 10:
        assert found is None or found.year > 2300
    else:
        assert found == expected


@settings(deadline=None)
@given(st.text(LATIN, max_size=70), st.text(LATIN, max_size=12) | st.just("0"))
def test_whatever_a_server_calls_a_date_is_a_time_or_nothing(date: str, age: str) -> None:
    found = stated_time({"Date": date, "Age": age})
    assert found is None or found.tzinfo is not None


@settings(deadline=None)
@given(st.from_regex(r"\w{0,3},? ?\d{0,4} \w{0,4} -?\d{0,5} \d{0,3}:\d{0,3}:\d{0,3} [-+\w]{0,6}", fullmatch=True))
def test_what_almost_is_a_date_is_a_time_or_nothing(date: str) -> None:
    found = stated_time({"Date": date})
    assert found is None or found.tzinfo is not None
