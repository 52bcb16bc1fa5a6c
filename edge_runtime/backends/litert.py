"""LiteRT. An interpreter is not re-entrant, so a bounded pool of them answers several threads.

Always the ``Interpreter`` on bytes: ``CompiledModel`` was seen to crash, hang or take 13 GB on a truncated file.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from importlib.metadata import version as distribution_version
from typing import TYPE_CHECKING, Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from edge_runtime.backends.tensors import FileTensor, has_batch_axis, match, run_rows
from edge_runtime.errors import EngineFailed, ModelRejected

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_runtime.bundle.manifest import Manifest

__all__ = ["LiteRtEngine"]

_ERRORS = (RuntimeError, ValueError, TypeError, MemoryError)
_SIGNATURE = "serving_default"


class LiteRtEngine:
    """A model loaded from verified bytes; at most ``interpreters`` copies run at once, made when first needed."""

    name = "litert"

    def __init__(self, data: bytes, manifest: Manifest, threads: int = 1, interpreters: int = 1) -> None:
        self.version = distribution_version("ai-edge-litert")
        self._data = data
        self._threads = threads
        first = self._interpreter()
        inputs, outputs = _tensors(first)
        self._inputs = [
            (spec.name, tensor.key)
            for spec, tensor in zip(manifest.inputs, match("input", manifest.inputs, inputs), strict=True)
        ]
        self._outputs = [
            (spec.name, tensor.key)
            for spec, tensor in zip(manifest.outputs, match("output", manifest.outputs, outputs), strict=True)
        ]
        self._batched = has_batch_axis(manifest.inputs)
        self._slots = threading.Semaphore(max(1, interpreters))
        self._idle = [first]

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        if self._batched and len(next(iter(inputs.values()))) != 1:
            return run_rows(self.run, inputs)
        with self._slots:
            try:
                interpreter = self._idle.pop()
            except IndexError:
                try:
                    interpreter = self._interpreter()
                except ModelRejected as error:  # it loaded once: this is memory
                    raise EngineFailed(f"no room for one more interpreter: {error}") from error
            try:
                for name, index in self._inputs:
                    interpreter.set_tensor(index, inputs[name])
                interpreter.invoke()
                return {name: interpreter.get_tensor(index) for name, index in self._outputs}
            except _ERRORS as error:
                raise EngineFailed(f"LiteRT failed while running the model: {error}") from error
            finally:
                self._idle.append(interpreter)

    def close(self) -> None:
        self._idle.clear()

    def _interpreter(self) -> Interpreter:
        try:
            interpreter = Interpreter(model_content=self._data, num_threads=self._threads)
            interpreter.allocate_tensors()
        except _ERRORS as error:
            raise ModelRejected(f"LiteRT {self.version} cannot load the model: {error}") from error
        return interpreter


def _tensors(interpreter: Interpreter) -> tuple[list[FileTensor], list[FileTensor]]:
    """Inputs and outputs of the first subgraph, under their signature's names where the model has a signature."""
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    names: dict[int, str] = {}
    if _SIGNATURE in interpreter.get_signature_list():
        runner = interpreter.get_signature_runner(_SIGNATURE)
        for details in (runner.get_input_details(), runner.get_output_details()):
            names.update({detail["index"]: name for name, detail in details.items()})
    return [_tensor(detail, names) for detail in inputs], [_tensor(detail, names) for detail in outputs]


def _tensor(detail: Mapping[str, Any], names: Mapping[int, str]) -> FileTensor:
    signature = detail.get("shape_signature")
    sizes = detail["shape"] if signature is None or len(signature) == 0 else signature
    return FileTensor(
        name=names.get(detail["index"], detail["name"]),
        dtype=np.dtype(detail["dtype"]).name,
        shape=tuple(int(size) if size >= 0 else None for size in sizes),
        key=detail["index"],
    )
