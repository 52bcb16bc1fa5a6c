"""Core ML ``mlprogram`` for iOS 17, with float32 inputs and outputs, as a zip of the ``.mlpackage`` folder.

Made and saved on any machine; Core ML runs only on Apple's systems, so it is checked with `coreml_reference`.
"""

from __future__ import annotations

import json
import tempfile
import uuid
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from converters.coreml_reference import CoreMLReference
from converters.errors import CheckFailed, ConversionFailed, UnsupportedOperator
from converters.quiet import load_tool, quiet
from converters.sources.base import BATCH
from converters.sources.tfgraph import FrozenGraph
from converters.targets.tflite import refuse_dynamic
from edge_runtime.bundle import TensorSpec

__all__ = ["MINIMUM_ENGINE_VERSION", "check_coreml", "coreml_operators", "coreml_program", "pack_program"]

MINIMUM_ENGINE_VERSION = "17.0"  # of iOS, whose version is Core ML's
ZIP_DATE = (1980, 1, 1, 0, 0, 0)
NAMESPACE = uuid.UUID("6f1c9a2e-7f0b-5d5e-9a55-0e6c1f3d2b47")  # so that the same model gives the same bytes
LOOPS = frozenset({"If", "StatelessIf", "StatelessWhile", "While"})
UNTRANSLATED = "not implemented"


def coreml_program(
    graph: FrozenGraph, inputs: tuple[TensorSpec, ...], *, fp16: Callable[[Any], bool] | None = None
) -> Any:
    """The graph as a MIL program with float32 inputs and outputs. ``graph`` has its batch fixed to 1.

    ``fp16`` chooses the operations that compute in fp16; None means none. Raises `UnsupportedModel` for dynamic axes,
    `UnsupportedOperator` for an operator that coremltools cannot translate.
    """
    refuse_dynamic("coreml", inputs)
    for node in graph.graph_def.node:
        if node.op in LOOPS:
            raise UnsupportedOperator(node.op, "recurrent layers cannot be converted to Core ML in this version")
    ct = load_tool("coremltools")
    given = [
        ct.TensorType(
            name=spec.name, shape=tuple(1 if size == BATCH else size for size in spec.shape), dtype=np.float32
        )
        for spec in inputs
    ]
    wanted = [ct.TensorType(name=name, dtype=np.float32) for name in graph.outputs]
    precision = ct.precision.FLOAT32 if fp16 is None else ct.transform.FP16ComputePrecision(op_selector=fp16)
    try:
        with quiet("coremltools"):
            program = ct.convert(
                [graph.function()],
                source="tensorflow",
                inputs=given,
                outputs=wanted,
                convert_to="milinternal",
                minimum_deployment_target=ct.target.iOS17,
                compute_precision=precision,
            )
            _exact_logarithms(program)
    except ConversionFailed as error:
        raise _translated(error) from error
    return program


def pack_program(program: Any, *, finish: Callable[[Any], Any] | None = None) -> bytes:
    """The program as a deterministic zip of an ``.mlpackage``. ``finish`` may still change the MLModel."""
    ct = load_tool("coremltools")
    with tempfile.TemporaryDirectory(prefix="edgeship-coreml-") as folder, quiet("saving the Core ML package"):
        model = ct.convert(
            program,
            source="milinternal",
            convert_to="mlprogram",
            minimum_deployment_target=ct.target.iOS17,
            compute_precision=ct.precision.FLOAT32,  # as the program says: no further casts
            skip_model_load=True,
        )
        model = finish(model) if finish else model
        model.user_defined_metadata.clear()  # holds the date
        path = Path(folder) / "model.mlpackage"
        model.save(str(path))
        return _zipped(path)


def check_coreml(data: bytes, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> CoreMLReference:
    """Read the package back as a program that the evaluator knows. Raises `CheckFailed`, `UnsupportedOperator`."""
    try:
        reference = CoreMLReference(data)
    except ConversionFailed as error:
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


def _zipped(package: Path) -> bytes:
    """Stored, sorted, with fixed times and identifiers."""
    manifest = json.loads((package / "Manifest.json").read_text())
    # A model whose weights all fit into its program has an empty folder for them, and a zip holds files only.
    entries = {key: entry for key, entry in manifest["itemInfoEntries"].items() if _has_files(package, entry["path"])}
    renamed = {old: str(uuid.uuid5(NAMESPACE, entry["path"])) for old, entry in entries.items()}
    manifest["itemInfoEntries"] = {renamed[old]: entry for old, entry in entries.items()}
    manifest["rootModelIdentifier"] = renamed[manifest["rootModelIdentifier"]]
    (package / "Manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True))
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(path for path in package.rglob("*") if path.is_file()):
            info = zipfile.ZipInfo(path.relative_to(package.parent).as_posix(), ZIP_DATE)
            info.external_attr = 0o644 << 16
            archive.writestr(info, path.read_bytes())
    return buffer.getvalue()


def _has_files(package: Path, item: str) -> bool:
    path = package / "Data" / item
    return path.is_file() or any(path.rglob("*"))


def _translated(error: ConversionFailed) -> ConversionFailed | UnsupportedOperator:
    if UNTRANSLATED in str(error):
        words = str(error).replace("'", '"').split('"')
        if len(words) > 1:
            return UnsupportedOperator(
                words[1], "coremltools cannot translate this TensorFlow operator; replace its layer"
            )
    return error
