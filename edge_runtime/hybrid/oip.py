"""Messages of the Open Inference Protocol v2 (REST), with Triton's binary tensor extension. Pure.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_runtime.errors import CloudUnreachable

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["HEADER_LENGTH", "InferenceAnswer", "decode_answer", "encode_binary", "encode_json"]

HEADER_LENGTH = "Inference-Header-Content-Length"
MAX_OUTPUTS = 64

_DATATYPES = {
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
    "INT8": "<i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "UINT8": "<u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "BOOL": "|b1",
}
_NAMES = {np.dtype(kind): name for name, kind in _DATATYPES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceAnswer:
    """A decoded answer: outputs by name in the order sent; model name and version where the server states them."""

    model: str | None
    version: str | None
    outputs: dict[str, NDArray[Any]]


def encode_binary(inputs: Mapping[str, NDArray[Any]]) -> tuple[bytes, int]:
    """(request body, length of its JSON header): tensors follow the header as little-endian bytes."""
    tensors: list[dict[str, object]] = []
    blobs: list[bytes] = []
    for name, array in inputs.items():
        blob = np.ascontiguousarray(array).tobytes()
        tensors.append(_tensor(name, array) | {"parameters": {"binary_data_size": len(blob)}})
        blobs.append(blob)
    header = json.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}}, separators=(",", ":")).encode()
    return b"".join((header, *blobs)), len(header)


def encode_json(inputs: Mapping[str, NDArray[Any]]) -> bytes:
    """The request as plain JSON, for servers without the extension."""
    tensors = [_tensor(name, array) | {"data": array.reshape(-1).tolist()} for name, array in inputs.items()]
    return json.dumps({"inputs": tensors}, separators=(",", ":"), allow_nan=False).encode()


def decode_answer(body: bytes, header_length: str | None) -> InferenceAnswer:
    """Read an untrusted answer, binary or JSON. Raises `CloudUnreachable` when it breaks the protocol."""
    try:
        length = len(body) if header_length is None else int(header_length)
        if not 0 <= length <= len(body):
            raise ValueError(f"a header of {length} bytes in an answer of {len(body)}")
        return _decode(json.loads(body[:length], parse_constant=_refuse), memoryview(body)[length:])
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        raise CloudUnreachable(f"the cloud's answer breaks the Open Inference Protocol: {error}") from error


def _decode(message: Any, blobs: memoryview) -> InferenceAnswer:
    outputs: dict[str, NDArray[Any]] = {}
    tensors = message["outputs"]
    if not isinstance(tensors, list) or not 1 <= len(tensors) <= MAX_OUTPUTS:
        raise ValueError(f"an answer has 1 to {MAX_OUTPUTS} outputs")
    at = 0
    for tensor in tensors:
        name, dtype = tensor["name"], np.dtype(_DATATYPES[tensor["datatype"]])
        shape = tuple(_size(size) for size in tensor["shape"])
        elements = math.prod(shape)
        parameters = tensor.get("parameters") or {}
        if not isinstance(parameters, dict):
            raise ValueError(f"parameters of output {name!r} are not an object")
        size = parameters.get("binary_data_size")
        if not isinstance(name, str) or name in outputs:
            raise ValueError(f"output {name!r} appears twice or has no name")
        if size is None:
            data = tensor["data"]
            if not isinstance(data, list):
                raise ValueError(f"output {name!r} has no list of data")
            array = np.array(data, dtype)
            if array.size != elements:
                raise ValueError(f"output {name!r} has {array.size} values for shape {shape}")
        else:
            if size != elements * dtype.itemsize or size > len(blobs) - at:
                raise ValueError(f"output {name!r} states {size} bytes for {tensor['datatype']} of shape {shape}")
            array = np.frombuffer(blobs[at : at + size], dtype).copy()
            at += size
        outputs[name] = array.reshape(shape)
    if at != len(blobs):
        raise ValueError(f"{len(blobs) - at} bytes follow the last output")
    return InferenceAnswer(
        model=_optional_text(message.get("model_name")),
        version=_optional_text(message.get("model_version")),
        outputs=outputs,
    )


def _tensor(name: str, array: NDArray[Any]) -> dict[str, object]:
    return {"name": name, "shape": list(array.shape), "datatype": _NAMES[array.dtype]}


def _size(size: object) -> int:
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise ValueError(f"{size!r} in a shape")
    return size


def _optional_text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} in JSON")
