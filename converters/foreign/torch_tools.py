"""From a PyTorch ExportedProgram to the other formats, in the environment ``torch``.

Why these routes: docs/decisions/0009-routes-from-onnx-and-pytorch.md.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from converters.errors import UnsupportedOperator
from converters.foreign.names import coreml_names
from converters.foreign.onnx_tools import onnx_to_coreml, onnx_to_tflite
from converters.foreign.signature import rename_signature
from converters.mil.archive import pack_folder
from converters.quiet import load_tool
from converters.targets.onnx import check_onnx, compact, optimized
from converters.targets.tflite import check_tflite, refuse_dynamic
from converters.torch_program import Program, run_torch
from edge_runtime.bundle import TensorSpec

__all__ = ["OPSET", "torch_to_coreml", "torch_to_onnx", "torch_to_tflite"]

OPSET = 18  # what torch's own translations are written in: any other goes through a version converter
DEPLOYMENT = "iOS16"
Say = Callable[[str], None]
Specs = tuple[TensorSpec, ...]


def torch_to_onnx(program: Program, inputs: Specs, outputs: Specs, *, say: Say) -> bytes:
    """A float ONNX model of opset 18 with the given tensor and axis names, checked.

    Raises `UnsupportedOperator`, `ConversionFailed`, `CheckFailed`, `ToolMissing`.
    """
    with tempfile.TemporaryDirectory(prefix="edgeship-torch-") as folder:
        made = Path(folder) / "model.onnx"
        names = {"inputs": [spec.name for spec in inputs], "outputs": [spec.name for spec in outputs]}
        run_torch("torch_to_onnx", program, {"output": str(made), "opset": OPSET, **names}, "torch.onnx", say)
        data = made.read_bytes()
    return _tidied(data, inputs, outputs)


def torch_to_tflite(program: Program, inputs: Specs, outputs: Specs, *, say: Say) -> bytes:
    """A float TFLite model for one example, with the program's own layout (images stay NCHW).

    By litert-torch; where it has no lowering for an operator, through ONNX, which ``say`` hears. Raises as
    `torch_to_onnx` does, and `UnsupportedModel` for a dynamic axis other than the batch.
    """
    refuse_dynamic("tflite", inputs)
    with tempfile.TemporaryDirectory(prefix="edgeship-torch-") as folder:
        made = Path(folder) / "model.tflite"
        try:
            run_torch("torch_to_tflite", program, {"output": str(made)}, "litert-torch", say)
        except UnsupportedOperator as error:
            say(f"litert-torch has no lowering for {error.operator}; trying it through ONNX and onnx2tf")
            with _or_else(error):
                return onnx_to_tflite(torch_to_onnx(program, inputs, outputs, say=say), inputs, outputs, say=say)
        data = made.read_bytes()
    data = rename_signature(
        data,
        {f"args_{index}": spec for index, spec in enumerate(inputs)},
        {f"output_{index}": spec for index, spec in enumerate(outputs)},
    )
    check_tflite(data, tuple(spec.name for spec in inputs), tuple(spec.name for spec in outputs))
    return data


def torch_to_coreml(program: Program, inputs: Specs, outputs: Specs, *, say: Say) -> bytes:
    """The zip of a float32 ``.mlpackage`` for one example, for iOS 16 and later; names as `coreml_names` maps them.

    By coremltools; where it cannot translate an operator, through ONNX, which ``say`` hears. Raises as
    `torch_to_tflite` does.
    """
    refuse_dynamic("coreml", inputs)
    names = coreml_names(spec.name for spec in (*inputs, *outputs))
    with tempfile.TemporaryDirectory(prefix="edgeship-torch-") as folder:
        made = Path(folder) / "model.mlpackage"
        request = {
            "output": str(made),
            "deployment": DEPLOYMENT,
            "inputs": [names[spec.name] for spec in inputs],
            "outputs": [names[spec.name] for spec in outputs],
        }
        try:
            run_torch("torch_to_coreml", program, request, "coremltools", say)
        except UnsupportedOperator as error:
            say(f"coremltools cannot translate {error.operator}; trying it through ONNX and onnx2coreml")
            with _or_else(error):
                return onnx_to_coreml(torch_to_onnx(program, inputs, outputs, say=say), inputs, outputs)
        return pack_folder(made)


@contextlib.contextmanager
def _or_else(first: UnsupportedOperator) -> Iterator[None]:
    """The second way's refusal is the first one's cause: the user's model has the first one's operator."""
    try:
        yield
    except UnsupportedOperator as second:
        raise first from second


def _tidied(data: bytes, inputs: Specs, outputs: Specs) -> bytes:
    """Without the exporter's notes, which hold stack traces of the machine that the program was made on."""
    onnx = load_tool("onnx")
    model = optimized(onnx.load_from_string(data))
    for node in model.graph.node:
        del node.metadata_props[:]
    del model.graph.metadata_props[:], model.metadata_props[:]
    for value, spec in zip((*model.graph.input, *model.graph.output), (*inputs, *outputs), strict=True):
        del value.metadata_props[:]
        for dim, size in zip(value.type.tensor_type.shape.dim, spec.shape, strict=True):
            if isinstance(size, str) and not dim.dim_value:  # a program for a batch of 1 stays one
                dim.dim_param = size
    model.producer_name, model.producer_version, model.doc_string = "edgeship", "", ""
    compact(model)
    check_onnx(model)
    return bytes(model.SerializeToString(deterministic=True))
