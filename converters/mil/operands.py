"""The inputs of one MIL operation, as every operator's function sees them.

Every tensor has one leading axis for the rows (size 1 if it does not depend on the inputs); the axes behind it are the
ones that the MIL specification speaks of. A list of tensors (`make_list`) is a tuple of such arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from converters.errors import UnsupportedOperator

__all__ = ["Function", "Operands", "RowDependent", "aligned", "axes_of", "by_row", "same_rows"]


class RowDependent(Exception):
    """A parameter that must be one for all rows differs between them: the rows have to be evaluated one at a time."""


class Operands:
    """The inputs of one operation: `tensor` for data, `weight` for float constants, `constant` for parameters."""

    def __init__(
        self,
        operation: Any,
        read: Callable[[Any], Any],
        run_block: Callable[[Any, Sequence[Any]], tuple[Any, ...]],
    ) -> None:
        self.operation = operation
        self.kind = str(operation.op_type)
        self._read = read
        self._run_block = run_block

    def has(self, name: str) -> bool:
        return self.operation.inputs.get(name) is not None

    def tensor(self, name: str) -> np.ndarray:
        return np.asarray(self._read(self.operation.inputs[name]))

    def tensors(self, name: str) -> list[Any]:
        return [self._read(var) for var in self.operation.inputs[name]]

    def list_of_tensors(self, name: str) -> tuple[Any, ...]:
        return tuple(self._read(self.operation.inputs[name]))

    def weight(self, name: str) -> np.ndarray | None:
        """A parameter's numbers in float32, without the rows' axis; None where it is not given."""
        var = self.operation.inputs.get(name)
        if var is None:
            return None
        return np.asarray(self._one(self._read(var)), np.float32)

    def constant(self, name: str, default: Any = None) -> Any:
        """A parameter's value, without the rows' axis. Raises `RowDependent` where rows have different ones."""
        var = self.operation.inputs.get(name)
        if var is None:
            return default
        return var.val if var.val is not None else self._one(self._read(var))

    def integers(self, name: str, default: Sequence[int] = ()) -> list[int]:
        return [int(value) for value in np.atleast_1d(self.constant(name, default))]

    def number(self, name: str, default: float) -> np.float32:
        return np.float32(self.constant(name, default))

    def run_block(self, index: int, arguments: Sequence[Any] = ()) -> tuple[Any, ...]:
        """The outputs of the operation's ``index``-th block, called with ``arguments``."""
        return self._run_block(self.operation.blocks[index], arguments)

    def refuse(self, what: str) -> UnsupportedOperator:
        return UnsupportedOperator(self.kind, f"{what} (at {self.operation.name})")

    @staticmethod
    def _one(value: np.ndarray) -> np.ndarray:
        if len(value) != 1 and not (value[1:] == value[:1]).all():
            raise RowDependent
        return np.asarray(value[0])


Function = Callable[[Operands], tuple[Any, ...]]


def axes_of(values: Any, rank: int) -> tuple[int, ...]:
    """Axes of the specification (which does not count the rows' axis) as axes of a lifted tensor of that rank."""
    return tuple(int(axis) + 1 if axis >= 0 else int(axis) + rank for axis in np.atleast_1d(values))


def aligned(*tensors: np.ndarray) -> tuple[np.ndarray, ...]:
    """All with as many axes, so that NumPy's broadcasting is that of the specification."""
    rank = max(each.ndim for each in tensors)
    return tuple(each.reshape(each.shape[0], *(1,) * (rank - each.ndim), *each.shape[1:]) for each in tensors)


def same_rows(tensors: Sequence[np.ndarray]) -> list[np.ndarray]:
    """All with as many rows: what does not depend on the inputs is repeated without a copy."""
    rows = max(len(each) for each in tensors)
    return [np.broadcast_to(each, (rows, *each.shape[1:])) for each in tensors]


def by_row(function: Callable[..., np.ndarray], *tensors: np.ndarray) -> np.ndarray:
    """``function`` of each row, for what NumPy cannot do for many rows at once."""
    return np.stack([function(*row) for row in zip(*same_rows(tensors), strict=True)])
