"""A finished ``.mlpackage``: taken as it is, or asked for answers through the evaluator that needs no Mac."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from converters.coreml_reference import CoreMLReference
from converters.errors import ConversionFailed, ModelUnreadable
from converters.sources.activation import last_squashing
from converters.sources.base import BATCH, Kind
from converters.sources.files import check_archive, files_in, read_model
from converters.sources.precision import coreml_precision
from converters.sources.signed import Signed
from converters.sources.tensors import RawTensor, sign

__all__ = ["PACKAGE_SUFFIX", "CoremlSource"]

PACKAGE_SUFFIX = ".mlpackage"
ZIP_DATE = (1980, 1, 1, 0, 0, 0)


class CoremlSource(Signed):
    """An ``mlprogram`` in an ``.mlpackage`` folder or a zip of one.

    ``data`` is a zip of the package: the one that was given, or one of the folder with fixed times and order.
    ``precision`` is what its weights are stored in. Raises `ModelUnreadable` for a damaged or hostile package and for
    other kinds of Core ML models, `UnsupportedOperator` for an operator that the evaluator does not know.
    """

    def __init__(self, path: str | Path, *, name: str | None = None, first_axis: str = BATCH) -> None:
        path = Path(path)
        self._name = name or path.name.removesuffix(".zip").removesuffix(PACKAGE_SUFFIX)
        self.data = _zip_of_folder(path) if path.is_dir() else _checked_zip(path)
        try:
            self._reference = CoreMLReference(self.data)
        except (ConversionFailed, ModelUnreadable) as error:
            raise ModelUnreadable(f"{path} is not a Core ML package that can be read: {error}") from error
        function = next(iter(self._reference.program.functions.values()))
        self._signature = sign(
            str(path),
            [_raw(name, var) for name, var in function.inputs.items()],
            [_raw(var.name, var) for var in function.outputs],
            first_axis=first_axis,
        )

    @property
    def kind(self) -> Kind:
        return "coreml"

    @cached_property
    def parameters(self) -> int:
        """Elements of the constants of more than one element that operations read."""
        seen: dict[str, int] = {}
        for operation in self._reference.operations():
            for value in operation.inputs.values():
                for var in value if isinstance(value, list | tuple) else [value]:
                    if (
                        var is not None
                        and var.op is not None
                        and (var.op.op_type == "const" or "constexpr" in var.op.op_type)
                    ):
                        seen[var.name] = int(np.prod(var.shape, dtype=np.int64)) if var.shape and _is_float(var) else 0
        return sum(size for size in seen.values() if size > 1)

    @property
    def precision(self) -> str:
        return coreml_precision(self._reference.operations())

    @property
    def operators(self) -> tuple[str, ...]:
        """Operator types, in order."""
        return tuple(self._reference.operators)

    @property
    def activation(self) -> str | None:
        makers = {var.name: operation for operation in self._reference.operations() for var in operation.outputs}

        def producer(tensor: str) -> tuple[str, str] | None:
            operation = makers.get(tensor)
            given = operation.inputs.get("x") if operation is not None else None
            given = operation.inputs.get("input") if given is None and operation is not None else given
            return None if given is None else (operation.op_type, given.name)

        return last_squashing(self.outputs[0].name, producer)

    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs for rows of inputs, computed by the evaluator; what the program declares fp16 is rounded to it."""
        arrays = {spec.name: np.asarray(inputs[spec.name], spec.dtype) for spec in self.inputs}
        if not self.one_at_a_time:
            return self._reference.run(arrays)
        # The evaluator takes rows of the program's own shapes, in which the batch is an axis of 1.
        results = self._reference.run({name: array[:, np.newaxis] for name, array in arrays.items()})
        return {name: value.reshape(len(value), *value.shape[2:]) for name, value in results.items()}


def _zip_of_folder(folder: Path) -> bytes:
    if not (folder / "Manifest.json").is_file():
        raise ModelUnreadable(f"{folder} is not an {PACKAGE_SUFFIX}: it holds no Manifest.json")
    root = folder.resolve().name
    root = root if root.endswith(PACKAGE_SUFFIX) else f"{root}{PACKAGE_SUFFIX}"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for relative, content in files_in(folder):
            info = zipfile.ZipInfo(f"{root}/{relative}", ZIP_DATE)
            info.external_attr = 0o644 << 16
            archive.writestr(info, content)
    return buffer.getvalue()


def _checked_zip(path: Path) -> bytes:
    data = read_model(path)
    names = check_archive(io.BytesIO(data), str(path))
    roots = {name.split("/")[0] for name in names}
    if len(roots) != 1 or not next(iter(roots)).endswith(PACKAGE_SUFFIX):
        raise ModelUnreadable(f"{path} does not hold exactly one {PACKAGE_SUFFIX} folder")
    return data


def _raw(name: str, var: Any) -> RawTensor:
    from coremltools.converters.mil.mil.types import builtin_to_string

    dtype = {"fp32": "float32", "fp16": "float16"}.get(builtin_to_string(var.dtype), builtin_to_string(var.dtype))
    sizes = tuple(int(size) if isinstance(size, int | np.integer) else None for size in var.shape)
    return RawTensor(name=name, dtype=dtype, sizes=sizes)


def _is_float(var: Any) -> bool:
    from coremltools.converters.mil.mil.types import builtin_to_string

    return builtin_to_string(var.dtype) in ("fp32", "fp16")
