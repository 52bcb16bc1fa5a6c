"""Core ML ``mlprogram`` for iOS 16 with the model's own dtypes, as a zip of the ``.mlpackage`` folder.

Made and saved on any machine; Core ML runs only on Apple's systems, so it is checked with `coreml_reference`.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from converters.coreml_reference import CoreMLReference
from converters.errors import CheckFailed, ConversionFailed, ModelUnreadable, UnsupportedModel, UnsupportedOperator
from converters.mil.archive import pack_folder
from converters.mil.naming import rename_by_order
from converters.quiet import load_tool, quiet
from converters.sources.base import BATCH
from converters.sources.tfgraph import FrozenGraph
from converters.targets.tf_for_coreml import prepared, register_operators
from converters.targets.tflite import refuse_dynamic
from edge_runtime.bundle import TensorSpec

__all__ = [
    "DTYPES",
    "check_coreml",
    "coreml_operators",
    "coreml_program",
    "minimum_engine_version",
    "pack_program",
]

# Of a tensor at the model's border. Core ML has no 64-bit tensors; indices fit into 32.
DTYPES: dict[str, type[np.generic]] = {
    "float32": np.float32,
    "float16": np.float16,
    "int32": np.int32,
    "int64": np.int32,
}
UNTRANSLATED = re.compile(r"""for op ['"]([\w.]+)['"]? not implemented|['"]([\w.]+)['"] not implemented""")


def minimum_engine_version(precision: str) -> str:
    """The oldest iOS, whose version is Core ML's, that loads a file of this precision: W8A8 came with iOS 17."""
    return "17.0" if precision == "int8" else "16.0"


def coreml_program(graph: FrozenGraph, inputs: tuple[TensorSpec, ...]) -> Any:
    """The graph as a MIL program for iOS 16 that computes in float32. ``graph`` has its batch fixed to 1.

    Loops of recurrent layers become MIL's own. Raises `UnsupportedModel` for dynamic axes and for inputs of a dtype
    that Core ML does not take, `UnsupportedOperator` for an operator that coremltools cannot translate.
    """
    refuse_dynamic("coreml", inputs)
    for spec in inputs:
        if spec.dtype not in DTYPES:
            raise UnsupportedModel(
                f"input {spec.name} is {spec.dtype}, and Core ML takes {', '.join(DTYPES)}; cast it inside the model"
            )
    ct = load_tool("coremltools")
    given = [
        ct.TensorType(
            name=spec.name,
            shape=tuple(1 if size == BATCH else size for size in spec.shape),
            dtype=DTYPES[spec.dtype],
        )
        for spec in inputs
    ]
    wanted = [ct.TensorType(name=name, dtype=_output_dtype(graph, name)) for name in graph.outputs]
    try:
        with quiet("coremltools"):
            register_operators()
            program = ct.convert(
                [prepared(graph).function()],
                source="tensorflow",
                inputs=given,
                outputs=wanted,
                convert_to="milinternal",
                minimum_deployment_target=ct.target.iOS16,
                compute_precision=ct.precision.FLOAT32,
            )
            _exact_logarithms(program)
    except ConversionFailed as error:
        raise _translated(error) from error
    return program


def pack_program(program: Any) -> bytes:
    """The program as a deterministic zip of an ``.mlpackage`` for the system it was made for, iOS 16 at least."""
    ct = load_tool("coremltools")
    with tempfile.TemporaryDirectory(prefix="edgeship-coreml-") as folder, quiet("saving the Core ML package"):
        made_for = max(function.opset_version for function in program.functions.values())
        settings = {
            "source": "milinternal",
            "minimum_deployment_target": max(made_for, ct.target.iOS16),
            "compute_precision": ct.precision.FLOAT32,  # as the program says: no further casts
        }
        simplified = ct.convert(program, convert_to="milinternal", **settings)
        rename_by_order(simplified)
        model = ct.convert(
            simplified,
            convert_to="mlprogram",
            pass_pipeline=ct.PassPipeline.EMPTY,
            skip_model_load=True,
            **settings,
        )
        model.user_defined_metadata.clear()  # holds the date
        path = Path(folder) / "model.mlpackage"
        model.save(str(path))
        return pack_folder(path)


def check_coreml(data: bytes, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> CoreMLReference:
    """Read the package back as a program that the evaluator knows. Raises `CheckFailed`, `UnsupportedOperator`."""
    try:
        reference = CoreMLReference(data)
    except ModelUnreadable as error:
        raise CheckFailed(f"the converted Core ML package cannot be read back: {error}") from error
    if set(reference.inputs) != set(inputs) or set(reference.outputs) != set(outputs):
        raise CheckFailed(
            f"the Core ML program has inputs {tuple(reference.inputs)} and outputs {reference.outputs}, "
            f"not {inputs} and {outputs}"
        )
    return reference


def coreml_operators(reference: CoreMLReference) -> tuple[str, ...]:
    """Operator types in the program, sorted, each once."""
    return tuple(sorted(set(reference.operators)))


def _output_dtype(graph: FrozenGraph, name: str) -> type[np.generic]:
    """float32 for floats and int32 for everything else, which is what Core ML has at its border."""
    tf = load_tool("tensorflow")
    node = next(node for node in graph.graph_def.node if node.name == name)
    kind = tf.as_dtype(node.attr["T"].type)
    return np.float32 if kind.is_floating else np.int32


def _exact_logarithms(program: Any) -> None:
    """Core ML adds 1e-45 before a logarithm, so that log(0) would be −103 where the source says −infinity."""
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813 - the name that coremltools uses

    for function in program.functions.values():
        for operation in list(function.operations):
            if operation.op_type != "log" or operation.epsilon.val > 1e-30:
                continue
            with function, mb.set_before_op(operation):
                exact = mb.log(x=operation.x, epsilon=np.zeros((), operation.epsilon.val.dtype), name=operation.name)
            function.replace_uses_of_var_after_op(anchor_op=operation, old_var=operation.outputs[0], new_var=exact)
            function.remove_ops([operation])


def _translated(error: ConversionFailed) -> ConversionFailed | UnsupportedOperator:
    found = UNTRANSLATED.search(str(error))
    if found is None:
        return error
    operator = found[1] or found[2]
    return UnsupportedOperator(operator, "coremltools cannot translate this TensorFlow operator; replace its layer")
