"""Walk a block of MIL operations with NumPy, freeing each tensor after its last use."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.errors import ConversionFailed, UnsupportedOperator
from converters.mil.operands import Function, Operands
from converters.mil.operators import OPERATORS

__all__ = ["Evaluator", "bytes_of_tensors", "widest_bytes"]

Seen = Callable[[Any, np.ndarray], None]  # a variable and its value (rows, *shape)
Values = MutableMapping[Any, Any]


@dataclass(frozen=True, slots=True)
class _Step:
    operation: Any
    function: Function
    reads: frozenset[Any]  # variables, those that nested blocks read from outside included
    freed: tuple[Any, ...]  # variables that nothing reads after this step


class Evaluator:
    """A block with all that is nested in it, prepared once. Raises `UnsupportedOperator` before computing."""

    def __init__(self, block: Any, *, round_fp16: bool) -> None:
        from coremltools.converters.mil.mil import types

        self._round_fp16 = round_fp16
        self._fp16 = types.fp16
        self._numpy_type = types.nptype_from_builtin
        self._block = block
        self._plans: dict[int, tuple[_Step, ...]] = {}
        self._constants: dict[Any, np.ndarray] = {}
        self._plan(block)

    def run(self, values: Values, seen: Seen | None = None, *, keep: bool = False) -> tuple[Any, ...]:
        """The block's outputs. ``values`` maps its input variables to arrays ``(rows, *shape)``; with ``keep`` it
        holds every variable afterwards."""
        return self._run(self._block, values, seen, keep)

    def resume(self, kept: Mapping[Any, Any], changed: Mapping[Any, Any]) -> tuple[Any, ...]:
        """The block's outputs with some variables' values put in the place of what a kept run computed; only what
        depends on them is computed again."""
        current: dict[Any, Any] = dict(changed)
        for step in self._plans[id(self._block)]:
            if any(var in changed for var in step.operation.outputs) or step.reads.isdisjoint(current):
                continue
            both = _Layered(current, kept)
            for var, value in self._results(step, both):
                current[var] = value
        return tuple(self._read(_Layered(current, kept), var) for var in self._block.outputs)

    def results_of(self, operation: Any, changed: Mapping[Any, Any], kept: Mapping[Any, Any]) -> tuple[Any, ...]:
        """What one operation of the outermost block gives with some of its inputs changed."""
        step = next(each for each in self._plans[id(self._block)] if each.operation is operation)
        return tuple(value for _, value in self._results(step, _Layered(dict(changed), kept)))

    def _plan(self, block: Any) -> None:
        operations = [op for op in block.operations if op.op_type != "const"]
        for operation in operations:
            if operation.op_type not in OPERATORS:
                raise UnsupportedOperator(
                    operation.op_type, f"the evaluator does not know this operator (at {operation.name})"
                )
            for inner in operation.blocks:
                self._plan(inner)
        reads = [frozenset(_reads(operation)) for operation in operations]
        made = {var for operation in operations for var in operation.outputs} | set(_inputs(block))
        needed, steps = set(block.outputs), []
        for operation, read in zip(reversed(operations), reversed(reads), strict=True):
            freed = tuple((read | set(operation.outputs)) & made - needed)
            needed |= read
            steps.append(_Step(operation, OPERATORS[operation.op_type], read, freed))
        self._plans[id(block)] = tuple(reversed(steps))

    def _run(self, block: Any, values: Values, seen: Seen | None, keep: bool) -> tuple[Any, ...]:
        for step in self._plans[id(block)]:
            for var, value in self._results(step, values):
                values[var] = value
                if seen is not None and not isinstance(value, tuple):
                    seen(var, value)
            if not keep:
                for var in step.freed:
                    values.pop(var, None)
        return tuple(self._read(values, var) for var in block.outputs)

    def _results(self, step: _Step, values: Mapping[Any, Any]) -> list[tuple[Any, Any]]:
        operation = step.operation
        if step.reads.isdisjoint(values) and all(var in self._constants for var in operation.outputs):
            return [(var, self._constants[var]) for var in operation.outputs]

        def run_block(block: Any, arguments: Sequence[Any]) -> tuple[Any, ...]:
            inner = _Layered(dict(zip(_inputs(block), arguments, strict=True)), values)
            return self._run(block, inner, None, False)

        operands = Operands(operation, lambda var: self._read(values, var), run_block)
        try:
            results = step.function(operands)
        except (ArithmeticError, LookupError, MemoryError, ValueError) as error:
            raise ConversionFailed(
                "evaluating the Core ML program", f"{operation.op_type} at {operation.name}: {error}"
            ) from error
        pairs = list(zip(operation.outputs, map(self._as_declared, results, operation.outputs), strict=True))
        if operation.op_type.startswith("constexpr_"):
            self._constants.update(pairs)
        return pairs

    def _read(self, values: Mapping[Any, Any], var: Any) -> Any:
        if var in values:
            return values[var]
        if var not in self._constants:
            value = np.asarray(var.val)
            self._constants[var] = (value.astype(np.float32, copy=False) if value.dtype.kind == "f" else value)[None]
        return self._constants[var]

    def _as_declared(self, value: Any, var: Any) -> Any:
        """Floats are computed in float32; what the program declares as fp16 is rounded to it."""
        if isinstance(value, tuple):
            return value
        wanted = self._numpy_type(var.dtype)
        if not np.issubdtype(wanted, np.floating):
            return value.astype(wanted, copy=False)
        if self._round_fp16 and var.dtype == self._fp16:
            return value.astype(np.float16).astype(np.float32)
        return value.astype(np.float32, copy=False)


class _Layered(MutableMapping[Any, Any]):
    """A dictionary over another that is not written to: a block sees what is around it."""

    def __init__(self, own: dict[Any, Any], around: Mapping[Any, Any]) -> None:
        self._own, self._around = own, around

    def __getitem__(self, key: Any) -> Any:
        return self._own[key] if key in self._own else self._around[key]

    def __contains__(self, key: object) -> bool:
        return key in self._own or key in self._around

    def __setitem__(self, key: Any, value: Any) -> None:
        self._own[key] = value

    def __delitem__(self, key: Any) -> None:
        del self._own[key]

    def pop(self, key: Any, default: Any = None) -> Any:
        return self._own.pop(key, default)

    def __iter__(self) -> Iterator[Any]:
        return iter({**self._around, **self._own})

    def __len__(self) -> int:
        return len({*self._around, *self._own})


def _inputs(block: Any) -> Sequence[Any]:
    inputs = block.inputs
    return tuple(inputs.values()) if isinstance(inputs, Mapping) else tuple(inputs)


def _reads(operation: Any) -> Iterator[Any]:
    yield from operation.get_flattened_inputs()
    for block in operation.blocks:
        yield from block.outputs
        for inner in block.operations:
            yield from _reads(inner)


def widest_bytes(block: Any) -> int:
    """About how many bytes of tensors the widest operation of a block holds for one row."""
    return max((sum(map(_bytes, (*op.get_flattened_inputs(), *op.outputs))) for op in _live(block)), default=0)


def bytes_of_tensors(block: Any) -> int:
    """About how many bytes all tensors of a block take for one row."""
    return sum(_bytes(var) for operation in _live(block) for var in operation.outputs)


def _live(block: Any) -> Iterator[Any]:
    return (operation for operation in block.operations if operation.op_type != "const")


def _bytes(var: Any) -> int:
    if hasattr(var, "elem_type") or var.val is not None:  # a list of tensors has no shape; a constant has no rows
        return 0
    return 4 * math.prod(int(size) for size in var.shape if isinstance(size, int | np.integer))
