"""Bytes over HTTP: bounded in size and time, with errors that TUF and the updater understand."""

from __future__ import annotations

import gzip
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from tuf.api.exceptions import DownloadError, DownloadHTTPError, DownloadLengthMismatchError

from devices.static_server import Handler, StaticServer
from edge_runtime.errors import Outcome, UpdateError
from edge_runtime.update.fetcher import ServerAnswered, TooLarge, Transport, default_client
from edge_runtime.update.tuf_fetcher import TufFetcher
from tests.support.world import ManualClock


@pytest.fixture
def transport() -> Iterator[Transport]:
    made = Transport(partial(default_client, "http://"), ManualClock())
    yield made
    made.close()


def put(server: StaticServer, data: bytes) -> str:
    (server.folder / "file.json").write_bytes(data)
    return f"{server.url}/file.json"


def headers_only(**headers: str) -> Callable[[Handler], None]:
    return lambda handler: handler.send(200, b"body", **headers)


def test_a_file_comes_whole_and_counts_as_what_travelled(server: StaticServer, transport: Transport) -> None:
    data = b"x" * 10_000
    answer = transport.fetch(put(server, data), 10_000)
    assert answer.body == data
    assert answer.status == 200
    assert answer.etag is not None
    assert transport.requests == 1
    assert 0 < transport.received < 200  # compressed on the way


def test_an_unchanged_file_costs_no_body(server: StaticServer, transport: Transport) -> None:
    url = put(server, b"data")
    etag = transport.fetch(url, 10).etag
    assert etag is not None
    answer = transport.fetch(url, 10, {"If-None-Match": etag})
    assert (answer.status, answer.body) == (304, b"")


def test_one_connection_serves_many_requests(server: StaticServer, transport: Transport) -> None:
    url = put(server, b"data")
    ports = set()

    def note(handler: Handler) -> None:
        ports.add(handler.client_address[1])
        handler.send(200, b"data")

    server.faults["/file.json"] = note
    for _ in range(5):
        transport.fetch(url, 10)
    assert len(ports) == 1


def test_an_answer_that_brings_nothing_leaves_the_connection_open(server: StaticServer, transport: Transport) -> None:
    ports = []

    def answer(handler: Handler, status: int, body: bytes) -> None:
        ports.append(handler.client_address[1])
        handler.send(status, body)

    url = f"{server.url}/file.json"
    server.faults["/file.json"] = lambda handler: answer(handler, 304, b"")
    assert transport.fetch(url, 10).status == 304
    server.faults["/file.json"] = lambda handler: answer(handler, 404, b"not here")
    with pytest.raises(ServerAnswered):
        transport.fetch(url, 10)
    server.faults["/file.json"] = lambda handler: answer(handler, 500, b"x" * 10_000)
    with pytest.raises(ServerAnswered):  # of which nothing is read
        transport.fetch(url, 10)
    assert transport.received == len(b"not here")
    assert len(set(ports)) == 1


@pytest.mark.parametrize("compress", [False, True])
def test_more_than_the_limit_is_refused(server: StaticServer, transport: Transport, compress: bool) -> None:
    server.compress = compress
    url = put(server, b"x" * 1001)
    assert len(transport.fetch(url, 1001).body) == 1001
    with pytest.raises(TooLarge, match="1000 bytes"):
        transport.fetch(url, 1000)


def test_a_gzip_bomb_is_not_inflated(server: StaticServer, transport: Transport) -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)
    server.faults["/file.json"] = lambda handler: handler.send(200, bomb, Content_Encoding="gzip")
    with pytest.raises(TooLarge):
        transport.fetch(f"{server.url}/file.json", 1000)


@pytest.mark.parametrize(
    "body", [b"not gzip", gzip.compress(b"data" * 100)[:-4], b""], ids=["no gzip", "cut off", "empty"]
)
def test_damaged_gzip_is_a_failed_transfer(server: StaticServer, transport: Transport, body: bytes) -> None:
    server.faults["/file.json"] = lambda handler: handler.send(200, body, Content_Encoding="gzip")
    with pytest.raises(UpdateError, match="gzip") as caught:
        transport.fetch(f"{server.url}/file.json", 1000)
    assert caught.value.outcome is Outcome.SERVER_UNREACHABLE


def test_an_encoding_that_was_not_asked_for_is_refused(server: StaticServer, transport: Transport) -> None:
    server.faults["/file.json"] = headers_only(Content_Encoding="br")
    with pytest.raises(UpdateError, match="br"):
        transport.fetch(f"{server.url}/file.json", 1000)


@pytest.mark.parametrize("status", [301, 403, 404, 500, 503])
def test_an_error_status_is_kept(server: StaticServer, transport: Transport, status: int) -> None:
    server.faults["/file.json"] = lambda handler: handler.send(status, b"", Location="http://127.0.0.1:9/")
    with pytest.raises(ServerAnswered, match=str(status)) as caught:
        transport.fetch(f"{server.url}/file.json", 10)
    assert caught.value.status == status
    assert caught.value.outcome is Outcome.SERVER_UNREACHABLE


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/x", "http://[bad/x", "http://", "ftp://127.0.0.1/x", "http://a b/"]
)
def test_an_address_that_leads_nowhere_is_unreachable(transport: Transport, url: str) -> None:
    with pytest.raises(UpdateError) as caught:
        transport.fetch(url, 10)
    assert caught.value.outcome is Outcome.SERVER_UNREACHABLE


def test_a_server_that_hangs_up_in_the_middle_is_unreachable(server: StaticServer, transport: Transport) -> None:
    server.faults["/file.json"] = lambda handler: handler.send(200, b"x" * 1000, length=10)
    with pytest.raises(UpdateError, match=r"file\.json") as caught:
        transport.fetch(f"{server.url}/file.json", 1000)
    assert caught.value.outcome is Outcome.SERVER_UNREACHABLE


def test_a_server_that_does_not_speak_http_is_unreachable(transport: Transport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"SSH-2.0-OpenSSH\r\n")

        thread = threading.Thread(target=talk)
        thread.start()
        with pytest.raises(UpdateError) as caught:
            transport.fetch(f"http://127.0.0.1:{listener.getsockname()[1]}/", 1000)
        thread.join()
    assert caught.value.outcome is Outcome.SERVER_UNREACHABLE


def test_an_endless_trickle_is_cut_off(server: StaticServer) -> None:
    class Slow(ManualClock):
        """Between two looks at it, 50 seconds pass."""

        def boot(self) -> float:
            self.advance(50)
            return super().boot()

    sent = threading.Event()

    def trickle(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        for _ in range(1000):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            if sent.wait(0.01):
                return

    server.faults["/file.json"] = trickle
    transport = Transport(partial(default_client, "http://"), Slow())
    with pytest.raises(UpdateError, match="slowly"):
        transport.fetch(f"{server.url}/file.json", 1000)
    sent.set()
    assert transport.received < 1000
    transport.close()


def empty_blocks() -> bytes:
    """A chunk that can follow another in a deflate stream, and holds nothing."""
    return b"\x00\x00\x00\xff\xff" * 2000


@pytest.mark.parametrize("start", [gzip.compress(b"x"), gzip.compress(b"x")[:10]], ids=["after its end", "within"])
def test_gzip_that_goes_on_without_holding_anything_is_cut_off(
    server: StaticServer, transport: Transport, start: bytes
) -> None:
    sent = [0]

    def endless(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Encoding", "gzip")
        handler.send_header("Content-Length", str(10**9))
        handler.end_headers()
        handler.wfile.write(start)
        while sent[0] < 50_000_000:
            handler.wfile.write(empty_blocks())
            sent[0] += len(empty_blocks())

    server.faults["/file.json"] = endless
    with pytest.raises(TooLarge):
        transport.fetch(f"{server.url}/file.json", 1000)
    assert transport.received < 200_000


def test_tuf_gets_its_own_errors(server: StaticServer, transport: Transport) -> None:
    fetcher = TufFetcher(transport)
    url = put(server, b"x" * 100)
    assert fetcher.download_bytes(url, 100) == b"x" * 100
    with pytest.raises(DownloadLengthMismatchError):
        fetcher.download_bytes(url, 99)
    with pytest.raises(DownloadHTTPError) as caught:
        fetcher.download_bytes(f"{server.url}/missing", 99)
    assert caught.value.status_code == 404
    with pytest.raises(DownloadError):
        fetcher.download_bytes("http://127.0.0.1:9/", 99)
    with pytest.raises(DownloadError):
        list(fetcher.fetch(url))
