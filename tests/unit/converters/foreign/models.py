"""Small ONNX models in ONNX's own text form."""

from __future__ import annotations

from converters.quiet import load_tool

HEAD = '<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 3]>\n'
# Flattens (batch, 2, 3) by its shape at run time, as exporters write it.
FLATTEN = """flatten (float[batch, 2, 3] x) => (float[batch, 6] y)
<int64[1] zero = {0}, int64[1] one = {1}, int64[1] six = {6}> {
    shape = Shape (x)
    batch = Slice (shape, zero, one)
    wanted = Concat <axis = 0> (batch, six)
    y = Reshape (x, wanted)
}"""
RAGGED = """ragged (float[batch, length] x) => (float[batch, length] y) {
    y = Tanh (x)
}"""
BRANCH = """branch (float[batch, 2] x) => (float[batch, 2] y)
<float zero = {0.0}> {
    total = ReduceSum <keepdims = 0> (x)
    positive = Greater (total, zero)
    y = If (positive) <
        then_branch = yes () => (float[batch, 2] a) { a = Relu (x) },
        else_branch = no () => (float[batch, 2] b) { b = Neg (x) }
    >
}"""
# A layer normalization in the words of tf2onnx, and a logarithm, with names that Core ML does not accept.
SPELLED = """spelled (float[batch, 4] x) => (float[batch, 4] y)
<float[1] epsilon = {0.001}, int64[1] last = {-1}> {
    mean = ReduceMean <axes = [-1]> (x)
    centred = Sub (x, mean)
    square = Mul (centred, centred)
    variance = ReduceMean <axes = [-1]> (square)
    shifted = Add (variance, epsilon)
    deviation = Sqrt (shifted)
    scale = Reciprocal (deviation)
    normal = Mul (centred, scale)
    positive = Abs (normal)
    y = Log (positive)
}"""
TREES = """trees (float[batch, 4] x) => (float[batch, 4] y) {
    y = ai.onnx.ml.Scaler <offset = [0.0], scale = [2.0]> (x)
}"""


def onnx_model(text: str) -> bytes:
    """The model's file."""
    model = load_tool("onnx.parser").parse_model(HEAD + text)
    return bytes(model.SerializeToString())
