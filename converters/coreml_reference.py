"""Evaluate a Core ML ``mlprogram`` with NumPy, on any machine.

Core ML itself runs on Apple's systems only. This reads the stored program back (`coremltools…milproto.load`), walks its
operators and computes each with NumPy, for many rows at once: every tensor gets one leading axis for the rows, and an
operator means what the MIL specification says about the axes behind it. Tensors that the program declares as fp16 are
rounded to fp16 after every operator. An operator outside the table raises `UnsupportedOperator` with its name; nothing
is skipped. It shows what the program *means*; Apple's kernels may round differently.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converters.errors import ModelUnreadable, UnsupportedOperator
from converters.mil.operands import Operands
from converters.mil.operators import OPERATORS
from converters.quiet import load_tool, quiet

__all__ = ["CoreMLReference", "Observer"]

CHUNK = 256  # rows evaluated at once; bounds memory
MAX_PACKAGE_BYTES = 1 << 30
Observer = Callable[[str, np.ndarray], None]  # tensor name, (rows, *shape)


class CoreMLReference:
    """A stored ``mlprogram``, evaluated with NumPy.

    Raises `ModelUnreadable` for a package that cannot be read and `UnsupportedOperator` for a program with an operator
    that is not in the table, both before anything is computed.
    """

    name = "NumPy evaluator of Core ML programs"

    def __init__(self, package: Path | bytes, *, round_fp16: bool = True) -> None:
        """``package`` is an ``.mlpackage`` folder, or a zip of one (path or bytes). ``round_fp16=False`` computes
        what is declared fp16 in float32, as a Mac's CPU may."""
        self._round_fp16 = round_fp16
        self.program = _load_program(package)
        self._function = next(iter(self.program.functions.values()))
        self.inputs = {name: tuple(int(size) for size in var.shape) for name, var in self._function.inputs.items()}
        self.outputs = tuple(var.name for var in self._function.outputs)
        for operation in self._operations():
            if operation.op_type not in OPERATORS:
                raise UnsupportedOperator(
                    operation.op_type, f"the evaluator does not know this operator (at {operation.name})"
                )

    def run(self, inputs: Mapping[str, np.ndarray], observe: Observer | None = None) -> dict[str, np.ndarray]:
        """Outputs ``(rows, *shape)`` for inputs ``(rows, *shape)``; shapes are the program's, its batch of 1 included.

        ``observe`` sees every tensor that depends on the inputs, once for each chunk of rows.
        """
        rows = len(next(iter(inputs.values())))
        parts = [
            self._run_chunk({name: value[start : start + CHUNK] for name, value in inputs.items()}, observe)
            for start in range(0, rows, CHUNK)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in self.outputs}

    @property
    def operators(self) -> list[str]:
        """Operator types in program order, without constants."""
        return [op.op_type for op in self._operations()]

    def operations(self) -> list[Any]:
        """The program's operations, without constants, for inspection."""
        return list(self._operations())

    def _operations(self) -> Iterator[Any]:
        return (op for op in self._function.operations if op.op_type != "const")

    def _run_chunk(self, inputs: Mapping[str, np.ndarray], observe: Observer | None) -> dict[str, np.ndarray]:
        values: dict[str, np.ndarray] = {}
        for name, shape in self.inputs.items():
            array = np.asarray(inputs[name])
            if array.shape[1:] != shape:
                raise ValueError(f"input {name}: rows of shape {array.shape[1:]}, the program takes {shape}")
            values[name] = array.astype(np.float32) if array.dtype.kind == "f" else array
            if observe:
                observe(name, values[name])
        rows = len(next(iter(values.values())))
        with np.errstate(all="ignore"):  # infinities and NaN follow IEEE 754, as they do on a device
            for operation in self._operations():
                results = OPERATORS[operation.op_type](Operands(operation, values))
                for var, result in zip(operation.outputs, results, strict=True):
                    values[var.name] = self._as_declared(result, var)
                    if observe and len(result) == rows:
                        observe(var.name, values[var.name])
        return {name: np.broadcast_to(values[name], (rows, *values[name].shape[1:])) for name in self.outputs}

    def _as_declared(self, value: np.ndarray, var: Any) -> np.ndarray:
        """Floats are computed in float32; what the program declares as fp16 is rounded to it."""
        from coremltools.converters.mil.mil import types

        if value.dtype.kind != "f":
            return value
        if self._round_fp16 and var.dtype == types.fp16:
            return value.astype(np.float16).astype(np.float32)
        return value.astype(np.float32, copy=False)


def _load_program(package: Path | bytes) -> Any:
    coremltools = load_tool("coremltools")
    with tempfile.TemporaryDirectory(prefix="edgeship-coreml-") as folder:
        path = _unpacked(package, Path(folder))
        with quiet("reading the Core ML package"):
            from coremltools.converters.mil.frontend.milproto.load import load

            model = coremltools.models.MLModel(str(path), skip_model_load=True)
            spec = model.get_spec()
            if spec.WhichOneof("Type") != "mlProgram":
                raise ModelUnreadable(f"a Core ML {spec.WhichOneof('Type')}, not an mlprogram")
            return load(spec, specification_version=spec.specificationVersion, file_weights_dir=model.weights_dir or "")


def _unpacked(package: Path | bytes, folder: Path) -> Path:
    if isinstance(package, Path) and package.is_dir():
        return package
    archive = folder / "package.zip"
    if isinstance(package, bytes):
        archive.write_bytes(package)
    elif package.is_file():
        shutil.copyfile(package, archive)
    else:
        raise ModelUnreadable(f"{package}: no such file")
    try:
        with zipfile.ZipFile(archive) as file:
            if sum(info.file_size for info in file.infolist()) > MAX_PACKAGE_BYTES:
                raise ModelUnreadable(f"a Core ML package of more than {MAX_PACKAGE_BYTES} bytes")
            file.extractall(folder / "unpacked")
    except zipfile.BadZipFile as error:
        raise ModelUnreadable(f"not a zipped .mlpackage: {error}") from error
    packages = [path for path in (folder / "unpacked").iterdir() if path.suffix == ".mlpackage"]
    if len(packages) != 1:
        raise ModelUnreadable("the zip does not hold exactly one .mlpackage folder")
    return packages[0]
