"""What a download does between two chunks: keep to its rate, and ask whether it may still go on.

A download may take hours. So it looks up now and then: the network may have become metered, the window may have
ended, the app may close the runtime, and a rollback may have been published, which only the next check sees. Whatever
stops it, what has come stays, and the next check goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable

from edge_runtime.clock import Clock
from edge_runtime.errors import Outcome, RuntimeClosed, UpdateError

__all__ = ["LOOK_UP_S", "Pacing", "Rate", "Wait"]

LOOK_UP_S = 30.0

Wait = Callable[[float], bool]  # waits that many seconds, or until it returns True: the runtime closes


class Rate:
    """A leaky bucket of ``bytes_per_s`` (None: no limit): over any time from its first byte on, no more than rate ×
    time and one chunk. Pure: times in seconds are passed in."""

    def __init__(self, bytes_per_s: int | None) -> None:
        self._bytes_per_s = bytes_per_s
        self._free_at = 0.0

    def pause_s(self, count: int, now: float) -> float:
        """``count`` bytes have come: how long to wait before the next."""
        if self._bytes_per_s is None:
            return 0.0
        self._free_at = max(self._free_at, now) + count / self._bytes_per_s
        return self._free_at - now


class Pacing:
    """Of one check. ``permit`` is given the bytes that the check's downloads take in all, and raises what it ends with
    if they may not. ``longest_s`` is how long they may take before the next check has its turn. ``to_come``: bytes
    that were asked for and have not come."""

    def __init__(
        self, *, clock: Clock, wait: Wait, bytes_per_s: int | None, longest_s: float, permit: Callable[[int], None]
    ) -> None:
        self._clock = clock
        self._wait = wait
        self._rate = Rate(bytes_per_s)
        self._permit = permit
        self._came = 0
        self.to_come = 0
        self._asked = clock.boot()
        self._until = self._asked + longest_s

    def ask(self, to_come: int) -> None:
        """Before a download of ``to_come`` bytes, or before a swap with 0. Raises `UpdateError` with a ``DEFERRED_…``
        outcome if it must wait."""
        self.to_come = to_come
        self._asked = self._clock.boot()
        self._permit(self._came + to_come if to_come else 0)  # a swap costs no bytes, whatever came before it

    def took(self, count: int, *, more: bool, resumable: bool) -> None:
        """After each chunk of ``count`` bytes; ``more`` says whether the file goes on: then this waits, and raises as
        `ask` does, and `RuntimeClosed`. One that is not ``resumable`` is not ended for the next check: it would start
        again at every check."""
        self._came += count
        self.to_come = max(0, self.to_come - count)
        pause = self._rate.pause_s(count, self._clock.boot())
        while more:
            step = min(pause, LOOK_UP_S)
            if self._wait(step):
                raise RuntimeClosed("this EdgeRuntime was closed during a download; the next one goes on from there")
            self._look_up(resumable)
            pause -= step
            more = pause > 0

    def _look_up(self, resumable: bool) -> None:
        now = self._clock.boot()
        if resumable and now >= self._until:
            raise UpdateError(
                Outcome.DEFERRED_BANDWIDTH,
                f"{self.to_come} bytes are still to come; the next check looks for news first, then goes on from here",
            )
        if now - self._asked >= LOOK_UP_S:
            self.ask(self.to_come)
