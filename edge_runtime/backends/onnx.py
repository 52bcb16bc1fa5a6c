"""ONNX Runtime. Re-entrant: one session answers every thread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as _state

from edge_runtime.backends.onnx_domains import check_operators
from edge_runtime.backends.tensors import FileTensor, has_batch_axis, match, run_rows
from edge_runtime.errors import EngineFailed, ModelRejected

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_runtime.bundle.manifest import Manifest

__all__ = ["OnnxEngine"]

# ONNX Runtime's errors have no common base of their own.
_ERRORS: tuple[type[Exception], ...] = (
    *(kind for kind in vars(_state).values() if isinstance(kind, type) and issubclass(kind, Exception)),
    RuntimeError,
    ValueError,
)

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


class OnnxEngine:
    """A model loaded from verified bytes, on the CPU, with ``threads`` intra-op threads."""

    name = "onnxruntime"

    def __init__(self, data: bytes, manifest: Manifest, threads: int = 1) -> None:
        check_operators(data)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what matters is raised; its warnings would go to the app's stderr
        # Without it, INT8 kernels on x86 processors without VNNI saturate and lose accuracy.
        options.add_session_config_entry("session.x64quantprecision", "1")
        try:
            session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except _ERRORS as error:
            raise ModelRejected(f"ONNX Runtime {onnxruntime.__version__} cannot load the model: {error}") from error
        inputs = match("input", manifest.inputs, [_tensor(arg) for arg in session.get_inputs()])
        outputs = match("output", manifest.outputs, [_tensor(arg) for arg in session.get_outputs()])
        self.version = str(onnxruntime.__version__)
        self._session = session
        self._fetch = [tensor.name for tensor in outputs]
        self._outputs = [spec.name for spec in manifest.outputs]
        pairs = [(spec.name, tensor.name) for spec, tensor in zip(manifest.inputs, inputs, strict=True)]
        self._renames = pairs if any(ours != theirs for ours, theirs in pairs) else None
        self._one_row = has_batch_axis(manifest.inputs) and any(
            tensor.shape is not None and tensor.shape[0] == 1 for tensor in inputs
        )

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        if self._one_row and len(next(iter(inputs.values()))) != 1:
            return run_rows(self.run, inputs)
        feed = inputs if self._renames is None else {theirs: inputs[ours] for ours, theirs in self._renames}
        try:
            return dict(zip(self._outputs, self._session.run(self._fetch, feed), strict=True))
        except _ERRORS as error:
            raise EngineFailed(f"ONNX Runtime failed while running the model: {error}") from error

    def close(self) -> None:
        """Nothing to do: the session is freed with its last reference."""


def _tensor(arg: Any) -> FileTensor:
    dtype = _DTYPES.get(arg.type)
    if dtype is None:
        raise ModelRejected(f"tensor {arg.name!r} is of type {arg.type}, which this runtime does not support")
    shape = tuple(size if isinstance(size, int) and size > 0 else None for size in arg.shape)
    # ONNX Runtime reports an empty shape where it knows none; classifiers have no tensors of rank zero.
    return FileTensor(name=arg.name, dtype=dtype, shape=shape or None)
