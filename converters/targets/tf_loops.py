"""Loops of recurrent layers, in the form that coremltools takes them.

TensorFlow's loops carry a counter and a limit, and Keras asks for both in the condition: ``counter < limit and
time < steps``. coremltools drops counter and limit before it looks at the condition. Where ``time`` counts from a
constant to ``steps`` in steps of one, and ``steps`` is not above the limit, the first half is always true and is taken
out here; any other loop is left as it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from converters.quiet import load_tool

__all__ = ["LOOPS", "drop_counters"]

LOOPS = frozenset({"StatelessWhile", "While"})


def drop_counters(graph_def: Any) -> None:
    """Simplify the conditions of the outermost graph's loops, in place."""
    functions = {each.signature.name: each for each in graph_def.library.function}
    nodes = {node.name: node for node in graph_def.node}
    for node in graph_def.node:
        if node.op in LOOPS:
            _drop_counter(node, functions[node.attr["cond"].func.name], functions[node.attr["body"].func.name], nodes)


def _drop_counter(loop: Any, condition: Any, body: Any, nodes: dict[str, Any]) -> None:
    arguments = [each.name for each in condition.signature.input_arg]
    inside = {node.name: node for node in condition.node_def}
    both = inside.get(_node(next(iter(condition.ret.values()))))
    if both is None or both.op != "LogicalAnd":
        return
    halves = [inside.get(_node(name)) for name in both.input]
    for counter, clock in (halves, reversed(halves)):
        if counter is None or clock is None or counter.op != "Less" or clock.op != "Less":
            continue
        if list(counter.input) == arguments[:2] and _always_reached(loop, clock, inside, arguments, body, nodes):
            both.op = "Identity"
            del both.input[1:]
            both.input[0] = f"{clock.name}:z:0"
            both.attr["T"].CopyFrom(load_tool("tensorflow").compat.v1.AttrValue(type=10))  # DT_BOOL
            # A result of an Identity is named otherwise than one of a LogicalAnd.
            for key, name in list(condition.ret.items()):
                if _node(name) == both.name:
                    condition.ret[key] = f"{both.name}:output:0"
            condition.node_def.remove(counter)
            return


def _always_reached(
    loop: Any, clock: Any, inside: dict[str, Any], arguments: list[str], body: Any, nodes: dict[str, Any]
) -> bool:
    """Whether ``time < steps`` ends the loop before the limit does."""
    if clock.input[0] not in arguments:
        return False
    index = arguments.index(clock.input[0])
    steps = _constant(inside.get(_node(clock.input[1])))
    limit, start = (_constant(nodes.get(_node(loop.input[at]))) for at in (1, index))
    counted = _constant(nodes.get(_node(loop.input[0])))
    if steps is None or limit is None or start is None or counted is None:
        return False
    return steps - start <= limit - counted and _counts_by_one(body, index)


def _counts_by_one(body: Any, index: int) -> bool:
    nodes = {node.name: node for node in body.node_def}
    argument = body.signature.input_arg[index].name
    node = nodes.get(_node(body.ret[body.signature.output_arg[index].name]))
    while node is not None and node.op == "Identity":
        node = nodes.get(_node(node.input[0]))
    if node is None or node.op not in ("Add", "AddV2"):
        return False
    given = list(node.input)
    return argument in given and any(_constant(nodes.get(_node(name))) == 1 for name in given if name != argument)


def _node(name: str) -> str:
    return name.removeprefix("^").split(":")[0]


def _constant(node: Any) -> int | None:
    if node is None or node.op != "Const":
        return None
    value = np.asarray(load_tool("tensorflow").make_ndarray(node.attr["value"].tensor))
    return int(value.item()) if value.size == 1 and value.dtype.kind in "iu" else None
