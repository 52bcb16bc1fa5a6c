"""ONNX files that try to reach outside themselves, or to confuse the reader of their protobuf."""

from __future__ import annotations

import contextlib
from pathlib import Path

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edge_runtime.backends.onnx_domains import MAX_DEPTH, check_operators
from edge_runtime.errors import ModelRejected
from tests.support import tiny

GOOD = tiny.onnx_bytes()


def test_the_unharmed_model_passes() -> None:
    check_operators(GOOD)


@pytest.mark.parametrize(
    ("domain", "operator"),
    [("evil", "Anything"), ("com.microsoft", "EPContext"), ("com.microsoft", "PythonOp"), ("ai.onnx.contrib", "Run")],
)
def test_an_operator_that_is_not_on_the_allow_list_is_rejected(domain: str, operator: str) -> None:
    node = helper.make_node(operator, ["product"], ["logits"], domain=domain)
    data = tiny.onnx_bytes(operators=[node], opsets=[helper.make_opsetid(domain, 1)])
    with pytest.raises(ModelRejected, match=operator):
        check_operators(data)


def test_quantization_operators_of_onnx_runtime_pass() -> None:
    node = helper.make_node("FusedGemm", ["product"], ["logits"], domain="com.microsoft")
    check_operators(tiny.onnx_bytes(operators=[node], opsets=[helper.make_opsetid("com.microsoft", 1)]))


def nested(depth: int, domain: str) -> onnx.NodeProto:
    node = helper.make_node("Anything", [], ["inner"], domain=domain)
    for level in range(depth):
        output = helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)
        node = helper.make_node(
            "If", ["c"], ["inner"], then_branch=helper.make_graph([node], f"g{level}", [], [output])
        )
    return node


def test_an_operator_hidden_in_a_branch_is_found() -> None:
    data = tiny.onnx_bytes(operators=[nested(3, "evil")], last="logits")
    with pytest.raises(ModelRejected, match="evil"):
        check_operators(data)


def test_an_operator_hidden_in_a_function_is_found() -> None:
    model = tiny.onnx_model()
    model.functions.append(
        helper.make_function(
            "local",
            "Hidden",
            ["x"],
            ["y"],
            [helper.make_node("Anything", ["x"], ["y"], domain="evil")],
            [helper.make_opsetid("", 17), helper.make_opsetid("evil", 1)],
        )
    )
    with pytest.raises(ModelRejected, match="evil"):
        check_operators(model.SerializeToString())


def test_an_operator_hidden_in_a_functions_default_attribute_is_found() -> None:
    model = tiny.onnx_model()
    hidden = helper.make_graph([helper.make_node("Anything", [], ["y"], domain="evil")], "default", [], [])
    function = helper.make_function("local", "Plain", ["x"], ["y"], [], [helper.make_opsetid("", 17)])
    function.attribute_proto.append(helper.make_attribute("body", hidden))
    model.functions.append(function)
    with pytest.raises(ModelRejected, match="evil"):
        check_operators(model.SerializeToString())


def test_an_operator_hidden_behind_a_key_that_protobuf_cuts_to_32_bits_is_rejected() -> None:
    # 2**32 + the key of GraphProto.node: ONNX Runtime's reader drops the high bit and runs the node.
    node = helper.make_node("Inverse", ["x"], ["y"], domain="com.microsoft").SerializeToString()
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 2]) for name in ("x", "y")]
    graph = helper.make_graph([], "g", ends[:1], ends[1:]).SerializeToString()
    graph += bytes([0x8A, 0x80, 0x80, 0x80, 0x10, len(node)]) + node
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = onnx.ModelProto(ir_version=9, opset_import=opsets).SerializeToString() + bytes([0x3A, len(graph)]) + graph
    with pytest.raises(ModelRejected, match="field number"):
        check_operators(model)


def test_graphs_nested_without_end_are_rejected() -> None:
    data = tiny.onnx_bytes(operators=[nested(MAX_DEPTH + 5, "")], last="logits")
    with pytest.raises(ModelRejected, match="nested deeper"):
        check_operators(data)


@pytest.mark.parametrize("where", ["initializer", "attribute", "sparse"])
def test_weights_kept_in_another_file_are_rejected_wherever_they_hide(where: str, tmp_path: Path) -> None:
    model = tiny.onnx_model()
    tensor = TensorProto(name="outside", data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    if where == "initializer":
        model.graph.initializer.append(tensor)
    elif where == "attribute":
        model.graph.node.append(helper.make_node("Constant", [], ["constant"], value=tensor))
    else:
        model.graph.sparse_initializer.add().values.CopyFrom(tensor)
    with pytest.raises(ModelRejected, match="external file"):
        check_operators(model.SerializeToString())


def test_a_second_graph_cannot_hide_behind_the_first() -> None:
    with pytest.raises(ModelRejected, match="two graphs"):
        check_operators(GOOD + GOOD)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_any_changed_byte_is_accepted_or_rejected_by_name(at: int, value: int) -> None:
    data = bytearray(GOOD)
    data[at] = value
    with contextlib.suppress(ModelRejected):
        check_operators(bytes(data))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_accepted_or_rejected_by_name(data: bytes) -> None:
    with contextlib.suppress(ModelRejected):
        check_operators(data)
