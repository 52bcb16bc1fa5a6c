"""The support matrix as rows: every source kind × target, with tools and precisions, or the way around. Pure."""

from __future__ import annotations

from typing import Any

from converters.routes import NO_ROUTE, ROUTES
from converters.targets import PRECISIONS

__all__ = ["PRECISIONS_OF", "matrix_rows"]

# Core ML has no dynamic-range mode: weights are stored in INT8, or activations are quantized too.
PRECISIONS_OF = {
    "onnx": PRECISIONS,
    "tflite": PRECISIONS,
    "coreml": tuple(precision for precision in PRECISIONS if precision != "int8-dynamic"),
}


def matrix_rows() -> list[dict[str, Any]]:
    """One dictionary a pair: source, target, tools, environment, precisions, instead."""
    rows: list[dict[str, Any]] = [
        {
            "source": route.source,
            "target": route.target,
            "tools": list(route.tools) or ["passed through"],
            "environment": route.environment,
            "precisions": list(PRECISIONS_OF[route.target]),
            "instead": "",
        }
        for route in ROUTES
    ]
    rows += [
        {
            "source": source,
            "target": target,
            "tools": [],
            "environment": None,
            "precisions": [],
            "instead": instead.format(source=source, target=target),
        }
        for (source, target), instead in NO_ROUTE.items()
    ]
    return rows
