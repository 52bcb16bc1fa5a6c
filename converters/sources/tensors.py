"""From the tensors that a file declares to the specs of a source, and from rows of data to calls of its model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from converters.errors import UnsupportedModel
from converters.sources.base import BATCH, is_batched
from edge_runtime.bundle import TensorSpec

__all__ = ["CHUNK", "DTYPES", "RawTensor", "Signature", "rows_of_a_call", "run_rows", "sign"]

CHUNK = 256  # rows in one call of a model with a dynamic batch
CHUNK_ELEMENTS = 1 << 22  # and input values: the tensors inside a network of images are many times larger
DTYPES = ("float32", "float16", "int8", "uint8", "int32", "int64", "bool")  # what a manifest can state


@dataclass(frozen=True, slots=True, kw_only=True)
class RawTensor:
    """A tensor as a file declares it: each of ``sizes`` is a number, a name, or None where any size goes. ``sizes`` is
    None where the file does not even say how many axes there are."""

    name: str
    dtype: str
    sizes: tuple[int | str | None, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """What a model takes and gives. ``one_at_a_time``: its batch axis is fixed to 1 in the file."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    one_at_a_time: bool


def sign(
    model: str, inputs: Sequence[RawTensor], outputs: Sequence[RawTensor], *, first_axis: str = BATCH
) -> Signature:
    """Name the axes: ``batch`` in front where the first axes of all tensors are dynamic, or all are 1.

    Other dynamic axes keep their name, or get ``<tensor>_<axis>``. Another ``first_axis`` than ``batch`` is given to
    every dynamic first axis. Raises `UnsupportedModel` for a model without inputs or outputs, a name that appears
    twice, and a tensor whose type or number of axes cannot be stated in a manifest.
    """
    for what, tensors in (("inputs", inputs), ("outputs", outputs)):
        if not tensors:
            raise UnsupportedModel(f"{model} has no {what}, so there is nothing to convert")
    tensors = (*inputs, *outputs)
    names = [tensor.name for tensor in tensors]
    if len(set(names)) != len(names):
        raise UnsupportedModel(f"{model}: inputs and outputs need different names, not {', '.join(names)}")
    for tensor in tensors:
        _refuse_unstatable(model, tensor)
    firsts = [(tensor.sizes or (0,))[0] for tensor in tensors]  # a scalar has no batch
    dynamic = all(not isinstance(size, int) for size in firsts)
    one = first_axis == BATCH and all(size == 1 for size in firsts)
    front = first_axis if dynamic or one or first_axis != BATCH else None

    def spec(tensor: RawTensor) -> TensorSpec:
        sizes = [_axis(tensor.name, axis, size) for axis, size in enumerate(tensor.sizes or ())]
        if front is not None and sizes and (one or isinstance(sizes[0], str)):
            sizes[0] = front
        return TensorSpec(name=tensor.name, dtype=tensor.dtype, shape=tuple(sizes))

    return Signature(inputs=tuple(map(spec, inputs)), outputs=tuple(map(spec, outputs)), one_at_a_time=one)


def run_rows(
    call: Callable[[dict[str, np.ndarray]], Sequence[np.ndarray]],
    signature: Signature,
    inputs: Mapping[str, np.ndarray],
    *,
    chunk: int | None = None,
) -> dict[str, np.ndarray]:
    """Outputs ``(rows, …)`` for inputs ``(rows, …)``: ``call`` gets as many rows at once as the model takes, with the
    dtypes of the signature, and answers in the order of its outputs."""
    arrays = {spec.name: np.asarray(inputs[spec.name], dtype=spec.dtype) for spec in signature.inputs}
    rows = len(next(iter(arrays.values())))
    join = np.concatenate
    if not is_batched(signature.inputs):
        join = np.stack
        calls = ({name: np.asarray(array[row]) for name, array in arrays.items()} for row in range(rows))
    else:
        step = 1 if signature.one_at_a_time else chunk or rows_of_a_call(arrays)
        calls = ({name: array[at : at + step] for name, array in arrays.items()} for at in range(0, rows, step))
    parts = [call(each) for each in calls]
    return {
        spec.name: join([np.asarray(part[index]) for part in parts]) for index, spec in enumerate(signature.outputs)
    }


def rows_of_a_call(arrays: Mapping[str, np.ndarray]) -> int:
    """How many rows ``(rows, …)`` a model with a dynamic batch is given at once, so that memory stays bounded."""
    each = sum(int(np.prod(array.shape[1:])) for array in arrays.values())
    return max(1, min(CHUNK, CHUNK_ELEMENTS // max(1, each)))


def _refuse_unstatable(model: str, tensor: RawTensor) -> None:
    if tensor.dtype not in DTYPES:
        raise UnsupportedModel(
            f"{model}: tensor {tensor.name} is of type {tensor.dtype}; devices exchange {', '.join(DTYPES)}. "
            "Cast it in the model"
        )
    if tensor.sizes is None:
        raise UnsupportedModel(
            f"{model}: the file does not say how many axes tensor {tensor.name} has; export the model again with the "
            "shapes of its inputs and outputs stated"
        )


def _axis(tensor: str, axis: int, size: int | str | None) -> int | str:
    if isinstance(size, int):
        return size
    return f"{tensor}_{axis}" if size in (None, "", BATCH) else str(size)
