"""The head of a request has an end, whichever parser reads it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

pytest.importorskip("httptools")
from model_server.commands.http_protocol import MAX_HEAD_BYTES, BoundedHttpTools


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    length = sum(len(name) + len(value) for name, value in scope["headers"])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"8")]})
    await send({"type": "http.response.body", "body": b"%08d" % length})


@pytest.fixture
def connection() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, http=BoundedHttpTools, lifespan="off", log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        with socket.create_connection(listener.getsockname(), timeout=10) as connection:
            yield connection
        server.should_exit = True
        thread.join(30)


def test_a_head_without_an_end_is_cut_off(connection: socket.socket) -> None:
    connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
    line = b"X-More: " + b"x" * 1000 + b"\r\n"
    with pytest.raises(OSError, match=r"reset|pipe"):
        for _ in range(64 * MAX_HEAD_BYTES // len(line)):
            connection.sendall(line)


def test_many_requests_on_one_connection_each_have_their_own_head(connection: socket.socket) -> None:
    head = b"GET / HTTP/1.1\r\nHost: x\r\nX-More: " + b"x" * 40_000 + b"\r\n\r\n"
    for _ in range(4):
        connection.sendall(head)
        answer = b""
        while not answer.endswith(b"00040011"):
            piece = connection.recv(65_536)
            assert piece
            answer += piece
