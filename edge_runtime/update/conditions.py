"""When a device may check, download and try a release: what its owner set, against what the device says. Pure.

check       always, so that a halt, a rollback or a revocation arrives; only ``metered="never"`` forbids it
go back, switch off, drop what is revoked
            always: it needs no download, and no rule is asked
install     inside a maintenance window, with enough battery, and on a metered network only within its bytes
install, urgent
            it takes the device off a release that is rolled back, or nothing runs here that a window could protect:
            any time, on any battery. Metered bytes are money, and stay forbidden
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Literal

from edge_runtime.device_state import DeviceState
from edge_runtime.errors import ConfigurationError, Outcome
from edge_runtime.update.decision import Action, Decision

__all__ = ["Hold", "UpdateRules", "Window", "hold", "hold_check"]

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MINUTES_A_DAY = 24 * 60

_WINDOW = re.compile(r"(?:(?P<days>[a-z,-]+) )?(?P<start>[0-9]{2}:[0-9]{2})-(?P<end>[0-9]{2}:[0-9]{2})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A part of each day, in minutes after local midnight: from ``start`` (0 to 1439) until before ``end`` (1 to 1440),
    which lies on the next day if it is not after ``start``. ``days`` (0 is Monday) are those on which it starts.

    It is compared with what a clock on the wall shows: a time that a change to summer time skips does not come that
    day, and one that comes twice in autumn counts twice. Raises `ConfigurationError`.
    """

    start: int
    end: int
    days: frozenset[int] = frozenset(range(7))

    def __post_init__(self) -> None:
        if not (0 <= self.start < MINUTES_A_DAY and 0 < self.end <= MINUTES_A_DAY and self.start != self.end):
            raise ConfigurationError("a window needs a start and another end, such as 02:00-05:00 or 00:00-24:00")
        if not self.days or not self.days <= set(range(7)):
            raise ConfigurationError(f"the days of a window are some of {', '.join(DAYS)}")

    @classmethod
    def parse(cls, text: str) -> Window:
        """``02:00-05:00``, ``sat,sun 00:00-24:00`` or ``mon-fri 22:00-06:00``. Raises `ConfigurationError`."""
        found = _WINDOW.fullmatch(text.strip().lower())
        if found is None:
            raise ConfigurationError(f"{text!r} is no window: write one as in 02:00-05:00 or mon-fri 22:00-06:00")
        days = frozenset(range(7)) if found["days"] is None else _days(found["days"], text)
        end = _minutes(found["end"], text)
        return cls(start=_minutes(found["start"], text), end=end or MINUTES_A_DAY, days=days)

    def covers(self, local: datetime) -> bool:
        """Whether ``local``, the time that a clock on the wall shows, lies in it."""
        minute, today = local.hour * 60 + local.minute, local.weekday()
        if self.start < self.end:
            return self.start <= minute < self.end and today in self.days
        return (minute >= self.start and today in self.days) or (minute < self.end and (today - 1) % 7 in self.days)

    def __str__(self) -> str:
        times = "-".join(f"{minute // 60:02}:{minute % 60:02}" for minute in (self.start, self.end))
        if len(self.days) == 7:
            return times
        return f"{','.join(DAYS[day] for day in sorted(self.days))} {times}"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateRules:
    """When a device may download and try a release. Raises `ConfigurationError` for values that cannot work.

    ``metered`` is for a network that costs by the byte: ``allow`` downloads, ``checks_only`` reads metadata and the
    small documents of a release and leaves its files for later, ``never`` does not even check, so that a rollback waits
    too. With ``checks_only``, a download of at most ``metered_bytes`` bytes a check goes all the same, as a delta may.
    ``windows``: none is any time; ``time_zone`` (as in ``Europe/Berlin``) is theirs, by default the system's.
    ``minimum_battery`` (0 to 1) holds unless the device has power from outside. ``bytes_per_s`` bounds the speed of
    downloads, as a mean.
    """

    metered: Literal["allow", "checks_only", "never"] = "checks_only"
    metered_bytes: int = 0
    windows: Sequence[Window] = ()
    time_zone: str | None = None
    minimum_battery: float = 0.2
    bytes_per_s: int | None = None

    def __post_init__(self) -> None:
        if self.metered not in ("allow", "checks_only", "never"):
            raise ConfigurationError(f"metered must be allow, checks_only or never, not {self.metered!r}")
        if self.metered_bytes < 0:
            raise ConfigurationError(f"metered_bytes must be 0 or more bytes, not {self.metered_bytes}")
        if not all(isinstance(window, Window) for window in self.windows):
            raise ConfigurationError('windows must be a list such as [Window.parse("02:00-05:00")]')
        object.__setattr__(self, "windows", tuple(self.windows))
        if not (math.isfinite(self.minimum_battery) and 0.0 <= self.minimum_battery <= 1.0):
            raise ConfigurationError(f"minimum_battery must be a charge from 0 to 1, not {self.minimum_battery}")
        if self.bytes_per_s is not None and self.bytes_per_s < 1:
            raise ConfigurationError(f"bytes_per_s must be a positive number of bytes, not {self.bytes_per_s}")
        self.zone()

    def zone(self) -> tzinfo | None:
        """The zone of the windows; None: the system's."""
        if self.time_zone is None:
            return None
        from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

        try:
            return ZoneInfo(self.time_zone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ConfigurationError(
                f"this system knows no time zone {self.time_zone!r}: name one as in Europe/Berlin"
            ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Why not now: ``outcome`` to report, and ``why`` for people."""

    outcome: Outcome
    why: str


def hold_check(rules: UpdateRules, state: DeviceState) -> Hold | None:
    """Why not even to ask the server, or None."""
    if rules.metered == "never" and state.metered:
        return Hold(outcome=Outcome.DEFERRED_METERED, why="the network is metered, and checks wait for another")
    return None


def hold(
    rules: UpdateRules, state: DeviceState, local: datetime, decision: Decision, *, bytes_to_come: int
) -> Hold | None:
    """Why not to do now what a check decided, or None.

    ``local`` is the time in the windows' zone; ``bytes_to_come`` what a download takes in this check, in all, and 0
    before it is known: then what stands between is the rest.
    """
    if decision.action is not Action.INSTALL:
        return None
    what = f"release {decision.release}"
    if rules.metered != "allow" and state.metered and bytes_to_come > rules.metered_bytes:
        return Hold(
            outcome=Outcome.DEFERRED_METERED,
            why=f"{what} needs {bytes_to_come} bytes, the network is metered, and at most {rules.metered_bytes} may go",
        )
    if decision.urgent:
        return None
    if rules.windows and not any(window.covers(local) for window in rules.windows):
        return Hold(
            outcome=Outcome.DEFERRED_WINDOW,
            why=f"{what} waits for {' or '.join(map(str, rules.windows))}; it is {local:%a %H:%M} here",
        )
    low = state.battery is not None and state.battery < rules.minimum_battery
    if low and not state.charging:
        return Hold(
            outcome=Outcome.DEFERRED_BATTERY,
            why=f"{what} waits for power or {rules.minimum_battery:.0%} of battery; there is {state.battery:.0%}",
        )
    return None


def _minutes(text: str, window: str) -> int:
    hours, minutes = int(text[:2]), int(text[3:])
    if minutes > 59 or hours * 60 + minutes > MINUTES_A_DAY:
        raise ConfigurationError(f"{window!r} is no window: {text} is no time of a day")
    return hours * 60 + minutes


def _days(text: str, window: str) -> frozenset[int]:
    days: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if first not in DAYS or (dash and last not in DAYS):
            raise ConfigurationError(f"{window!r} is no window: days are {', '.join(DAYS)}, as in mon-fri or sat,sun")
        start, end = DAYS.index(first), DAYS.index(last or first)
        days.update((start + step) % 7 for step in range((end - start) % 7 + 1))
    return frozenset(days)
