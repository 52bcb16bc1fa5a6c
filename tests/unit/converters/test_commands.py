"""What the commands say and how they end, without a conversion, or with one of a second."""

from __future__ import annotations

import argparse
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from converters.cli import COMMANDS, main
from converters.commands import run as run_command
from converters.commands.console import log_lines
from converters.recipe_file import DESCRIPTION, LINE_ONLY, OPTIONS, PARTS


@pytest.fixture
def line(tmp_path: Path) -> list[str]:
    """A command that converts one matrix product."""
    weights = numpy_helper.from_array(np.eye(4, 3, dtype=np.float32), "w")
    row = helper.make_tensor_value_info("row", TensorProto.FLOAT, ["batch", 4])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])
    graph = helper.make_graph([helper.make_node("MatMul", ["row", "w"], ["logits"])], "g", [row], [logits], [weights])
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "linear.onnx")
    rows = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    np.savez(tmp_path / "e.npz", row=rows, label=rows[:, :3].argmax(axis=1))
    return [
        *("run", str(tmp_path / "linear.onnx"), "--name", "linear", "--release", "1"),
        *("--evaluation", str(tmp_path / "e.npz"), "--targets", "onnx", "--precision", "fp32", "--no-peak-memory"),
        *("--out", str(tmp_path / "out")),
    ]


def parser_of(command: Any) -> argparse.ArgumentParser:
    commands = argparse.ArgumentParser().add_subparsers()
    command.add(commands)
    (parser,) = commands.choices.values()
    assert isinstance(parser, argparse.ArgumentParser)
    return parser


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["run"], "InvalidRequest: SOURCE, --name, --release, --evaluation, --out missing"),
        (["--targets", "ncnn"], "InvalidRequest: no target 'ncnn'"),
        (["--edge-case", "nothing"], "InvalidRequest: --edge-case takes NAME=FILE"),
        (["--axis", "n=0"], "InvalidRequest: --axis takes NAME=SIZE"),
        (["--profile", "toaster"], "ConfigurationError: no device profile 'toaster'"),
        (["--name", "Linear"], "InvalidRequest: 'Linear' is not a model name"),
        (["verify", "a.bundle", "--data", "e.npz"], "InvalidRequest: --data without --source"),
        (["verify", "a.bundle", "--axis", "n=1", "--trust-pickle"], "--axis, --trust-pickle without --source"),
    ],
)
def test_what_changing_the_command_mends_is_exit_code_2(
    change: list[str], said: str, line: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(change if change[0] in ("run", "verify") else [*line, *change]) == 2
    assert said in capfd.readouterr().err


def test_no_help_shows_marks_of_our_docstrings(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "`" not in capfd.readouterr().out
    assert all("`" not in parser_of(command).format_help() for command in COMMANDS)


def test_every_option_has_its_key_in_a_recipe_or_a_reason_not_to() -> None:
    options = {action.dest for action in parser_of(run_command)._actions} - {"help"}
    renamed = {"edge_case": "edge_cases", "axis": "axes"}
    keys = {*OPTIONS, *DESCRIPTION, *PARTS, *LINE_ONLY}
    assert {renamed.get(option, option) for option in options} <= keys
    assert not LINE_ONLY.keys() & {*OPTIONS, *DESCRIPTION, *PARTS}


def without_server(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """An mlflow whose server cannot be had."""

    def fail(experiment: str) -> None:
        raise error

    mlflow = types.ModuleType("mlflow")
    mlflow.set_experiment = fail  # type: ignore[attr-defined]
    mlflow.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)


@pytest.mark.parametrize("error", [ConnectionError("refused"), KeyboardInterrupt()])
def test_a_log_that_fails_does_not_make_a_written_bundle_look_like_none(
    error: BaseException, line: list[str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_server(monkeypatch, error)
    assert main([*line, "--mlflow", "waves", "--json"]) == 0
    out, err = capfd.readouterr()
    shown = json.loads(out)
    assert shown["bundle"] == "linear-1.bundle"
    assert Path(line[-1], "linear-1.bundle").is_file()
    assert (shown["mlflow"]["experiment"], shown["mlflow"]["run"]) == ("waves", None)
    assert shown["mlflow"]["error"] in shown["warnings"]
    assert "warning: logging to MLflow" in err
    assert "is complete" in err


def test_a_log_of_progress_has_a_line_for_each_step_in_order_and_nothing_that_moves_a_cursor() -> None:
    lines: list[str] = []
    say = log_lines(lines.append)
    for step in (
        ("loading", 0, 4), ("onnx: converting", 1, 4), ("onnx: half way", 1, 4), ("tflite: converting", 2, 4),
        ("onnx: nearly", 1, 4), ("torch: fetching numpy", 0, 0), ("torch: fetching numpy", 0, 0),
        ("tflite: \x1b[2K\rmea\x07suring", 3, 4),
    ):  # fmt: skip
        say(*step)
    assert lines == [
        "[1/4] loading", "[2/4] onnx: converting", "[3/4] tflite: converting", "  torch: fetching numpy",
        "[4/4] tflite: measuring",
    ]  # fmt: skip


def test_a_log_of_progress_counts_each_part_of_the_work_anew() -> None:
    lines: list[str] = []
    say = log_lines(lines.append)
    for step in (("asking", 0, 2), ("asking", 1, 2), ("training", 0, 2), ("training", 1, 2), ("choosing", 0, 1)):
        say(*step)
    assert lines == ["[1/2] asking", "[2/2] asking", "[1/2] training", "[2/2] training", "[1/1] choosing"]
