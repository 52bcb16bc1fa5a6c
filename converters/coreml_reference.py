"""Evaluate a Core ML ``mlprogram`` with NumPy, on any machine.

Core ML itself runs on Apple's systems only. This reads the stored program back (`coremltools…milproto.load`), walks its
operators and computes each with NumPy, for many rows at once: every tensor gets one leading axis for the rows, and an
operator means what the MIL specification says about the axes behind it. Where a parameter or a branch depends on the
inputs, so that rows go different ways, they are evaluated one at a time. Tensors that the program declares as fp16 are
rounded to fp16 after every operator. An operator outside the table raises `UnsupportedOperator` with its name; nothing
is skipped. It shows what the program *means*; Apple's kernels may round differently.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from converters.mil.evaluate import Evaluator, bytes_of_tensors, widest_bytes
from converters.mil.operands import RowDependent
from converters.mil.reading import read_program

__all__ = ["CoreMLReference", "Observer"]

CHUNK = 256  # rows evaluated at once, where they are small
CHUNK_BYTES = 1 << 25  # of the widest operation's tensors; a large model's rows come in smaller chunks
Observer = Callable[[str, np.ndarray], None]  # tensor name, (rows, *shape)


class CoreMLReference:
    """A stored ``mlprogram``, evaluated with NumPy.

    Raises `ModelUnreadable` for a package that cannot be read and `UnsupportedOperator` for a program with an operator
    that is not in the table, both before anything is computed.
    """

    name = "NumPy evaluator of Core ML programs"

    def __init__(
        self, package: Path | bytes, *, round_fp16: bool = True, prepare: Callable[[Any], None] | None = None
    ) -> None:
        """``package`` is an ``.mlpackage`` folder, or a zip of one (path or bytes). ``round_fp16=False`` computes
        what is declared fp16 in float32, as a Mac's CPU may. ``prepare`` may change the program first."""
        self.program, self.specification_version = read_program(package)
        if prepare is not None:
            prepare(self.program)
        self.function = next(iter(self.program.functions.values()))
        self.evaluator = Evaluator(self.function, round_fp16=round_fp16)
        self.inputs = {name: tuple(int(size) for size in var.shape) for name, var in self.function.inputs.items()}
        self.outputs = tuple(var.name for var in self.function.outputs)
        self._chunk = int(np.clip(CHUNK_BYTES // max(1, widest_bytes(self.function)), 1, CHUNK))

    def run(self, inputs: Mapping[str, np.ndarray], observe: Observer | None = None) -> dict[str, np.ndarray]:
        """Outputs ``(rows, *shape)`` for inputs ``(rows, *shape)``; shapes are the program's, its batch of 1 included.

        ``observe`` sees every tensor that depends on the inputs, outside nested blocks, once for each chunk of rows.
        Raises `ConversionFailed` for a program that cannot be computed (an index outside its tensor, an endless loop).
        """
        if observe is None and self._chunk > 1:
            try:
                return self._joined(self._beside_each_other(inputs))
            except RowDependent:
                self._chunk = 1
        return self._joined(self._one_by_one(inputs, observe))

    def _beside_each_other(self, inputs: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
        """The chunks are the same as one by one, and so is every number."""
        with ThreadPoolExecutor(_chunks_at_once()) as pool:
            starts = range(0, _rows(inputs), self._chunk)
            return list(pool.map(lambda start: self._run_chunk(_part(inputs, start, self._chunk), None), starts))

    def _one_by_one(self, inputs: Mapping[str, np.ndarray], observe: Observer | None) -> list[dict[str, np.ndarray]]:
        parts: list[dict[str, np.ndarray]] = []
        start = 0
        while start < _rows(inputs):
            step = self._chunk
            try:
                parts.append(self._run_chunk(_part(inputs, start, step), observe))
            except RowDependent:
                self._chunk = 1
                continue
            start += step
        return parts

    def _joined(self, parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        return {name: np.concatenate([part[name] for part in parts]) for name in self.outputs}

    @property
    def bytes_of_all_tensors(self) -> int:
        """About how much one row's tensors take together."""
        return bytes_of_tensors(self.function)

    @property
    def operators(self) -> list[str]:
        """Operator types in program order, without constants; those of nested blocks behind the one that holds them."""
        return [op.op_type for op in self.operations()]

    def operations(self) -> list[Any]:
        """The program's operations, nested ones included, without constants, for inspection."""
        return list(_operations(self.function))

    def values(self, inputs: Mapping[str, np.ndarray]) -> dict[Any, np.ndarray]:
        """The program's input variables with their rows, checked: floats as float32 ``(rows, *shape)``."""
        values: dict[Any, np.ndarray] = {}
        for name, shape in self.inputs.items():
            array = np.asarray(inputs[name])
            if array.shape[1:] != shape:
                raise ValueError(f"input {name}: rows of shape {array.shape[1:]}, the program takes {shape}")
            values[self.function.inputs[name]] = array.astype(np.float32) if array.dtype.kind == "f" else array
        return values

    def _run_chunk(self, inputs: Mapping[str, np.ndarray], observe: Observer | None) -> dict[str, np.ndarray]:
        values = self.values(inputs)
        rows = _rows(values)

        def seen(var: Any, value: np.ndarray) -> None:
            if observe and len(value) == rows:
                observe(var.name, value)

        for var, value in values.items():
            seen(var, value)
        with np.errstate(all="ignore"):  # infinities and NaN follow IEEE 754, as they do on a device
            results = self.evaluator.run(values, seen if observe else None)
        named = zip(self.outputs, results, strict=True)
        return {name: np.broadcast_to(value, (rows, *value.shape[1:])) for name, value in named}


def _rows(inputs: Mapping[str, np.ndarray]) -> int:
    return len(next(iter(inputs.values())))


def _part(inputs: Mapping[str, np.ndarray], start: int, rows: int) -> dict[str, np.ndarray]:
    return {name: value[start : start + rows] for name, value in inputs.items()}


def _chunks_at_once() -> int:
    """One for each processor, where BLAS was told to leave some of them free (`runner` does so); else BLAS has all."""
    processors = os.cpu_count() or 1
    threads = os.environ.get("OPENBLAS_NUM_THREADS", "")
    return max(1, processors // int(threads)) if threads.isdecimal() and int(threads) else 1


def _operations(block: Any) -> Iterator[Any]:
    for operation in block.operations:
        if operation.op_type != "const":
            yield operation
            for inner in operation.blocks:
                yield from _operations(inner)
