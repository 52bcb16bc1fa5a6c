"""What a model does last to its first output: whether it gives probabilities where logits are expected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from converters.quiet import load_tool

__all__ = ["graph_of", "last_activation", "last_squashing"]

# By name of an activation, a layer's type or an operator's type in any format, in lower case.
SQUASHING = {"softmax": "softmax", "sigmoid": "sigmoid", "logistic": "sigmoid"}
UNCHANGING = frozenset(
    {
        "identity", "reshape", "flatten", "squeeze", "expanddims", "expand_dims", "unsqueeze", "dropout", "cast",
        "quantize", "dequantize", "quantizelinear", "dequantizelinear",
    }
)  # fmt: skip


def last_squashing(output: str, producer: Callable[[str], tuple[str, str] | None]) -> str | None:
    """``softmax`` or ``sigmoid`` if tensor ``output`` is the result of one, else None.

    ``producer`` says which operator type makes a tensor, and from which first input. Looks past what keeps the values
    as they are; what a graph computes in other words (an exponential divided by its sum) is not seen here.
    """
    seen: set[str] = set()
    while output not in seen:  # a damaged graph may have a circle
        seen.add(output)
        found = producer(output)
        if found is None:
            return None
        kind, output = found[0].lower(), found[1]
        if kind in SQUASHING:
            return SQUASHING[kind]
        if kind not in UNCHANGING:
            return None
    return None


def graph_of(model: Any) -> Any:
    """The functional model inside a `keras.Sequential`; any other model itself. None if it is not built."""
    return model._functional if isinstance(model, load_tool("keras").Sequential) else model


def last_activation(model: Any) -> tuple[str, str] | None:
    """(``softmax`` or ``sigmoid``, name of the layer) if the first output of a Keras model is one's result, else None.

    Looks into nested models, and past what keeps the values as they are, as `last_squashing` does.
    """
    keras = load_tool("keras")
    tensor = graph_of(model).outputs[0]
    while True:
        operation, node_index, tensor_index = tensor._keras_history
        if isinstance(operation, keras.Model):
            inner = graph_of(operation)
            if not getattr(inner, "outputs", None):
                return None
            tensor = inner.outputs[tensor_index]
            continue
        kind = type(operation).__name__.lower()
        activation = getattr(operation, "activation", None)
        if activation is not None and not isinstance(operation, keras.layers.RNN):
            named = str(getattr(activation, "__name__", type(activation).__name__)).lower()
            kind = "identity" if kind == "activation" and named == "linear" else named
        if kind in SQUASHING:
            return SQUASHING[kind], str(operation.name)
        sources = operation._inbound_nodes[node_index].input_tensors
        if kind not in UNCHANGING or len(sources) != 1:
            return None
        tensor = sources[0]
