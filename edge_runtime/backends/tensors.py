"""What both engines need to know about a model's tensors: which is which, and whether they are the manifest's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_runtime.errors import ModelRejected

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_runtime.bundle.manifest import TensorSpec

__all__ = ["FileTensor", "has_batch_axis", "match", "run_rows"]

BATCH = "batch"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileTensor:
    """A tensor as the model file declares it: ``shape`` has None for axes of any size, and is None where the file does
    not say; ``key`` is the engine's own."""

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None
    key: Any = None


def has_batch_axis(specs: Sequence[TensorSpec]) -> bool:
    """Whether every one of ``specs`` has a first axis named ``batch``."""
    return bool(specs) and all(spec.shape[:1] == (BATCH,) for spec in specs)


def match(what: str, specs: Sequence[TensorSpec], found: Sequence[FileTensor]) -> tuple[FileTensor, ...]:
    """The file's tensors in the order of ``specs``, by name; a single one on each side needs no equal name.

    Raises `ModelRejected` when a tensor is missing or has another dtype or shape than the manifest says.
    """
    by_name = {tensor.name: tensor for tensor in found}
    if len(specs) == len(found) == 1:
        by_name = {specs[0].name: found[0]}
    if len(found) != len(specs) or any(spec.name not in by_name for spec in specs):
        raise ModelRejected(
            f"the file's {what}s are {sorted(t.name for t in found)}, the manifest's {sorted(s.name for s in specs)}"
        )
    for spec in specs:
        tensor = by_name[spec.name]
        if tensor.dtype != spec.dtype:
            raise ModelRejected(f"{what} {spec.name!r} is {tensor.dtype} in the file, {spec.dtype} in the manifest")
        if not _same_shape(spec.shape, tensor.shape):
            raise ModelRejected(
                f"{what} {spec.name!r} has shape {tensor.shape} in the file, {spec.shape} in the manifest"
            )
    return tuple(by_name[spec.name] for spec in specs)


def _same_shape(stated: tuple[int | str, ...], found: tuple[int | None, ...] | None) -> bool:
    if found is None:
        return True
    if len(stated) != len(found):
        return False
    for axis, (wanted, size) in enumerate(zip(stated, found, strict=True)):
        if size is None:
            continue
        if wanted != size and not (axis == 0 and wanted == BATCH and size == 1):
            return False
    return True


def run_rows(
    run: Callable[[Mapping[str, NDArray[Any]]], dict[str, NDArray[Any]]], inputs: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Run a model that takes one example at a time over every row of ``inputs`` and join the answers."""
    rows = len(next(iter(inputs.values())))
    answers = [run({name: array[i : i + 1] for name, array in inputs.items()}) for i in range(rows)]
    return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}
