"""Give dynamic axes of an ONNX model a size, as TFLite and Core ML, which know fixed shapes only, need it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from converters.errors import InvalidRequest
from converters.quiet import load_tool, quiet

__all__ = ["with_axes"]


def with_axes(model: Any, axes: Mapping[str, int], path: str) -> Any:
    """A copy whose inputs have these sizes, and whose outputs have what follows from them.

    An axis goes by its name in the file or, without one, by ``<input>_<number>``. Raises `InvalidRequest` for a name
    that no dynamic axis of an input has.
    """
    onnx = load_tool("onnx")
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    constants = {each.name for each in copy.graph.initializer}
    found: dict[str, bool] = {}
    for value in copy.graph.input:
        if value.name in constants:
            continue
        for number, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.HasField("dim_value") and dim.dim_value > 0:
                continue
            names = [name for name in (dim.dim_param, f"{value.name}_{number}") if name]
            found |= dict.fromkeys(names, True)
            size = next((axes[name] for name in names if name in axes), None)
            if size is not None:
                dim.Clear()
                dim.dim_value = size
    unknown = sorted(set(axes) - set(found))
    if unknown:
        known = ", ".join(sorted(found)) or "none"
        raise InvalidRequest(f"{path}: no dynamic axis {', '.join(unknown)} of an input; there are {known}")
    for value in copy.graph.output:
        value.type.tensor_type.ClearField("shape")  # inferred anew; a stale one would win
    del copy.graph.value_info[:]
    with quiet("inferring the shapes of the ONNX model"):
        return onnx.shape_inference.infer_shapes(copy, data_prop=True)
