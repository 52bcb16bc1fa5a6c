"""What the demo says while it runs: numbered steps, one progress line on long work, the time each step took."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

BAR = 24
REDRAW_SECONDS = 0.1
PLAIN_SECONDS = 5.0  # without a terminal, a line this often is enough


class Narrator:
    def __init__(self) -> None:
        self._started = time.monotonic()
        self._number = 0
        self._drawn = 0.0
        self._bar_open = False
        self._live = sys.stdout.isatty()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        self._number += 1
        self._line(f"\n[{self.elapsed():5.0f} s] {self._number}. {title}")
        begin = time.monotonic()
        yield
        self._close_bar()
        self.seconds[title] = round(time.monotonic() - begin, 1)

    def say(self, text: str) -> None:
        self._line(f"          {text}")

    def progress(self, label: str, done: float, total: float) -> None:
        """Redraw the progress line; it stays when the work is complete."""
        now = time.monotonic()
        complete = done >= total
        if not complete and now - self._drawn < (REDRAW_SECONDS if self._live else PLAIN_SECONDS):
            return
        self._drawn = now
        filled = round(BAR * min(1.0, done / total)) if total else BAR
        text = f"          {label} [{'#' * filled}{'.' * (BAR - filled)}] {done:,.0f}/{total:,.0f}"
        if self._live:
            sys.stdout.write("\r" + text)
            self._bar_open = True
            if complete:
                self._close_bar()
            sys.stdout.flush()
        elif not complete or total > 1:
            self._line(text)

    def elapsed(self) -> float:
        """Seconds since the demo started."""
        return time.monotonic() - self._started

    def _line(self, text: str) -> None:
        self._close_bar()
        print(text, flush=True)

    def _close_bar(self) -> None:
        if self._bar_open:
            sys.stdout.write("\n")
            self._bar_open = False
