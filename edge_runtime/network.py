"""HTTP with an end: clients whose waits, all together, stop at a deadline, and a POST that reads a bounded answer.

httpx bounds every single wait. A server that sends one header byte now and then, or one interim answer (1xx) after the
other, passes each of those bounds and holds the caller for hours. So the sockets of these clients know the deadline.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import httpcore
import httpx

__all__ = ["bounded", "exchange", "post", "within"]

MAX_ANSWER_BYTES = 65_536  # of an answer to a report

_deadline: ContextVar[float | None] = ContextVar("edge_runtime_deadline", default=None)


def bounded(client: httpx.Client) -> httpx.Client:
    """``client``, new and not used yet, with sockets that obey `within`."""
    for transport in (client._transport, *client._mounts.values()):
        pool = getattr(transport, "_pool", None)
        if isinstance(pool, httpcore.ConnectionPool):
            pool._network_backend = _Backend(pool._network_backend)
    return client


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Whatever this thread waits for in here raises `httpx.TimeoutException` once ``seconds`` have passed."""
    token = _deadline.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _deadline.reset(token)


def post(
    client: httpx.Client, url: str, content: bytes, headers: Mapping[str, str], timeout_s: float
) -> httpx.Response:
    """POST and return the answer's head; of its body at most `MAX_ANSWER_BYTES` come, undecoded, and are thrown away.

    Raises `httpx.HTTPError`, `httpx.InvalidURL` and `httpx.StreamError`.
    """
    return exchange(client, url, content, headers, timeout_s)[0]


def exchange(
    client: httpx.Client, url: str, content: bytes, headers: Mapping[str, str], timeout_s: float
) -> tuple[httpx.Response, bytes]:
    """POST and return the answer's head and its body, undecoded, as far as about `MAX_ANSWER_BYTES`. Raises as `post`
    does."""
    with within(timeout_s), client.stream("POST", url, content=content, headers=headers, timeout=timeout_s) as response:
        received = bytearray()
        for chunk in response.iter_raw():  # to its end, where it is short, so that the connection can be used again
            received += chunk
            if len(received) > MAX_ANSWER_BYTES:
                break
        return response, bytes(received)


def _left(timeout: float | None, late: type[Exception]) -> float | None:
    deadline = _deadline.get()
    if deadline is None:
        return timeout
    left = deadline - time.monotonic()
    if left <= 0:
        raise late("the server took too long over its answer")
    return left if timeout is None else min(timeout, left)


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, _left(timeout, httpcore.ConnectTimeout)))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Backend(httpcore.NetworkBackend):
    def __init__(self, backend: httpcore.NetworkBackend) -> None:
        self._backend = backend

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        left = _left(timeout, httpcore.ConnectTimeout)
        return _Stream(self._backend.connect_tcp(host, port, left, local_address, socket_options))

    def sleep(self, seconds: float) -> None:
        self._backend.sleep(seconds)
