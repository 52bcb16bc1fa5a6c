"""When a device may check, download and try a release: what its owner set, against what the device says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.device_state import DeviceState
from edge_runtime.errors import ConfigurationError, Outcome
from edge_runtime.update.conditions import DAYS, UpdateRules, Window, hold, hold_check
from edge_runtime.update.decision import Action, Decision

INSTALL = Decision(action=Action.INSTALL, release=2, outcome=Outcome.INSTALLED, detail="")
URGENT = Decision(action=Action.INSTALL, release=1, outcome=Outcome.RETURNED, detail="", urgent=True)
NIGHT = Window.parse("02:00-05:00")
NOON = datetime(2026, 11, 22, 12, 0)  # a Sunday
THREE = NOON.replace(hour=3)

METERED, WINDOW, BATTERY = Outcome.DEFERRED_METERED, Outcome.DEFERRED_WINDOW, Outcome.DEFERRED_BATTERY


def held(
    rules: UpdateRules,
    *,
    decision: Decision = INSTALL,
    at: datetime = NOON,
    bytes_to_come: int = 1_000_000,
    **state: Any,
) -> Outcome | None:
    found = hold(rules, DeviceState(**state), at, decision, bytes_to_come=bytes_to_come)
    return None if found is None else found.outcome


RULES = UpdateRules
CASES: list[tuple[str, UpdateRules, dict[str, Any], Outcome | None]] = [
    ("nothing is known", RULES(), {}, None),
    ("not metered", RULES(), {"metered": False}, None),
    ("metered", RULES(), {"metered": True}, METERED),
    ("metered, and nothing to download", RULES(), {"metered": True, "bytes_to_come": 0}, None),
    ("metered and allowed", RULES(metered="allow"), {"metered": True}, None),
    ("metered within the bytes", RULES(metered_bytes=1_000_000), {"metered": True}, None),
    ("metered past the bytes", RULES(metered_bytes=999_999), {"metered": True}, METERED),
    ("metered, never", RULES(metered="never"), {"metered": True}, METERED),
    ("any time is fine without a window", RULES(), {"at": THREE}, None),
    ("outside the window", RULES(windows=[NIGHT]), {}, WINDOW),
    ("outside the window, nothing to download", RULES(windows=[NIGHT]), {"bytes_to_come": 0}, WINDOW),
    ("inside the window", RULES(windows=[NIGHT]), {"at": THREE}, None),
    ("inside one of two windows", RULES(windows=[NIGHT, Window.parse("11:00-13:00")]), {}, None),
    ("low battery", RULES(), {"battery": 0.19}, BATTERY),
    ("enough battery", RULES(), {"battery": 0.2}, None),
    ("low battery, on power", RULES(), {"battery": 0.01, "charging": True}, None),
    ("low battery, not on power", RULES(), {"battery": 0.01, "charging": False}, BATTERY),
    ("no minimum", RULES(minimum_battery=0), {"battery": 0.0}, None),
    ("the meter is named first", RULES(windows=[NIGHT]), {"metered": True, "battery": 0.0}, METERED),
    ("the window before the battery", RULES(windows=[NIGHT]), {"battery": 0.0}, WINDOW),
]


@pytest.mark.parametrize(("rules", "given_", "outcome"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_release_waits_for_what_its_owner_set(
    rules: UpdateRules, given_: dict[str, Any], outcome: Outcome | None
) -> None:
    assert held(rules, **given_) is outcome


@pytest.mark.parametrize(
    ("rules", "given_", "outcome"),
    [
        (RULES(windows=[NIGHT]), {"battery": 0.0}, None),
        (RULES(), {"metered": True}, METERED),
        (RULES(metered_bytes=1_000_000), {"metered": True, "battery": 0.0}, None),
    ],
)
def test_what_is_urgent_waits_for_the_meter_only(
    rules: UpdateRules, given_: dict[str, Any], outcome: Outcome | None
) -> None:
    assert held(rules, decision=URGENT, **given_) is outcome


@pytest.mark.parametrize("metered", [None, False, True])
def test_only_never_stops_a_check(metered: bool | None) -> None:
    state = DeviceState(metered=metered)
    for rules in (RULES(), RULES(metered="allow"), RULES(windows=[NIGHT], minimum_battery=1.0)):
        assert hold_check(rules, state) is None
    found = hold_check(RULES(metered="never"), state)
    assert (None if found is None else found.outcome) is (METERED if metered else None)


windows = st.builds(
    lambda start, length, days: Window(start=start, end=(start + length - 1) % 1440 + 1, days=days),
    st.integers(0, 1439),
    st.integers(1, 1439),
    st.frozensets(st.integers(0, 6), min_size=1),
)
all_rules = st.builds(
    UpdateRules,
    metered=st.sampled_from(["allow", "checks_only", "never"]),
    metered_bytes=st.integers(0, 10**6),
    windows=st.lists(windows, max_size=3),
    minimum_battery=st.floats(0, 1),
)
states = st.builds(
    DeviceState,
    metered=st.none() | st.booleans(),
    battery=st.none() | st.floats(0, 1),
    charging=st.none() | st.booleans(),
)
moments = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1))


@settings(deadline=None)
@given(
    rules=all_rules,
    state=states,
    local=moments,
    action=st.sampled_from([Action.NOTHING, Action.RETURN, Action.DISABLE]),
    bytes_to_come=st.integers(0, 10**9),
)
def test_no_rule_holds_back_what_is_not_an_install(
    rules: UpdateRules, state: DeviceState, local: datetime, action: Action, bytes_to_come: int
) -> None:
    decision = Decision(action=action, release=1, outcome=Outcome.RETURNED, detail="")
    assert hold(rules, state, local, decision, bytes_to_come=bytes_to_come) is None


@settings(deadline=None)
@given(rules=all_rules, state=states, local=moments)
def test_no_rule_holds_back_a_rollback_that_needs_no_download(
    rules: UpdateRules, state: DeviceState, local: datetime
) -> None:
    assert hold(rules, state, local, URGENT, bytes_to_come=0) is None


@settings(deadline=None)
@given(rules=all_rules, state=states, local=moments, bytes_to_come=st.integers(0, 10**9))
def test_what_is_held_back_says_which_rule_and_why(
    rules: UpdateRules, state: DeviceState, local: datetime, bytes_to_come: int
) -> None:
    found = hold(rules, state, local, INSTALL, bytes_to_come=bytes_to_come)
    if found is not None:
        assert found.outcome in (METERED, WINDOW, BATTERY)
        assert "release 2" in found.why


# Windows


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("02:00-05:00", ["Mon 02:00", "Sun 04:59"], ["Mon 01:59", "Mon 05:00"]),
        ("22:00-06:00", ["Mon 22:00", "Tue 00:00", "Tue 05:59"], ["Mon 21:59", "Tue 06:00", "Tue 12:00"]),
        ("00:00-24:00", ["Mon 00:00", "Mon 23:59"], []),
        ("22:00-24:00", ["Mon 23:59"], ["Mon 00:00", "Mon 21:59"]),
        ("22:00-00:00", ["Mon 23:59"], ["Mon 00:00", "Mon 21:59"]),
        ("sat,sun 00:00-24:00", ["Sat 00:00", "Sun 23:59"], ["Fri 23:59", "Mon 00:00"]),
        ("fri 22:00-06:00", ["Fri 23:00", "Sat 05:59"], ["Fri 05:00", "Sat 22:00", "Thu 23:00"]),
        ("sun 22:00-06:00", ["Sun 22:00", "Mon 05:00"], ["Sun 05:00", "Mon 22:00"]),
        ("mon-fri 09:00-10:00", ["Mon 09:30", "Fri 09:30"], ["Sat 09:30", "Sun 09:30"]),
        ("fri-mon 09:00-10:00", ["Fri 09:30", "Sun 09:30", "Mon 09:30"], ["Tue 09:30", "Thu 09:30"]),
        ("MON 09:00-10:00", ["Mon 09:30"], ["Tue 09:30"]),
    ],
)
def test_a_window_covers_its_days_and_times(text: str, inside: list[str], outside: list[str]) -> None:
    window = Window.parse(text)

    def at(when: str) -> datetime:
        day, _, time = when.partition(" ")
        monday = datetime(2026, 11, 23) + timedelta(days=DAYS.index(day.lower()))
        return monday.replace(hour=int(time[:2]), minute=int(time[3:]))

    assert [when for when in inside if not window.covers(at(when))] == []
    assert [when for when in outside if window.covers(at(when))] == []


@settings(deadline=None)
@given(windows)
def test_a_window_is_written_as_it_is_read(window: Window) -> None:
    assert Window.parse(str(window)) == window


@settings(deadline=None, max_examples=25)
@given(windows)
def test_a_window_covers_as_many_minutes_of_a_week_as_it_is_long(window: Window) -> None:
    monday = datetime(2026, 11, 23)
    length = (window.end - window.start) % 1440 or 1440
    covered = sum(window.covers(monday + timedelta(minutes=minute)) for minute in range(7 * 1440))
    assert covered == length * len(window.days)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2-5",
        "02:00",
        "02:00-02:00",
        "24:00-05:00",
        "02:60-05:00",
        "02:00-24:01",
        "xyz 02:00-05:00",
        "mon- 1:00-2:00",
    ],
)
def test_what_is_no_window_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"window|day"):
        Window.parse(text)


def hours_inside(window: Window, zone: str, day: datetime) -> float:
    """How long the window lasts on the local day that begins at ``day``, counted minute by minute of real time."""
    local = ZoneInfo(zone)
    start = day.replace(tzinfo=local).astimezone(UTC)
    minutes = (start + timedelta(minutes=n) for n in range(26 * 60))
    return sum(window.covers(at) for m in minutes if (at := m.astimezone(local)).date() == day.date()) / 60


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", datetime(2026, 11, 22), 1.0),
        ("Europe/Berlin", datetime(2027, 3, 28), 0.0),  # 02:00 to 03:00 does not come
        ("Europe/Berlin", datetime(2026, 10, 25), 2.0),  # and comes twice
        ("Asia/Kolkata", datetime(2027, 3, 28), 1.0),
        ("Pacific/Auckland", datetime(2027, 4, 4), 2.0),
    ],
)
def test_a_change_of_the_clocks_skips_a_window_or_repeats_it(zone: str, day: datetime, hours: float) -> None:
    assert hours_inside(Window.parse("02:00-03:00"), zone, day) == hours


# Rules


@pytest.mark.parametrize(
    "wrong",
    [
        {"metered": "sometimes"},
        {"metered_bytes": -1},
        {"windows": ["02:00-05:00"]},
        {"windows": "02:00-05:00"},
        {"time_zone": "Mars/Olympus"},
        {"time_zone": "../../etc/passwd"},
        {"minimum_battery": 20},
        {"minimum_battery": float("nan")},
        {"bytes_per_s": 0},
    ],
)
def test_rules_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        UpdateRules(**wrong)


@pytest.mark.parametrize("battery", [-0.1, 1.1, float("nan")])
def test_a_charge_is_a_share(battery: float) -> None:
    with pytest.raises(ConfigurationError, match="battery"):
        DeviceState(battery=battery)
