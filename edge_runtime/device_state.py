"""What changes about a device while it runs: its network and its battery, as Linux tells or as the app does."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.errors import ConfigurationError

__all__ = ["DeviceState", "sample"]

POWER_SUPPLIES = Path("/sys/class/power_supply")
# NetworkManager's enumeration: known or guessed to be metered, known or guessed not to be.
_METERED = {1: True, 2: False, 3: True, 4: False}
_ASK = (
    *("busctl", "--system", "--auto-start=no", "call", "org.freedesktop.NetworkManager"),
    *("/org/freedesktop/NetworkManager", "org.freedesktop.DBus.Properties", "Get", "ss"),
    *("org.freedesktop.NetworkManager", "Metered"),
)
ASK_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceState:
    """``metered``: whether the network costs by the byte; ``battery``: its charge, 0 to 1; ``charging``: whether the
    device has power from outside. None: not known, which holds nothing back. Raises `ConfigurationError`."""

    metered: bool | None = None
    battery: float | None = None
    charging: bool | None = None

    def __post_init__(self) -> None:
        if self.battery is not None and not 0.0 <= self.battery <= 1.0:
            raise ConfigurationError(f"battery must be a charge from 0 to 1, not {self.battery}")


def sample(*, supplies: Path = POWER_SUPPLIES, ask: Callable[[Sequence[str]], str | None] | None = None) -> DeviceState:
    """What Linux knows now: batteries from ``supplies`` (sysfs), metered from NetworkManager, through ``ask``, which
    runs a command and returns what it printed, None where it failed. Elsewhere nothing is known; an app on another
    system gives `EdgeRuntime.open` a function of its own. Never raises; waits at most `ASK_TIMEOUT_S` seconds."""
    charges: list[float] = []
    powered: list[bool] = []
    with contextlib.suppress(OSError):
        for supply in sorted(supplies.iterdir()):
            kind, status = _line(supply / "type"), _line(supply / "status")
            if _line(supply / "scope") == "Device":
                continue  # the battery of a mouse
            if kind == "Battery":
                capacity = _line(supply / "capacity")
                if capacity.isdecimal():
                    charges.append(min(int(capacity), 100) / 100)
                if status in ("Charging", "Full", "Not charging", "Discharging"):
                    powered.append(status != "Discharging")
            elif kind and _line(supply / "online") in ("0", "1"):
                powered.append(_line(supply / "online") == "1")
    answer = (ask or _run)(_ASK)  # it ends as in "v u 4"
    number = "" if answer is None else answer.strip().rpartition(" ")[2]
    return DeviceState(
        metered=_METERED.get(int(number)) if number.isdecimal() and len(number) < 4 else None,
        battery=sum(charges) / len(charges) if charges else None,
        charging=any(powered) if powered else None,
    )


def _line(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _run(command: Sequence[str]) -> str | None:
    import shutil
    import subprocess

    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, timeout=ASK_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("ascii", "replace") if done.returncode == 0 else None
