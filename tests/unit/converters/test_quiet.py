"""Noise of conversion tools is hidden, and nothing that outlives the block breaks."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from converters.errors import ConversionFailed
from converters.quiet import quiet


def test_what_a_tool_prints_is_hidden_and_the_streams_come_back(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet("a stage"):
        print("noise")
        sys.stderr.write("more noise")
    print("after")
    assert capfd.readouterr() == ("after\n", "")


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


def test_a_failure_carries_the_end_of_what_the_tool_printed() -> None:
    with pytest.raises(ConversionFailed, match="a stage") as failure, quiet("a stage"):
        print("why it failed")
        raise RuntimeError("no")
    assert failure.value.tool_output is not None
    assert "why it failed" in failure.value.tool_output
