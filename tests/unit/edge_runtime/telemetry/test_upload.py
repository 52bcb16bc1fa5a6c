"""An upload says whether the report was taken, must be kept, or must be dropped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from devices.static_server import StaticServer, serve
from edge_runtime.authorization import Bearer
from edge_runtime.errors import ReportError
from edge_runtime.telemetry.upload import upload


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StaticServer]:
    with serve(tmp_path) as running:
        yield running


def test_a_report_is_posted_as_it_is_with_the_fleets_token_and_nothing_about_the_device(server: StaticServer) -> None:
    with httpx.Client() as client:
        assert upload(b"EST1...", client, server.url + "/", Bearer("fleet"))
    assert server.posts == [("/v1/telemetry", b"EST1...")]
    headers = server.requests[0][2]
    assert headers["authorization"] == "Bearer fleet"
    assert headers["content-type"] == "application/octet-stream"
    assert set(headers) == {
        "accept", "accept-encoding", "authorization", "connection", "content-length", "content-type", "host",
        "user-agent",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("status", "taken"), [(200, True), (202, True), (409, True), (401, False), (403, False), (429, False), (503, False)]
)
def test_the_servers_answer_decides_whether_it_is_kept(server: StaticServer, status: int, taken: bool) -> None:
    server.answers = [(status, {}, b"")]
    with httpx.Client() as client:
        assert upload(b"EST1", client, server.url, Bearer(None)) is taken
    assert "authorization" not in server.requests[0][2]


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refusal_for_good_is_an_error(server: StaticServer, status: int) -> None:
    server.answers = [(status, {}, b"")]
    with httpx.Client() as client, pytest.raises(ReportError, match=str(status)):
        upload(b"EST1", client, server.url, Bearer(None))


def test_a_server_that_is_gone_keeps_the_report_here() -> None:
    with httpx.Client(timeout=1.0) as client:
        assert upload(b"EST1", client, "http://127.0.0.1:9", Bearer(None)) is False
