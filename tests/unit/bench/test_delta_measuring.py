from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.peers_delta.files import Pair
from bench.peers_delta.measuring import AGAIN, in_turns, measure
from bench.peers_delta.tools import OURS, ToolFailed, Worker


def test_tools_take_turns_and_ours_is_called_twice_in_every_round():
    order: list[str] = []

    def call(name: str) -> float:
        order.append(name)
        return float(len(order))

    samples = in_turns({OURS: lambda: call("ours"), "peer": lambda: call("peer")}, rounds=2)
    assert order == ["ours", "peer", "ours"] * 2
    assert samples == {OURS: [1.0, 6.0], "peer": [2.0, 5.0], AGAIN: [3.0, 4.0]}


def pair(folder: Path) -> Pair:
    old = np.random.default_rng(1).standard_normal(20_000).astype(np.float32)
    for name, values in (("old", old), ("new", old * np.float32(1.01))):
        (folder / name).write_bytes(values.tobytes())
    return Pair(
        model="m", target="onnx", precision="fp32", change="1 %", how="", old=folder / "old", new=folder / "new"
    )


def test_a_pair_is_patched_applied_and_measured_in_processes_and_a_missing_peer_is_said(tmp_path: Path):
    row, samples = measure(
        pair(tmp_path), {OURS: Path(sys.executable)}, {"peer": "not installed"}, tmp_path, 2, lambda text: None
    )
    assert row.ours.patch_bytes == (tmp_path / f"{OURS}.patch").stat().st_size
    assert row.ours.patch_bytes < row.new_bytes
    assert row.ours.make_s is not None
    assert row.ours.apply_ms is not None
    assert row.peers["peer"].reason == "not installed"
    assert len(samples[OURS]) == len(samples[AGAIN]) == 6  # of a small file three times as many


def test_a_patch_that_makes_another_file_stops_the_bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ask = Worker.ask

    def spoiled(self: Worker, do: str, **request: Any) -> Any:
        answer = ask(self, do, **request)
        if do == "memory":
            Path(request["made"]).write_bytes(b"another")
        return answer

    monkeypatch.setattr(Worker, "ask", spoiled)
    with pytest.raises(RuntimeError, match="makes another file"):
        measure(pair(tmp_path), {OURS: Path(sys.executable)}, {}, tmp_path, 1, lambda text: None)


def test_what_ends_a_tool_is_told_in_its_own_words(tmp_path: Path):
    with Worker("no such tool", Path(sys.executable)) as worker, pytest.raises(ToolFailed, match="KeyError"):
        worker.ask("make")
    with Worker(OURS, Path(sys.executable)) as worker, pytest.raises(ToolFailed, match="No such file"):
        worker.ask("make", old=str(tmp_path / "none"), new="", patch="")


def test_a_tool_that_takes_too_long_is_ended(tmp_path: Path):
    with Worker(OURS, Path(sys.executable)) as worker, pytest.raises(ToolFailed, match="did not end within"):
        worker.ask("make", limit_s=0.01, old=str(tmp_path), new="", patch="")
