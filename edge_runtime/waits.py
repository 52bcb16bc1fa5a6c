"""How long the server asked this device to stay away, and what that is about. A restart does not forget it."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

from edge_runtime.clock import Clock
from edge_runtime.disk import Disk, read_sealed, write_sealed
from edge_runtime.errors import StoreError
from edge_runtime.headers import MAX_WAIT_S, retry_after_s

__all__ = ["Purpose", "Waits"]

FILE = "waits.json"
JITTER = 0.25  # a wait is up to this share longer, so that a fleet does not come back in one instant
WORTH_KEEPING_S = 60.0  # a shorter wait is not worth a write: a restart takes about as long


class Purpose(StrEnum):
    """They may be on different machines, so that one being busy says nothing about the others."""

    UPDATES = "updates"
    OUTCOMES = "outcomes"
    TELEMETRY = "telemetry"
    ENROLMENT = "enrolment"


class Waits:
    """Thread-safe. Within one process by the boot clock, from one to the next by the wall clock: where that has gone
    back meanwhile, it says nothing, and the wait is over."""

    def __init__(
        self, folder: Path, disk: Disk, clock: Clock, uniform: Callable[[float, float], float] = random.uniform
    ) -> None:
        self._path = folder / FILE
        self._disk = disk
        self._clock = clock
        self._uniform = uniform
        self._mutex = threading.Lock()
        self._until: dict[Purpose, float] = {}  # by the boot clock
        self._kept: dict[str, list[object]] = {}
        self._load()

    def left_s(self, purpose: Purpose) -> float:
        """Seconds still to wait; 0 for none."""
        return max(0.0, self._until.get(purpose, 0.0) - self._clock.boot())

    def asked(self, purpose: Purpose, headers: Mapping[str, str]) -> None:
        """Do what an answer's Retry-After says, if it has one that makes sense."""
        wait_s = retry_after_s(headers, self._clock.wall())
        if wait_s:
            self.wait(purpose, wait_s)

    def wait(self, purpose: Purpose, wait_s: float) -> None:
        """Stay away for ``wait_s`` seconds from now, at most a day, and a little longer. A longer wait stands."""
        wait_s = min(wait_s, MAX_WAIT_S) * self._uniform(1.0, 1.0 + JITTER)
        with self._mutex:
            if wait_s <= self.left_s(purpose):
                return
            self._until[purpose] = self._clock.boot() + wait_s
            if wait_s >= WORTH_KEEPING_S:
                self._kept[purpose.value] = [self._clock.wall().isoformat(), wait_s]
                with contextlib.suppress(StoreError):  # then it holds for this process
                    write_sealed(self._disk, self._path, {"format": 1, "waits": self._kept})

    def forget(self, purpose: Purpose) -> None:
        with self._mutex:
            self._until.pop(purpose, None)
            if self._kept.pop(purpose.value, None) is not None:
                with contextlib.suppress(StoreError):
                    write_sealed(self._disk, self._path, {"format": 1, "waits": self._kept})

    def _load(self) -> None:
        kept: object = None
        with contextlib.suppress(StoreError):
            kept = (read_sealed(self._disk, self._path) or {}).get("waits")
        if not isinstance(kept, dict):
            return
        for purpose in Purpose:
            with contextlib.suppress(KeyError, ValueError, TypeError, OverflowError):
                begun, wait_s = kept[purpose.value]
                since, now = datetime.fromisoformat(begun), self._clock.wall()
                left = (since + timedelta(seconds=min(wait_s, MAX_WAIT_S * (1 + JITTER))) - now).total_seconds()
                if since <= now and left > 0:
                    self._until[purpose] = self._clock.boot() + left
                    self._kept[purpose.value] = [begun, wait_s]
