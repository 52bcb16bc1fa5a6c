"""Messages of the Open Inference Protocol v2 over REST, with Triton's binary tensor extension. Pure; the server's side.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md

A request is JSON. With the extension it starts with a JSON header whose length the HTTP header
``Inference-Header-Content-Length`` states, and raw little-endian tensors follow in the order of the inputs that state
a ``binary_data_size``. Answers mirror that. Everything read here comes from a stranger.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_server.errors import BodyTooLarge, MalformedRequest

__all__ = [
    "DATATYPES",
    "HEADER_LENGTH",
    "Answer",
    "InferenceRequest",
    "Limits",
    "TensorSpec",
    "check_inputs",
    "decode_request",
    "encode_answer",
]

HEADER_LENGTH = "inference-header-content-length"

DATATYPES: Mapping[str, np.dtype[Any]] = {
    name: np.dtype(code)
    for name, code in {
        "BOOL": "?",
        "UINT8": "<u1",
        "UINT16": "<u2",
        "UINT32": "<u4",
        "UINT64": "<u8",
        "INT8": "<i1",
        "INT16": "<i2",
        "INT32": "<i4",
        "INT64": "<i8",
        "FP16": "<f2",
        "FP32": "<f4",
        "FP64": "<f8",
    }.items()
}
_MAX_TENSORS = 64
_MAX_RANK = 16
_MAX_TEXT = 256
_UNSUPPORTED = ("classification", "shared_memory_region", "shared_memory_byte_size", "shared_memory_offset")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """``max_body_bytes`` of a whole body, ``max_json_bytes`` of its JSON (which grows some twentyfold when parsed),
    ``queue`` requests of one model that may wait or run."""

    max_body_bytes: int = 16 * 2**20
    max_json_bytes: int = 4 * 2**20
    queue: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """An input or output of a model: ``datatype`` in the protocol's words; -1 in ``shape`` is an axis of any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceRequest:
    """``outputs`` are the names asked for, None for all; ``binary`` says which go back as bytes: those named, or all
    others if ``binary_default``."""

    id: str | None
    inputs: dict[str, NDArray[Any]]
    outputs: tuple[str, ...] | None
    binary: Mapping[str, bool]
    binary_default: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An HTTP body, and the length of its JSON header if tensors follow it."""

    body: bytes
    header_length: int | None


def decode_request(body: bytes, header_length: str | None, limits: Limits) -> InferenceRequest:
    """Read a request; ``header_length`` is the HTTP header's value. Raises `MalformedRequest` or `BodyTooLarge`."""
    end = len(body)
    if header_length is not None:
        if not (header_length.isascii() and header_length.isdigit() and len(header_length) <= 10):
            raise MalformedRequest(f"{HEADER_LENGTH} must be a number of bytes")
        end = int(header_length)
        if not 0 < end <= len(body):
            raise MalformedRequest(f"{HEADER_LENGTH} is {end}, and the body has {len(body)} bytes")
    if end > limits.max_json_bytes:
        raise BodyTooLarge(
            f"the JSON of a request has at most {limits.max_json_bytes} bytes; send large tensors as binary data"
        )
    message = _object(_parse(body[:end]), "the request")
    parameters = _parameters(message, "the request")
    inputs = _inputs(message, memoryview(body)[end:])
    names, binary = _outputs(message)
    return InferenceRequest(
        id=_optional_text(message, "id"),
        inputs=inputs,
        outputs=names,
        binary=binary,
        binary_default=_flag(parameters, "binary_data_output", default=False),
    )


def check_inputs(inputs: Mapping[str, NDArray[Any]], specs: Sequence[TensorSpec]) -> None:
    """Raise `MalformedRequest` unless ``inputs`` are exactly those that a model takes."""
    known = {spec.name for spec in specs}
    for name in inputs:
        if name not in known:
            raise MalformedRequest(f"unexpected input {_show(name)}; the inputs are {', '.join(sorted(known))}")
    for spec in specs:
        array = inputs.get(spec.name)
        if array is None:
            raise MalformedRequest(f"input {spec.name!r} is missing")
        if array.dtype != DATATYPES[spec.datatype]:
            raise MalformedRequest(f"input {spec.name!r} must be {spec.datatype}, not {_datatype(array)}")
        if len(array.shape) != len(spec.shape) or any(
            wanted not in (-1, size) for wanted, size in zip(spec.shape, array.shape, strict=True)
        ):
            raise MalformedRequest(f"input {spec.name!r} must have shape {list(spec.shape)}, not {list(array.shape)}")


def encode_answer(model: str, version: str, request: InferenceRequest, outputs: Mapping[str, NDArray[Any]]) -> Answer:
    """The answer's body. Raises `MalformedRequest` if JSON was asked for values that JSON cannot hold."""
    described: list[dict[str, object]] = []
    blobs: list[bytes] = []
    for name, array in outputs.items():
        tensor: dict[str, object] = {"name": name, "datatype": _datatype(array), "shape": list(array.shape)}
        if request.binary.get(name, request.binary_default):
            blob = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
            tensor["parameters"] = {"binary_data_size": len(blob)}
            blobs.append(blob)
        else:
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise MalformedRequest(f"output {name!r} holds NaN or infinity, which JSON cannot; ask for binary data")
            tensor["data"] = array.reshape(-1).tolist()
        described.append(tensor)
    message: dict[str, object] = {"model_name": model, "model_version": version, "outputs": described}
    if request.id is not None:
        message["id"] = request.id
    header = json.dumps(message, separators=(",", ":"), allow_nan=False).encode()
    return Answer(body=b"".join((header, *blobs)), header_length=len(header) if blobs else None)


def _parse(data: bytes) -> object:
    try:
        parsed: object = json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # ValueError: not JSON, not UTF-8, or a number of too many digits
        raise MalformedRequest(f"the request is not JSON: {_short(str(error))}") from error
    return parsed


def _refuse_constant(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def _inputs(message: Mapping[str, object], blobs: memoryview) -> dict[str, NDArray[Any]]:
    inputs: dict[str, NDArray[Any]] = {}
    at = 0
    for tensor in _tensors(message, "inputs", required=True):
        name = _text(tensor, "name")
        if name in inputs:
            raise MalformedRequest(f"input {_show(name)} appears twice")
        where = f"input {_show(name)}"
        parameters = _parameters(tensor, where)
        dtype = _dtype(tensor, where)
        shape = _shape(tensor, where)
        size = parameters.get("binary_data_size")
        if size is None:
            inputs[name] = _from_json(tensor, dtype, shape, where)
            continue
        if "data" in tensor:
            raise MalformedRequest(f"{where} has both data and binary_data_size")
        expected = math.prod(shape) * dtype.itemsize
        if type(size) is not int or size != expected:
            raise MalformedRequest(f"{where} needs binary_data_size {expected}, not {_show(size)}")
        if size > len(blobs) - at:
            raise MalformedRequest(f"{where} needs {size} bytes of binary data, and {len(blobs) - at} are left")
        # A view of the body: read-only, which no engine minds.
        inputs[name] = _shaped(np.frombuffer(blobs[at : at + size], dtype), shape, where)
        at += size
    if at != len(blobs):
        raise MalformedRequest(f"{len(blobs) - at} bytes follow the binary data of the last input")
    return inputs


def _from_json(tensor: Mapping[str, object], dtype: np.dtype[Any], shape: tuple[int, ...], where: str) -> NDArray[Any]:
    data = tensor.get("data")
    if not isinstance(data, list):
        raise MalformedRequest(f"{where} has neither a list of data nor binary_data_size")
    try:
        found = _array(data, dtype)
    except (ValueError, OverflowError, RecursionError) as error:
        raise MalformedRequest(f"{where} holds data that is no tensor: {_short(str(error))}") from error
    if found.dtype.kind not in ("b" if dtype.kind == "b" else "iuf" if dtype.kind == "f" else "iu") and found.size:
        raise MalformedRequest(f"{where} holds data that is not {_name_of(dtype)}")
    if found.size != math.prod(shape) or (found.ndim != 1 and found.shape != shape):
        raise MalformedRequest(f"{where} has data of shape {list(found.shape)}, not {list(shape)}")
    if dtype.kind in "iu" and found.size:
        info = np.iinfo(dtype)
        if int(found.min()) < info.min or int(found.max()) > info.max:
            raise MalformedRequest(f"{where} holds values outside {_name_of(dtype)}")
    with np.errstate(over="ignore"):
        cast = _shaped(found.astype(dtype), shape, where)
    if dtype.kind == "f" and not np.isfinite(cast).all():
        raise MalformedRequest(f"{where} holds values outside {_name_of(dtype)}")
    return cast


def _shaped(array: NDArray[Any], shape: tuple[int, ...], where: str) -> NDArray[Any]:
    try:
        return array.reshape(shape)
    except ValueError as error:  # no elements, and other axes that are too long even so
        raise MalformedRequest(f"{where} has a shape that is too large") from error


def _array(data: list[object], dtype: np.dtype[Any]) -> NDArray[Any]:
    if not data:
        return np.empty(0, dtype)
    # Of strings NumPy would make cells as wide as the longest one: terabytes out of a small body.
    if not _scalar_types(data) <= {int, float, bool}:
        raise ValueError("only numbers and booleans are data here")
    if dtype != np.uint64:
        return np.array(data)
    # NumPy would make floats of numbers on both sides of 2**63. What is no whole number stays an object: refused.
    exact = np.array(data, dtype=object)
    whole = all(type(value) is int and 0 <= value < 2**64 for value in exact.flat)
    return exact.astype(np.uint64) if whole else exact


def _scalar_types(data: list[object]) -> set[type]:
    """The types of what is in a list, and in the lists in it."""
    types: set[type] = set()
    level = data
    while level:
        here = set(map(type, level))
        types |= here - {list}
        level = [item for inner in level if isinstance(inner, list) for item in inner] if list in here else []
    return types


def _outputs(message: Mapping[str, object]) -> tuple[tuple[str, ...] | None, dict[str, bool]]:
    tensors = _tensors(message, "outputs", required=False)
    binary: dict[str, bool] = {}
    names: list[str] = []
    for tensor in tensors:
        name = _text(tensor, "name")
        if name in names:
            raise MalformedRequest(f"output {_show(name)} appears twice")
        names.append(name)
        parameters = _parameters(tensor, f"output {_show(name)}")
        if "binary_data" in parameters:
            binary[name] = _flag(parameters, "binary_data", default=False)
    return (tuple(names) if names else None), binary


def _tensors(message: Mapping[str, object], key: str, *, required: bool) -> list[Mapping[str, object]]:
    tensors = message.get(key)
    if tensors is None and not required:
        return []
    if not isinstance(tensors, list) or len(tensors) > _MAX_TENSORS:
        raise MalformedRequest(f"{key} must be a list of at most {_MAX_TENSORS} tensors")
    return [_object(tensor, f"each of {key}") for tensor in tensors]


def _dtype(tensor: Mapping[str, object], where: str) -> np.dtype[Any]:
    datatype = _text(tensor, "datatype")
    found = DATATYPES.get(datatype)
    if found is None:
        raise MalformedRequest(f"{where} is of datatype {_show(datatype)}; use one of {', '.join(DATATYPES)}")
    return found


def _shape(tensor: Mapping[str, object], where: str) -> tuple[int, ...]:
    shape = tensor.get("shape")
    if not isinstance(shape, list) or len(shape) > _MAX_RANK:
        raise MalformedRequest(f"{where} needs a shape of at most {_MAX_RANK} axes")
    if any(type(size) is not int or not 0 <= size < 2**31 for size in shape):
        raise MalformedRequest(f"{where} has a shape with an axis that is not a size")
    return tuple(shape)


def _parameters(message: Mapping[str, object], where: str) -> Mapping[str, object]:
    parameters = message.get("parameters")
    if parameters is None:
        return {}
    found = _object(parameters, f"parameters of {where}")
    for name in _UNSUPPORTED:
        if name in found:
            raise MalformedRequest(f"parameter {name!r} is not supported by this server")
    return found


def _flag(parameters: Mapping[str, object], name: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise MalformedRequest(f"parameter {name!r} must be true or false")
    return value


def _object(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise MalformedRequest(f"{where} must be a JSON object")
    return value


def _text(message: Mapping[str, object], key: str) -> str:
    value = message.get(key)
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        raise MalformedRequest(f"{key!r} must be a string of at most {_MAX_TEXT} characters")
    return value


def _optional_text(message: Mapping[str, object], key: str) -> str | None:
    return None if message.get(key) is None else _text(message, key)


def _datatype(array: NDArray[Any]) -> str:
    return _name_of(array.dtype)


def _name_of(dtype: np.dtype[Any]) -> str:
    return next((name for name, known in DATATYPES.items() if known == dtype), str(dtype))


def _show(value: object) -> str:
    """What a stranger wrote, safe to print and short."""
    return _short(ascii(value))


def _short(text: str) -> str:
    return text if len(text) <= 120 else text[:117] + "..."
