"""Reading and rewriting a TensorFlow GraphDef by node name."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from converters.quiet import load_tool

__all__ = ["GraphEditor"]


class GraphEditor:
    """A GraphDef by node name, for rules to read and rewrite. Nodes without readers stay; prune them afterwards."""

    def __init__(self, graph_def: Any, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
        self.tf = load_tool("tensorflow")
        self._source = graph_def
        self.nodes = {node.name: node for node in graph_def.node}
        self.outputs = set(outputs)
        self.kept = {*inputs, *outputs}
        self.ranks = self._infer_ranks()
        self._consumers: Counter[str] | None = None  # counted when a rule asks; forgotten at every change

    def graph_def(self) -> Any:
        result = self.tf.compat.v1.GraphDef()
        result.versions.CopyFrom(self._source.versions)
        result.library.CopyFrom(self._source.library)
        for function in result.library.function:
            for argument in function.arg_attr.values():
                argument.attr.pop("_output_shapes", None)  # stale ones make TensorFlow refuse a loop's body
        names = _short_names([name for name in self.nodes if name not in self.kept], self.kept)
        for node in self.nodes.values():
            copy = result.node.add()
            copy.CopyFrom(node)
            copy.name = names.get(node.name, node.name)
            self.set_inputs(copy, [self._renamed(name, names) for name in node.input])
        return result

    def _renamed(self, name: str, names: dict[str, str]) -> str:
        """An input as it is called in the result: identities left out, control and output marks kept."""
        if name.startswith("^"):
            return "^" + names.get(name[1:], name[1:])
        node, _, output = name.partition(":")
        if output in ("", "0"):
            target = self.resolve(node)
            node = node if target is None else target.name
        return names.get(node, node) + (f":{output}" if output not in ("", "0") else "")

    # -- reading the graph -------------------------------------------------------------------------------------------

    def resolve(self, name: str) -> Any | None:
        node = self.nodes.get(name.removesuffix(":0"))
        while node is not None and node.op == "Identity" and node.name not in self.outputs:
            node = self.nodes.get(node.input[0].removesuffix(":0"))
        return node

    def input(self, node: Any, index: int) -> Any | None:
        return self.resolve(node.input[index]) if index < len(node.input) else None

    def constant(self, node: Any | None) -> np.ndarray | None:
        if node is None or node.op != "Const":
            return None
        value: np.ndarray = self.tf.make_ndarray(node.attr["value"].tensor)
        return value

    def used_once(self, node: Any) -> bool:
        """Whether one node alone reads this one."""
        if self._consumers is None:
            self._consumers = self._count_consumers()
        return node.name not in self.outputs and self._consumers[node.name] == 1

    def _count_consumers(self) -> Counter[str]:
        """Readers of each node among those that an output needs; what a rewrite left behind does not count."""
        consumers = Counter[str]()
        pending, seen = [self.nodes[name] for name in self.outputs], set(self.outputs)
        while pending:
            for name in pending.pop().input:
                target = self.resolve(name.removeprefix("^").split(":")[0])
                if target is None:
                    continue
                consumers[target.name] += 1
                if target.name not in seen:
                    seen.add(target.name)
                    pending.append(target)
        return consumers

    def _infer_ranks(self) -> dict[str, int | None]:
        """Rank of every node's first output, as TensorFlow infers it."""
        graph = self.tf.Graph()
        with graph.as_default():
            self.tf.graph_util.import_graph_def(self._source, name="")
        return {op.name: op.outputs[0].shape.rank for op in graph.get_operations() if op.outputs}

    # -- changing it -------------------------------------------------------------------------------------------------

    def fresh(self, name: str) -> str:
        candidate, number = name, 1
        while candidate in self.nodes:
            candidate, number = f"{name}_{number}", number + 1
        return candidate

    def add_constant(self, name: str, value: np.ndarray) -> str:
        node = self.tf.compat.v1.NodeDef(name=self.fresh(name), op="Const")
        tensor = self.tf.make_tensor_proto(value)
        node.attr["value"].tensor.CopyFrom(tensor)
        node.attr["dtype"].type = tensor.dtype
        self.nodes[node.name] = node
        self.ranks[node.name] = value.ndim
        return str(node.name)

    def add_node(self, name: str, op: str, inputs: list[str], like: Any, **attributes: Any) -> str:
        """A new node whose output has the rank of ``like``'s."""
        node = self.tf.compat.v1.NodeDef(name=self.fresh(name), op=op)
        node.input.extend(inputs)
        for key, value in attributes.items():
            node.attr[key].CopyFrom(value)
        self.nodes[node.name] = node
        self.ranks[node.name] = self.ranks.get(like.name)
        self._consumers = None
        return str(node.name)

    @staticmethod
    def set_inputs(node: Any, inputs: list[str]) -> None:
        del node.input[:]
        node.input.extend(inputs)

    def replace(self, node: Any, op: str, inputs: list[str], **attributes: Any) -> None:
        """Turn ``node`` into another operator under its old name, so that its consumers need no change."""
        fresh = self.tf.compat.v1.NodeDef(name=node.name, op=op)
        fresh.input.extend(inputs)
        for key, value in attributes.items():
            fresh.attr[key].CopyFrom(value)
        node.CopyFrom(fresh)
        self._consumers = None


def _short_names(names: list[str], reserved: set[str]) -> dict[str, str]:
    """Names without the scopes that all of them share; they are stored several times in every converted file."""
    result: dict[str, str] = {}
    taken = set(reserved)
    for name in names:
        parts = [part for part in name.split("/") if part not in ("ConstantFolding", "wide")]
        short = base = "/".join(parts[2:] if len(parts) > 2 else parts)
        number = 1
        while short in taken:
            short, number = f"{base}_{number}", number + 1
        taken.add(short)
        result[name] = short
    return result
