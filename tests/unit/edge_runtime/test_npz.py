"""Whatever a file of arrays holds, it is read or refused by name."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.cli import main
from edge_runtime.errors import ConfigurationError
from edge_runtime.npz import read_npz
from tests.support import tiny


def header(text: str) -> bytes:
    data = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(data).to_bytes(2, "little") + data


def test_arrays_come_back_by_name(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", window=tiny.windows(2), more=np.arange(3))
    arrays = read_npz(tmp_path / "a.npz")
    np.testing.assert_array_equal(arrays["window"], tiny.windows(2))
    assert set(arrays) == {"window", "more"}


@pytest.mark.parametrize("at", [60, 100, 150, -5])
def test_a_damaged_file_is_refused(tmp_path: Path, at: int) -> None:
    np.savez_compressed(tmp_path / "a.npz", window=tiny.windows(2))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[at] ^= 0xFF
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(ConfigurationError, match=r"a\.npz"):
        read_npz(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("readme.txt", b"hello"),
        ("a.npy", b""),
        ("a.npy", header("{'descr': [[[[((((")),
        ("a.npy", header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000000,), }")),
        ("a.npy", header("{'descr': '<f4', 'fortran_order': False, 'shape': (100000000000000000000000,), }")),
        ("a.npy", header("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }")),
    ],
)
def test_what_is_not_an_array_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr(name, content)
    with pytest.raises(ConfigurationError, match=r"a\.npz"):
        read_npz(tmp_path / "a.npz")


@pytest.mark.parametrize("window", [np.zeros((0, 20, 3), np.float32), np.float32(0)])
def test_many_examples_are_at_least_one(tmp_path: Path, window: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "a.npz", window=window)
    assert (
        main(["predict", str(tmp_path / "state"), "--model", "m", "--inputs", str(tmp_path / "a.npz"), "--many"]) == 1
    )
    assert "an example or more" in capsys.readouterr().err
