"""Calls of functions put in place of themselves: Keras compiles grouped convolutions apart, and coremltools knows no
calls."""

from __future__ import annotations

from typing import Any

__all__ = ["inline_calls"]

CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})


def inline_calls(graph_def: Any) -> None:
    """Replace each call by the called function's nodes, in place, also calls inside those.

    A function is left as a call if one of its nodes has several outputs, whose numbers its text does not tell.
    """
    functions = {each.signature.name: each for each in graph_def.library.function}
    renamed: dict[str, str] = {}  # what reads a call's output -> what it reads instead
    waiting = list(graph_def.node)
    done: list[Any] = []
    while waiting:
        node = waiting.pop(0)
        function = functions.get(node.attr["f"].func.name) if node.op in CALLS else None
        if function is None or not _is_plain(function):
            done.append(node)
            continue
        waiting[:0] = _body(node, function, renamed)
    copies = [type(node).FromString(node.SerializeToString()) for node in done]
    for node in copies:
        for index, name in enumerate(node.input):
            node.input[index] = _followed(name, renamed)
    del graph_def.node[:]
    graph_def.node.extend(copies)


def _is_plain(function: Any) -> bool:
    """Whether every reference inside is to the first output of a node, or to an argument."""
    inputs = [name for node in function.node_def for name in node.input if not name.startswith("^")]
    return all(name.count(":") != 2 or name.endswith(":0") for name in (*inputs, *function.ret.values())) and not any(
        node.op in ("Split", "SplitV", "Unpack", "TopKV2", "If", "StatelessIf", "While", "StatelessWhile")
        for node in function.node_def
    )


def _body(call: Any, function: Any, renamed: dict[str, str]) -> list[Any]:
    given = dict(zip((each.name for each in function.signature.input_arg), call.input, strict=False))

    def outside(name: str) -> str:
        if name.startswith("^"):
            return f"^{call.name}/{name[1:]}"
        return given[name] if name in given else f"{call.name}/{name.split(':')[0]}"

    nodes = []
    for inner in function.node_def:
        node = type(inner).FromString(inner.SerializeToString())
        node.name = f"{call.name}/{inner.name}"
        for index, name in enumerate(inner.input):
            node.input[index] = outside(name)
        nodes.append(node)
    for index, result in enumerate(function.signature.output_arg):
        renamed[call.name if index == 0 else f"{call.name}:{index}"] = outside(function.ret[result.name])
    renamed[f"^{call.name}"] = f"^{nodes[-1].name}"
    return nodes


def _followed(name: str, renamed: dict[str, str]) -> str:
    plain = name.removesuffix(":0")
    while plain in renamed:
        plain = renamed[plain].removesuffix(":0")
    return plain
