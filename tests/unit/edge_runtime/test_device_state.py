"""What Linux says about battery and network, read from files as the kernel writes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from edge_runtime.device_state import DeviceState, sample


def nothing(command: Sequence[str]) -> str | None:
    return None


def supply(folder: Path, name: str, **files: str) -> None:
    (folder / name).mkdir()
    for file, content in files.items():
        (folder / name / file).write_text(f"{content}\n")


@pytest.mark.parametrize(
    ("battery", "expected"),
    [
        ({"type": "Battery", "capacity": "57", "status": "Discharging"}, (0.57, False)),
        ({"type": "Battery", "capacity": "57", "status": "Charging"}, (0.57, True)),
        ({"type": "Battery", "capacity": "100", "status": "Full"}, (1.0, True)),
        ({"type": "Battery", "capacity": "80", "status": "Not charging"}, (0.8, True)),
        ({"type": "Battery", "capacity": "57", "status": "Unknown"}, (0.57, None)),
        ({"type": "Battery", "capacity": "115", "status": "Full"}, (1.0, True)),
        ({"type": "Battery", "capacity": "-1"}, (None, None)),
        ({"type": "Battery", "capacity": ""}, (None, None)),
        ({"type": "Battery", "capacity": "5", "scope": "Device", "status": "Discharging"}, (None, None)),
        ({"type": "Mains", "online": "1"}, (None, True)),
        ({"type": "Mains", "online": "0"}, (None, False)),
        ({"capacity": "50"}, (None, None)),
    ],
)
def test_a_power_supply_is_what_the_kernel_says(
    tmp_path: Path, battery: dict[str, str], expected: tuple[float | None, bool | None]
) -> None:
    supply(tmp_path, "BAT0", **battery)
    state = sample(supplies=tmp_path, ask=nothing)
    assert (state.battery, state.charging) == expected


def test_a_mains_supply_powers_a_battery_that_does_not_say(tmp_path: Path) -> None:
    supply(tmp_path, "AC", type="Mains", online="1")
    supply(tmp_path, "BAT0", type="Battery", capacity="20", status="Unknown")
    supply(tmp_path, "BAT1", type="Battery", capacity="40", status="Unknown")
    state = sample(supplies=tmp_path, ask=nothing)
    assert state.battery == pytest.approx(0.3)
    assert state.charging is True


@pytest.mark.parametrize(
    ("answer", "metered"),
    [
        ("v u 1\n", True),
        ("v u 2\n", False),
        ("v u 3\n", True),
        ("v u 4\n", False),
        ("v u 0\n", None),
        ("v u 99999\n", None),
        ("", None),
        ("nonsense", None),
        (None, None),
    ],
)
def test_the_network_is_what_networkmanager_says(tmp_path: Path, answer: str | None, metered: bool | None) -> None:
    asked: list[Sequence[str]] = []

    def ask(command: Sequence[str]) -> str | None:
        asked.append(command)
        return answer

    assert sample(supplies=tmp_path, ask=ask).metered is metered
    assert asked[0][0] == "busctl"


def test_a_system_that_tells_nothing_is_one_that_nothing_is_known_of(tmp_path: Path) -> None:
    assert sample(supplies=tmp_path / "missing", ask=nothing) == DeviceState()


def test_this_machine_can_be_sampled() -> None:
    assert isinstance(sample(), DeviceState)


def test_a_machine_without_the_command_knows_no_meter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert sample(supplies=tmp_path).metered is None
    command = tmp_path / "busctl"
    for script, metered in (("echo 'v u 1'", True), ("exit 1", None), ("echo 'v u 1'; exit 1", None)):
        command.write_text(f"#!/bin/sh\n{script}\n")
        command.chmod(0o755)
        assert sample(supplies=tmp_path).metered is metered
