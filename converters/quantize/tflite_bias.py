"""Bias correction in a float TFLite model, before a tool rounds its weights."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from converters.quantize.affine import quantize_weight
from converters.quantize.correction import bias_shift
from converters.quantize.tflite_graph import tensor_name
from converters.targets.tflite import operator_names

__all__ = ["correct_biases"]

OUTPUT_AXIS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}
BIAS_INPUT = 2


def correct_biases(model: Any, names: Collection[str], means: Mapping[tuple[str, int], np.ndarray]) -> None:
    """Change the unpacked ``model``: units of those names get a bias that makes up for the rounding of their weights.

    ``means`` are those of their inputs' last axis, by tensor name. The rounding is that of the tool: symmetric, by
    channel, to the largest weight.
    """
    kinds, graph = operator_names(model), model.subgraphs[0]
    for operator in graph.operators:
        kind = kinds[operator.opcodeIndex]
        if kind not in OUTPUT_AXIS or tensor_name(graph.tensors[operator.outputs[0]]) not in names:
            continue
        read = means.get((tensor_name(graph.tensors[operator.inputs[0]]), -1))
        if read is None or len(operator.inputs) <= BIAS_INPUT or operator.inputs[BIAS_INPUT] < 0:
            continue
        bias = graph.tensors[operator.inputs[BIAS_INPUT]]
        stored = model.buffers[bias.buffer].data
        if stored is None or not len(stored):
            continue
        weight = _array(model, graph.tensors[operator.inputs[1]])
        shift = _shift(kind, weight, read)
        if shift is None:
            continue
        # Zero biases are often stored once for several operators, so that each needs a tensor of its own.
        buffer = copy.copy(model.buffers[bias.buffer])
        buffer.data = np.frombuffer((_array(model, bias) + shift).astype("<f4").tobytes(), np.uint8)
        model.buffers.append(buffer)
        own = copy.copy(bias)
        own.buffer = len(model.buffers) - 1
        own.name = f"{tensor_name(graph.tensors[operator.outputs[0]])}/bias".encode()
        graph.tensors.append(own)
        operator.inputs = [*operator.inputs[:BIAS_INPUT], len(graph.tensors) - 1, *operator.inputs[BIAS_INPUT + 1 :]]


def _shift(kind: str, weight: np.ndarray, read: np.ndarray) -> np.ndarray | None:
    outputs = OUTPUT_AXIS[kind]
    codes, scales = quantize_weight(weight, outputs)
    error = weight - codes * np.expand_dims(scales, tuple(at for at in range(weight.ndim) if at != outputs))
    channels = weight.shape[outputs]
    if kind == "DEPTHWISE_CONV_2D":
        return bias_shift(error, read, outputs=outputs, inputs=None, groups=len(read))
    if len(read) % weight.shape[-1] or channels % (len(read) // weight.shape[-1]):
        return None
    groups = len(read) // weight.shape[-1]
    return bias_shift(error, read, outputs=outputs, inputs=weight.ndim - 1, groups=groups)


def _array(model: Any, tensor: Any) -> np.ndarray:
    data = np.frombuffer(bytes(model.buffers[tensor.buffer].data), "<f4")
    return data.reshape(tensor.shape)
