"""One model under ONNX Runtime: one thread of its own, and a bounded queue before it.

Requests are not batched across callers in this version. That is safe only where the first axis is a batch and no
answer depends on its neighbours, and this graph format does not say so: the smartwatch teacher, for one, averages over
its first axis.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as _state

from edge_runtime.backends.onnx_domains import check_operators
from edge_runtime.errors import ModelRejected
from model_server.errors import MalformedRequest, ModelUnavailable, QueueFull
from model_server.inference.protocol import (
    Answer,
    InferenceRequest,
    Limits,
    TensorSpec,
    check_inputs,
    decode_request,
    encode_answer,
)

__all__ = ["PLATFORM", "ServedModel"]

PLATFORM = "onnxruntime_onnx"

# ONNX Runtime's errors have no common base of their own.
_ERRORS: tuple[type[Exception], ...] = (
    *(kind for kind in vars(_state).values() if isinstance(kind, type) and issubclass(kind, Exception)),
    RuntimeError,
    ValueError,
)
_DATATYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
}


class ServedModel:
    """A loaded model. `infer` belongs to one event loop."""

    def __init__(
        self, name: str, version: str, data: bytes, limits: Limits, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """``data`` is an ONNX file without external weights. Raises `ModelRejected`."""
        check_operators(data)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what matters is raised
        # Without it, INT8 kernels on x86 processors without VNNI saturate and lose accuracy.
        options.add_session_config_entry("session.x64quantprecision", "1")
        try:
            self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except _ERRORS as error:
            raise ModelRejected(f"ONNX Runtime {onnxruntime.__version__} cannot load the model: {error}") from error
        self.name = name
        self.version = version
        self.inputs = tuple(_spec(tensor) for tensor in self._session.get_inputs())
        self.outputs = tuple(_spec(tensor) for tensor in self._session.get_outputs())
        self._limits = limits
        self._monotonic = monotonic
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"oip-{name}")
        self._pending = 0
        self._closed = False
        self._seconds = 0.0  # of one request, smoothed

    async def infer(self, body: bytes, header_length: str | None) -> Answer:
        """Answer one request. Raises `QueueFull`, `ModelUnavailable`, `MalformedRequest` or `BodyTooLarge`."""
        if self._closed:
            raise ModelUnavailable(f"{self.name} {self.version} is being replaced; send the request again")
        if self._pending >= self._limits.queue:
            wait = max(1, math.ceil(self._pending * self._seconds))
            raise QueueFull(f"{self._pending} requests of {self.name} wait already", retry_after_s=min(wait, 60))
        self._pending += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._work, body, header_length)
        finally:
            self._pending -= 1

    def close(self) -> None:
        """Take no more; what waits is still answered."""
        self._closed = True
        self._thread.shutdown(wait=False)

    def _work(self, body: bytes, header_length: str | None) -> Answer:
        # Parsing is here and not on the event loop, since a large body takes a while.
        start = self._monotonic()
        request = decode_request(body, header_length, self._limits)
        check_inputs(request.inputs, self.inputs)
        answer = encode_answer(self.name, self.version, request, self._run(request))
        self._seconds += 0.1 * (self._monotonic() - start - self._seconds)
        return answer

    def _run(self, request: InferenceRequest) -> Mapping[str, NDArray[Any]]:
        every = [spec.name for spec in self.outputs]
        wanted = list(request.outputs or every)
        for name in wanted:
            if name not in every:
                raise MalformedRequest(f"unexpected output {ascii(name)[:120]}; the outputs are {', '.join(every)}")
        try:
            found = self._session.run(wanted, request.inputs)
        except _ERRORS as error:
            # The shapes fit the graph's inputs, and something inside does not fit them: still the caller's doing.
            raise MalformedRequest(f"{self.name} cannot work on these inputs: {str(error)[:300]}") from error
        return {name: np.asarray(array) for name, array in zip(wanted, found, strict=True)}


def _spec(tensor: Any) -> TensorSpec:
    datatype = _DATATYPES.get(tensor.type)
    if datatype is None:
        raise ModelRejected(f"tensor {tensor.name!r} is of type {tensor.type}, which this server does not serve")
    shape = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in tensor.shape)
    return TensorSpec(name=tensor.name, datatype=datatype, shape=shape)
