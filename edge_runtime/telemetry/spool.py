"""A device's telemetry between predictions and uploads: today's histograms, and the reports of days that are over.

    <day>.report      encoded; today's too, so that a restart goes on counting where the last process stopped

One report a device-day leaves the device. Where several releases answered on one day, it is that of the release that
answered most; the others are forgotten, because a second report would cost the privacy promise a second time.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

from edge_runtime.bundle.manifest import Artifact
from edge_runtime.disk import Disk, write_atomic
from edge_runtime.errors import ReportError
from edge_runtime.telemetry.histograms import Histograms
from edge_runtime.telemetry.layout import REASONS, Layout
from edge_runtime.telemetry.wire import (
    PrivacyMode,
    ReportArm,
    ReportHeader,
    decode_header,
    decode_report,
    encode_report,
)

__all__ = ["KEPT_DAYS", "Recorder", "Spool"]

KEPT_DAYS = 7  # reports that could not be sent in this time are dropped
_SUFFIX = ".report"


class Recorder:
    """Where predictions of one release in one arm are counted. ``histograms`` is replaced when a day ends."""

    __slots__ = ("_layout", "arm", "histograms", "release")

    def __init__(self, release: int, arm: ReportArm, layout: Layout) -> None:
        self.release = release
        self.arm = arm
        self._layout = layout
        self.histograms = Histograms(layout)

    def take(self) -> Histograms:
        """What was counted so far; counting goes on in new histograms."""
        taken, self.histograms = self.histograms, Histograms(self._layout)
        return taken


class Spool:
    """Thread-safe. ``today`` gives days since 1970-01-01; nothing here looks at the clock while predicting, so counts
    belong to the day on which `roll` last ran."""

    def __init__(
        self,
        folder: Path,
        disk: Disk,
        *,
        model: str,
        mode: PrivacyMode,
        today: Callable[[], int],
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._folder = folder
        self._disk = disk
        self._model = model
        self._mode = mode
        self._today = today
        self._random = random
        self._lock = threading.Lock()
        self._recorders: list[Recorder] = []
        self._day = today()
        self._daily_id = self._resume_id()

    @property
    def mode(self) -> PrivacyMode:
        return self._mode

    @property
    def today(self) -> int:
        """Today's date, in days since 1970-01-01."""
        return self._today()

    def recorder(self, release: int, artifact: Artifact, arm: ReportArm) -> Recorder | None:
        """Where to count predictions of ``artifact``; what an earlier process counted today is in it. None where the
        privacy mode is ``off``."""
        if self._mode is PrivacyMode.OFF:
            return None
        layout = Layout.of(artifact)
        with self._lock:
            for known in self._recorders:
                if (known.release, known.arm, known.histograms.layout) == (release, arm, layout):
                    return known
            recorder = Recorder(release, arm, layout)
            self._resume(recorder)
            self._recorders.append(recorder)
            return recorder

    def report(self, day: int) -> bytes:
        """The encoded report of ``day``: today's as far as it goes, or one that waits. Raises `ReportError` where
        there is none, and `StoreError`."""
        self.roll()
        with self._lock:
            if day == self._day:
                data = self._encoded()
                if data is None:
                    raise ReportError(f"nothing was counted on day {day}")
                return data
        try:
            return self._disk.read(self._path(day))
        except FileNotFoundError as error:
            raise ReportError(f"no telemetry report of day {day} is here") from error

    def waiting(self) -> list[int]:
        """The days that are over and whose reports are still here, oldest first."""
        self.roll()
        return [day for day in self._days() if day < self._day]

    def drop(self, day: int) -> None:
        """The report of ``day`` was sent, or never can be."""
        with contextlib.suppress(FileNotFoundError):
            self._disk.unlink(self._path(day))

    def roll(self) -> None:
        """End the day where the date has changed since the last call."""
        with self._lock:
            today = self._today()
            if today == self._day:
                return
            self._write(self._encoded())
            for recorder in self._recorders:
                recorder.take()
            self._day = today
            self._daily_id = self._random(16)
        for day in self._days():
            # A day in the future was written under a wrong clock: it can never be sent rightly.
            if not today - KEPT_DAYS <= day <= today:
                self.drop(day)

    def save(self) -> None:
        """Write what was counted today, for the next process."""
        with self._lock:
            self._write(self._encoded())

    def _encoded(self) -> bytes | None:
        """Today's report, of the recorder that counted most answers."""
        best, most = None, 0
        for recorder in self._recorders:
            answers = sum(recorder.histograms.counts()[REASONS])
            if answers > most:
                best, most = recorder, answers
        if best is None:
            return None
        header = ReportHeader(
            mode=self._mode,
            arm=best.arm,
            release=best.release,
            day=self._day,
            daily_id=self._daily_id,
            model=self._model,
            kind=best.histograms.layout.kind,
        )
        return encode_report(header, best.histograms)

    def _write(self, data: bytes | None) -> None:
        if data is not None:
            self._disk.mkdir(self._folder)
            write_atomic(self._disk, self._path(self._day), data)

    def _resume_id(self) -> bytes:
        with contextlib.suppress(FileNotFoundError, ReportError):
            return decode_header(self._disk.read(self._path(self._day)))[0].daily_id
        return self._random(16)

    def _resume(self, recorder: Recorder) -> None:
        layout = recorder.histograms.layout
        with contextlib.suppress(FileNotFoundError, ReportError):  # damaged: the day starts anew
            report = decode_report(self._disk.read(self._path(self._day)), lambda *_: layout)
            header = report.header
            if (header.release, header.arm, header.kind) == (recorder.release, recorder.arm, layout.kind):
                recorder.histograms.add_counts(report.counts)

    def _days(self) -> list[int]:
        try:
            names = self._disk.listdir(self._folder)
        except FileNotFoundError:
            return []
        stems = [name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)]
        return sorted(int(stem) for stem in stems if stem.isdigit())

    def _path(self, day: int) -> Path:
        return self._folder / f"{day}{_SUFFIX}"
