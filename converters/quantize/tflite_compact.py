"""A TFLite file written again in fewer bytes: short inner names, and equal arrays stored once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from converters.quiet import load_tool, quiet

__all__ = ["compacted", "packed"]

ALIGNMENT = 16  # of constant data, as the schema's force_align asks for


def compacted(model: Any, outputs: Sequence[str] = ()) -> bytes:
    """The flatbuffer of an unpacked model (`ModelT`), which is changed: inner tensors get short names, and those of the
    main graph's outputs the given ones.

    In a small quantized model names are a tenth of the file, and zero points, eight zeros for every channel of every
    weight and bias, another tenth.
    """
    for index, name in zip(model.subgraphs[0].outputs, outputs, strict=False):
        model.subgraphs[0].tensors[index].name = name.encode()
    for at, graph in enumerate(model.subgraphs):
        kept = {int(index) for index in (*graph.inputs, *graph.outputs)}
        taken = {graph.tensors[index].name for index in kept}
        for index, tensor in enumerate(graph.tensors):
            short = f"t{at}_{index}".encode()
            if index not in kept and short not in taken:
                tensor.name = short
    return packed(model)


def packed(model: Any) -> bytes:
    """The flatbuffer of an unpacked model, with equal arrays stored once and constant data aligned."""
    for buffer in model.buffers:
        if buffer.data is not None:
            buffer.data = np.frombuffer(bytes(buffer.data), np.uint8)
    with quiet("writing the TFLite model"):
        builder = _builder()(1 << 20)
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())


@cache
def _builder() -> Any:
    """A flatbuffers builder that lets tables refer to one copy of equal vectors, which the format allows."""
    flatbuffers = load_tool("flatbuffers")

    class SharingBuilder(flatbuffers.Builder):  # type: ignore[misc, name-defined]
        def __init__(self, size: int) -> None:
            super().__init__(size)
            self._written: dict[tuple[str, bytes], int] = {}

        def CreateNumpyVector(self, values: np.ndarray) -> int:  # noqa: N802 - the method that is replaced
            key = (values.dtype.str, values.tobytes())
            if key not in self._written:
                # Constant data is bytes; padding in front of it puts its first byte on the alignment.
                if values.dtype == np.uint8:
                    self.Prep(ALIGNMENT, values.size)
                self._written[key] = super().CreateNumpyVector(values)
            return self._written[key]

    return SharingBuilder
