"""Which operators of an ONNX model its converters do not know: told before any work starts.

What they know by name, they can still refuse for its attributes or shapes; that is found while converting.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from converters.errors import UnsupportedOperator
from converters.foreign.onnx_model import for_one_example, refuse_scalars
from converters.onnx_file import nodes_of
from converters.quiet import load_tool
from edge_runtime.bundle import TensorSpec

__all__ = ["Unsupported", "refuse_unsupported", "unsupported_operators", "way_around"]

# The pinned onnx2tf's own table; a test of its environment compares the two.
KNOWN_TO_ONNX2TF = Path(__file__).resolve().parent / "pins" / "onnx2tf-operators.txt"
CONTROL_FLOW = {"If", "Loop", "Scan"}
RECURRENT = {"GRU", "RNN"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsupported:
    """An operator, with its domain unless it is ONNX's own (``ai.onnx.ml::Scaler``); ``count`` nodes are of it."""

    operator: str
    count: int
    way_around: str


def unsupported_operators(
    model: bytes,
    target: str,
    inputs: tuple[TensorSpec, ...],
    *,
    fixed_axes: Mapping[str, int] | None = None,
) -> tuple[Unsupported, ...]:
    """What the route from ONNX to ``tflite`` or ``coreml`` cannot do; converts nothing. Empty for ``onnx``.

    The model is brought to one example first (`for_one_example`, whose errors it raises), since operators that only
    compute shapes disappear then. Raises `UnsupportedModel` too for an input without axes, if no operator is at fault.
    """
    if target == "onnx":
        return ()
    found = _unsupported(for_one_example(model, inputs, target=target, fixed_axes=fixed_axes), target)
    if not found:
        refuse_scalars(target, inputs)
    return found


def refuse_unsupported(model: Any, target: str) -> None:
    """Raises `UnsupportedOperator` for the first operator of a `ModelProto` that the target's route cannot do."""
    for each in _unsupported(model, target):
        tool = "onnx2tf" if target == "tflite" else "onnx2coreml"
        raise UnsupportedOperator(each.operator, f"{tool} cannot convert it to {target}; {each.way_around}")


def way_around(operator: str, target: str) -> str:
    """What somebody can do whose model has an operator that the route to ``target`` does not know."""
    if operator.startswith("ai.onnx.ml::"):
        return "distil the model into a network (edgeship-convert distill), or leave it on the target onnx"
    if operator in CONTROL_FLOW:
        return (
            "export the model without branches and loops, with the input that decides them made a constant, or leave "
            "it on the target onnx"
        )
    if operator in RECURRENT and target == "coreml":
        return "use an LSTM, or convert the PyTorch or Keras model that it was exported from"
    return (
        "compute it from other operators before exporting, or convert the PyTorch or Keras model that it was exported "
        f"from, or leave {target} out of the targets"
    )


def _unsupported(model: Any, target: str) -> tuple[Unsupported, ...]:
    known = _known(target)
    counts = Counter(_key(node) for node in nodes_of(model.graph))
    return tuple(
        Unsupported(operator=operator, count=count, way_around=way_around(operator, target))
        for operator, count in sorted(counts.items())
        if operator not in known
    )


@cache
def _known(target: str) -> frozenset[str]:
    if target == "tflite":
        # It lowers branches and loops to custom operators, which no engine on a device has.
        return frozenset(KNOWN_TO_ONNX2TF.read_text(encoding="utf-8").split()) - CONTROL_FLOW
    # Its clean-up passes remove the others before it looks.
    return frozenset({*load_tool("onnx2coreml").supported_ops(), "Constant", "Dropout"})


def _key(node: Any) -> str:
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"
