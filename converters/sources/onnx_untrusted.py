"""A stranger's ONNX file as one self-contained model: capped, with its own external data inside, nothing custom.

External data is read by us, from inside the model's folder only, and never by ONNX Runtime, which follows hard links.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from converters.errors import ModelUnreadable, UnsupportedModel, UnsupportedOperator
from converters.onnx_file import DOMAINS, inlined, nodes_of
from converters.quiet import load_tool
from converters.sources.files import MAX_MODEL_BYTES, read_inside, read_model
from edge_runtime.backends.onnx_domains import check_operators
from edge_runtime.errors import ModelRejected

__all__ = ["load_untrusted", "tensors_of"]

EXTERNAL = 1  # TensorProto.DataLocation
MICROSOFT = "com.microsoft"  # ONNX Runtime's own operators; a device runs some of them


def load_untrusted(path: Path) -> tuple[Any, bytes]:
    """The model and its bytes: the file's own, unless data of other files or its own functions had to be put in.

    Raises `ModelUnreadable` for damage, size, and references out of the folder, `UnsupportedOperator` for operators
    of custom domains, `UnsupportedModel` for what a device would refuse otherwise.
    """
    onnx = load_tool("onnx")
    data = read_model(path)
    model = _parsed(path, data)
    total = len(data)
    external = [tensor for tensor in tensors_of(model) if tensor.data_location == EXTERNAL or tensor.external_data]
    for tensor in external:
        total += _put_inside(path, tensor)
        if total > MAX_MODEL_BYTES:
            raise UnsupportedModel(
                f"{path} has more than {MAX_MODEL_BYTES} bytes with its external data, which one ONNX file cannot hold"
            )
    _refuse_custom(path, model)
    has_functions = bool(model.functions)
    model = inlined(model)
    changed = _without_default_inputs(model)
    if external or has_functions or changed:
        data = model.SerializeToString(deterministic=True)
    try:
        check_operators(data)
    except ModelRejected as error:
        raise UnsupportedModel(f"{path}: {error}; a device refuses such a file") from error
    return onnx.load_from_string(data), data


def tensors_of(model: Any) -> Iterator[Any]:
    """Every TensorProto of a model: initializers and attributes, in the graph, its branches and its functions."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        for attribute in function.attribute_proto:
            yield from _attribute_tensors(attribute)
        for node in function.node:
            for attribute in node.attribute:
                yield from _attribute_tensors(attribute)


def _graph_tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from _attribute_tensors(attribute)


def _attribute_tensors(attribute: Any) -> Iterator[Any]:
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
        yield from (sparse.values, sparse.indices)
    if attribute.HasField("g"):
        yield from _graph_tensors(attribute.g)
    for graph in attribute.graphs:
        yield from _graph_tensors(graph)


def _parsed(path: Path, data: bytes) -> Any:
    onnx = load_tool("onnx")
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_from_string(data)
    except DecodeError as error:
        raise ModelUnreadable(f"{path} is not an ONNX model, or damaged: {error}") from error
    if not model.HasField("graph") or not model.ir_version:
        raise ModelUnreadable(f"{path} is not an ONNX model: it holds no graph")
    return model


def _put_inside(path: Path, tensor: Any) -> int:
    """Replace the reference to another file by its bytes; the number of bytes."""
    about = {entry.key: entry.value for entry in tensor.external_data}
    name = tensor.name or "without a name"
    try:
        offset = int(about.get("offset", 0))
        length = int(about["length"]) if "length" in about else None
    except ValueError as error:
        raise ModelUnreadable(f"{path}, tensor {name}: its external data has no number where one must be") from error
    if "location" not in about:
        raise ModelUnreadable(f"{path}, tensor {name}: its external data has no location")
    try:
        content = read_inside(path.parent, about["location"], offset=offset, length=length)
    except ModelUnreadable as error:
        raise ModelUnreadable(f"{path}, external data of tensor {name}: {error}") from error
    del tensor.external_data[:]
    tensor.ClearField("data_location")
    tensor.raw_data = content
    return len(content)


def _refuse_custom(path: Path, model: Any) -> None:
    own = {(function.domain, function.name) for function in model.functions}
    functions = (node for function in model.functions for node in function.node)
    for node in (*nodes_of(model.graph), *functions):
        if node.domain not in (*DOMAINS, MICROSOFT) and (node.domain, node.op_type) not in own:
            raise UnsupportedOperator(
                f"{node.domain}.{node.op_type}",
                f"{path}: an operator of the custom domain {node.domain!r}, whose code no device has; replace the "
                "layer that makes it by standard operators and export again",
            )


def _without_default_inputs(model: Any) -> bool:
    """Old files (IR version 3) list their weights among the inputs; whether some were taken off the list."""
    weights = {each.name for each in model.graph.initializer}
    inputs = [each for each in model.graph.input if each.name not in weights]
    if len(inputs) == len(model.graph.input):
        return False
    copies = [type(each).FromString(each.SerializeToString()) for each in inputs]
    del model.graph.input[:]
    model.graph.input.extend(copies)
    model.ir_version = max(model.ir_version, 4)  # from which on weights need not be inputs
    return True
