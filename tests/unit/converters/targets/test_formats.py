from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from converters import CoreMLReference, KerasSource
from converters.errors import CheckFailed
from converters.quiet import load_tool
from converters.targets.coreml import check_coreml
from converters.targets.onnx import check_onnx
from converters.targets.tflite import SIGNATURE, check_tflite
from tests.unit.converters.conftest import Made, windows


def test_onnx_has_the_keras_names_a_batch_axis_by_name_and_standard_operators_only(
    artifacts: dict[str, Made],
) -> None:
    onnx = load_tool("onnx")
    for kind in ("onnx/fp32", "onnx/int8"):
        model = onnx.load(artifacts[kind].path)
        (window,), (logits,) = model.graph.input, model.graph.output
        assert (window.name, logits.name) == ("window", "logits")
        shape = window.type.tensor_type.shape.dim
        assert [d.dim_param or d.dim_value for d in shape] == ["batch", 32, 3]
        assert {each.domain for each in model.opset_import} == {""}
        assert all(node.domain == "" for node in model.graph.node)


def test_onnx_answers_a_batch_as_it_answers_its_rows(artifacts: dict[str, Made]) -> None:
    session = load_tool("onnxruntime").InferenceSession(artifacts["onnx/fp32"].path)
    x = windows(5, 8)[0]
    together = session.run(["logits"], {"window": x})[0]
    apart = np.concatenate([session.run(["logits"], {"window": x[i : i + 1]})[0] for i in range(5)])
    np.testing.assert_allclose(together, apart, rtol=1e-5, atol=1e-5)


def test_tflite_has_a_signature_with_the_keras_names_and_float_ends(artifacts: dict[str, Made]) -> None:
    litert = load_tool("ai_edge_litert.interpreter")
    for kind in ("tflite/fp32", "tflite/int8"):
        interpreter = litert.Interpreter(model_path=str(artifacts[kind].path))
        assert interpreter.get_signature_list() == {SIGNATURE: {"inputs": ["window"], "outputs": ["logits"]}}
        for detail in (*interpreter.get_input_details(), *interpreter.get_output_details()):
            assert detail["dtype"] is np.float32
        assert list(interpreter.get_input_details()[0]["shape"]) == [1, 32, 3]


def test_coreml_is_for_ios_17_with_float32_ends_and_the_keras_names(artifacts: dict[str, Made]) -> None:
    for kind in ("coreml/fp32", "coreml/int8"):
        reference = CoreMLReference(artifacts[kind].path)
        assert (reference.inputs, reference.outputs) == ({"window": (1, 32, 3)}, ("logits",))
    ct = load_tool("coremltools")
    assert "quantize" in artifacts["coreml/int8"].operators
    assert ct.target.iOS17.name == "iOS17"


def test_coreml_int8_computes_in_fp16_between_convolutions_only(artifacts: dict[str, Made]) -> None:
    from coremltools.converters.mil.mil import types

    kinds: dict[str, set[Any]] = {}
    for operation in CoreMLReference(artifacts["coreml/int8"].path).operations():
        kinds.setdefault(operation.op_type, set()).add(operation.outputs[0].dtype)
    assert kinds["conv"] == kinds["relu"] == {types.fp16}
    assert kinds["sub"] == kinds["mul"] == {types.fp32}, "the normalization of raw inputs needs its range"


def test_a_file_that_is_not_the_format_is_refused_by_its_check() -> None:
    with pytest.raises(CheckFailed):
        check_tflite(b"TFL3" + bytes(100), ("window",), ("logits",))
    with pytest.raises(CheckFailed, match="not a zipped"):
        check_coreml(b"not a zip", ("window",), ("logits",))


def test_an_invalid_onnx_model_is_refused_by_its_check(artifacts: dict[str, Made]) -> None:
    onnx = load_tool("onnx")
    model = onnx.load(artifacts["onnx/fp32"].path)
    model.graph.node[0].op_type = "Erfc"
    with pytest.raises(CheckFailed, match="Erfc"):
        check_onnx(model)
    model = onnx.load(artifacts["onnx/fp32"].path)
    model.graph.node[0].domain = "com.example"
    with pytest.raises(CheckFailed, match=r"com\.example\.Sub"):
        check_onnx(model)


def test_other_names_than_the_models_are_refused(artifacts: dict[str, Made], source: KerasSource) -> None:
    with pytest.raises(CheckFailed, match="lacks inputs"):
        check_tflite(artifacts["tflite/fp32"].path.read_bytes(), ("other",), ("logits",))
    with pytest.raises(CheckFailed, match="has inputs"):
        check_coreml(artifacts["coreml/fp32"].path.read_bytes(), ("window",), ("probabilities",))
