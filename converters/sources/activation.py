"""What a Keras model does last to its first output: whether it gives probabilities where logits are needed."""

from __future__ import annotations

from typing import Any

from converters.quiet import load_tool

__all__ = ["graph_of", "last_activation"]

SQUASHING = {"softmax", "sigmoid"}  # by name of an activation, a layer's type or an operation's type, in lower case
UNCHANGING = {"identity", "reshape", "flatten", "squeeze", "dropout", "cast"}


def graph_of(model: Any) -> Any:
    """The functional model inside a `keras.Sequential`; any other model itself. None if it is not built."""
    return model._functional if isinstance(model, load_tool("keras").Sequential) else model


def last_activation(model: Any) -> tuple[str, str] | None:
    """(``softmax`` or ``sigmoid``, name of the layer) if the first output is one's result, else None.

    Looks into nested models, and past what keeps the values as they are. What the model computes in other words (an
    exponential divided by its sum) is not seen here.
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
            return kind, str(operation.name)
        sources = operation._inbound_nodes[node_index].input_tensors
        if kind not in UNCHANGING or len(sources) != 1:
            return None
        tensor = sources[0]
