"""A TCP proxy that counts what passes: every byte of HTTP both ways, heads included, and the requests."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

__all__ = ["Counted", "counting"]


class Counted:
    """What passed since the last `clear`. Requests are GETs, so each ends with the empty line of its head."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._guard = threading.Lock()
        self._sent = bytearray()
        self._received = 0

    def clear(self) -> None:
        with self._guard:
            self._sent.clear()
            self._received = 0

    @property
    def bytes(self) -> int:
        with self._guard:
            return len(self._sent) + self._received

    @property
    def requests(self) -> int:
        with self._guard:
            return self._sent.count(b"\r\n\r\n")

    def sent(self, data: bytes) -> None:
        with self._guard:
            self._sent += data

    def received(self, data: bytes) -> None:
        with self._guard:
            self._received += len(data)


@contextmanager
def counting(server: str) -> Iterator[Counted]:
    """A proxy in front of ``server``, an http:// address, on a free port. Bytes are counted before they go on."""
    parts = urlsplit(server)
    listener = socket.create_server(("127.0.0.1", 0))
    counted = Counted(f"http://127.0.0.1:{listener.getsockname()[1]}")
    accepting = threading.Thread(target=_accept, args=(listener, (parts.hostname, parts.port), counted), daemon=True)
    accepting.start()
    try:
        yield counted
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # closing alone does not wake who waits in accept
        listener.close()
        accepting.join(10)


def _accept(listener: socket.socket, server: tuple[str | None, int | None], counted: Counted) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        upstream = socket.create_connection((server[0] or "", server[1] or 0))
        for source, sink, count in ((client, upstream, counted.sent), (upstream, client, counted.received)):
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=_pump, args=(source, sink, count), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket, count: Callable[[bytes], None]) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            count(data)
            sink.sendall(data)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
