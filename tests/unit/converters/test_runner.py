from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from converters.errors import StageFailed, UnsupportedOperator
from converters.runner import InProcess, Subprocesses
from tests.support.troubled_stage import Job, Result

STAGE = "tests.support.troubled_stage"
Steps = list[tuple[str, int, int]]


def run(folder: Path, end: str, steps: Steps | None = None, *, timeout_s: float = 60.0, file: str = "") -> Result:
    runner = Subprocesses(folder, timeout_s=timeout_s)
    job = Job(end=end, numbers=(1, "batch", 3), file=file)
    say = (lambda *step: None) if steps is None else lambda *step: steps.append(step)
    result: Result = runner.run(STAGE, job, what="converting to tflite", say=say)
    return result


def test_a_stage_runs_in_a_process_of_its_own_and_its_progress_arrives(tmp_path: Path) -> None:
    steps: Steps = []
    result = run(tmp_path, "well", steps)
    assert result.process != os.getpid()
    assert result.numbers == (1, "batch", 3)
    assert result.worst == float("inf")
    assert steps == [("begun", 0, 2), ("done", 1, 2)]


def test_the_same_stage_runs_in_this_process_where_a_model_lives_only_here() -> None:
    job = Job(end="well")
    assert InProcess().run(STAGE, job, what="", say=lambda *step: None).process == os.getpid()


def test_a_crash_is_an_error_that_names_the_stage_the_signal_and_the_last_words(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="converting to tflite: its process crashed with SIGSEGV") as raised:
        run(tmp_path, "crash")
    assert "the last words of a library" in raised.value.tool_output


def test_a_killed_worker_says_that_memory_is_the_likely_cause(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="ran out of memory"):
        run(tmp_path, "memory")


def test_a_worker_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    with pytest.raises(StageFailed, match="took more than 3 s"):
        run(tmp_path, "hang", timeout_s=3.0, file=str(file))
    assert not Path(f"/proc/{file.read_text()}").exists()


def test_an_error_of_ours_arrives_with_its_type_and_attributes(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOperator, match="Bessel: no target has it") as raised:
        run(tmp_path, "operator")
    assert raised.value.operator == "Bessel"


def test_a_bug_in_a_stage_shows_its_traceback(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="ended with exit code 1") as raised:
        run(tmp_path, "bug")
    assert "ZeroDivisionError: in a tool" in raised.value.tool_output


def test_a_stopped_runner_ends_its_workers_and_begins_no_more(tmp_path: Path) -> None:
    file, runner = tmp_path / "pid", Subprocesses(tmp_path)
    raised: list[StageFailed] = []

    def hang() -> None:
        try:
            runner.run(STAGE, Job(end="hang", file=str(file)), what="w", say=lambda *step: None)
        except StageFailed as error:
            raised.append(error)

    thread = threading.Thread(target=hang)
    thread.start()
    deadline = time.monotonic() + 60
    while not (file.exists() and file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    runner.stop()
    thread.join(60)
    assert "stopped" in str(raised[0])
    assert not Path(f"/proc/{file.read_text()}").exists()
    with pytest.raises(StageFailed, match="stopped"):
        runner.run(STAGE, Job(end="well"), what="w", say=lambda *step: None)


def test_no_worker_outlives_the_process_that_started_it(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    program = (
        "import sys; from pathlib import Path; from converters.runner import Subprocesses;"
        "from tests.support.troubled_stage import Job;"
        f"Subprocesses(Path({str(tmp_path)!r})).run({STAGE!r}, Job(end='hang', file={str(file)!r}), what='w',"
        " say=lambda *s: None)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program])
    deadline = time.monotonic() + 60
    while not (file.exists() and file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    worker = Path(f"/proc/{file.read_text()}")
    assert worker.exists()
    parent.kill()
    parent.wait()
    while worker.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not worker.exists()


def test_the_parent_of_the_stages_loads_no_engine_and_no_converter() -> None:
    program = (
        "import sys, converters.pipeline, converters.cli;"
        "print([n for n in ('tensorflow', 'keras', 'onnx', 'onnxruntime', 'coremltools', 'ai_edge_litert', 'torch',"
        " 'rich', 'sklearn') if n in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
