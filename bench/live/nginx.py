"""nginx on a copy of the repository, with the fields that our server sends."""

from __future__ import annotations

import gzip
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.live.processes import Process, started
from model_server.signing.static import FRESH, IMMUTABLE, MIN_GZIP_BYTES

__all__ = ["nginx"]


@contextmanager
def nginx(repository: Path, scratch: Path, cpu: int | None = None) -> Iterator[Process | None]:
    """One worker on a free port; None where nginx is not installed. What is compressed was made so, as ours is."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin")
    if program is None:
        yield None
        return
    served = scratch / "nginx"
    for part in ("metadata", "targets"):
        shutil.copytree(repository / part, served / part)
    for file in (served / "metadata").iterdir():
        data = file.read_bytes()
        if len(data) >= MIN_GZIP_BYTES:
            file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(data, 6, mtime=0))
    port = _free_port()
    config = scratch / "nginx.conf"
    config.write_text(_config(served, scratch, port))

    def url() -> str | None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return None
        return f"http://127.0.0.1:{port}"

    command = [program, "-p", str(scratch), "-c", str(config), "-e", str(scratch / "nginx.error")]
    with started(command, url, scratch / "nginx.log", cpu) as process:
        yield process


def _config(served: Path, scratch: Path, port: int) -> str:
    """``master_process off``: one process is the worker, so its processor time is all there is."""
    temporary = "\n".join(
        f"    {name}_temp_path {scratch}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""\
{"user root;" if os.geteuid() == 0 else ""}
daemon off;
master_process off;
pid {scratch}/nginx.pid;
error_log {scratch}/nginx.error;
events {{ worker_connections 1024; }}
http {{
{temporary}
    access_log off;
    server_tokens off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000000;
    types {{ application/json json; }}
    default_type application/octet-stream;
    gzip_static on;
    gzip_vary on;
    server {{
        listen 127.0.0.1:{port};
        root {served};
        location = /metadata/timestamp.json {{ gzip_static off; add_header Cache-Control "{FRESH.decode()}"; }}
        location /metadata/ {{ add_header Cache-Control "{IMMUTABLE.decode()}"; }}
        location /targets/ {{ gzip_static off; add_header Cache-Control "{IMMUTABLE.decode()}"; }}
    }}
}}
"""


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
