"""A small real Open Inference Protocol server on a free port, with the faults that a client meets."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import numpy as np

Answer = Callable[[dict[str, np.ndarray]], np.ndarray]
DTYPES = {"FP32": "<f4", "FP64": "<f8", "INT32": "<i4"}


def mean_logits(inputs: dict[str, np.ndarray]) -> np.ndarray:
    """float32[1, 4]: class 2 wins clearly, and the values depend on the input."""
    context = inputs["context"]
    return np.array([[0.0, 1.0, 8.0, float(context.mean())]], np.float32)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that hung up is part of the tests."""


class OipServer:
    """Use as a context manager. ``fault`` is one of: None, ``json_only``, ``status:<n>``, ``hang``, ``drip``,
    ``garbage``, ``nan``, ``nan_elsewhere``, ``wrong_shape``, ``wrong_model``, ``huge``, ``cut``. ``releases`` are the
    versions served."""

    def __init__(self, answer: Answer = mean_logits, releases: tuple[int, ...] = (1,)) -> None:
        self.answer = answer
        self.releases = releases
        self.fault: str | None = None
        self.delay_s = 0.0
        self.requests: list[dict[str, Any]] = []
        self._sockets: list[socket.socket] = []
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def connections(self) -> int:
        return len(self._sockets)

    def __enter__(self) -> OipServer:
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        for connection in self._sockets:  # those that were kept alive, too
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _handler(outer) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                outer._sockets.append(self.connection)

            def log_message(self, *_: Any) -> None:
                pass

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.requests.append({"path": self.path, "headers": dict(self.headers), "body": body})
                time.sleep(outer.delay_s)
                outer._reply(self, body)

        return Handler

    def _reply(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        fault = self.fault
        header_length = handler.headers.get("Inference-Header-Content-Length")
        release = int(handler.path.split("/versions/")[1].split("/")[0])
        if fault == "hang":
            time.sleep(30)
        elif fault == "cut":
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{")
            handler.connection.shutdown(socket.SHUT_RDWR)
            handler.close_connection = True
        elif fault == "drip":
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")
            for _ in range(100):
                handler.wfile.write(b" ")
                time.sleep(0.05)
        elif fault == "huge":
            send(handler, 200, b"0" * (17 * 2**20))
        elif fault == "garbage":
            send(handler, 200, b"<html>not the protocol</html>")
        elif fault is not None and fault.startswith("status:"):
            send(handler, int(fault[7:]), b'{"error": "as told"}')
        elif release not in self.releases:
            send(handler, 404, b'{"error": "unknown version"}')
        elif fault == "json_only" and header_length is not None:
            send(handler, 422, b'{"error": "JSON only"}')
        else:
            self._infer(handler, body, header_length, release)

    def _infer(self, handler: BaseHTTPRequestHandler, body: bytes, header_length: str | None, release: int) -> None:
        inputs = decode(body, header_length)
        logits = self.answer(inputs)
        if self.fault == "nan":
            logits = logits * np.nan
        elif self.fault == "wrong_shape":
            logits = logits[:, :2]
        tensor: dict[str, Any] = {"name": "scores", "datatype": "FP32", "shape": list(logits.shape)}
        name = "other" if self.fault == "wrong_model" else handler.path.split("/")[3]
        message: dict[str, Any] = {"model_name": name, "model_version": str(release), "outputs": [tensor]}
        blob = np.ascontiguousarray(logits, np.float32).tobytes()
        if header_length is None:
            tensor["data"] = logits.reshape(-1).tolist()
            send(handler, 200, json.dumps(message).encode())
        else:
            tensor["parameters"] = {"binary_data_size": len(blob)}
            if self.fault == "nan_elsewhere":
                more = {"name": "more", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}}
                message["outputs"].append(more)
                blob += np.float32("nan").tobytes()
            header = json.dumps(message).encode()
            send(handler, 200, header + blob, {"Inference-Header-Content-Length": str(len(header))})


def decode(body: bytes, header_length: str | None) -> dict[str, np.ndarray]:
    length = len(body) if header_length is None else int(header_length)
    at = length
    inputs = {}
    for tensor in json.loads(body[:length])["inputs"]:
        dtype = np.dtype(DTYPES[tensor["datatype"]])
        if "data" in tensor:
            array = np.array(tensor["data"], dtype)
        else:
            size = tensor["parameters"]["binary_data_size"]
            array = np.frombuffer(body[at : at + size], dtype)
            at += size
        inputs[tensor["name"]] = array.reshape(tensor["shape"])
    return inputs


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
    handler.send_response(status)
    for name, value in (headers or {}).items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
