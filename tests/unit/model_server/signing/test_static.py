"""Static files over a real socket, asked as devices and caches ask."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import os
import random
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.types import Message

from model_server.signing.static import CHUNK_BYTES, MetadataFiles, TargetFiles
from tests.support.plans import PLAN
from tests.support.server import Running, make_folder, repository_dir, running

IDENTITY = {"Accept-Encoding": "identity"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    settings = make_folder(tmp_path_factory.mktemp("static") / "server")
    with running(settings) as server:
        yield server


@pytest.fixture
def http(server: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url) as client:
        yield client


def test_metadata_is_served_as_it_lies_on_disk_without_a_credential(server: Running, http: httpx.Client) -> None:
    answer = http.get("/metadata/1.root.json", headers=IDENTITY)
    assert answer.status_code == 200
    assert answer.content == (repository_dir(server.services.settings) / "metadata" / "1.root.json").read_bytes()
    assert "immutable" in answer.headers["cache-control"]


def test_the_timestamp_may_be_cached_for_seconds_only(http: httpx.Client) -> None:
    assert http.get("/metadata/timestamp.json").headers["cache-control"] == "public, max-age=5"


def test_an_unchanged_file_costs_an_empty_answer(http: httpx.Client) -> None:
    etag = http.get("/metadata/timestamp.json").headers["etag"]
    for header in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = http.get("/metadata/timestamp.json", headers={"If-None-Match": header})
        assert (again.status_code, again.content) == (304, b"")
    assert http.get("/metadata/timestamp.json", headers={"If-None-Match": '"other"'}).status_code == 200


def test_a_new_timestamp_is_seen_at_once(server: Running, http: httpx.Client) -> None:
    first = http.get("/metadata/timestamp.json")
    server.services.rollouts._publisher.put_plan(replace(PLAN, salt="another"))
    second = http.get("/metadata/timestamp.json", headers={"If-None-Match": first.headers["etag"]})
    assert second.status_code == 200
    assert second.content != first.content


def test_metadata_travels_compressed_to_who_accepts_it(http: httpx.Client) -> None:
    plain = http.get("/metadata/1.root.json", headers=IDENTITY)
    with http.stream("GET", "/metadata/1.root.json", headers={"Accept-Encoding": "gzip"}) as packed:
        raw = b"".join(packed.iter_raw())
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(raw) == plain.content
    assert len(raw) < len(plain.content)
    assert packed.headers["etag"] != plain.headers["etag"]
    refused = http.get("/metadata/1.root.json", headers={"Accept-Encoding": "gzip;q=0"})
    assert "content-encoding" not in refused.headers
    for answer in (plain, packed, refused):
        assert answer.headers["vary"] == "accept-encoding"


def test_a_file_that_never_travels_compressed_does_not_vary(http: httpx.Client) -> None:
    assert "vary" not in http.get("/metadata/timestamp.json", headers={"Accept-Encoding": "gzip"}).headers


def test_head_answers_without_a_body(http: httpx.Client) -> None:
    answer = http.head("/metadata/1.root.json", headers=IDENTITY)
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) == len(http.get("/metadata/1.root.json", headers=IDENTITY).content)


def test_a_target_can_be_fetched_in_ranges(server: Running, http: httpx.Client) -> None:
    server.services.rollouts._publisher.put_plan(PLAN)
    data = PLAN.to_json()
    digest = hashlib.sha256(data).hexdigest()
    url = f"/targets/rollouts/stable/{digest}.exercise.json"
    whole = http.get(url)
    assert (whole.status_code, whole.content) == (200, data)
    assert whole.headers["etag"] == f'"{digest}"'
    part = http.get(url, headers={"Range": "bytes=10-", "If-Range": f'"{digest}"'})
    assert (part.status_code, part.content) == (206, data[10:])
    other = http.get(url, headers={"Range": "bytes=10-", "If-Range": '"other"'})
    assert (other.status_code, other.content) == (200, data)
    assert http.get(url, headers={"Range": f"bytes={len(data)}-"}).status_code == 416
    assert http.get(url, headers={"If-None-Match": f'"{digest}"'}).status_code == 304


def put_target(server: Running, data: bytes) -> str:
    """The path of a target with these bytes, which nobody signed."""
    digest = hashlib.sha256(data).hexdigest()
    folder = (repository_dir(server.services.settings) / "targets") / "models" / "exercise"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{digest}.x").write_bytes(data)
    return f"/targets/models/exercise/{digest}.x"


def test_a_large_target_arrives_whole_and_in_any_part(server: Running, http: httpx.Client) -> None:
    data = random.Random(1).randbytes(3 * CHUNK_BYTES + 17)
    path = put_target(server, data)
    assert http.get(path).content == data
    for part in (slice(100, None), slice(CHUNK_BYTES - 1, CHUNK_BYTES + 1), slice(17, 2 * CHUNK_BYTES + 17)):
        end = "" if part.stop is None else part.stop - 1
        answer = http.get(path, headers={"Range": f"bytes={part.start}-{end}"})
        assert (answer.status_code, answer.content) == (206, data[part])
        assert answer.headers["content-range"].startswith(f"bytes {part.start}-")


def test_head_of_a_target_states_the_whole_file_also_for_a_range(server: Running, http: httpx.Client) -> None:
    answer = http.head(put_target(server, b"a target"), headers={"Range": "bytes=2-"})
    assert (answer.status_code, answer.headers["content-length"]) == (200, "8")


def test_an_empty_target_can_be_fetched(server: Running, http: httpx.Client) -> None:
    answer = http.get(put_target(server, b""))
    assert (answer.status_code, answer.content) == (200, b"")


def test_a_file_is_read_only_while_somebody_takes_it(server: Running) -> None:
    size = 8 * CHUNK_BYTES
    path = put_target(server, bytes(size))
    sent = 0

    async def send(message: Message) -> None:
        nonlocal sent
        sent += len(message.get("body", b""))

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    files = TargetFiles(repository_dir(server.services.settings) / "targets")
    asyncio.run(files({"type": "http", "method": "GET", "path": path, "headers": []}, receive, send))
    assert sent < size


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "named pipe"])
def test_only_a_regular_file_is_a_target(server: Running, http: httpx.Client, make: Callable[[Path], None]) -> None:
    folder = (repository_dir(server.services.settings) / "targets") / make.__name__
    folder.mkdir(exist_ok=True)
    make(folder / f"{'1' * 64}.x")
    assert http.get(f"/targets/{folder.name}/{'1' * 64}.x").status_code == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_static_files_can_only_be_read(http: httpx.Client, method: str) -> None:
    for path in ("/metadata/timestamp.json", "/targets/x/y"):
        assert http.request(method, path).status_code == 405


def raw_get(server: Running, path: str) -> bytes:
    """A request whose path no client library has tidied up."""
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=10) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while piece := connection.recv(65_536):
            answer += piece
    return answer


@pytest.mark.parametrize(
    "path",
    [
        "/metadata/../settings.toml",
        "/metadata/..%2f..%2fcredentials.json",
        "/metadata/%2e%2e/%2e%2e/credentials.json",
        "/metadata/.publisher.lock",
        "/metadata/timestamp.json/",
        "/metadata/timestamp.json%00",
        "/metadata/",
        "/metadata",
        "/targets/../../credentials.json",
        "/targets/a/../../../credentials.json",
        "/targets/%2e%2e/%2e%2e/credentials.json",
        "/targets/rollouts/stable/exercise.json",
        "/targets/",
        "/targets//etc/passwd",
    ],
)
def test_no_path_leads_out_of_the_repository(server: Running, path: str) -> None:
    answer = raw_get(server, path)
    assert answer.startswith(b"HTTP/1.1 404"), answer[:200]
    assert b"admin_api_key" not in answer


def test_a_link_among_the_targets_is_not_followed(server: Running) -> None:
    folder = repository_dir(server.services.settings) / "targets" / "models" / "exercise"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{'0' * 64}.x").symlink_to(server.services.settings.directory / "credentials.json")
    assert raw_get(server, f"/targets/models/exercise/{'0' * 64}.x").startswith(b"HTTP/1.1 404")


def test_only_the_newest_files_are_kept_in_memory(tmp_path: Path) -> None:
    for number in range(1, 6):
        (tmp_path / f"{number}.root.json").write_bytes(b"x" * 400)
    files = MetadataFiles(tmp_path, max_bytes=1_000)
    for number in range(1, 6):
        assert files._entry(f"{number}.root.json") is not None
    assert list(files._entries) == ["4.root.json", "5.root.json"]
