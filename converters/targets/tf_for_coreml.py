"""What stands between a frozen TensorFlow graph and coremltools: names that clash, and operators that it lacks."""

from __future__ import annotations

import hashlib
from itertools import takewhile
from typing import Any

from converters.mil.naming import LOOP_MARK
from converters.quiet import load_tool
from converters.sources.tfgraph import FrozenGraph
from converters.targets.tf_calls import inline_calls
from converters.targets.tf_loops import drop_counters

__all__ = ["prepared", "register_operators"]


def prepared(graph: FrozenGraph) -> FrozenGraph:
    """The same graph with names that nothing else in this process bears.

    TensorFlow keeps the functions that loops call in one table for the process, by name, and refuses two of a name; and
    it tells nodes apart without looking at case, so that an output ``cumsum`` of a node ``Cumsum`` would be renamed.
    """
    tf = load_tool("tensorflow")
    graph_def = tf.compat.v1.GraphDef()
    graph_def.CopyFrom(graph.graph_def)
    inline_calls(graph_def)
    mark = hashlib.sha256(graph_def.SerializeToString(deterministic=True)).hexdigest()[:12]
    functions = {
        each.signature.name: f"{LOOP_MARK}_{mark}_{index}" for index, each in enumerate(graph_def.library.function)
    }
    border = {*graph.inputs, *graph.outputs}
    lowered = {name.lower() for name in border}
    nodes = {
        node.name: f"inner/{node.name}"
        for node in graph_def.node
        if node.name not in border and node.name.lower() in lowered
    }
    for node in graph_def.node:
        node.name = nodes.get(node.name, node.name)
        for index, name in enumerate(node.input):
            node.input[index] = _renamed(name, nodes)
        _rename_calls(node, functions)
    for function in graph_def.library.function:
        function.signature.name = functions[function.signature.name]
        _shorten(function)
        for node in function.node_def:
            _rename_calls(node, functions)
    for gradient in graph_def.library.gradient:
        gradient.function_name = functions.get(gradient.function_name, gradient.function_name)
        gradient.gradient_func = functions.get(gradient.gradient_func, gradient.gradient_func)
    drop_counters(graph_def)
    return FrozenGraph(graph_def=graph_def, inputs=graph.inputs, outputs=graph.outputs)


def _renamed(name: str, nodes: dict[str, str]) -> str:
    control, plain = name.startswith("^"), name.removeprefix("^")
    node, colon, index = plain.partition(":")  # inside functions the result's name stands between two colons
    return f"{'^' if control else ''}{nodes.get(node, node)}{colon}{index}"


def _shorten(function: Any) -> None:
    """Take from the names of a function's nodes the scopes that all share: they hold counters of the process."""
    names = [node.name for node in function.node_def]
    scope = "/".join(_common([name.split("/")[:-1] for name in names]))
    if not scope:
        return
    short = {name: name.removeprefix(f"{scope}/") for name in names}
    for node in function.node_def:
        node.name = short[node.name]
        for index, name in enumerate(node.input):
            node.input[index] = _renamed(name, short)
    for key, name in list(function.ret.items()):
        function.ret[key] = _renamed(name, short)
    for key, name in list(function.control_ret.items()):
        function.control_ret[key] = short.get(name, name)


def _common(paths: list[list[str]]) -> list[str]:
    """What all paths begin with."""
    levels = takewhile(lambda level: len(set(level)) == 1, zip(*paths, strict=False))
    return [level[0] for level in levels]


def _rename_calls(node: Any, functions: dict[str, str]) -> None:
    node.op = functions.get(node.op, node.op)
    for attribute in node.attr.values():
        for called in (attribute.func, *attribute.list.func) if _has_function(attribute) else ():
            called.name = functions.get(called.name, called.name)


def _has_function(attribute: Any) -> bool:
    # Reading a field that is not there would set it in a oneof.
    kind = attribute.WhichOneof("value")
    return kind == "func" or (kind == "list" and len(attribute.list.func) > 0)


def register_operators() -> None:
    """Teach coremltools the TensorFlow operators that Keras layers become and that it lacks. Safe to call again."""
    from coremltools.converters.mil import Builder as mb  # noqa: N813 - the name that coremltools uses
    from coremltools.converters.mil.frontend.tensorflow.tf_op_registry import _TF_OPS_REGISTRY, register_tf_op

    def Expm1(context: Any, node: Any) -> None:  # noqa: N802 - registered by its name
        context.add(node.name, mb.sub(x=mb.exp(x=context[node.inputs[0]]), y=1.0, name=node.name))

    def Rint(context: Any, node: Any) -> None:  # noqa: N802
        context.add(node.name, mb.round(x=context[node.inputs[0]], name=node.name))

    def Roll(context: Any, node: Any) -> None:  # noqa: N802
        x, shifts, axes = (context[name] for name in node.inputs)
        pairs = list(zip(shifts.val.reshape(-1), axes.val.reshape(-1), strict=True))
        for shift, axis in pairs:
            size = int(x.shape[axis])
            split = (size - int(shift)) % size
            if split:
                first, second = mb.split(x=x, split_sizes=[split, size - split], axis=int(axis))
                x = mb.concat(values=[second, first], axis=int(axis))
        context.add(node.name, mb.identity(x=x, name=node.name))

    for function in (Expm1, Rint, Roll):
        if function.__name__ not in _TF_OPS_REGISTRY:
            register_tf_op(function)
