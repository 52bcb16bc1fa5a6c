"""A real HTTP server for static files, in a thread, on port 0: ETag, If-None-Match, Range, If-Range, gzip on request.

Simulations and tests make it misbehave through `faults`: a path (without the query) to a function that answers in its
place.
"""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

__all__ = ["Fault", "Handler", "StaticServer", "serve"]

Fault = Callable[["Handler"], None]


@dataclass
class StaticServer:
    """``requests`` lists (method, path, headers in lower case) of everything asked since the last `clear`. ``now`` is
    what its Date says, by default the real time."""

    folder: Path
    url: str = ""
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    posts: list[tuple[str, bytes]] = field(default_factory=list)
    faults: dict[str, Fault] = field(default_factory=dict)
    answers: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    etags: bool = True
    compress: bool = True
    now: Callable[[], datetime] | None = None

    def paths(self) -> list[str]:
        return [path for _, path, _ in self.requests]

    def clear(self) -> None:
        self.requests.clear()
        self.posts.clear()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: StaticServer
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        state = self.server_state
        state.requests.append(("GET", self.path, {k.lower(): v for k, v in self.headers.items()}))
        fault = state.faults.get(self.path)
        if fault is not None:
            fault(self)
            return
        file = (state.folder / self.path.lstrip("/")).resolve()
        if not file.is_relative_to(state.folder.resolve()) or not file.is_file():
            self.send(404, b"not here\n")
            return
        self.send_file(file.read_bytes())

    def do_POST(self) -> None:
        """Answer with the next of `answers`, the last one again and again; 202 if there are none."""
        state = self.server_state
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        state.requests.append(("POST", self.path, {k.lower(): v for k, v in self.headers.items()}))
        state.posts.append((self.path, body))
        status, headers, answer = (202, {}, b'{"accepted":true}')
        if state.answers:
            status, headers, answer = state.answers.pop(0) if len(state.answers) > 1 else state.answers[0]
        self.send(status, answer, **headers)

    def send_file(self, data: bytes, *, length: int | None = None) -> None:
        """The file as a good server sends it; ``length`` cuts the body after that many bytes and hangs up."""
        etag = '"' + hashlib.sha256(data).hexdigest()[:16] + '"' if self.server_state.etags else None
        headers = {} if etag is None else {"ETag": etag}
        if etag is not None and self.headers.get("If-None-Match") == etag:
            self.send(304, b"", **headers)
            return
        wanted = self.headers.get("Range")
        if wanted and self.headers.get("If-Range") in (None, etag):
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self.send(206, data[start:], length=length, **headers)
            return
        if self.server_state.compress and "gzip" in self.headers.get("Accept-Encoding", ""):
            data = gzip.compress(data)
            headers["Content-Encoding"] = "gzip"
        self.send(200, data, length=length, **headers)

    def send(self, status: int, body: bytes, *, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if status != 304:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if length is None else body[:length])
        if length is not None:
            self.close_connection = True

    def date_time_string(self, timestamp: float | None = None) -> str:
        now = self.server_state.now
        return super().date_time_string(now().timestamp() if timestamp is None and now is not None else timestamp)

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hung up is part of the tests."""


@contextmanager
def serve(folder: Path) -> Iterator[StaticServer]:
    state = StaticServer(folder)
    handler = type("BoundHandler", (Handler,), {"server_state": state})
    server = _Server(("127.0.0.1", 0), handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
