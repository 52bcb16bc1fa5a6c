"""From ONNX to the other formats: TFLite by onnx2tf in an environment of its own, Core ML by onnx2coreml in this one.

Why these two: docs/decisions/0009-routes-from-onnx-and-pytorch.md.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from converters.environments import ONNX2TF, ensure
from converters.errors import UnsupportedOperator
from converters.foreign.coverage import refuse_unsupported, way_around
from converters.foreign.lowerings import exact_converter
from converters.foreign.names import coreml_names
from converters.foreign.onnx_model import fix_axes, for_one_example, refuse_scalars, renamed
from converters.foreign.signature import custom_operators, rename_signature
from converters.quiet import load_tool, quiet
from converters.targets.coreml import pack_program
from converters.targets.tflite import check_tflite
from converters.tool_process import SCRIPTS, run_script
from edge_runtime.bundle import TensorSpec

__all__ = ["onnx_to_coreml", "onnx_to_tflite"]

Specs = tuple[TensorSpec, ...]


def onnx_to_tflite(
    model: bytes,
    inputs: Specs,
    outputs: Specs,
    *,
    say: Callable[[str], None],
    fixed_axes: Mapping[str, int] | None = None,
) -> bytes:
    """A float TFLite model for one example, with the model's own tensor names and layout (images stay NCHW).

    ``fixed_axes`` sizes dynamic axes other than the batch, by their names in the specs. ``say`` hears what is
    installed. Raises `UnsupportedModel` for an axis that stays dynamic, `UnsupportedOperator`, `ConversionFailed`,
    `CheckFailed`, and `ToolMissing` where the environment of onnx2tf cannot be made.
    """
    outputs = fix_axes(outputs, fixed_axes or {})
    static = for_one_example(model, inputs, target="tflite", fixed_axes=fixed_axes)
    refuse_unsupported(static, "tflite")
    refuse_scalars("tflite", (*inputs, *outputs))
    # onnx2tf rewrites names with other characters in them, and may swap outputs; it leaves such as these alone.
    given = {f"edgeship_input_{i}": spec for i, spec in enumerate(fix_axes(inputs, fixed_axes or {}))}
    wanted = {f"edgeship_output_{i}": spec for i, spec in enumerate(outputs)}
    plain = renamed(static, {spec.name: ours for ours, spec in (given | wanted).items()})
    python = ensure(ONNX2TF, say)
    with tempfile.TemporaryDirectory(prefix="edgeship-tflite-") as folder:
        source, made = Path(folder) / "model.onnx", Path(folder) / "model.tflite"
        source.write_bytes(plain.SerializeToString())
        run_script(
            python,
            SCRIPTS / "onnx_to_tflite.py",
            {"model": str(source), "output": str(made)},
            stage="onnx2tf",
            subject="the ONNX model",
            around=lambda operator: way_around(operator, "tflite"),
        )
        data = made.read_bytes()
    for operator in custom_operators(data):
        raise UnsupportedOperator(operator, f"TFLite has no builtin operator for it; {way_around(operator, 'tflite')}")
    data = rename_signature(data, given, wanted)
    check_tflite(data, tuple(spec.name for spec in inputs), tuple(spec.name for spec in outputs))
    return data


def onnx_to_coreml(
    model: bytes, inputs: Specs, outputs: Specs, *, fixed_axes: Mapping[str, int] | None = None
) -> bytes:
    """The zip of a float32 ``.mlpackage`` for one example, for iOS 16 and later.

    Tensors bear the model's names as `coreml_names` maps them. Raises as `onnx_to_tflite` does, but for `ToolMissing`.
    """
    ct = load_tool("coremltools")
    static = for_one_example(model, inputs, target="coreml", fixed_axes=fixed_axes)
    refuse_unsupported(static, "coreml")
    refuse_scalars("coreml", (*inputs, *outputs))
    named = renamed(static, coreml_names(spec.name for spec in (*inputs, *outputs)))
    with quiet("onnx2coreml"):
        program = exact_converter().to_mil(named, target=ct.target.iOS16, precision=ct.precision.FLOAT32)
    return pack_program(program)
