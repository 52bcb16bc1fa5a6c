"""Which operations of a Core ML program may compute in fp16. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

__all__ = ["LARGEST_HALF", "half_operations"]

LARGEST_HALF = 16_384.0  # a quarter of fp16's largest number, for rows that calibration has not seen
# What an fp16 kernel may overflow or lose on the way to a result that fits.
DELICATE = frozenset({"cumsum", "exp", "l2_norm", "local_response_norm", "log", "pow", "reduce_l2_norm"}) | {
    "reduce_log_sum_exp", "reduce_prod", "reduce_sum_square", "rsqrt", "inverse", "square",
}  # fmt: skip
NEVER = frozenset({"cast", "cond", "const", "gru", "lstm", "rnn", "while_loop"})


def half_operations(function: Any, weighted: Collection[str], peaks: Mapping[str, float]) -> frozenset[str]:
    """Names of the outermost block's operations that may compute in fp16.

    These are the operations in ``weighted`` and those between and behind them, as far as each of their tensors is known
    to stay small: ``peaks`` maps a tensor's name to its largest magnitude in the calibration rows. What reads only raw
    inputs (normalization of wide ranges) stays in float32, and so does what leads to a logarithm (a spectrogram), which
    makes of each lost digit of a small number a large one.
    """
    chosen: set[str] = set()
    magnified = _magnified(function, weighted)
    behind: set[Any] = set()  # variables that depend on a weighted operation
    for operation in function.operations:
        if operation.op_type in NEVER or operation.op_type.startswith(("constexpr", "list_", "make_list")):
            behind.update(operation.outputs if any(var in behind for var in operation.get_flattened_inputs()) else ())
            continue
        depends = operation.name in weighted or any(var in behind for var in operation.get_flattened_inputs())
        if depends:
            behind.update(operation.outputs)
        if operation.op_type in DELICATE or not magnified.isdisjoint(operation.outputs):
            continue
        if depends and all(_is_small(var, peaks) for var in _floats(operation)):
            chosen.add(operation.name)
    return frozenset(chosen)


def _magnified(function: Any, weighted: Collection[str]) -> set[Any]:
    """Variables that a logarithm is taken of, and those that they are computed from, back to weighted operations."""
    found: set[Any] = set()
    for operation in reversed(list(function.operations)):
        reached = not found.isdisjoint(operation.outputs) and operation.name not in weighted
        if reached or operation.op_type == "log":
            found.update(var for var in operation.get_flattened_inputs() if var.val is None)
    return found


def _floats(operation: Any) -> Iterator[Any]:
    from coremltools.converters.mil.mil import types

    for var in (*operation.get_flattened_inputs(), *operation.outputs):
        if not hasattr(var, "elem_type") and var.dtype == types.fp32 and var.val is None:
            yield var


def _is_small(var: Any, peaks: Mapping[str, float]) -> bool:
    # What does not depend on the inputs has no peak; coremltools itself looks at constants.
    return peaks.get(var.name, 0.0) <= LARGEST_HALF
