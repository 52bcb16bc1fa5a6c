"""Read a stored ``mlprogram`` back as a MIL program, without trusting it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from converters.errors import ConversionFailed, ModelUnreadable
from converters.mil.archive import package_in
from converters.mil.blobs import check_weights
from converters.quiet import load_tool, quiet

__all__ = ["read_program"]


def read_program(package: Path | bytes, *, version: int | None = None) -> tuple[Any, int]:
    """The MIL program of an ``.mlpackage`` folder or of a zip of one, and its specification version.

    ``version`` reads it as if made for a later specification (8 is iOS 17), so that operators of that one can be put
    in. Raises `ModelUnreadable` for what is not a readable ``mlprogram``.
    """
    coremltools = load_tool("coremltools")
    with tempfile.TemporaryDirectory(prefix="edgeship-coreml-") as folder:
        path = package_in(package, Path(folder))
        try:
            with quiet("reading the Core ML package"):
                from coremltools.converters.mil.frontend.milproto.load import load

                model = coremltools.models.MLModel(str(path), skip_model_load=True)
                spec = model.get_spec()
                kind = spec.WhichOneof("Type")
                if kind != "mlProgram":
                    raise ModelUnreadable(
                        f"a Core ML {kind or 'file without a model'}, not an mlprogram; convert the model anew for "
                        "iOS 15 or later"
                    )
                weights = Path(model.weights_dir) if model.weights_dir else None
                check_weights(spec.mlProgram, weights)
                target = max(version or 0, spec.specificationVersion)
                program = load(spec, specification_version=target, file_weights_dir=str(weights or ""))
        except ConversionFailed as error:
            raise ModelUnreadable(f"the Core ML package cannot be read: {error}") from error
        if len(program.functions) != 1:
            raise ModelUnreadable(f"a Core ML program of {len(program.functions)} functions, not one")
        return program, target
