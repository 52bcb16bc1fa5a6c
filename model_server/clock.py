"""The server's clock, passed in everywhere, so that tests can move time."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    def now(self) -> datetime:
        """Wall-clock time, aware, in UTC: for expiries and records."""
        ...

    def monotonic(self) -> float:
        """Seconds that never step back: for waiting and measuring."""
        ...


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()
