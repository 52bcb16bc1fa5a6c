"""The table of MIL operators: each takes `Operands` and returns the operator's outputs in order."""

from __future__ import annotations

from converters.mil.control import CONTROL
from converters.mil.convolution import CONVOLUTION
from converters.mil.elementwise import ELEMENTWISE
from converters.mil.indexing import INDEXING
from converters.mil.operands import Function
from converters.mil.products import NORMALIZATION, PRODUCTS
from converters.mil.quantization import QUANTIZATION
from converters.mil.recurrent import RECURRENT
from converters.mil.reductions import REDUCTIONS
from converters.mil.resizing import RESIZING
from converters.mil.shapes import SHAPES

__all__ = ["OPERATORS"]

OPERATORS: dict[str, Function] = {
    **CONTROL,
    **CONVOLUTION,
    **ELEMENTWISE,
    **INDEXING,
    **NORMALIZATION,
    **PRODUCTS,
    **QUANTIZATION,
    **RECURRENT,
    **REDUCTIONS,
    **RESIZING,
    **SHAPES,
}
