"""ONNX models for the cloud endpoint, and a folder of them laid out like Triton's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

DATATYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
}


def _model(nodes: list[onnx.NodeProto], inputs: list, outputs: list, weights: dict[str, np.ndarray]) -> bytes:  # type: ignore[type-arg]
    graph = helper.make_graph(
        nodes,
        "served",
        [helper.make_tensor_value_info(*one) for one in inputs],
        [helper.make_tensor_value_info(*one) for one in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def teacher(scale: float = 1.0) -> bytes:
    """float32 context[windows, 10, 3] → float32 scores[1, 4]: a product, averaged over the windows."""
    matrix = (scale * np.arange(12).reshape(3, 4) / 10).astype(np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["context"], ["mean"], axes=[0, 1], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "axis"], ["row"]),
        helper.make_node("MatMul", ["row", "matrix"], ["scores"]),
    ]
    return _model(
        nodes,
        [("context", TensorProto.FLOAT, ["windows", 10, 3])],
        [("scores", TensorProto.FLOAT, [1, 4])],
        {"matrix": matrix, "axis": np.array([0], np.int64)},
    )


def teacher_answer(context: np.ndarray, scale: float = 1.0) -> np.ndarray:
    matrix = (scale * np.arange(12).reshape(3, 4) / 10).astype(np.float32)
    return context.mean(axis=(0, 1), dtype=np.float32)[None] @ matrix


def echo(datatype: str) -> bytes:
    """x[rows, 2] → y[rows, 2], the same values."""
    kind = DATATYPES[datatype]
    return _model(
        [helper.make_node("Identity", ["x"], ["y"])], [("x", kind, ["rows", 2])], [("y", kind, ["rows", 2])], {}
    )


def two_and_two() -> bytes:
    """float32 a[n], int64 b[n] → float32 plus[n] = a + b, float32 root[n] = √a."""
    nodes = [
        helper.make_node("Cast", ["b"], ["c"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["a", "c"], ["plus"]),
        helper.make_node("Sqrt", ["a"], ["root"]),
    ]
    return _model(
        nodes,
        [("a", TensorProto.FLOAT, ["n"]), ("b", TensorProto.INT64, ["n"])],
        [("plus", TensorProto.FLOAT, ["n"]), ("root", TensorProto.FLOAT, ["n"])],
        {},
    )


def picky() -> bytes:
    """float32 x[n] → float32 y[2, 6]: loads, and runs only where n is 12."""
    return _model(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        [("x", TensorProto.FLOAT, ["n"])],
        [("y", TensorProto.FLOAT, [2, 6])],
        {"shape": np.array([2, 6], np.int64)},
    )


def slow(rounds: int = 60, size: int = 512) -> bytes:
    """float32 x[1] → float32 y[1], after ``rounds`` products of size² matrices."""
    nodes = [helper.make_node("Mul", ["matrix", "x"], ["m0"])]
    nodes += [helper.make_node("MatMul", [f"m{i}", "matrix"], [f"m{i + 1}"]) for i in range(rounds)]
    nodes += [helper.make_node("ReduceMean", [f"m{rounds}"], ["mean"], keepdims=0)]
    nodes += [helper.make_node("Unsqueeze", ["mean", "axis"], ["y"])]
    return _model(
        nodes,
        [("x", TensorProto.FLOAT, [1])],
        [("y", TensorProto.FLOAT, [1])],
        {"matrix": np.full((size, size), 1 / size, np.float32), "axis": np.array([0], np.int64)},
    )


def put(folder: Path, name: str, version: int, data: bytes) -> Path:
    path = folder / name / str(version) / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
