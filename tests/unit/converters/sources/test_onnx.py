from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from converters.errors import ModelUnreadable, UnsupportedModel
from converters.sources.onnx import OnnxSource
from tests.support import tiny


def written(path: Path, model: onnx.ModelProto | bytes) -> Path:
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return path


def model(nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: dict[str, np.ndarray] | None = None) -> Any:
    stored = [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


ONES = np.ones(3, np.float32)


def floats(name: str, *shape: int | str | None) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def test_a_file_says_what_it_takes_and_gives_and_answers_as_it_should(tmp_path: Path) -> None:
    source = OnnxSource(written(tmp_path / "tiny.onnx", tiny.onnx_bytes()))
    assert (source.kind, source.name, source.opset, source.precision) == ("onnx", "tiny", 17, "fp32")
    assert source.inputs == (tiny.WINDOW.__class__(name="window", dtype="float32", shape=("batch", 20, 3)),)
    assert source.parameters == 244
    assert source.model_bytes == tiny.onnx_bytes(), "an untouched file keeps its digest"
    x = tiny.windows(300)
    np.testing.assert_allclose(source.predict({"window": x})["logits"], tiny.expected(x), rtol=1e-4, atol=1e-5)


def test_a_batch_fixed_to_one_is_asked_row_by_row(tmp_path: Path) -> None:
    source = OnnxSource(written(tmp_path / "tiny.onnx", tiny.onnx_model(batch=1)))
    assert source.one_at_a_time
    x = tiny.windows(3)
    np.testing.assert_allclose(source.predict({"window": x})["logits"], tiny.expected(x), rtol=1e-4, atol=1e-5)


def test_external_data_beside_the_file_is_put_inside(tmp_path: Path) -> None:
    whole = tiny.onnx_model()
    onnx.save(whole, tmp_path / "big.onnx", save_as_external_data=True, location="big.data", size_threshold=0)
    source = OnnxSource(tmp_path / "big.onnx")
    (tmp_path / "big.data").unlink()
    assert source.parameters == 244
    x = tiny.windows(3)
    np.testing.assert_allclose(source.predict({"window": x})["logits"], tiny.expected(x), rtol=1e-4, atol=1e-5)
    onnx.checker.check_model(onnx.load_from_string(source.model_bytes))


def test_weights_that_an_old_file_lists_as_inputs_are_not_inputs(tmp_path: Path) -> None:
    old = tiny.onnx_model()
    old.ir_version = 3
    old.graph.input.extend([floats("matrix", 60, 4), floats("bias", 4)])
    source = OnnxSource(written(tmp_path / "old.onnx", old))
    assert [spec.name for spec in source.inputs] == ["window"]
    assert [value.name for value in onnx.load_from_string(source.model_bytes).graph.input] == ["window"]


def test_functions_of_the_file_itself_are_put_in_their_place(tmp_path: Path) -> None:
    whole = tiny.onnx_model(operators=[helper.make_node("Twice", ["product"], ["logits"], domain="own")])
    twice = helper.make_function(
        "own", "Twice", ["x"], ["y"], [helper.make_node("Add", ["x", "x"], ["y"])], [helper.make_opsetid("", 17)]
    )
    whole.functions.append(twice)
    whole.opset_import.append(helper.make_opsetid("own", 1))
    source = OnnxSource(written(tmp_path / "f.onnx", whole))
    assert {node.domain for node in source.model.graph.node} == {""}
    x = tiny.windows(3)
    np.testing.assert_allclose(source.predict({"window": x})["logits"], 2 * tiny.expected(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("last", "expected"),
    [("Softmax", "softmax"), ("Sigmoid", "sigmoid"), ("LogSoftmax", None), ("Relu", None)],
)
def test_the_last_operation_is_found_behind_what_keeps_the_values(
    last: str, expected: str | None, tmp_path: Path
) -> None:
    nodes = [helper.make_node(last, ["product"], ["p"]), helper.make_node("Identity", ["p"], ["logits"])]
    source = OnnxSource(written(tmp_path / "a.onnx", tiny.onnx_model(operators=nodes)))
    assert source.activation == expected


def test_labels_ahead_of_probabilities_go_last(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Softmax", ["x"], ["probabilities"]),
        helper.make_node("ArgMax", ["x"], ["label"], axis=1, keepdims=0),
    ]
    label = helper.make_tensor_value_info("label", TensorProto.INT64, ["n"])
    source = OnnxSource(
        written(tmp_path / "a.onnx", model(nodes, [floats("x", "n", 3)], [label, floats("probabilities", "n", 3)]))
    )
    assert [spec.name for spec in source.outputs] == ["probabilities", "label"]
    answers = source.predict({"x": np.array([[0, 9, 0]], np.float32)})
    assert answers["label"].tolist() == [1]


def test_an_output_without_a_shape_gets_the_inferred_one(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    source = OnnxSource(written(tmp_path / "a.onnx", model([node], [floats("x", "n", 3)], [floats("y", "n", 3)])))
    bare = model([node], [floats("x", "n", 3)], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    assert OnnxSource(written(tmp_path / "b.onnx", bare)).outputs == source.outputs


def test_a_state_beside_the_input_makes_every_row_a_whole_input(tmp_path: Path) -> None:
    node = helper.make_node("ReduceSum", ["s"], ["total"], keepdims=0)
    add = helper.make_node("Add", ["x", "total"], ["y"])
    source = OnnxSource(
        written(
            tmp_path / "a.onnx", model([node, add], [floats("x", "n", 3), floats("s", 2, "n")], [floats("y", "n", 3)])
        )
    )
    assert [spec.shape for spec in source.inputs] == [("n", 3), (2, "n")]
    answers = source.predict({"x": np.ones((5, 1, 3)), "s": np.ones((5, 2, 1))})
    assert answers["y"].tolist() == [[[3.0] * 3]] * 5


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: model(
                [helper.make_node("Relu", ["w"], ["y"])], [], [floats("y", 3)], {"w": np.ones(3, np.float32)}
            ),
            "no inputs",
        ),
        (
            lambda: model(
                [helper.make_node("SequenceConstruct", ["x"], ["y"])],
                [floats("x", 1, 3)],
                [helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)],
            ),
            "not a tensor.*zipmap",
        ),
        (
            lambda: model(
                [helper.make_node("Identity", ["x"], ["y"])],
                [helper.make_tensor_value_info("x", TensorProto.STRING, ["n"])],
                [helper.make_tensor_value_info("y", TensorProto.STRING, ["n"])],
            ),
            "tensor x holds string",
        ),
        (
            lambda: model(
                [helper.make_node("Relu", ["x"], ["y"])],
                [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)],
                [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            ),
            "how many axes tensor x has",
        ),
    ],
    ids=["no inputs", "sequence", "string", "rank"],
)
def test_what_a_device_cannot_exchange_is_refused_by_name(build: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=message):
        OnnxSource(written(tmp_path / "a.onnx", build()))


def test_a_graph_that_the_engine_refuses_is_unreadable(tmp_path: Path) -> None:
    broken = model([helper.make_node("Relu", ["nowhere"], ["y"])], [floats("x", 1)], [floats("y", 1)])
    with pytest.raises(ModelUnreadable, match=r"not a valid ONNX model.*nowhere"):
        OnnxSource(written(tmp_path / "a.onnx", broken))


def quantized(activation: bool, weight: np.ndarray) -> Any:
    """x → (QDQ) → Gemm with a dequantized or plain weight."""
    scale = {"s": np.array(0.1, np.float32), "w": weight}
    nodes = []
    source = "x"
    if activation:
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "s"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "s"], ["d"]),
        ]
        source = "d"
    used = "w"
    if weight.dtype == np.int8:
        nodes.append(helper.make_node("DequantizeLinear", ["w", "s"], ["v"]))
        used = "v"
    nodes.append(helper.make_node("Gemm", [source, used], ["y"]))
    return model(nodes, [floats("x", "n", 3)], [floats("y", "n", 4)], scale)


@pytest.mark.parametrize(
    ("activation", "dtype", "expected"),
    [
        (True, np.int8, "int8"),
        (False, np.int8, "int8-weights"),
        (False, np.float32, "fp32"),
        (True, np.float32, "fp32"),
    ],
)
def test_the_precision_is_what_the_file_holds(activation: bool, dtype: Any, expected: str, tmp_path: Path) -> None:
    weight = np.ones((3, 4)).astype(dtype)
    assert OnnxSource(written(tmp_path / "a.onnx", quantized(activation, weight))).precision == expected
