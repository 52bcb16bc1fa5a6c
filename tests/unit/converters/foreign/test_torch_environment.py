"""PyTorch programs through the real environment, which is made if it is not there: about 2 GB."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.coreml_reference import CoreMLReference
from converters.environments import TORCH, ensure
from converters.errors import ModelUnreadable, PickleRefused, UnsupportedOperator
from converters.foreign import torch_tools
from converters.quiet import load_tool
from converters.sources.base import is_batched
from converters.sources.torch import TorchSource

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
EXPORT = Path(__file__).with_name("export_programs.py")
Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("programs")
    subprocess.run([ensure(TORCH, print), EXPORT, folder], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def source(programs: Path) -> Callable[[str], TorchSource]:
    opened: dict[str, TorchSource] = {}
    return lambda name: opened.setdefault(name, TorchSource(programs / f"{name}.pt2"))


def rows_for(source: TorchSource, rows: int) -> Arrays:
    rng = np.random.default_rng(3)
    skip = 1 if is_batched(source.inputs) else 0
    shapes = {spec.name: (rows, *spec.shape[skip:]) for spec in source.inputs}
    return {
        spec.name: rng.integers(0, 9, shapes[spec.name]) if spec.dtype == "int64"
        else rng.normal(size=shapes[spec.name]).astype(np.float32)
        for spec in source.inputs
    }  # fmt: skip


def one_call(source: TorchSource, arrays: Arrays) -> Arrays:
    """The first row as one call of a converted model takes it."""
    return {name: array[:1] if is_batched(source.inputs) else array[0] for name, array in arrays.items()}


def run_onnx(data: bytes, call: Arrays) -> Arrays:
    session = load_tool("onnxruntime").InferenceSession(data, providers=["CPUExecutionProvider"])
    return dict(zip([each.name for each in session.get_outputs()], session.run(None, call), strict=True))


def run_tflite(data: bytes, call: Arrays) -> Arrays:
    return load_tool("ai_edge_litert.interpreter").Interpreter(model_content=data).get_signature_runner()(**call)


def run_coreml(data: bytes, call: Arrays) -> Arrays:
    answers = CoreMLReference(data).run({name: array[None] for name, array in call.items()})
    return {name: array[0] for name, array in answers.items()}


def test_names_types_and_axes_are_those_of_the_module(source: Callable[[str], TorchSource]) -> None:
    two = source("twoheads")
    assert [(spec.name, spec.dtype, spec.shape) for spec in two.inputs] == [
        ("signal", "float32", ("batch", 12, 4)),
        ("kind", "int64", ("batch",)),
    ]
    assert [(spec.name, spec.shape) for spec in two.outputs] == [
        ("probabilities", ("batch", 3)),
        ("features", ("batch", 6)),
    ]
    assert (two.kind, two.activation, two.parameters) == ("torch", "softmax", 524)
    assert source("transformer").activation is None
    assert [spec.shape for spec in source("loose").outputs] == [(5, 7), ()]


def test_a_program_for_a_batch_of_one_answers_rows_as_the_dynamic_one_does(
    source: Callable[[str], TorchSource],
) -> None:
    assert source("one").one_at_a_time
    rows = rows_for(source("one"), 5)
    one, many = source("one").predict(rows), source("transformer").predict(rows)
    assert one["output"].shape == (5, 10)
    np.testing.assert_allclose(one["output"], many["output"], atol=1e-6)


def test_a_program_without_a_batch_takes_each_row_as_a_whole(source: Callable[[str], TorchSource]) -> None:
    rows = rows_for(source("loose"), 3)
    answers = source("loose").predict(rows)
    np.testing.assert_allclose(answers["output_0"], np.sin(rows["table"]) * 2, atol=1e-6)
    np.testing.assert_allclose(answers["output_1"], rows["table"].mean(axis=(1, 2)), atol=1e-6)


@pytest.mark.parametrize("name", ["transformer", "one", "twoheads", "loose"])
@pytest.mark.parametrize(
    ("convert", "run"),
    [
        pytest.param(torch_tools.torch_to_onnx, run_onnx, id="onnx"),
        pytest.param(torch_tools.torch_to_tflite, run_tflite, id="tflite"),
        pytest.param(torch_tools.torch_to_coreml, run_coreml, id="coreml"),
    ],
)
def test_every_target_answers_as_the_program(
    source: Callable[[str], TorchSource],
    name: str,
    convert: Callable[..., bytes],
    run: Callable[[bytes, Arrays], Arrays],
) -> None:
    program = source(name)
    rows = rows_for(program, 2)
    expected = one_call(program, program.predict(rows))
    data = convert(program.program, program.inputs, program.outputs, say=print)
    answers = run(data, one_call(program, rows))
    assert set(answers) == set(expected)
    for each, value in expected.items():
        np.testing.assert_allclose(np.asarray(answers[each]).reshape(value.shape), value, atol=1e-5)


@pytest.mark.parametrize(("name", "batch"), [("one", 1), ("transformer", "batch")])
def test_the_onnx_file_says_whether_its_batch_is_fixed(
    source: Callable[[str], TorchSource], name: str, batch: int | str
) -> None:
    program = source(name)
    data = torch_tools.torch_to_onnx(program.program, program.inputs, program.outputs, say=print)
    session = load_tool("onnxruntime").InferenceSession(data, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == [batch, 8, 8]
    assert session.get_outputs()[0].shape == [batch, 10]


def test_the_onnx_file_says_nothing_of_the_machine_that_it_was_made_on(source: Callable[[str], TorchSource]) -> None:
    program = source("transformer")
    data = torch_tools.torch_to_onnx(program.program, program.inputs, program.outputs, say=print)
    assert b"export_programs" not in data
    assert b"stack_trace" not in data


@pytest.mark.parametrize(
    "convert", [torch_tools.torch_to_onnx, torch_tools.torch_to_tflite, torch_tools.torch_to_coreml]
)
def test_an_operator_without_a_translation_is_named(
    source: Callable[[str], TorchSource], convert: Callable[..., bytes]
) -> None:
    program = source("svd")
    with pytest.raises(UnsupportedOperator, match="svd"):
        convert(program.program, program.inputs, program.outputs, say=print)


class Malicious:
    """Unpickling it runs a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.parametrize("where", ["sample inputs", "a weight"])
def test_a_pickle_inside_a_program_does_not_run(programs: Path, tmp_path: Path, where: str) -> None:
    evil = pickle.dumps(Malicious(f"touch {tmp_path / 'ran'}"), protocol=2)
    path = tmp_path / "evil.pt2"
    with zipfile.ZipFile(programs / "one.pt2") as given, zipfile.ZipFile(path, "w") as made:
        for entry in given.infolist():
            data = given.read(entry)
            if where == "sample inputs" and "/sample_inputs/" in entry.filename:
                data = evil
            if where == "a weight" and entry.filename.endswith("model_weights_config.json"):
                config = json.loads(data)
                next(iter(config["config"].values()))["use_pickle"] = True
                data = json.dumps(config).encode()
            if where == "a weight" and entry.filename.endswith("/weight_0"):
                data = evil
            made.writestr(entry.filename, data)
    with pytest.raises(PickleRefused, match=r"evil\.pt2 holds pickled objects"):
        TorchSource(path)
    assert not (tmp_path / "ran").exists()


def test_a_program_whose_graph_is_damaged_is_unreadable(programs: Path, tmp_path: Path) -> None:
    path = tmp_path / "damaged.pt2"
    with zipfile.ZipFile(programs / "one.pt2") as given, zipfile.ZipFile(path, "w") as made:
        for entry in given.infolist():
            made.writestr(entry.filename, b"{" if entry.filename.endswith("model.json") else given.read(entry))
    with pytest.raises(ModelUnreadable, match=r"damaged\.pt2 cannot be read"):
        TorchSource(path)
