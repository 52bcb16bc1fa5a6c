"""Check a program's references into its weight file before coremltools' reader, which is C++, follows them.

A weight file starts with 64 bytes of header; each reference points at 64 bytes of metadata: a mark, the kind of number,
the number of bytes and where they begin, all little-endian (MILBlob, StorageFormat.hpp, in Apple's coremltools).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from converters.errors import ModelUnreadable

__all__ = ["check_weights"]

METADATA = struct.Struct("<IIQQ")
METADATA_BYTES = 64
MARK = 0xDEADBEEF
BITS = {
    "FLOAT16": 16, "FLOAT32": 32, "FLOAT64": 64, "INT8": 8, "INT16": 16, "INT32": 32, "INT64": 64, "INT4": 4,
    "UINT8": 8, "UINT16": 16, "UINT32": 32, "UINT1": 1, "UINT2": 2, "UINT3": 3, "UINT4": 4, "UINT6": 6, "BOOL": 8,
}  # fmt: skip
MAX_DEPTH = 64  # of nested messages; a program nests a few blocks
MAX_ELEMENTS = 1 << 31


def check_weights(program: Any, folder: Path | None) -> None:
    """``program`` is the MIL protobuf message, ``folder`` where its weight files lie.

    Raises `ModelUnreadable` for a weight file that is missing, too short, or holds less than the program says.
    """
    names = _names_of_types(program)
    for value, kind in _references(program):
        name = value.fileName.rsplit("/", 1)[-1]
        path = None if folder is None else folder / name
        if path is None or not path.is_file():
            raise ModelUnreadable(f"the package's weight file {name!r} is missing")
        elements = math.prod(dimension.constant.size for dimension in kind.dimensions)
        bits = BITS.get(names(kind.dataType), 8)
        if elements > MAX_ELEMENTS:
            raise ModelUnreadable(f"a weight of {elements} elements, which no device holds")
        _check_reference(path, int(value.offset), -(-elements * bits // 8))


def _check_reference(path: Path, offset: int, needed: int) -> None:
    size = path.stat().st_size
    damaged = ModelUnreadable(f"the package's weight file {path.name!r} is damaged or shorter than its program says")
    if offset + METADATA_BYTES > size:
        raise damaged
    with path.open("rb") as file:
        file.seek(offset)
        mark, _, stored, start = METADATA.unpack(file.read(METADATA.size))
    if mark != MARK or stored < needed or start + stored > size:
        raise damaged


def _names_of_types(program: Any) -> Any:
    """The enumeration of tensor types, found through the message itself: no import of generated code."""
    pool = program.DESCRIPTOR.file.enum_types_by_name["DataType"]
    return lambda number: pool.values_by_number[number].name


def _references(program: Any) -> Iterator[tuple[Any, Any]]:
    """Every (reference into a weight file, tensor type) of a program, however deep."""
    for function in program.functions.values():
        for block in function.block_specializations.values():
            yield from _in_block(block, 0)


def _in_block(block: Any, depth: int) -> Iterator[tuple[Any, Any]]:
    if depth > MAX_DEPTH:
        raise ModelUnreadable(f"blocks nested more than {MAX_DEPTH} deep")
    for operation in block.operations:
        for value in operation.attributes.values():
            yield from _in_value(value)
        for argument in operation.inputs.values():
            for binding in argument.arguments:
                if binding.WhichOneof("binding") == "value":
                    yield from _in_value(binding.value)
        for inner in operation.blocks:
            yield from _in_block(inner, depth + 1)


def _in_value(value: Any) -> Iterator[tuple[Any, Any]]:
    if value.WhichOneof("value") == "blobFileValue":
        yield value.blobFileValue, value.type.tensorType
