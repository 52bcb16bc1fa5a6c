"""Multiply-adds of a Keras model for one row: what an estimate of latency starts from."""

from __future__ import annotations

import math
from typing import Any

from converters.errors import UnsupportedModel
from converters.quiet import load_tool

__all__ = ["count_macs"]


def count_macs(model: Any) -> int:
    """Multiply-adds of convolutions and dense layers of a built functional model, for one row.

    Element-wise layers, pooling and normalization are not counted, as published counts leave them out. Raises
    `UnsupportedModel` for a layer with a kernel that this does not know (recurrent layers, attention).
    """
    keras = load_tool("keras")
    return sum(_layer(layer, keras) for layer in model._flatten_layers() if not isinstance(layer, keras.Model))


def _layer(layer: Any, keras: Any) -> int:
    layers = keras.layers
    if isinstance(layer, layers.Dense):
        return _size(layer.output.shape) * int(layer.kernel.shape[0])
    if isinstance(layer, layers.SeparableConv1D | layers.SeparableConv2D):
        depth = math.prod(int(size) for size in layer.depthwise_kernel.shape)
        point = math.prod(int(size) for size in layer.pointwise_kernel.shape)
        return _positions(layer) * (depth + point)
    convolutions = (
        layers.Conv1D, layers.Conv2D, layers.Conv3D, layers.DepthwiseConv1D, layers.DepthwiseConv2D
    )  # fmt: skip
    if isinstance(layer, convolutions) and not isinstance(layer, layers.Conv1DTranspose | layers.Conv2DTranspose):
        return _positions(layer) * math.prod(int(size) for size in layer.kernel.shape)
    if isinstance(layer, layers.Embedding) or all(len(weight.shape) < 2 for weight in layer.weights):
        return 0
    raise UnsupportedModel(
        f"{layer.name} is a {type(layer).__name__}, whose multiply-adds are not counted, so no latency can be estimated"
    )


def _positions(layer: Any) -> int:
    shape = tuple(layer.output.shape)
    spatial = shape[1:-1] if getattr(layer, "data_format", "channels_last") == "channels_last" else shape[2:]
    return _size((None, *spatial))


def _size(shape: tuple[int | None, ...]) -> int:
    if any(size is None for size in shape[1:]):
        raise UnsupportedModel(f"a layer of shape {tuple(shape)} has no fixed size, so no latency can be estimated")
    return math.prod(int(size) for size in shape[1:] if size is not None)
