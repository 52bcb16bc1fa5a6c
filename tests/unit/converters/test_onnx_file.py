from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from converters.errors import CheckFailed, UnsupportedModel, UnsupportedOperator
from converters.onnx_file import inlined, nodes_of, opset_of, refuse_foreign_domains, upgraded
from converters.targets.onnx import check_onnx, onnx_operators
from tests.unit.converters.quantize.onnx_models import answers, drawn, model, node

ENDS = {"inputs": {"x": ["batch", 8]}, "outputs": {"y": ["batch", 6]}}
ROWS = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)


def product(opset: int) -> bytes:
    return model([node("MatMul", ["x", "w"], "y")], {"w": drawn(0, 8, 6)}, opset=opset, **ENDS)


@pytest.mark.parametrize("opset", [7, 12, 13, 17, 20, 23, 25])
def test_a_file_of_any_opset_passes_the_check_and_says_its_opset(opset: int) -> None:
    made = onnx.load_from_string(product(opset))
    check_onnx(made)
    assert opset_of(made) == opset


def test_an_old_file_is_upgraded_and_computes_the_same_and_a_new_one_is_left_alone() -> None:
    old, new = onnx.load_from_string(product(9)), onnx.load_from_string(product(21))
    made = upgraded(old, 13, 17)
    assert opset_of(made) == 17
    np.testing.assert_array_equal(answers(made.SerializeToString(), x=ROWS), answers(product(9), x=ROWS))
    assert upgraded(new, 13, 17) is new


def test_an_old_operator_that_cannot_be_upgraded_is_refused_with_both_opsets() -> None:
    nodes = [node("Affine", ["x"], "y", alpha=2.0)]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)])
    with pytest.raises(UnsupportedModel, match=r"opset 9.* opset 17.*opset 13 or later"):
        upgraded(made, 13, 17)


def test_a_file_without_the_standard_operators_is_refused() -> None:
    made = onnx.load_from_string(product(17))
    made.opset_import[0].domain = "ai.onnx.ml"
    with pytest.raises(UnsupportedModel, match="no opset"):
        opset_of(made)


def with_function() -> bytes:
    body = helper.make_function(
        "pkg.torch", "scaled", ["a", "b"], ["c"], [node("MatMul", ["a", "b"], "c")], [helper.make_opsetid("", 17)]
    )
    return model(
        [helper.make_node("scaled", ["x", "w"], ["y"], name="call", domain="pkg.torch")],
        {"w": drawn(0, 8, 6)},
        functions=[body],
        domains=[helper.make_opsetid("pkg.torch", 1)],
        **ENDS,
    )


def test_functions_that_the_file_itself_defines_are_no_custom_operators_and_can_be_inlined() -> None:
    made = onnx.load_from_string(with_function())
    refuse_foreign_domains(made)
    check_onnx(made)
    flat = inlined(made)
    assert [each.op_type for each in flat.graph.node] == ["MatMul"]
    np.testing.assert_allclose(answers(flat.SerializeToString(), x=ROWS), answers(with_function(), x=ROWS))


def test_custom_operators_are_refused_by_name_also_inside_branches() -> None:
    made = onnx.load_from_string(product(17))
    inner = helper.make_graph([helper.make_node("Trick", ["x"], ["t"], domain="evil")], "b", [], [])
    made.graph.node.append(helper.make_node("If", ["c"], ["d"], then_branch=inner, else_branch=inner))
    assert "Trick" in onnx_operators(made)
    assert len(list(nodes_of(made.graph))) == 4
    with pytest.raises(UnsupportedOperator, match=r"evil\.Trick.*replace the layer"):
        refuse_foreign_domains(made)
    with pytest.raises(CheckFailed, match=r"evil\.Trick"):
        check_onnx(made)


def test_what_an_optimizer_wrote_is_told_from_what_an_exporter_wrote() -> None:
    made = onnx.load_from_string(product(17))
    made.graph.node[0].domain = "com.microsoft"
    with pytest.raises(UnsupportedOperator, match="before any optimizer or quantizer"):
        refuse_foreign_domains(made)
