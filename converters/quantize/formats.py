"""Each target's quantizer, and what can be read off one of its files, behind one function each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from converters.foreign.names import coreml_names
from converters.quantize.base import Quantizer
from converters.quantize.weights import Quantized
from converters.quiet import load_tool, quiet

__all__ = ["engine_version", "inspect_model", "open_quantizer", "operators_of"]

# ONNX Runtime's releases by the opset that came with them, from its compatibility table.
OPSET_CAME_WITH = ((21, "1.18.0"), (22, "1.21.0"), (23, "1.23.0"), (24, "1.24.0"))
CALL_ELEMENTS = 1 << 20  # input values of one calibration call of an engine that takes batches
CALL_ROWS = 64


def open_quantizer(
    target: str, model: bytes, rows: Mapping[str, np.ndarray], outputs: Sequence[str], *, batched: bool
) -> Quantizer:
    """The quantizer of a float file, with calibration ``rows``: arrays ``(rows, …)``, as `Dataset.inputs` has them.

    ``outputs`` are the model's output names, the first of which decides.
    """
    if target == "coreml":
        from converters.quantize.coreml import CoreMLQuantizer

        names = coreml_names((*rows, *outputs))
        # The program holds a batch of 1, which every row keeps.
        return CoreMLQuantizer(model, {names[n]: a[:, np.newaxis] if batched else a for n, a in rows.items()})
    count = len(next(iter(rows.values())))
    step = _rows_of_a_call(model, rows) if target == "onnx" and batched else 1
    calls = [
        {name: array[start : start + step] if batched else array[start, ...] for name, array in rows.items()}
        for start in range(0, count, step)
    ]
    if target == "onnx":
        from converters.quantize.onnx import OnnxQuantizer

        return OnnxQuantizer(model, calls)
    from converters.quantize.tflite import TfliteQuantizer

    return TfliteQuantizer(model, calls, output=outputs[0])


def _rows_of_a_call(model: bytes, rows: Mapping[str, np.ndarray]) -> int:
    """1 for a file whose batch is fixed; else as many as are quick to run."""
    with quiet("reading the ONNX model"):
        graph = load_tool("onnx").load_from_string(model).graph
    constants = {each.name for each in graph.initializer}
    for value in graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name not in constants and dims and dims[0].dim_value == 1:
            return 1
    each = sum(int(np.prod(array.shape[1:])) for array in rows.values())
    return max(1, min(CALL_ROWS, CALL_ELEMENTS // max(1, each)))


def inspect_model(target: str, data: bytes) -> Quantized:
    """What of a file is in INT8."""
    if target == "onnx":
        from converters.quantize.onnx import inspect_onnx

        with quiet("reading the ONNX model"):
            return inspect_onnx(load_tool("onnx").load_from_string(data))
    if target == "tflite":
        from converters.quantize.tflite import inspect_tflite

        return inspect_tflite(data)
    from converters.coreml_reference import CoreMLReference
    from converters.quantize.coreml import inspect_coreml

    return inspect_coreml(CoreMLReference(data))


def operators_of(target: str, data: bytes) -> tuple[str, ...]:
    """Operator types in a file, sorted, each once."""
    if target == "onnx":
        from converters.targets.onnx import onnx_operators

        with quiet("reading the ONNX model"):
            return onnx_operators(load_tool("onnx").load_from_string(data))
    if target == "tflite":
        from converters.targets.tflite import tflite_operators

        return tuple(sorted(set(tflite_operators(data))))
    from converters.coreml_reference import CoreMLReference

    return tuple(sorted(set(CoreMLReference(data).operators)))


def engine_version(target: str, precision: str, data: bytes) -> str:
    """The oldest engine that runs such a file: ONNX Runtime, LiteRT, or iOS, whose version is Core ML's."""
    if target == "coreml":
        from converters.targets.coreml import minimum_engine_version

        return minimum_engine_version(precision)
    if target == "tflite":
        from converters.targets.tflite import MINIMUM_ENGINE_VERSION as LITERT

        return LITERT
    from converters.onnx_file import opset_of
    from converters.targets.onnx import MINIMUM_ENGINE_VERSION

    with quiet("reading the ONNX model"):
        opset = opset_of(load_tool("onnx").load_from_string(data))
    newer = [version for first, version in OPSET_CAME_WITH if opset >= first]
    return newer[-1] if newer else MINIMUM_ENGINE_VERSION
