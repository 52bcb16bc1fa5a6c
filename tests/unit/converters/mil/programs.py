"""Small MIL programs for tests, saved and read back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from converters import CoreMLReference
from converters.quiet import load_tool
from converters.targets.coreml import pack_program

__all__ = ["build", "evaluated"]

Operator = Callable[[Any, Any], Any]


def build(make: Operator, shape: tuple[int, ...], dtype: str = "fp32", *, target: str = "iOS17") -> Any:
    """A program of one input ``x`` and of the output or outputs that ``make`` gives."""
    ct = load_tool("coremltools")
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813
    from coremltools.converters.mil.mil import types

    spec = mb.TensorSpec(shape=shape, dtype=types.string_to_builtin(dtype))

    @mb.program(input_specs=[spec], opset_version=getattr(ct.target, target))
    def made(x: Any) -> Any:
        return make(mb, x)

    return made


def evaluated(make: Operator, x: np.ndarray, dtype: str = "fp32") -> list[np.ndarray]:
    """The outputs for rows ``(rows, *shape)``."""
    return list(CoreMLReference(pack_program(build(make, x.shape[1:], dtype))).run({"x": x}).values())
