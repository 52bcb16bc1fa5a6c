"""onnx2coreml with the operators that it computes inexactly put right.

MIL adds a small number before a reciprocal (1e-4) and a logarithm (1e-45) unless it is told not to, and onnx2coreml
does not tell it. A layer normalization that an exporter spelled out shows the first in the third digit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from converters.quiet import load_tool

__all__ = ["exact_converter"]


def exact_converter() -> Any:
    """An `onnx2coreml.Converter` whose ``Reciprocal`` and ``Log`` are those of ONNX."""
    mb = load_tool("coremltools.converters.mil.mil").Builder
    converter = load_tool("onnx2coreml").Converter()

    @converter.register("Reciprocal")
    def reciprocal(context: Any, node: Any) -> Any:
        return mb.real_div(x=np.float32(1), y=context.values_map[node.input[0]], name=node.output[0])

    @converter.register("Log")
    def logarithm(context: Any, node: Any) -> Any:
        return mb.log(x=context.values_map[node.input[0]], epsilon=np.float32(0), name=node.output[0])

    return converter
