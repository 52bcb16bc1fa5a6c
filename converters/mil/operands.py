"""The inputs of one MIL operation, as every operator's function sees them.

Every tensor has one leading axis for the rows (size 1 if it does not depend on the inputs); the axes behind it are the
ones that the MIL specification speaks of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from converters.errors import UnsupportedOperator

__all__ = ["Function", "Operands", "aligned", "axes_of"]


class Operands:
    """The inputs of one operation: `tensor` for data, `constant` for parameters."""

    def __init__(self, operation: Any, values: Mapping[str, np.ndarray]) -> None:
        self.operation = operation
        self.kind = str(operation.op_type)
        self._values = values

    def has(self, name: str) -> bool:
        return self.operation.inputs.get(name) is not None

    def tensor(self, name: str) -> np.ndarray:
        return self._lifted(self.operation.inputs[name])

    def tensors(self, name: str) -> list[np.ndarray]:
        return [self._lifted(var) for var in self.operation.inputs[name]]

    def constant(self, name: str, default: Any = None) -> Any:
        """A parameter's value, without the rows' axis. A parameter that depends on the inputs is refused."""
        var = self.operation.inputs.get(name)
        if var is None:
            return default
        if var.val is not None:
            return var.val
        value = self._values.get(var.name)
        if value is not None and len(value) == 1:
            return value[0]
        raise UnsupportedOperator(self.kind, f"its parameter {name} depends on the inputs (at {self.operation.name})")

    def refuse(self, what: str) -> UnsupportedOperator:
        return UnsupportedOperator(self.kind, f"{what} (at {self.operation.name})")

    def _lifted(self, var: Any) -> np.ndarray:
        if var.name in self._values:
            return self._values[var.name]
        value = np.asarray(var.val)
        return (value.astype(np.float32) if value.dtype.kind == "f" else value)[np.newaxis]


Function = Callable[[Operands], tuple[np.ndarray, ...]]


def axes_of(values: Any, rank: int) -> tuple[int, ...]:
    """Axes of the specification (which does not count the rows' axis) as axes of a lifted tensor of that rank."""
    return tuple(int(axis) + 1 if axis >= 0 else int(axis) + rank for axis in np.atleast_1d(values))


def aligned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both with as many axes, so that NumPy's broadcasting is that of the specification."""
    rank = max(x.ndim, y.ndim)
    return tuple(v.reshape(v.shape[0], *(1,) * (rank - v.ndim), *v.shape[1:]) for v in (x, y))  # type: ignore[return-value]
