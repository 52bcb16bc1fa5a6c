"""ONNX, opset 17: made with tf2onnx, tidied, checked by `onnx.checker` and by loading it into ONNX Runtime."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from converters.errors import CheckFailed, ConversionFailed, UnsupportedOperator
from converters.onnx_file import DOMAINS, graphs_of, nodes_of, refuse_foreign_domains
from converters.quiet import load_tool, quiet
from converters.sources.base import BATCH
from converters.sources.tfgraph import FrozenGraph
from edge_runtime.bundle import TensorSpec

__all__ = [
    "DOMAINS",
    "MINIMUM_ENGINE_VERSION",
    "OPSET",
    "check_onnx",
    "compact",
    "convert_to_onnx",
    "onnx_operators",
    "optimized",
]

OPSET = 17
MINIMUM_ENGINE_VERSION = "1.17.0"  # int8 kernels behind QDQ for every operator that the recipes quantize
SHELL = {"QuantizeLinear", "DequantizeLinear"}


def convert_to_onnx(graph: FrozenGraph, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> bytes:
    """A float ONNX model with the given tensor names and axis names.

    Raises `UnsupportedOperator` if tf2onnx leaves an operator untranslated, `CheckFailed` if the result is not valid.
    """
    onnx = load_tool("onnx")
    tf2onnx = load_tool("tf2onnx")
    with quiet("tf2onnx"):
        model, _ = tf2onnx.convert.from_graph_def(
            graph.graph_def,
            input_names=[f"{name}:0" for name in graph.inputs],
            output_names=[f"{name}:0" for name in graph.outputs],
            opset=OPSET,
        )
    _refuse_untranslated(model)
    _rename(model, {f"{name}:0": name for name in (*graph.inputs, *graph.outputs)})
    for value, spec in zip((*model.graph.input, *model.graph.output), (*inputs, *outputs), strict=True):
        _set_shape(value, spec)
    model = optimized(model)
    model.producer_name, model.producer_version, model.doc_string = "edgeship", "", ""
    compact(model)
    data: bytes = model.SerializeToString(deterministic=True)
    check_onnx(onnx.load_from_string(data))
    return data


def check_onnx(model: Any) -> None:
    """onnx.checker with full shape inference, operator domains, and a load into ONNX Runtime. Raises `CheckFailed`."""
    onnx = load_tool("onnx")
    runtime = load_tool("onnxruntime")
    try:
        refuse_foreign_domains(model)
    except UnsupportedOperator as error:
        raise CheckFailed(f"the ONNX model is outside the standard domains: {error}") from error
    try:
        with quiet("checking the ONNX model"):
            onnx.checker.check_model(model, full_check=True)
            options = runtime.SessionOptions()
            # As a device does: it rewrites INT8 weights, and some models load only without it.
            options.add_session_config_entry("session.x64quantprecision", "1")
            runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except ConversionFailed as error:
        raise CheckFailed(f"the converted ONNX model is not valid: {error}") from error


def onnx_operators(model: Any) -> tuple[str, ...]:
    """Operator types in the graph and in its branches and loops, sorted, each once."""
    return tuple(sorted({node.op_type for node in nodes_of(model.graph)}))


def compact(model: Any) -> None:
    """Short names for inner tensors, and one order and naming for the same model.

    In a small quantized model names are a quarter of the file; and tf2onnx numbers its nodes by a counter that runs on
    from one conversion to the next.
    """
    if len(list(graphs_of(model.graph))) > 1:
        return  # bodies of loops and branches refer to the outer tensors by name
    kept = {value.name for value in (*model.graph.input, *model.graph.output)}
    used = dict.fromkeys(name for node in model.graph.node for name in node.input)
    constants = {each.name: each for each in model.graph.initializer if each.name in used}
    ordered = [constants[name] for name in used if name in constants]
    del model.graph.initializer[:]
    model.graph.initializer.extend(ordered)
    produced = [name for node in model.graph.node for name in node.output if name]
    names = {name: f"w{index}" for index, name in enumerate(n for n in (c.name for c in ordered) if n not in kept)}
    names |= {name: f"t{index}" for index, name in enumerate(n for n in produced if n not in kept)}
    if not kept & set(names.values()):
        _rename(model, names)
    taken: set[str] = set()
    for node in model.graph.node:
        node.name = "" if node.op_type in SHELL else _plain_name(node.name, taken)
        node.doc_string = ""
    del model.graph.value_info[:]


def _plain_name(name: str, taken: set[str]) -> str:
    """A node's name without tf2onnx's counters, made unique again."""
    base = candidate = re.sub(r"__\d+", "", name)
    number = 1
    while candidate in taken:
        candidate, number = f"{base}_{number}", number + 1
    taken.add(candidate)
    return candidate


def _refuse_untranslated(model: Any) -> None:
    """tf2onnx logs an operator that it cannot translate, copies it, and reports success."""
    onnx = load_tool("onnx")
    for node in nodes_of(model.graph):
        if node.domain in DOMAINS and not onnx.defs.has(node.op_type, node.domain):
            raise UnsupportedOperator(
                node.op_type,
                f"tf2onnx cannot translate this TensorFlow operator (at {node.name}); "
                "replace the layer that makes it, as in gelu(approximate=True) for Erfc",
            )


def optimized(model: Any) -> Any:
    """ONNX Runtime's basic fusions (MatMul and Add become Gemm), folded constants and batch normalizations.

    The result uses standard operators only; where the fusions would bring others, it is the model as given.
    """
    onnx = load_tool("onnx")
    runtime = load_tool("onnxruntime")
    with tempfile.TemporaryDirectory(prefix="edgeship-onnx-") as folder:
        path = Path(folder) / "optimized.onnx"
        options = runtime.SessionOptions()
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(path)
        with quiet("optimizing the ONNX model"):
            runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        result = onnx.load(path)
    if any(node.domain not in DOMAINS for node in nodes_of(result.graph)):
        return model
    used = {node.domain for node in nodes_of(result.graph)} | {""}
    imports = [each for each in result.opset_import if each.domain in used]
    del result.opset_import[:]
    result.opset_import.extend(imports)
    del result.metadata_props[:]
    return result


def _rename(model: Any, names: dict[str, str]) -> None:
    def renamed(values: Iterable[str]) -> list[str]:
        return [names.get(value, value) for value in values]

    for node in model.graph.node:
        node.input[:] = renamed(node.input)
        node.output[:] = renamed(node.output)
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer, *model.graph.value_info):
        value.name = names.get(value.name, value.name)


def _set_shape(value: Any, spec: TensorSpec) -> None:
    """The spec's sizes and names; a batch that the graph fixes to 1 stays so, whatever the spec calls it."""
    dims = value.type.tensor_type.shape
    fixed = [dim.dim_value == 1 for dim in dims.dim]
    del dims.dim[:]
    for axis, size in enumerate(spec.shape):
        dim = dims.dim.add()
        if isinstance(size, int):
            dim.dim_value = size
        elif axis == 0 and size == BATCH and fixed[:1] == [True]:
            dim.dim_value = 1
        else:
            dim.dim_param = size
