from __future__ import annotations

import sys
import time

import numpy as np
import pytest

from bench.peers_quantize.measuring import as_float, as_stored, interleaved, to_own_names
from bench.peers_quantize.process import attempt, reason_of
from edge_runtime.bundle import TensorSpec


def test_a_crash_is_named_by_its_signal():
    assert attempt(sys.executable, "-c", "import os; os.abort()", module=False) == "crashed: SIGABRT"


def test_an_error_is_told_in_the_words_of_the_tool():
    assert attempt(sys.executable, "-c", "raise ValueError('no such operator')", module=False) == (
        "ValueError: no such operator"
    )
    trace = "noise\nTraceback (most recent call last):\n  File\na.ToolFailed: \x1b[1mfirst\x1b[m\n--- its last words\n"
    assert reason_of(1, trace) == "a.ToolFailed: first"
    assert reason_of(2, "loading\nerror: no such file\n") == "error: no such file"
    assert reason_of(9, "") == "exit code 9"


def test_a_hang_ends_at_the_limit():
    reason = attempt(sys.executable, "-c", "import time; time.sleep(60)", module=False, limit_s=0.5)
    assert reason == "did not end within 0.5 s"


def test_what_a_hanging_step_started_ends_with_it(tmp_path):
    mark = tmp_path / "mark"
    later = f"import time; time.sleep(1.5); open({str(mark)!r}, 'w')"
    step = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {later!r}])"
    assert attempt(sys.executable, "-c", step, module=False, limit_s=0.7) is not None
    time.sleep(1.5)
    assert not mark.exists()


def test_an_exit_code_that_means_a_report_was_written_is_no_failure():
    assert attempt(sys.executable, "-c", "raise SystemExit(3)", module=False, fine=(0, 3)) is None


def spec(name: str) -> TensorSpec:
    return TensorSpec(name=name, dtype="float32", shape=("batch", 2))


def test_tensors_of_other_names_are_read_by_position_only_where_there_is_one():
    assert to_own_names((spec("x"),), ["y", "x"], "inputs") == {"x": "x"}
    assert to_own_names((spec("logits"),), ["output_0"], "outputs") == {"logits": "output_0"}
    with pytest.raises(ValueError, match="outputs a, b cannot be told to be c, d"):
        to_own_names((spec("c"), spec("d")), ["a", "b"], "outputs")


def test_calls_take_turns_and_each_has_two_lists_of_samples():
    order: list[str] = []
    ticks = iter(range(100_000))
    calls = {name: (lambda name=name: order.append(name)) for name in ("a", "b")}
    samples = interleaved(calls, clock=lambda: float(next(ticks)))
    assert order[:4] == ["a", "a", "b", "b"]  # each once cold, once to find the length of a burst
    assert order[4:8] == ["a", "b", "a", "b"]
    assert all(len(first) == len(second) > 0 for first, second in samples.values())


def test_a_file_with_int8_inputs_gets_them_by_its_own_scale_and_its_answers_are_read_back_as_floats():
    detail = {"dtype": np.int8, "quantization": (0.5, -10)}
    values = np.array([[-1.0, 0.2, 1000.0]], np.float32)
    stored = as_stored(values, detail)
    assert stored.tolist() == [[-12, -10, 127]]
    assert as_float(stored, detail).tolist() == [[-1.0, 0.0, 68.5]]
    assert as_stored(values, {"dtype": np.float32, "quantization": (0.0, 0)}) is values
    assert as_float(values, detail) is values
