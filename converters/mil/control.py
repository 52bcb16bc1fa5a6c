"""MIL's branches, loops and lists of tensors (what recurrent layers without an operator of their own become)."""

from __future__ import annotations

from typing import Any

import numpy as np

from converters.errors import ConversionFailed
from converters.mil.operands import Function, Operands, RowDependent, same_rows

__all__ = ["CONTROL", "MAX_ITERATIONS"]

MAX_ITERATIONS = 100_000  # a loop that goes on longer is taken for one that never ends


def _decision(value: Any) -> bool:
    flags = np.asarray(value).reshape(-1)
    if not (flags == flags[0]).all():
        raise RowDependent
    return bool(flags[0])


def _cond(o: Operands) -> tuple[Any, ...]:
    return o.run_block(0 if _decision(o.tensor("pred")) else 1)


def _while_loop(o: Operands) -> tuple[Any, ...]:
    state: tuple[Any, ...] = tuple(o.tensors("loop_vars"))
    for _ in range(MAX_ITERATIONS):
        (go_on,) = o.run_block(0, state)
        if not _decision(go_on):
            return state
        state = o.run_block(1, state)
    raise ConversionFailed(
        "evaluating the Core ML program", f"the loop {o.operation.name} has not ended after {MAX_ITERATIONS} rounds"
    )


def _make_list(o: Operands) -> tuple[Any, ...]:
    shape = [var.val for var in o.operation.inputs["elem_shape"]]
    length = int(o.constant("init_length", 1))
    if any(isinstance(size, str) or size is None for size in shape):
        return ((None,) * length,)
    kind = {"int32": np.int32, "bool": np.bool_}.get(str(o.constant("dtype", "fp32")), np.float32)
    return ((np.zeros((1, *map(int, shape)), kind),) * length,)


def _element(o: Operands, values: tuple[Any, ...], index: int) -> np.ndarray:
    if not -len(values) <= index < len(values) or values[index] is None:
        raise ConversionFailed(
            "evaluating the Core ML program", f"{o.operation.name} reads element {index} of a list, which holds none"
        )
    return np.asarray(values[index])


def _with(values: tuple[Any, ...], index: int, value: np.ndarray) -> tuple[Any, ...]:
    longer = [*values, *[None] * (index + 1 - len(values))]
    longer[index] = value
    return tuple(longer)


def _list_read(o: Operands) -> tuple[Any, ...]:
    return (_element(o, o.list_of_tensors("ls"), int(o.constant("index"))),)


def _list_write(o: Operands) -> tuple[Any, ...]:
    return (_with(o.list_of_tensors("ls"), int(o.constant("index")), o.tensor("value")),)


def _list_gather(o: Operands) -> tuple[Any, ...]:
    values = o.list_of_tensors("ls")
    return (np.stack(same_rows([_element(o, values, index) for index in o.integers("indices")]), axis=1),)


def _list_scatter(o: Operands) -> tuple[Any, ...]:
    values, new = o.list_of_tensors("ls"), o.tensor("value")
    for place, index in enumerate(o.integers("indices")):
        values = _with(values, index, new[:, place])
    return (values,)


def _list_length(o: Operands) -> tuple[Any, ...]:
    return (np.asarray([len(o.list_of_tensors("ls"))], np.int32),)


CONTROL: dict[str, Function] = {
    "cond": _cond,
    "list_gather": _list_gather,
    "list_length": _list_length,
    "list_read": _list_read,
    "list_scatter": _list_scatter,
    "list_write": _list_write,
    "make_list": _make_list,
    "while_loop": _while_loop,
}
