"""What lies between the operators of a graph of which some are quantized: codes or floats. Pure.

A convolution gives codes, as integer kernels do, or floats where nothing but operators that were left in float reads
it: to leave one in float is to spare its input from rounding too. Matrix products give floats as readily; what reads
them decides.

An operator that is left in float between quantized ones is not left alone by ONNX Runtime: its WeightBiasQuantization
rounds weights of what reads codes and gives codes, with one scale for all channels, whatever the file says; where
filters are of very different sizes, nothing is left of the answers. What such an operator gives has to be kept apart
from the codes that are made of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from converters.quantize.onnx_graph import MATRIX, SAME_VALUES, WEIGHT_INPUT, OnnxUnit, data_input, origin

__all__ = ["Between", "between"]

REQUANTIZED = frozenset({"Conv", "ConvTranspose", "Gemm"})  # by the engine, with a Relu or Clip behind them or none


@dataclass(frozen=True, slots=True)
class Between:
    """Names of tensors: those that are given as codes, and those to be kept ``apart`` from codes made of them."""

    coded: frozenset[str]
    apart: frozenset[str]


def between(graph: Any, units: Mapping[str, OnnxUnit], constants: Collection[str]) -> Between:
    """For a graph of which ``units``, by the names of their nodes, are quantized with static ranges."""
    nodes = {node.name: node for node in graph.node}
    producers = {name: node for node in graph.node for name in node.output}
    consumers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    given = {value.name for value in graph.output}

    def readers(name: str) -> Iterator[Any]:
        if name in given:
            yield None
        for node in consumers.get(name, []):
            if node.op_type in SAME_VALUES:
                yield from readers(node.output[0])
            else:
                yield node

    def left_in_float(node: Any) -> bool:
        at = None if node is None else WEIGHT_INPUT.get(node.op_type)
        return at is not None and node.name not in units and node.input[at] in constants

    here = [(nodes[name], unit) for name, unit in units.items() if name in nodes]
    ends = {nodes[unit.activation or unit.name].output[0] for node, unit in here if node.op_type not in MATRIX}
    coded = {name for name in ends if not (found := list(readers(name))) or not all(map(left_in_float, found))}
    rounded = {origin(producers, node.input[data_input(unit)]) for node, unit in here}
    apart = set()
    for node in graph.node:
        if node.op_type in REQUANTIZED and left_in_float(node) and origin(producers, node.input[0]) in coded:
            end = node.output[0]
            while len(after := consumers.get(end, [])) == 1 and after[0].op_type in ("Relu", "Clip"):
                end = after[0].output[0]
            if end in rounded:
                apart.add(end)
    return Between(frozenset(coded), frozenset(apart))
