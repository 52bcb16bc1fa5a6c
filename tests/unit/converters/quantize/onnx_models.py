"""Small ONNX models with drawn weights, whose answers are as sensitive as real ones', written node by node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17


def tensor(name: str, value: Any) -> Any:
    return numpy_helper.from_array(np.asarray(value), name)


def node(kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> Any:
    return helper.make_node(kind, list(inputs), [output], name=output, **attributes)


def model(
    nodes: Iterable[Any],
    constants: Mapping[str, Any],
    *,
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Mapping[str, Sequence[int | str] | None],
    opset: int = OPSET,
    types: Mapping[str, int] | None = None,
    functions: Sequence[Any] = (),
    domains: Sequence[Any] = (),
) -> bytes:
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(n, (types or {}).get(n, TensorProto.FLOAT), s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, (types or {}).get(n, TensorProto.FLOAT), s) for n, s in outputs.items()],
        [tensor(name, value) for name, value in constants.items()],
    )
    made = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset), *domains], ir_version=8, functions=list(functions)
    )
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


def drawn(seed: int, *shape: int) -> np.ndarray:
    """Weights that keep a signal's size: variance 2 over what is summed."""
    summed = int(np.prod(shape[1:])) if len(shape) != 2 else shape[0]
    return np.random.default_rng(seed).normal(0, np.sqrt(2 / summed), shape).astype(np.float32)


@cache
def depthwise_net(channels: int = 16, classes: int = 10) -> bytes:
    """Like the efficientnets: Conv and Clip to 6, depthwise by channel of very different sizes, a residual, a head."""
    spread = np.geomspace(0.05, 20, channels).astype(np.float32)
    constants = {
        "w0": drawn(0, channels, 3, 3, 3), "b0": drawn(1, channels, 1)[:, 0] + 0.5,
        "w1": drawn(2, channels, 1, 3, 3) * spread[:, None, None, None], "b1": drawn(3, channels, 1)[:, 0],
        "w2": drawn(4, channels, channels, 1, 1) / spread[None, :, None, None], "b2": drawn(5, channels, 1)[:, 0],
        "head": drawn(6, channels, classes), "mean": np.zeros(channels, np.float32),
        "zero": np.float32(0), "six": np.float32(6),
    }  # fmt: skip
    nodes = [
        node("Conv", ["x", "w0", "b0"], "c0", pads=[1, 1, 1, 1]),
        node("Clip", ["c0", "zero", "six"], "a0"),
        node("Conv", ["a0", "w1", "b1"], "c1", pads=[1, 1, 1, 1], group=channels),
        node("Clip", ["c1", "zero", "six"], "a1"),
        node("Conv", ["a1", "w2", "b2"], "c2"),
        node("Add", ["a0", "c2"], "sum"),
        node("GlobalAveragePool", ["sum"], "pool"),
        node("Flatten", ["pool"], "flat"),
        node("Sub", ["flat", "mean"], "centered"),
        node("MatMul", ["centered", "head"], "logits"),
    ]
    ends = {"inputs": {"x": ["batch", 3, 16, 16]}, "outputs": {"flat": ["batch", channels]}}
    constants["mean"] = answers(model(nodes[:-2], constants, **ends), x=images(200, 0)).mean(axis=0)
    return model(nodes, constants, inputs=ends["inputs"], outputs={"logits": ["batch", classes]})


def images(rows: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    base = rng.normal(0, 1, (rows, 3, 4, 4)).astype(np.float32).repeat(4, axis=2).repeat(4, axis=3)
    return base + rng.normal(0, 0.3, base.shape).astype(np.float32)


SCALES = np.array([1, 1e4, 0.01, 300, 5e5, 1, 0.1, 20], np.float32)
OFFSETS = np.array([0, 5e4, 0, -100, 2e6, 3, 0, 0], np.float32)


def table(rows: int, seed: int) -> np.ndarray:
    """Eight columns of very different sizes, float32 (rows, 8)."""
    return np.random.default_rng(seed).normal(0, 1, (rows, 8)).astype(np.float32) * SCALES + OFFSETS


@cache
def tabular_net(*, normalized: bool, classes: int = 4, hidden: int = 96) -> bytes:
    """A two-layer perceptron over `table`: its normalization in the graph, or folded into the first weights."""
    first, bias = drawn(0, 8, hidden), drawn(1, hidden, 1)[:, 0]
    constants = {"w1": drawn(2, hidden, hidden), "b1": drawn(3, hidden, 1)[:, 0], "w2": drawn(4, hidden, classes)}
    nodes = []
    source = "x"
    if normalized:
        constants |= {"mean": OFFSETS, "factor": 1 / SCALES}
        nodes = [node("Sub", ["x", "mean"], "centered"), node("Mul", ["centered", "factor"], "scaled")]
        source = "scaled"
    else:
        first = first / SCALES[:, None]
        bias = bias - OFFSETS @ first
    constants |= {"w0": first, "b0": bias.astype(np.float32)}
    nodes += [
        node("Gemm", [source, "w0", "b0"], "g0"),
        node("Relu", ["g0"], "r0"),
        node("Gemm", ["r0", "w1", "b1"], "g1"),
        node("Relu", ["g1"], "r1"),
        node("MatMul", ["r1", "w2"], "logits"),
    ]
    return model(nodes, constants, inputs={"x": ["batch", 8]}, outputs={"logits": ["batch", classes]})


def answers(data: bytes, *, optimize: bool = True, **inputs: np.ndarray) -> np.ndarray:
    """The first output, in the settings that a device uses; with ``optimize=False`` as the file says."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.x64quantprecision", "1")
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    result: np.ndarray = session.run(None, inputs)[0]
    return result


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    return float((one.argmax(axis=-1) == other.argmax(axis=-1)).mean())
