"""Gives a TFLite model's signature our name and our tensors' names, by rewriting the flatbuffer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from converters.errors import CheckFailed
from converters.quiet import load_tool
from converters.sources.base import BATCH
from converters.targets.tflite import SIGNATURE
from edge_runtime.bundle import TensorSpec

__all__ = ["custom_operators", "rename_signature"]

IDENTIFIER = b"TFL3"
Specs = Mapping[str, TensorSpec]


def rename_signature(data: bytes, inputs: Specs, outputs: Specs) -> bytes:
    """The model with one signature, ``serving_default``, whose names are those of the specs, and in their order.

    The keys are the names that the tool gave. The tensors themselves are named so too, which is what tools show.
    Raises `CheckFailed` if the tool's names are others, or a tensor has another dtype or shape than its spec has with a
    batch of 1.
    """
    schema = load_tool("ai_edge_litert.schema_py_generated")
    flatbuffers = load_tool("flatbuffers")
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    signatures = model.signatureDefs or []
    if len(signatures) != 1:
        raise CheckFailed(f"the TFLite model has {len(signatures)} signatures instead of one")
    signature = signatures[0]
    tensors = model.subgraphs[signature.subgraphIndex].tensors
    dtypes = {value: name.lower() for name, value in vars(schema.TensorType).items() if not name.startswith("_")}
    for role, entries, specs in (("inputs", signature.inputs, inputs), ("outputs", signature.outputs, outputs)):
        found = {_text(entry.name): entry for entry in entries}
        if set(found) != set(specs):
            raise CheckFailed(f"the TFLite model's {role} are {sorted(found)}, not {sorted(specs)}")
        for old, spec in specs.items():
            tensor = tensors[found[old].tensorIndex]
            _check(spec, dtypes[tensor.type], tensor)
            found[old].name = tensor.name = spec.name
        entries[:] = [found[old] for old in specs]
    signature.signatureKey = SIGNATURE
    builder = flatbuffers.Builder(len(data) + 1024)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def custom_operators(data: bytes) -> tuple[str, ...]:
    """Names of the operators that are no builtin ones, and which no engine on a device has."""
    schema = load_tool("ai_edge_litert.schema_py_generated")
    codes = schema.ModelT.InitFromPackedBuf(data, 0).operatorCodes
    return tuple(sorted(_text(code.customCode) for code in codes if code.customCode))


def _check(spec: TensorSpec, dtype: str, tensor: Any) -> None:
    shape = [] if tensor.shape is None else [int(size) for size in tensor.shape]
    signed = tensor.shapeSignature
    fixed = signed is None or all(size >= 0 for size in signed)
    wanted = [1 if size == BATCH else size for size in spec.shape]
    same = len(shape) == len(wanted) and all(
        isinstance(want, str) or want == size for want, size in zip(wanted, shape, strict=True)
    )
    if dtype != spec.dtype or not (same or not fixed):
        raise CheckFailed(f"the TFLite model's {spec.name} is {dtype} {shape}, not {spec.dtype} {wanted}")


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
