from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
import warnings

import pytest

from converters.errors import ConversionFailed, TooLittleData, ToolMissing
from converters.quiet import load_tool, quiet


def make_noise() -> None:
    sys.stdout.write("from python\n")
    sys.stderr.write("to stderr\n")
    os.write(1, b"from below python\n")
    os.write(2, b"stderr from below\n")
    warnings.warn("a warning", stacklevel=1)


def test_a_tools_noise_is_hidden_on_both_streams_and_below_python(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet("a stage"):
        make_noise()
    sys.stdout.write("after\n")
    assert capfd.readouterr() == ("after\n", "")


def test_a_failure_carries_stage_cause_and_the_end_of_the_noise(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        os.write(2, b"x" * 5000 + b"\nthe last words\n")
        _ = 1 / 0

    with pytest.raises(ConversionFailed, match="a stage: ZeroDivisionError: division") as raised, quiet("a stage"):
        fail()
    assert raised.value.stage == "a stage"
    assert raised.value.tool_output.endswith("the last words")
    assert len(raised.value.tool_output) <= 2000
    assert isinstance(raised.value.__cause__, ZeroDivisionError)
    assert capfd.readouterr() == ("", "")


def test_an_endless_message_of_a_tool_is_cut() -> None:
    with pytest.raises(ConversionFailed) as raised, quiet("a stage"):
        raise RuntimeError("word " * 1000)
    assert len(str(raised.value)) < 1000


def test_our_own_errors_pass_unchanged_and_interrupts_too() -> None:
    with pytest.raises(TooLittleData), quiet("a stage"):
        raise TooLittleData("few")
    with pytest.raises(KeyboardInterrupt), quiet("a stage"):
        raise KeyboardInterrupt


def test_a_log_handler_made_inside_the_block_writes_to_the_real_stream_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    logger = logging.getLogger("tests.quiet")
    logger.propagate = False
    with quiet("a stage"):
        logger.addHandler(logging.StreamHandler())
        logger.warning("hidden")
    logger.warning("shown")
    assert stderr.getvalue() == "shown\n"


def test_stages_may_nest(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet("outer"):
        with quiet("inner"):
            make_noise()
        make_noise()
    logging.getLogger("x").debug("still works")
    assert capfd.readouterr() == ("", "")


def test_a_tool_that_is_not_installed_is_named_with_the_extra_that_has_it() -> None:
    with pytest.raises(ToolMissing, match=r"no_such_tool.*edgeship\[convert\]"):
        load_tool("no_such_tool")


def test_importing_the_package_or_its_command_loads_nothing_heavy() -> None:
    code = (
        "import sys, converters, converters.cli; "
        "heavy = {'numpy', 'tensorflow', 'keras', 'onnx', 'onnxruntime', 'coremltools', 'rich'} & set(sys.modules); "
        "sys.exit(', '.join(heavy) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_every_name_of_the_package_can_be_had_and_others_not() -> None:
    import converters

    for name in converters.__all__:
        assert getattr(converters, name) is not None
    assert set(dir(converters)) == set(converters.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        _ = converters.nothing
