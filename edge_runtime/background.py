"""The thread that keeps a runtime up to date while the app predicts. Nothing that happens here reaches the app."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence

from edge_runtime.errors import EdgeshipError

__all__ = ["Background"]

_log = logging.getLogger("edge_runtime")

REST = 0.1  # of the interval lies at least between two rounds
JITTER = 0.1  # each wait is up to this share longer or shorter, so that a fleet does not check all at once


class Background:
    """Calls ``chores`` every ``interval_s``, and ``settle`` whenever it is woken and before the chores.

    The first round waits for the first `wake`, so that a starting app has the processor to itself, but no longer than
    one interval. A round that took long, with a slow download, is soon followed by the next. ``last_error`` is the text
    of the last failure, None after a round without one.
    """

    def __init__(
        self,
        settle: Callable[[], object],
        chores: Sequence[Callable[[], object]],
        *,
        interval_s: float,
        monotonic: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._settle = settle
        self._chores = chores
        self._interval_s = min(interval_s, threading.TIMEOUT_MAX / 2)  # longer waits, also infinite ones, are an error
        self._monotonic = monotonic
        self._uniform = uniform
        self._wake = threading.Event()
        self._stopped = False
        self.last_error: str | None = None
        self._thread = threading.Thread(target=self._run, name="edge_runtime", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Something happened that should not wait for the next round."""
        self._wake.set()

    def stop(self) -> None:
        """Let the chore that is running end, then end the thread."""
        self._stopped = True
        self._wake.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        self._wake.wait(self._interval_s)
        due = self._monotonic()
        while not self._stopped:
            self._wake.clear()
            errors = [self._attempt(self._settle)]
            begun = self._monotonic()
            if begun >= due:
                errors += [self._attempt(chore) for chore in self._chores]
                due = max(
                    begun + self._interval_s * self._uniform(1 - JITTER, 1 + JITTER),
                    self._monotonic() + self._interval_s * REST,
                )
            self.last_error = next((error for error in errors if error is not None), None)
            self._wake.wait(max(0.0, due - self._monotonic()))

    def _attempt(self, chore: Callable[[], object]) -> str | None:
        if self._stopped:
            return None
        try:
            chore()
        except (EdgeshipError, OSError) as error:
            _log.warning("background: %s", error)
            return str(error)
        except Exception as error:  # noqa: BLE001 a defect here must not end the thread, and never the app
            _log.exception("background: a defect; please report it")
            return f"{type(error).__name__}: {error}"
        return None
