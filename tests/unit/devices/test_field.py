"""What simulated devices see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from devices.__main__ import main
from devices.field import load_field
from edge_runtime.errors import ConfigurationError


def test_each_device_draws_its_own_examples_and_the_same_ones_every_run(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", a=np.arange(100), b=np.arange(100) * 2)
    field = load_field(tmp_path / "f.npz")
    one = field.draw("sim-00001", 1, 30, seed=7)
    assert [d["a"] for d in one] == [d["a"] for d in field.draw("sim-00001", 1, 30, seed=7)]
    assert [d["a"] for d in one] != [d["a"] for d in field.draw("sim-00002", 1, 30, seed=7)]
    assert [d["a"] for d in one] != [d["a"] for d in field.draw("sim-00001", 2, 30, seed=7)]
    assert all(d["b"] == 2 * d["a"] for d in one)


@pytest.mark.parametrize(
    "arrays",
    [{}, {"a": np.arange(3), "b": np.arange(4)}, {"a": np.array(1.0)}, {"a": np.array([object()])}],
    ids=["nothing", "different lengths", "no first axis", "Python objects"],
)
def test_a_file_that_is_no_field_is_refused_by_name(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez(tmp_path / "f.npz", **arrays)
    with pytest.raises(ConfigurationError, match=r"f\.npz"):
        load_field(tmp_path / "f.npz")


def test_a_fleet_whose_bundle_is_missing_says_so_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["fleet", "--server", "http://127.0.0.1:9", "--root", "r", "--token", "t", "--model", "m"]
    assert main([*line, "--factory", str(tmp_path / "none.bundle"), "--examples", "x.npz"]) == 1
    captured = capsys.readouterr().err
    assert captured.startswith("devices: ")
    assert "none.bundle" in captured


def test_a_damaged_file_of_examples_is_refused_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", a=np.arange(100))
    (tmp_path / "f.npz").write_bytes((tmp_path / "f.npz").read_bytes()[:-30])
    with pytest.raises(ConfigurationError, match=r"f\.npz"):
        load_field(tmp_path / "f.npz")
