"""Running the app under uvicorn, and telling others where it listens."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from pathlib import Path
from socket import AF_INET6, socket
from typing import Literal

import uvicorn
from fastapi import FastAPI

from model_server.errors import SettingsError
from model_server.files import write_atomic

__all__ = ["serve"]

KEEP_ALIVE_S = 65  # longer than the usual load balancer's, so that it never sends into a closing connection
SHUTDOWN_S = 10


class _Server(uvicorn.Server):
    """Calls ``listening`` with the address once requests are accepted."""

    def __init__(self, config: uvicorn.Config, listening: Callable[[str], None]) -> None:
        super().__init__(config)
        self._listening = listening

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        if self.should_exit or not self.servers:
            return
        bound = self.servers[0].sockets[0]
        host, port = bound.getsockname()[:2]
        self._listening(f"http://[{host}]:{port}" if bound.family == AF_INET6 else f"http://{host}:{port}")


def serve(app: FastAPI, host: str, port: int, *, ready_file: Path | None, announce: Callable[[str], None]) -> None:
    """Serve until told to stop. Port 0 means a free one.

    ``ready_file`` gets the address, whole, once requests are accepted, and is removed at the end; ``announce`` is
    called with it. Raises: SettingsError if it cannot listen.
    """
    if ready_file is not None:
        ready_file.unlink(missing_ok=True)  # of a server that was killed: nobody may take its address for this one's
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("tuf").setLevel(logging.WARNING)  # it reports each key that has not signed yet
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        http=_protocol(),
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )

    def listening(address: str) -> None:
        if ready_file is not None:
            write_atomic(ready_file, f"{address}\n".encode())
        announce(address)

    server = _Server(config, listening)
    # uvicorn stops on SIGTERM and then raises it again; a stop that was asked for is not a failure.
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        server.run()
    except SystemExit as error:
        raise SettingsError(f"cannot listen on {host}:{port}; the log above says why") from error
    finally:
        signal.signal(signal.SIGTERM, before)
        if ready_file is not None:
            ready_file.unlink(missing_ok=True)
    if not server.started:
        raise SettingsError(f"the server did not start on {host}:{port}; the log above says why")


def _protocol() -> type[asyncio.Protocol] | Literal["h11"]:
    try:
        from model_server.commands.http_protocol import BoundedHttpTools
    except ImportError:  # httptools is in the extra `server`; without it everything works, at a third of the speed
        return "h11"
    return BoundedHttpTools
