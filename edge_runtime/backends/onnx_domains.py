"""Which operators an ONNX file uses, read from its protobuf without the onnx package. Pure.

ONNX Runtime would load custom-operator libraries only if told to, and refuses external data for models given as
bytes; this check refuses both by name, and operators outside the allow-list, before the engine sees the file.
Field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

from collections.abc import Iterator

from edge_runtime.errors import ModelRejected

__all__ = ["check_operators"]

MAX_DEPTH = 16  # of graphs inside nodes (If, Loop, Scan)
ALLOWED_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})
# Operators of ONNX Runtime's own domain that quantizers and exporters write. Its others include some that read files
# (EPContext) or run Python (PythonOp).
ALLOWED_MICROSOFT = frozenset(
    {
        "BiasGelu",
        "DequantizeLinear",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
        "FastGelu",
        "FusedConv",
        "FusedGemm",
        "FusedMatMul",
        "Gelu",
        "MatMulIntegerToFloat",
        "MatMulNBits",
        "QAttention",
        "QGemm",
        "QLinearAdd",
        "QLinearAveragePool",
        "QLinearConcat",
        "QLinearConv",
        "QLinearGlobalAveragePool",
        "QLinearLeakyRelu",
        "QLinearMul",
        "QLinearReduceMean",
        "QLinearSigmoid",
        "QLinearSoftmax",
        "QLinearWhere",
        "QuantizeLinear",
        "SkipLayerNormalization",
    }
)

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
# Protobuf's C++ reader keeps 32 bits of a longer key, so that it would see a field where this one sees another.
_LARGEST_KEY = 2**32 - 1


def check_operators(data: bytes) -> None:
    """Raise `ModelRejected` unless ``data`` is an ONNX model that uses only allowed operators and no external data."""
    view = memoryview(data)
    graphs = 0
    for field, value in _fields(view):
        if field == 7:  # ModelProto.graph
            graphs += 1
            _check_graph(_message(value), 0)
        elif field == 25:  # ModelProto.functions
            for inner, node in _fields(_message(value)):
                if inner == 7:  # FunctionProto.node
                    _check_node(_message(node), 0)
                elif inner == 11:  # FunctionProto.attribute_proto: defaults, which nodes take by name
                    _check_attribute(_message(node), 0)
    if graphs != 1:
        raise ModelRejected("not an ONNX model: it has no graph" if graphs == 0 else "an ONNX model with two graphs")


def _check_graph(graph: memoryview, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ModelRejected(f"the ONNX graph is nested deeper than {MAX_DEPTH}")
    for field, value in _fields(graph):
        if field == 1:  # GraphProto.node
            _check_node(_message(value), depth)
        elif field == 5:  # GraphProto.initializer
            _check_tensor(_message(value))
        elif field == 15:  # GraphProto.sparse_initializer
            _check_sparse(_message(value))


def _check_node(node: memoryview, depth: int) -> None:
    operator = domain = ""
    for field, value in _fields(node):
        if field == 4:
            operator = _text(value)
        elif field == 7:
            domain = _text(value)
        elif field == 5:  # NodeProto.attribute
            _check_attribute(_message(value), depth)
    if domain in ALLOWED_DOMAINS or (domain == "com.microsoft" and operator in ALLOWED_MICROSOFT):
        return
    raise ModelRejected(f"operator {operator!r} of domain {domain!r} is not on the allow-list")


def _check_attribute(attribute: memoryview, depth: int) -> None:
    for field, value in _fields(attribute):
        if field in (5, 10):  # AttributeProto.t, tensors
            _check_tensor(_message(value))
        elif field in (6, 11):  # AttributeProto.g, graphs
            _check_graph(_message(value), depth + 1)
        elif field in (22, 23):  # AttributeProto.sparse_tensor, sparse_tensors
            _check_sparse(_message(value))


def _check_sparse(tensor: memoryview) -> None:
    for field, value in _fields(tensor):
        if field in (1, 2):  # SparseTensorProto.values, indices
            _check_tensor(_message(value))


def _check_tensor(tensor: memoryview) -> None:
    for field, value in _fields(tensor):
        if field == 13 or (field == 14 and value != 0):  # TensorProto.external_data, data_location
            raise ModelRejected("the ONNX file keeps weights in an external file; save them inside it")


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ModelRejected("not an ONNX model: a message was expected in its protobuf")
    return value


def _text(value: int | memoryview) -> str:
    try:
        return bytes(_message(value)).decode()
    except UnicodeDecodeError as error:
        raise ModelRejected("not an ONNX model: a name is not UTF-8") from error


def _fields(view: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The (field number, value) pairs of one protobuf message; a length-delimited value is a view of it."""
    at, end = 0, len(view)
    while at < end:
        key, at = _varint(view, at)
        if key > _LARGEST_KEY:
            raise ModelRejected("not an ONNX model: a field number in its protobuf is too large")
        field, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(view, at)
            yield field, value
        elif kind == _LENGTH:
            size, at = _varint(view, at)
            if size > end - at:
                raise ModelRejected("not an ONNX model: its protobuf is truncated")
            yield field, view[at : at + size]
            at += size
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
            if at > end:
                raise ModelRejected("not an ONNX model: its protobuf is truncated")
        else:
            raise ModelRejected(f"not an ONNX model: wire type {kind} in its protobuf")


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(view) and shift < 70:
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ModelRejected("not an ONNX model: its protobuf is damaged")
