from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from converters.engines import open_engine
from converters.errors import CheckFailed
from converters.quantize.formats import open_quantizer
from converters.quantize.recipes import load_recipe
from converters.routes import make_float
from converters.sources.onnx import OnnxSource

ROWS = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)


@pytest.fixture
def source(tmp_path: Path) -> OnnxSource:
    """A product of matrices whose tensors have names that Core ML does not take."""
    weights = numpy_helper.from_array(np.random.default_rng(1).normal(size=(8, 5)).astype(np.float32), "w")
    row = helper.make_tensor_value_info("serving:row/0", TensorProto.FLOAT, ["batch", 8])
    logits = helper.make_tensor_value_info("1.logits", TensorProto.FLOAT, ["batch", 5])
    node = helper.make_node("MatMul", ["serving:row/0", "w"], ["1.logits"])
    graph = helper.make_graph([node], "g", [row], [logits], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "odd.onnx")
    return OnnxSource(tmp_path / "odd.onnx")


def test_core_ml_answers_under_the_models_own_names_where_it_does_not_take_them(source: OnnxSource) -> None:
    data = make_float(source, "coreml", lambda *step: None).data
    answers = open_engine("coreml", data, source.inputs, source.outputs).run({"serving:row/0": ROWS})
    expected = source.predict({"serving:row/0": ROWS})
    np.testing.assert_allclose(answers["1.logits"], expected["1.logits"], atol=1e-5)
    quantizer = open_quantizer("coreml", data, {"serving:row/0": ROWS}, ["1.logits"], batched=True)
    small = quantizer.quantize(load_recipe("static_wi8c_ai8"))
    close = open_engine("coreml", small, source.inputs, source.outputs).run({"serving:row/0": ROWS})
    assert np.corrcoef(close["1.logits"].ravel(), expected["1.logits"].ravel())[0, 1] > 0.999


def test_a_program_with_other_names_is_refused(source: OnnxSource) -> None:
    data = make_float(source, "coreml", lambda *step: None).data
    renamed = replace(source.inputs[0], name="other")
    with pytest.raises(CheckFailed, match="the Core ML program takes serving_row_0 and gives _1_logits, not other"):
        open_engine("coreml", data, (renamed,), source.outputs)
