"""A server that is slow on purpose, or never stops answering, costs a bounded time and a bounded number of bytes."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import httpx
import pytest

from edge_runtime.authorization import Bearer
from edge_runtime.bundle import Hybrid
from edge_runtime.errors import CloudUnreachable, ReportError, UpdateError
from edge_runtime.hybrid.breaker import Breaker, BreakerPolicy
from edge_runtime.hybrid.client import CloudClient
from edge_runtime.hybrid.policy import RoutingPolicy
from edge_runtime.network import MAX_ANSWER_BYTES, bounded, post
from edge_runtime.telemetry.upload import upload
from edge_runtime.update import fetcher
from tests.support import tiny
from tests.support.world import ManualClock

HEADERS = (b"HTTP/1.1 200 OK\r\n", b"X-More: to come\r\n")
INTERIM = (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n")
BODY = (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n", b"x" * 65_536)


@contextmanager
def talking(first: bytes, again: bytes, pause_s: float) -> Iterator[tuple[str, list[int]]]:
    """A server that sends ``first``, then ``again`` until the caller hangs up; and how many bytes it sent."""
    sent, done = [0], threading.Event()

    def talk() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65_536)
            for part in itertools.chain([first], itertools.repeat(again)):
                try:
                    connection.sendall(part)
                except OSError:
                    return
                sent[0] += len(part)
                if done.wait(pause_s):
                    return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=talk, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", sent
        finally:
            done.set()
            thread.join(5)


@pytest.mark.parametrize("script", [HEADERS, INTERIM])
def test_the_cloud_is_given_up_on_in_time_while_its_answer_does_not_begin(script: tuple[bytes, bytes]) -> None:
    policy = RoutingPolicy(cloud_timeout_s=0.3)
    with talking(*script, 0.05) as (url, _):
        client = CloudClient(url, Bearer(None), policy, Breaker(BreakerPolicy()))
        start = time.monotonic()
        with pytest.raises(CloudUnreachable):
            client.ask(Hybrid(model="m", releases=(1,), inputs=(tiny.CONTEXT,)), {"context": tiny.windows(1)}, 4)
        assert time.monotonic() - start < 5
        client.close()


@pytest.mark.parametrize("script", [HEADERS, INTERIM])
def test_a_check_is_given_up_on_in_time_while_its_answer_does_not_begin(
    script: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetcher, "GRACE_S", 0.3)
    transport = fetcher.Transport(partial(fetcher.default_client, "http://"), ManualClock())
    with talking(*script, 0.05) as (url, _):
        start = time.monotonic()
        with pytest.raises(UpdateError, match=r"timed out|too long"):
            transport.fetch(url, 100)
        assert time.monotonic() - start < 5
    transport.close()


@pytest.mark.parametrize("script", [HEADERS, INTERIM, (BODY[0], b"x")])
def test_a_report_waits_for_a_slow_answer_no_longer_than_it_says(script: tuple[bytes, bytes]) -> None:
    with talking(*script, 0.05) as (url, _), bounded(httpx.Client()) as client:
        start = time.monotonic()
        with pytest.raises(httpx.TimeoutException):
            post(client, url, b"", {}, 0.3)
        assert time.monotonic() - start < 5


def test_a_reports_endless_answer_is_not_read() -> None:
    with talking(*BODY, 0.0) as (url, sent), bounded(httpx.Client()) as client:
        assert post(client, url, b"", {}, 10.0).status_code == 200
        assert client.is_closed is False
    assert sent[0] < 100 * MAX_ANSWER_BYTES  # what fits into the sockets' buffers


def test_a_reports_answer_in_a_broken_encoding_is_an_answer() -> None:
    answer = b"HTTP/1.1 %s\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope"
    with talking(answer % b"202 Accepted", b"", 5.0) as (url, _), bounded(httpx.Client()) as client:
        assert upload(b"EST1", client, url, Bearer(None)) is True
    refused = pytest.raises(ReportError, match="400")
    with talking(answer % b"400 No", b"", 5.0) as (url, _), bounded(httpx.Client()) as client, refused:
        upload(b"EST1", client, url, Bearer(None))


def test_an_address_that_cannot_be_keeps_the_telemetry() -> None:
    with httpx.Client() as client:
        assert upload(b"EST1", client, "http://[broken", Bearer(None)) is False
