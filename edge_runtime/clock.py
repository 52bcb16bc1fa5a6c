"""The device's two clocks, passed in everywhere, so that tests can move time."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    def wall(self) -> datetime:
        """Wall-clock time, aware, in UTC. Only for the expiry of metadata and for windows: it may be wrong, see
        `update.timekeeping`."""
        ...

    def boot(self) -> float:
        """Seconds since this boot, time asleep included; never steps back within one boot."""
        ...


class SystemClock:
    """The machine's clocks. Where the system has no boot clock (macOS, Windows), its monotonic clock serves: it may
    leave out time asleep, which only makes ages smaller."""

    def wall(self) -> datetime:
        return datetime.now(UTC)

    def boot(self) -> float:
        boottime = getattr(time, "CLOCK_BOOTTIME", None)
        return time.monotonic() if boottime is None else time.clock_gettime(boottime)
