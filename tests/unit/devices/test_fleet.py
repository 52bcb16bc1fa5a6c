"""A fleet goes on whatever its field holds, and says what it refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from devices.fleet import Fleet, FleetOptions
from tests.support import tiny


def test_examples_that_training_never_saw_are_refused_and_the_fleet_goes_on(tmp_path: Path) -> None:
    windows = tiny.windows(3)
    windows[1] = 99.0  # outside the manifest's range
    windows[2] = np.nan
    np.savez(tmp_path / "field.npz", window=windows)
    factory = tiny.release().factory(tmp_path)
    (tmp_path / "root.json").write_bytes(b"{}")
    options = FleetOptions(
        server="http://127.0.0.1:9",
        root=tmp_path / "root.json",
        model="tiny",
        state=tmp_path / "state",
        factory=Path(factory.path),
        factory_sha256=factory.sha256,
        examples=tmp_path / "field.npz",
        token="fleet",
        devices=1,
        engines=("onnx",),
        workers=1,
        requests=30,
    )
    with Fleet(options) as fleet:
        (device,) = fleet.period().devices
    assert device.refused > 0
    assert sum(device.answers.values()) + device.refused == 30
    assert device.outcome == "ServerUnreachable"
