"""Brings an ONNX model into the form that the other formats' converters take: static shapes, folded, plain names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from converters.errors import ConversionFailed, UnsupportedModel
from converters.onnx_file import graphs_of
from converters.quiet import load_tool
from converters.sources.base import BATCH
from converters.targets.onnx import optimized
from converters.targets.tflite import refuse_dynamic
from edge_runtime.bundle import TensorSpec

__all__ = ["fix_axes", "for_one_example", "refuse_scalars", "renamed"]


def fix_axes(specs: tuple[TensorSpec, ...], fixed_axes: Mapping[str, int]) -> tuple[TensorSpec, ...]:
    """The specs with the named axes at their sizes."""
    return tuple(
        replace(spec, shape=tuple(fixed_axes.get(size, size) if isinstance(size, str) else size for size in spec.shape))
        for spec in specs
    )


def for_one_example(
    model: bytes, inputs: tuple[TensorSpec, ...], *, target: str, fixed_axes: Mapping[str, int] | None = None
) -> Any:
    """A `ModelProto` whose inputs have static shapes: the batch is 1, and ``fixed_axes`` sizes axes by their names.

    What then depends on shapes alone is folded, since the converters want such values as constants. Raises
    `UnsupportedModel` for a dynamic axis that ``fixed_axes`` does not name.
    """
    onnx = load_tool("onnx")
    specs = fix_axes(inputs, fixed_axes or {})
    refuse_dynamic(target, specs)
    proto = onnx.load_from_string(model)
    sizes = {spec.name: [1 if size == BATCH else size for size in spec.shape] for spec in specs}
    for value in _graph_inputs(proto):
        if value.name not in sizes:
            raise UnsupportedModel(f"the ONNX model has an input {value.name} that its description lacks")
        _set_sizes(value, sizes[value.name])
    return _folded(proto)


def refuse_scalars(target: str, specs: tuple[TensorSpec, ...]) -> None:
    """Raises `UnsupportedModel` for a tensor without axes, which the converters would give one axis."""
    for spec in specs:
        if not spec.shape:
            raise UnsupportedModel(
                f"{spec.name} is a single number without axes, which the ways from ONNX to {target} cannot keep; give "
                "it an axis of 1, or make it a constant of the model (an initializer of that name)"
            )


def _graph_inputs(model: Any) -> list[Any]:
    """What a caller must give: inputs that are not initializers too, as old models have them."""
    constants = {each.name for each in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in constants]


def renamed(model: Any, names: Mapping[str, str]) -> Any:
    """A copy in which the tensors of the main graph bear other names, inside branches and loops too."""
    onnx = load_tool("onnx")
    copy = onnx.ModelProto()
    copy.CopyFrom(model)

    def new(values: Iterable[str]) -> list[str]:
        return [names.get(value, value) for value in values]

    for graph in graphs_of(copy.graph):
        for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
            value.name = names.get(value.name, value.name)
        for node in graph.node:
            node.input[:], node.output[:] = new(node.input), new(node.output)
    return copy


def _set_sizes(value: Any, sizes: list[Any]) -> None:
    shape = value.type.tensor_type.shape
    del shape.dim[:]
    for size in sizes:
        shape.dim.add().dim_value = size


def _folded(model: Any) -> Any:
    """What is constant once the shapes are, computed; shapes that were inferred for another batch, inferred again."""
    onnx = load_tool("onnx")
    for graph in graphs_of(model.graph):
        del graph.value_info[:]
    for value in model.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            if not dim.HasField("dim_value"):
                dim.ClearField("dim_param")
    try:
        model = optimized(model)
    except ConversionFailed:  # where a branch that is not taken contradicts the shapes; whose operators say more
        return model
    return onnx.shape_inference.infer_shapes(model)
