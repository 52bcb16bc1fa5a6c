"""Rewriting rules for frozen graphs. Each is exact up to float rounding, and says in its docstring what it does.

A rule takes the editor and a node, and returns whether it changed the graph.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from converters.sources.graph_editor import GraphEditor

__all__ = ["RULES"]

UNARY = {"Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Sigmoid", "Tanh", "Softplus", "Abs", "Neg", "Exp"}
BINARY = {"Mul", "Add", "AddV2", "Sub", "Maximum", "Minimum", "BiasAdd"}
WEIGHTED = {"Conv2D", "DepthwiseConv2dNative", "MatMul"}


def _cancel(graph: GraphEditor, node: Any) -> bool:
    """ExpandDims(Squeeze(x, a), a) → x"""
    if node.op != "ExpandDims":
        return False
    squeeze, axis = graph.input(node, 0), graph.constant(graph.input(node, 1))
    if squeeze is None or axis is None or _axis(graph, squeeze) is None:
        return False
    rank = graph.ranks[squeeze.name]
    if rank is None or int(axis) % (rank + 1) != _axis(graph, squeeze):
        return False
    graph.replace(node, "Identity", [squeeze.input[0]], T=node.attr["T"])
    return True


def _sink(graph: GraphEditor, node: Any) -> bool:
    """f(Squeeze(x), Squeeze(y) or constant) → Squeeze(f(x, y or constant))"""
    if node.op not in UNARY | BINARY or node.name in graph.outputs:
        return False
    inputs = [graph.resolve(name) for name in node.input]
    squeezes = [each for each in inputs if each is not None and _axis(graph, each) is not None]
    if not squeezes or len({_axis(graph, each) for each in squeezes}) != 1:
        return False
    axis, rank = _axis(graph, squeezes[0]), graph.ranks[squeezes[0].name]
    if axis is None or rank is None:
        return False
    wide_inputs = []
    for name, each in zip(node.input, inputs, strict=True):
        if each is not None and _axis(graph, each) is not None:
            wide_inputs.append(each.input[0])
            continue
        value = graph.constant(each)
        if value is None or not _broadcasts_past(value.shape, axis, rank):
            return False
        wide_inputs.append(name)
    wide = graph.tf.compat.v1.NodeDef()
    wide.CopyFrom(node)
    wide.name = graph.fresh(f"{node.name}/wide")
    del wide.input[:]
    wide.input.extend(wide_inputs)
    graph.nodes[wide.name] = wide
    graph.ranks[wide.name] = rank + 1
    dims = graph.tf.compat.v1.AttrValue()
    dims.list.i.append(axis)
    graph.replace(node, "Squeeze", [wide.name], T=node.attr["T"], squeeze_dims=dims)
    return True


def _spell_erfc(graph: GraphEditor, node: Any) -> bool:
    """Erfc(x) → 1 − Erf(x), and Erfc(−x·c) → 1 + Erf(x·c): no target has Erfc, which exact GELU is made of"""
    if node.op != "Erfc":
        return False
    kind = {"T": node.attr["T"]}
    product, source, sign = graph.input(node, 0), node.input[0], "Sub"
    negation = graph.input(product, 0) if product is not None and product.op == "Mul" else product
    if negation is not None and negation.op == "Neg":
        source, sign = negation.input[0], "AddV2"
        if product is not None and negation is not product:
            source = graph.add_node(f"{node.name}/scaled", "Mul", [source, product.input[1]], node, **kind)
    erf = graph.add_node(f"{node.name}/erf", "Erf", [source], node, **kind)
    one = graph.add_constant(f"{node.name}/one", np.ones((), graph.tf.as_dtype(kind["T"].type).as_numpy_dtype))
    graph.replace(node, sign, [one, erf], **kind)
    return True


def _scale_weights(graph: GraphEditor, node: Any) -> bool:
    """Mul(conv(x, W), s) → conv(x, W·s)"""
    operands = _operands(graph, node, {"Mul"})
    if operands is None or operands[0].op not in WEIGHTED:
        return False
    weighted, scale = operands
    weights = graph.constant(graph.input(weighted, 1))
    if weights is None or not graph.used_once(weighted):
        return False
    if weighted.op == "DepthwiseConv2dNative":
        if scale.size == weights.shape[2] * weights.shape[3]:
            scale = scale.reshape(weights.shape[2:])
        elif scale.size != 1:
            return False
    if weighted.op == "MatMul" and weighted.attr["transpose_b"].b:
        scale = scale.reshape(-1, 1)
    product = (weights.astype(np.float64) * scale.astype(np.float64)).astype(weights.dtype)
    if product.shape != weights.shape:
        return False
    name = graph.add_constant(f"{weighted.name}/folded", product)
    graph.set_inputs(weighted, [weighted.input[0], name])
    graph.replace(node, "Identity", [weighted.name], T=node.attr["T"])
    return True


def _to_bias(graph: GraphEditor, node: Any) -> bool:
    """Add(conv(x), b) → BiasAdd(conv(x), b)"""
    operands = _operands(graph, node, {"Add", "AddV2", "Sub"})
    if operands is None or operands[0].op not in WEIGHTED:
        return False
    weighted, value = operands
    if node.op == "Sub":
        if graph.constant(graph.input(node, 1)) is None:  # constant minus convolution
            return False
        value = -value
    weights = graph.constant(graph.input(weighted, 1))
    channels = _channels(weighted, weights)
    if channels is None or value.size not in (1, channels):
        return False
    name = graph.add_constant(f"{node.name}/bias", np.broadcast_to(value, (channels,)).copy())
    graph.replace(node, "BiasAdd", [weighted.name, name], T=node.attr["T"])
    return True


def _merge_bias(graph: GraphEditor, node: Any) -> bool:
    """BiasAdd or Add(BiasAdd(x, b), c) → BiasAdd(x, b + c)"""
    operands = _operands(graph, node, {"BiasAdd", "Add", "AddV2"})
    if operands is None or operands[0].op != "BiasAdd":
        return False
    inner, value = operands
    bias = graph.constant(graph.input(inner, 1))
    if bias is None or value.size not in (1, bias.size) or not graph.used_once(inner):
        return False
    name = graph.add_constant(f"{node.name}/bias", bias + value.reshape(-1))
    graph.replace(node, "BiasAdd", [inner.input[0], name], T=node.attr["T"])
    return True


def _scale_bias(graph: GraphEditor, node: Any) -> bool:
    """Mul(BiasAdd(conv(x, W), b), s) → BiasAdd(Mul(conv(x, W), s), b·s)"""
    operands = _operands(graph, node, {"Mul"})
    if operands is None or operands[0].op != "BiasAdd":
        return False
    inner, scale = operands
    weighted, bias = graph.input(inner, 0), graph.constant(graph.input(inner, 1))
    if weighted is None or weighted.op not in WEIGHTED or bias is None or not graph.used_once(inner):
        return False
    if scale.size not in (1, bias.size) or not graph.used_once(weighted):
        return False
    scale_name = graph.add_constant(f"{node.name}/scale", scale.reshape(-1) if scale.size > 1 else scale.reshape(()))
    bias_name = graph.add_constant(f"{node.name}/bias", bias * scale.reshape(-1))
    scaled = graph.add_node(f"{node.name}/scaled", "Mul", [weighted.name, scale_name], node, T=node.attr["T"])
    graph.replace(node, "BiasAdd", [scaled, bias_name], T=node.attr["T"])
    return True


def _axis(graph: GraphEditor, node: Any) -> int | None:
    """The one axis, counted from the front, that a Squeeze removes; None for any other node."""
    rank = graph.ranks.get(node.name)
    if node.op != "Squeeze" or rank is None:
        return None
    dims = list(node.attr["squeeze_dims"].list.i)
    return int(dims[0]) % (rank + 1) if len(dims) == 1 else None


def _operands(graph: GraphEditor, node: Any, kinds: set[str]) -> tuple[Any, np.ndarray] | None:
    """(live input, constant per channel) of a binary node whose constant varies along the last axis only."""
    if node.op not in kinds or len(node.input) != 2:
        return None
    if _channels_first(node):
        return None
    first, second = graph.input(node, 0), graph.input(node, 1)
    for live, other in ((first, second), (second, first)):
        value = graph.constant(other)
        if value is None or live is None or live.op == "Const" or value.dtype.kind != "f":
            continue
        if value.size != 1 and value.shape[-1] != value.size:
            return None
        if _channels_first(live):
            return None
        return live, value
    return None


def _channels(node: Any, weights: np.ndarray | None) -> int | None:
    if weights is None:
        return None
    if node.op == "DepthwiseConv2dNative":
        return int(weights.shape[2] * weights.shape[3])
    return int(weights.shape[0] if node.op == "MatMul" and node.attr["transpose_b"].b else weights.shape[-1])


def _broadcasts_past(shape: tuple[int, ...], axis: int, rank: int) -> bool:
    """Whether a constant broadcast against rank ``rank`` means the same once an axis of size 1 is put at ``axis``."""
    behind = rank - axis  # axes behind the new one; constants align from the right
    return len(shape) <= rank and all(size == 1 for size in shape[: max(0, len(shape) - behind)])


def _channels_first(node: Any) -> bool:
    # Reading an attribute that is not there would add it, so it is asked for first.
    return "data_format" in node.attr and node.attr["data_format"].s == b"NCHW"


RULES = (_spell_erfc, _cancel, _sink, _scale_weights, _to_bias, _merge_bias, _scale_bias)
