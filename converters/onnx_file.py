"""What to know of an ONNX file before anything is done with it: its opset, its domains, its nested graphs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from converters.errors import ConversionFailed, UnsupportedModel, UnsupportedOperator
from converters.quiet import load_tool, quiet

__all__ = ["DOMAINS", "graphs_of", "inlined", "nodes_of", "opset_of", "refuse_foreign_domains", "upgraded"]

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})


def graphs_of(graph: Any) -> Iterator[Any]:
    """The graph, then the bodies of its branches and loops, at every depth."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graphs_of(attribute.g)
            for each in attribute.graphs:
                yield from graphs_of(each)


def nodes_of(graph: Any) -> Iterator[Any]:
    """Every node, those in branches and loops too."""
    for each in graphs_of(graph):
        yield from each.node


def opset_of(model: Any) -> int:
    """The version of the standard operators that the file is written in. Raises `UnsupportedModel` if it says none."""
    versions = [each.version for each in model.opset_import if each.domain in ("", "ai.onnx")]
    if not versions:
        raise UnsupportedModel("the ONNX file imports no opset of the standard operators; export the model again")
    return int(versions[0])


def inlined(model: Any) -> Any:
    """The model without functions of its own (the PyTorch exporter writes some): each call becomes its nodes."""
    if not model.functions:
        return model
    onnx_inliner = load_tool("onnx.inliner")
    with quiet("inlining the ONNX model's functions"):
        return onnx_inliner.inline_local_functions(model)


def refuse_foreign_domains(model: Any) -> None:
    """Raises `UnsupportedOperator` with the first operator that is neither standard nor a function of the file."""
    own = {(function.domain, function.name) for function in model.functions}
    for node in nodes_of(model.graph):
        if node.domain in DOMAINS or (node.domain, node.op_type) in own:
            continue
        if node.domain == "com.microsoft":
            way = (
                "it is one of ONNX Runtime's own, which its optimizers write; "
                "give the model as it was exported, before any optimizer or quantizer"
            )
        else:
            way = "export the model so that it uses standard operators, or replace the layer that makes it"
        raise UnsupportedOperator(
            f"{node.domain}.{node.op_type}",
            f"a custom operator (node {node.name or node.output[0]}), which no device here can run; {way}",
        )


def upgraded(model: Any, minimum: int, opset: int) -> Any:
    """The model itself if its opset is at least ``minimum``; else the same model written in ``opset``.

    Raises `UnsupportedModel` where onnx.version_converter cannot translate an operator.
    """
    current = opset_of(model)
    if current >= minimum:
        return model
    converter = load_tool("onnx.version_converter")
    try:
        with quiet(f"upgrading the ONNX model from opset {current}"):
            return converter.convert_version(model, opset)
    except ConversionFailed as error:
        raise UnsupportedModel(
            f"the ONNX file is written in opset {current}, and it cannot be brought to opset {opset}: {error}; "
            f"export the model again in opset {minimum} or later"
        ) from error
