"""Which TensorFlow operators a stranger's graph may run: those that compute, and those that restore variables.

A graph can read and write files, call Python and open connections; loading and freezing a SavedModel runs a part of it.
So all that its signature and its restore operation reach is judged first, by name. TensorFlow's registry says which
operators keep state; of those only the ones that models are made of pass. Operators without state pass, except those
that read files or tables, or end the process.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from converters.errors import UnsupportedOperator
from converters.quiet import load_tool

__all__ = ["fix_list_batch", "reached", "refuse_operators", "with_own_functions"]

STATEFUL = frozenset(
    {
        "Assert", "Assign", "AssignVariableOp", "Case", "If", "Placeholder", "PlaceholderWithDefault", "ReadVariableOp",
        "ResourceGather", "ResourceGatherNd", "RestoreV2", "StatefulPartitionedCall", "TensorArrayV3", "VarHandleOp",
        "VarIsInitializedOp", "Variable", "VariableV2", "While",
    }
)  # fmt: skip
# Without state in the registry's sense, and yet they read files, keep tables or end the process.
UNSAFE = re.compile(
    r"Abort|Boosted|Copy|DatasetFrom|Debug|HostConst|ImmutableConst|InitializeTable|Lookup|MatchingFiles|PyFunc|Queue|"
    r"ReadFile|Reader|Register|Remote|Shard(?!ing)|.*Dataset|.*Summary|.*Table|XlaCustomCall|XlaLaunch"
)
TABLES = re.compile(r"Lookup|.*Table")
LIST_SHAPE = {"TensorListFromTensor": 1, "TensorListGetItem": 2, "TensorListReserve": 0, "TensorListStack": 1}
_NUMBERS = itertools.count()


def reached(graph: Any, starts: Iterable[str]) -> Iterator[Any]:
    """The nodes of a GraphDef on which the nodes named ``starts`` depend, and all nodes of the functions they call."""
    nodes = {node.name: node for node in graph.node}
    functions = {function.signature.name: function for function in graph.library.function}
    pending = [name.split(":")[0].removeprefix("^") for name in starts]
    seen: set[str] = set()
    called: set[str] = set()
    while pending:
        name = pending.pop()
        if name in seen or name not in nodes:
            continue
        seen.add(name)
        node = nodes[name]
        yield node
        pending.extend(each.split(":")[0].removeprefix("^") for each in node.input)
        yield from _bodies(node, functions, called)


def refuse_operators(model: str, nodes: Iterable[Any], registered: Callable[[str], Any]) -> None:
    """Raises `UnsupportedOperator` with the first operator that must not run. ``registered`` gives an operator's
    definition in this TensorFlow, or None."""
    for node in nodes:
        definition = registered(node.op)
        if definition is None:
            reason = (
                "a custom operator, which neither this TensorFlow nor a device knows; replace the layer that makes it"
            )
        elif TABLES.match(node.op):
            reason = "a lookup table, which no target can hold; look words up before the model and give it numbers"
        elif node.op in STATEFUL or (not definition.is_stateful and not UNSAFE.match(node.op)):
            continue
        else:
            reason = (
                "it keeps state, draws at random, or reaches outside the model; export the model for inference only"
            )
        raise UnsupportedOperator(node.op, f"{model}, node {node.name}: {reason}")


def with_own_functions(graph: Any) -> Any:
    """A copy of a GraphDef with only the functions that it calls, under names that this process has not seen.

    TensorFlow keeps functions by name for the whole process, and refuses another one under a known name: a second
    model of the same origin, or the same model specialized for another batch.
    """
    result = type(graph)()
    result.CopyFrom(graph)
    called: set[str] = set()
    functions = {function.signature.name: function for function in graph.library.function}
    for node in graph.node:
        list(_bodies(node, functions, called))
    number = next(_NUMBERS)
    names = {name: f"{name}_edgeship_{number}" for name in called}
    kept = [function for function in result.library.function if function.signature.name in called]
    for function in kept:
        function.signature.name = names[function.signature.name]
    for node in (*result.node, *(inner for function in kept for inner in function.node_def)):
        node.op = names.get(node.op, node.op)
        for value in node.attr.values():
            for each in (value.func, *value.list.func) if value.HasField("func") else value.list.func:
                each.name = names.get(each.name, each.name)
    library = [type(function).FromString(function.SerializeToString()) for function in kept]
    del result.library.function[:], result.library.gradient[:]
    result.library.function.extend(library)
    return result


def fix_list_batch(graph: Any, batch: int) -> None:
    """Write ``batch`` into the element shapes of tensor lists that begin with an open size, in place.

    A recurrent layer that was traced for any batch keeps its steps in lists of ``[-1, units]``, which no shape
    inference narrows, and TFLite refuses an open size there.
    """
    tf = load_tool("tensorflow")
    for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
        constants = {node.name: node for node in nodes if node.op == "Const"}
        for node in nodes:
            place = LIST_SHAPE.get(node.op)
            shape = None if place is None else constants.get(node.input[place].split(":")[0])
            if shape is None:
                continue
            sizes = tf.make_ndarray(shape.attr["value"].tensor)
            if sizes.ndim == 1 and sizes[0] == -1:
                sizes[0] = batch
                shape.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(sizes))


def _bodies(node: Any, functions: dict[str, Any], called: set[str]) -> Iterator[Any]:
    pending = list(_calls(node))
    while pending:
        name = pending.pop()
        if name in called or name not in functions:
            continue
        called.add(name)
        for inner in functions[name].node_def:
            if inner.op not in functions:
                yield inner
            pending.extend(_calls(inner))


def _calls(node: Any) -> Iterator[str]:
    yield node.op  # an older way to call a function: its name is the operator
    for value in node.attr.values():
        if value.HasField("func"):
            yield value.func.name
        yield from (each.name for each in value.list.func)
