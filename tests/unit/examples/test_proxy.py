"""The recording proxy passes everything on and keeps exactly what was sent."""

from __future__ import annotations

import http.server
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from examples.smartwatch.proxy import read_record


class _Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[::-1])

    def do_GET(self) -> None:
        self.send_response(304)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def upstream() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_requests_are_recorded_as_sent_and_answers_come_back(tmp_path: Path, upstream: str) -> None:
    record, ready = tmp_path / "uploads.bin", tmp_path / "url"
    line = [sys.executable, "-m", "examples.smartwatch.proxy", "--upstream", upstream]
    process = subprocess.Popen([*line, "--record", str(record), "--ready-file", str(ready)])
    try:
        deadline = time.monotonic() + 20
        while not ready.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        with httpx.Client(base_url=ready.read_text()) as client:
            assert client.post("/v1/telemetry?a=1", content=b"abc").content == b"cba"
            assert client.get("/metadata/timestamp.json").status_code == 304
            assert client.post("/v1/outcomes", content=b"x" * 100_000).content == b"x" * 100_000
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=10)
    seen = list(read_record(record))
    assert [(r.method, r.path, len(r.body)) for r in seen] == [
        ("POST", "/v1/telemetry", 3),
        ("GET", "/metadata/timestamp.json", 0),
        ("POST", "/v1/outcomes", 100_000),
    ]
    assert seen[0].body == b"abc"
    assert seen[0].head_bytes > len("POST /v1/telemetry?a=1 HTTP/1.1")
