"""Whether this device's clock can be right, by what is signed and by what the server says.

Metadata expires by the wall clock. One that stands in 1970 lets replayed metadata live for ever; one that is ahead
makes all metadata look expired, and the reason looks like the server's.

* What is signed is proof: the clock cannot stand before this runtime was made, nor before a release that it verified
  was. Expiry is compared with the later of that date and the clock, which can only refuse more.
* The ``Date`` of an answer is no proof: nobody signs it. It names a cause, and never takes the clock's place. A hostile
  server can raise a false warning with it, or call its own withholding of new metadata a wrong clock; nothing else.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from edge_runtime.disk import Disk, read_sealed, write_sealed
from edge_runtime.errors import StoreError

__all__ = ["EARLIEST", "FAR_S", "WARN_S", "ClockDoubt", "SignedTime", "doubt"]

EARLIEST = datetime(2026, 11, 1, tzinfo=UTC)  # this runtime was made after it; moved on with each version
WARN_S = 600.0  # as much as clocks that nobody sets drift apart in weeks, and as a cache may keep an answer
FAR_S = 86_400.0  # as long as a timestamp lives


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockDoubt:
    """How far this device's clock is ahead of the evidence, in seconds; negative: behind it. ``signed`` evidence says
    how far at least, the ``server``'s Date about how far, and not for sure."""

    off_s: float
    evidence: Literal["signed", "server"]

    @property
    def far(self) -> bool:
        """So far that expiry means nothing."""
        return abs(self.off_s) >= FAR_S

    def __str__(self) -> str:
        how = f"{_spoken(abs(self.off_s))} {'ahead' if self.off_s > 0 else 'behind'}"
        if self.evidence == "signed":
            return f"this device's clock is at least {how}: it stands before what is signed here was made"
        return f"this device's clock is {how}, by the server's Date, which nobody signs"


def doubt(wall: datetime, *, signed: datetime, server_off_s: float | None) -> ClockDoubt | None:
    """What speaks against the clock, which reads ``wall``; None if nothing does. Pure.

    ``signed`` is a date that is certainly past; ``server_off_s`` how far the clock is ahead of the server's Date, None
    if the server gave none. A Date from before ``signed`` is itself wrong, and says nothing.
    """
    behind = (signed - wall).total_seconds()
    proven = ClockDoubt(off_s=-behind, evidence="signed") if behind > WARN_S else None
    told = None
    if server_off_s is not None and abs(server_off_s) > WARN_S and behind + server_off_s <= WARN_S:
        told = ClockDoubt(off_s=server_off_s, evidence="server")
    return proven if told is None or (proven is not None and proven.far) else told


class SignedTime:
    """The newest date that is signed in what this device verified; kept in the file ``path``."""

    def __init__(self, disk: Disk, path: Path) -> None:
        self._disk = disk
        self._path = path
        self._newest: datetime | None = None

    @property
    def newest(self) -> datetime:
        """Certainly past. `EARLIEST` where nothing newer is known, or the file cannot be read."""
        if self._newest is None:
            self._newest = EARLIEST
            with contextlib.suppress(StoreError, ValueError, TypeError):
                kept = (read_sealed(self._disk, self._path) or {}).get("newest")
                if isinstance(kept, str):
                    self._newest = max(EARLIEST, datetime.fromisoformat(kept))
        return self._newest

    def learn(self, created: str, expires: datetime) -> None:
        """A manifest that was just verified is from ``created`` (RFC 3339, UTC), and what was verified with it
        ``expires``. A date after that is a mistake of whoever made the release, and must not end all updates. Raises
        `StoreError`."""
        date = datetime.fromisoformat(created)
        if self.newest < date <= expires:
            write_sealed(self._disk, self._path, {"format": 1, "newest": date.isoformat()})
            self._newest = date


def _spoken(seconds: float) -> str:
    span = timedelta(seconds=round(seconds))
    for unit, length in (("years", timedelta(days=365)), ("days", timedelta(days=1)), ("hours", timedelta(hours=1))):
        if span >= 2 * length:
            return f"{span / length:.1f} {unit}"
    return f"{span / timedelta(minutes=1):.0f} minutes"
