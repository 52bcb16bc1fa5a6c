from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from converters.errors import ConversionFailed, ModelUnreadable, PickleRefused, UnsupportedModel, UnsupportedOperator
from converters.tool_process import SCRIPTS, run_script


def script(folder: Path, body: str) -> Path:
    """A script whose ``work(request)`` has that body."""
    path = folder / "script.py"
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    path.write_text(
        f"import os, signal, sys, time\nsys.path.insert(0, {str(SCRIPTS)!r})\n"
        f"from _protocol import Refused, answer\n\n\ndef work(request):\n{lines}\n\n\nanswer(work)\n"
    )
    return path


def run(folder: Path, body: str, **options: float) -> dict[str, object]:
    return run_script(
        Path(sys.executable),
        script(folder, body),
        {"number": 3},
        stage="the tool",
        subject="model.x",
        around=lambda operator: f"leave {operator} out",
        **options,
    )


def test_a_script_gets_the_request_and_its_answer_comes_back(tmp_path: Path) -> None:
    assert run(tmp_path, "print('noise')\nreturn {'twice': 2 * request['number']}") == {"twice": 6}


def test_a_crash_names_the_stage_the_signal_and_the_last_output(tmp_path: Path) -> None:
    with pytest.raises(ConversionFailed, match=r"the tool: model\.x: its process crashed with SIGSEGV") as raised:
        run(tmp_path, "print('last words', flush=True)\nos.kill(os.getpid(), signal.SIGSEGV)")
    assert raised.value.stage == "the tool"
    assert raised.value.tool_output == "last words"


def test_a_script_that_is_killed_says_that_memory_ran_out(tmp_path: Path) -> None:
    with pytest.raises(ConversionFailed, match="was killed; most often the machine ran out of memory"):
        run(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)")


def test_a_script_that_exits_without_a_reply_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(ConversionFailed, match="ended with exit code 0 and no reply"):
        run(tmp_path, "os._exit(0)")


def test_an_exception_in_the_tool_is_a_failure_with_its_traceback(tmp_path: Path) -> None:
    with pytest.raises(ConversionFailed, match="ZeroDivisionError: division by zero") as raised:
        run(tmp_path, "return 1 / 0")
    assert "Traceback" in raised.value.tool_output


def test_a_script_that_hangs_is_ended(tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(ConversionFailed, match=r"took more than 0\.5 s"):
        run(tmp_path, "time.sleep(60)", timeout_s=0.5)
    assert time.monotonic() - start < 20


def test_an_operator_that_the_tool_refuses_has_its_name_and_a_way_around(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOperator, match=r"GRU: model\.x: cannot be; leave GRU out") as raised:
        run(tmp_path, "raise Refused('operator', 'cannot be', operator='GRU')")
    assert raised.value.operator == "GRU"


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("unreadable", ModelUnreadable, r"model\.x cannot be read: why"),
        ("pickle", PickleRefused, r"model\.x holds pickled objects, .* \(why\); .* --trust-pickle"),
        ("model", UnsupportedModel, r"model\.x: why"),
    ],
)
def test_other_refusals_are_errors_that_name_the_model(
    tmp_path: Path, kind: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        run(tmp_path, f"raise Refused({kind!r}, 'why')")


def test_a_script_sees_no_packages_but_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert run(tmp_path, "return {'path': os.environ.get('PYTHONPATH')}") == {"path": None}
