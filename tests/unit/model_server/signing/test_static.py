"""Static files over a real socket, asked as devices and caches ask."""

from __future__ import annotations

import gzip
import hashlib
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

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
    from model_server.signing.static import MetadataFiles

    for number in range(1, 6):
        (tmp_path / f"{number}.root.json").write_bytes(b"x" * 400)
    files = MetadataFiles(tmp_path, max_bytes=1_000)
    for number in range(1, 6):
        assert files._entry(f"{number}.root.json") is not None
    assert list(files._entries) == ["4.root.json", "5.root.json"]
