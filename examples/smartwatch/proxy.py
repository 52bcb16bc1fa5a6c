"""A recording proxy: it stands in front of the server, passes every byte on, and keeps what devices sent.

    python -m examples.smartwatch.proxy --upstream http://127.0.0.1:8000 --record uploads.bin --ready-file url.txt

What a device uploads is a claim of the privacy page, so the demo counts it on the wire instead of asking the code.
Requests are parsed (HTTP/1.1, Content-Length), answers are relayed unread.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

MAX_HEAD = 64 * 1024
_RECORD = struct.Struct(">HHIIB")  # length of method, of target, of head, of body; 1 if content-encoding was used


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One recorded request: ``head_bytes`` is the size of request line and headers on the wire."""

    method: str
    target: str
    head_bytes: int
    body: bytes

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


def read_record(path: Path) -> Iterator[Request]:
    with path.open("rb") as f:
        while header := f.read(_RECORD.size):
            method, target, head, body, _ = _RECORD.unpack(header)
            yield Request(
                method=f.read(method).decode("latin-1"),
                target=f.read(target).decode("latin-1"),
                head_bytes=head,
                body=f.read(body),
            )


class Proxy:
    def __init__(self, host: str, port: int, record: BinaryIO) -> None:
        self._upstream = (host, port)
        self._record = record

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One device connection: requests go up one by one and are recorded; answers come down as they are."""
        try:
            up_reader, up_writer = await asyncio.open_connection(*self._upstream)
        except OSError:
            writer.close()  # to the device this is what a dead server looks like
            return
        down = asyncio.create_task(_relay(up_reader, writer))
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(_content_length(head))
                self._keep(head, body)
                up_writer.write(head + body)
                await up_writer.drain()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, ValueError):
            pass  # the device hung up, or speaks something else; both ends are closed below
        finally:
            up_writer.close()
            down.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await down
            writer.close()

    def _keep(self, head: bytes, body: bytes) -> None:
        method, target, _ = head.split(b"\r\n", 1)[0].split(b" ", 2)
        encoded = b"\r\ncontent-encoding:" in head.lower()
        self._record.write(_RECORD.pack(len(method), len(target), len(head), len(body), encoded))
        self._record.write(method + target + body)


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(65536):
        writer.write(chunk)
        await writer.drain()
    writer.close()


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        lower = name.strip().lower()
        if lower == b"content-length":
            return int(value)
        if lower == b"transfer-encoding":
            raise ValueError("a chunked request: this proxy records requests of known length only")
    return 0


async def _main(upstream: str, record: Path, ready_file: Path) -> None:
    parts = urlsplit(upstream)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    with record.open("ab") as f:
        proxy = Proxy(parts.hostname or "127.0.0.1", parts.port or 80, f)
        server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=MAX_HEAD)
        port = server.sockets[0].getsockname()[1]
        ready_file.write_text(f"http://127.0.0.1:{port}")
        await stop.wait()
        server.close()
        f.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--record", required=True, type=Path)
    parser.add_argument("--ready-file", required=True, type=Path)
    options = parser.parse_args()
    asyncio.run(_main(options.upstream, options.record, options.ready_file))
