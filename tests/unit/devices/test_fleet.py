"""A small fleet of real runtimes in processes of their own."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from devices.__main__ import main
from devices.repository import TufRepository
from tests.support import tiny


@pytest.fixture
def line(tmp_path: Path) -> list[str]:
    factory = tiny.release(1, tflite_data=tiny.tflite_bytes()).factory(tmp_path)
    np.savez(tmp_path / "field.npz", window=tiny.windows(20))
    repository = TufRepository(tmp_path / "repository", datetime.now(UTC))
    repository.publish_root()
    shutil.copyfile(repository.metadata / "1.root.json", tmp_path / "root.json")
    return [
        *("fleet", "--server", "http://127.0.0.1:9", "--root", str(tmp_path / "root.json"), "--token", "t"),
        *("--model", "tiny", "--factory", str(factory.path), "--examples", str(tmp_path / "field.npz")),
        *("--state", str(tmp_path / "fleet"), "--devices", "3", "--requests", "5", "--periods", "2"),
    ]


def test_a_fleet_answers_without_a_server_and_says_that_nothing_was_reported(
    line: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*line, "--json"]) == 1
    out, err = capsys.readouterr()
    periods = [json.loads(text) for text in out.splitlines()]
    assert [period["number"] for period in periods] == [1, 2]
    devices = periods[-1]["devices"]
    assert [d["device"] for d in devices] == ["sim-00000", "sim-00001", "sim-00002"]
    assert {(d["outcome"], d["release"], d["reported"]) for d in devices} == {("ServerUnreachable", 1, False)}
    assert all(sum(d["answers"].values()) == 5 for d in devices)
    assert "no report" in err


def test_an_array_that_is_no_input_of_the_model_is_refused_before_a_device_starts(
    line: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "field.npz", window=tiny.windows(20), labels=np.zeros(20))
    assert main(line) == 1
    assert "labels" in capsys.readouterr().err
    assert not (tmp_path / "fleet").exists()
