"""Names inside a MIL program that depend on the program alone.

coremltools numbers what it makes by counters of the process, so that the same model would give other bytes the second
time. Numbers at the end of a name are given anew here, in the order of the program; names of inputs and outputs stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

__all__ = ["LOOP_MARK", "rename_by_order"]

LOOP_MARK = "edgeshiploop"  # begins the name of a TensorFlow function, which coremltools puts into names inside loops
FUNCTION = re.compile(LOOP_MARK + r"_[0-9a-f]+_\d+[/_]")
NUMBER = re.compile(r"(_\d+)+$")


def rename_by_order(program: Any) -> None:
    """Give every operation, and every variable that is not an input or output, its name anew, in place."""
    for function in program.functions.values():
        taken = {*function.inputs, *(var.name for var in function.outputs)}
        for block in _blocks(function):
            for var in () if block is function else block.inputs:
                var.name = _fresh(var.name, taken)
            for operation in block.operations:
                operation.name = _fresh(_wanted(operation), taken)
                for index, var in enumerate(operation.outputs):
                    if var not in function.outputs:
                        var.name = operation.name if len(operation.outputs) == 1 else f"{operation.name}_{index}"
                        taken.add(var.name)


def _wanted(operation: Any) -> str:
    """A constant is called after the first operation that reads it; names of constants are all made up."""
    name = str(operation.name)
    readers = operation.outputs[0].child_ops if operation.op_type == "const" else ()
    if readers:
        for parameter, value in readers[0].inputs.items():
            if any(var is operation.outputs[0] for var in (value if isinstance(value, list | tuple) else [value])):
                name = f"{readers[0].name}_{parameter}"
                break
    return name


def _fresh(name: str, taken: set[str]) -> str:
    base = NUMBER.sub("", FUNCTION.sub("", name)) or "value"
    fresh, count = base, 0
    while fresh in taken:
        count += 1
        fresh = f"{base}_{count}"
    taken.add(fresh)
    return fresh


def _blocks(block: Any) -> Iterator[Any]:
    yield block
    for operation in block.operations:
        for inner in operation.blocks:
            yield from _blocks(inner)
