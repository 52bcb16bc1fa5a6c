"""Circuit breaker: stop asking an endpoint that fails, and look again now and then. The clock is passed in.

closed ──(enough calls in the window, too many failed)──► open ──(open_s passed)──► half-open: one probe
   ▲                                                        ▲                              │
   └──────────────────── the probe succeeds ────────────────┴──── it fails: wait longer ───┘
"""

from __future__ import annotations

import math
import threading
from collections import deque
from dataclasses import dataclass
from enum import StrEnum

from edge_runtime.errors import ConfigurationError

__all__ = ["Breaker", "BreakerPolicy", "BreakerState"]

MAX_CALLS = 256  # of the window; older ones are forgotten
MAX_BACKOFF = 8  # an open breaker waits at most this many times ``open_s``


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerPolicy:
    """Open when at least ``minimum_calls`` ended in the last ``window_s`` seconds and ``failure_share`` of them failed.

    An open breaker lets one probe through after ``open_s``; each failed probe doubles the wait, up to eight times it.
    """

    window_s: float = 30.0
    minimum_calls: int = 5
    failure_share: float = 0.5
    open_s: float = 5.0

    def __post_init__(self) -> None:
        if not (self.window_s > 0 and self.open_s > 0 and math.isfinite(self.open_s)):
            raise ConfigurationError("the breaker's window_s and open_s must be positive numbers of seconds")
        if not 1 <= self.minimum_calls <= MAX_CALLS or not 0 < self.failure_share <= 1:
            raise ConfigurationError(
                f"the breaker needs 1 to {MAX_CALLS} minimum_calls and a failure_share above 0 and up to 1"
            )


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """The state of one endpoint. ``now`` is any clock that does not step back, in seconds. Thread-safe."""

    def __init__(self, policy: BreakerPolicy) -> None:
        self._policy = policy
        self._lock = threading.Lock()
        self._calls: deque[tuple[float, bool]] = deque(maxlen=MAX_CALLS)
        self._state = BreakerState.CLOSED
        self._until = 0.0  # when a breaker that is not closed lets the next probe through
        self._failed_probes = 0
        self._epoch = 1  # grows with every change of state, so that a call from before it is not mistaken for a probe

    @property
    def state(self) -> BreakerState:
        return self._state

    def allow(self, now: float) -> int | None:
        """A ticket for one call, to be given back to `record`, or None when no call may be made now."""
        with self._lock:
            if self._state is not BreakerState.CLOSED:
                if now < self._until:
                    return None
                # Should this probe never be recorded, another one may go after the same wait.
                self._change(BreakerState.HALF_OPEN, now)
            return self._epoch

    def record(self, ticket: int, now: float, *, ok: bool) -> None:
        """How the call with this ticket ended."""
        with self._lock:
            if ticket != self._epoch:
                return  # from before the breaker changed its state
            if self._state is BreakerState.HALF_OPEN:
                self._failed_probes = 0 if ok else self._failed_probes + 1
                self._change(BreakerState.CLOSED if ok else BreakerState.OPEN, now)
                return
            self._calls.append((now, ok))
            while self._calls[0][0] < now - self._policy.window_s:
                self._calls.popleft()
            failed = sum(not fine for _, fine in self._calls)
            total = len(self._calls)
            if not ok and total >= self._policy.minimum_calls and failed >= self._policy.failure_share * total:
                self._change(BreakerState.OPEN, now)

    def _change(self, state: BreakerState, now: float) -> None:
        self._state = state
        self._epoch += 1
        self._calls.clear()
        self._until = now + self._policy.open_s * min(2.0**self._failed_probes, MAX_BACKOFF)
