import errno
import logging
import socket
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
from sqlalchemy.exc import OperationalError

from model_server.releases.service import ReleaseService
from tests.support.managers import spool_empties
from tests.support.server import MODELS, Running, SteppedClock, make_bundle, make_folder, running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(make_folder(tmp_path_factory.mktemp("app") / "server")) as server:
        yield server


def test_status_shows_roles_releases_and_rollouts(server: Running) -> None:
    status = server.admin.get("/v1/status").json()
    assert tuple(status["models"]) == MODELS
    assert {role["alert"] for role in status["roles"]} == {"ok"}
    assert status["rollouts"] == []


def test_the_server_renews_its_metadata_by_itself(tmp_path: Path) -> None:
    clock = SteppedClock()
    with running(make_folder(tmp_path / "server"), clock) as server:
        before = server.services.repository.timestamp().signed
        clock.advance(hours=20)
        server.services.controller.tick()
        after = server.services.repository.timestamp().signed
        assert after.version == before.version + 1
        assert after.expires > before.expires


def test_a_server_that_was_off_for_weeks_starts_again_with_fresh_metadata(tmp_path: Path) -> None:
    settings = make_folder(tmp_path / "server")
    clock = SteppedClock()
    clock.advance(days=40)
    with running(settings, clock) as server:
        server.services.controller.tick()
        roles = server.admin.get("/v1/status").json()["roles"]
        assert {role["role"] for role in roles if role["alert"] == "expired"} == set()


def test_what_is_not_there_is_a_problem_and_not_a_page(server: Running) -> None:
    for path in ("/", "/v1/nothing", "/v3"):
        answer = server.admin.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
        assert answer.json()["status"] == 404
    assert server.admin.put("/v1/status").status_code == 405


def test_an_unexpected_error_tells_nothing_of_the_inside(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: ReleaseService, model: str) -> None:
        raise ZeroDivisionError("the secret is 42")

    monkeypatch.setattr(ReleaseService, "list", broken)
    answer = server.admin.get("/v1/releases/exercise")
    assert answer.status_code == 500
    assert "42" not in answer.text
    assert answer.json()["type"] == "urn:edgeship:problem:Internal"


def test_a_bundle_larger_than_the_cap_is_refused_before_it_is_stored(tmp_path: Path) -> None:
    from dataclasses import replace

    settings = replace(make_folder(tmp_path / "server"), max_bundle_bytes=1_000)
    data = make_bundle(tmp_path / "1.bundle", 1).read_bytes()
    with running(settings) as server:
        assert server.admin.post("/v1/releases", content=data).status_code == 413

        def chunks() -> Iterator[bytes]:
            yield data[:600]
            yield data[600:]

        assert server.admin.post("/v1/releases", content=chunks()).status_code == 413
        assert list(settings.spool_dir.iterdir()) == []


def test_the_cloud_endpoint_and_telemetry_are_mounted(server: Running) -> None:
    assert httpx.get(f"{server.url}/v2/health/live").status_code == 200
    assert server.device.get("/v2").json()["name"]
    assert server.admin.get("/v1/telemetry/exercise/days").status_code == 200
    assert server.device.post("/v1/telemetry", content=b"junk").status_code in (400, 422)


def test_drift_of_a_model_that_nobody_serves_is_not_found(server: Running) -> None:
    assert server.admin.get("/v1/drift/exercise").json()["baseline"]["approved"] is False
    baseline = {"from": "2026-03-02", "to": "2026-03-08", "approved_by": "Alice"}
    for answer in (
        server.admin.get("/v1/drift/excercise"),
        server.admin.get("/v1/telemetry/excercise/days"),
        server.admin.post("/v1/drift/excercise/baseline", json=baseline),
    ):
        assert (answer.status_code, answer.json()["type"]) == (404, "urn:edgeship:problem:UnknownModel")


def test_an_upload_that_was_cut_off_leaves_no_file_for_the_next_start(tmp_path: Path) -> None:
    settings = make_folder(tmp_path / "server")
    settings.spool_dir.mkdir()
    for name in ("left-over.part", "left-over.bundle"):
        (settings.spool_dir / name).write_bytes(b"half")
    with running(settings) as server:
        spool_empties(server)


@pytest.mark.parametrize(
    "failure",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full")),
        OperationalError("INSERT", {}, psycopg.errors.DiskFull("could not extend file: No space left on device")),
    ],
)
def test_a_full_disk_is_a_problem_that_says_what_to_do(
    server: Running, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def full(self: ReleaseService, model: str) -> None:
        raise failure

    monkeypatch.setattr(ReleaseService, "list", full)
    answer = server.admin.get("/v1/releases/exercise")
    assert (answer.status_code, answer.json()["type"]) == (507, "urn:edgeship:problem:StorageFull")
    assert "free some space" in answer.json()["detail"]


@pytest.mark.parametrize(
    "failure",
    [
        sqlite3.OperationalError("database is locked"),
        psycopg.OperationalError("connection refused"),
        psycopg.errors.AdminShutdown("terminating connection due to administrator command"),
        psycopg.errors.LockNotAvailable("canceling statement due to lock timeout"),
    ],
)
def test_a_database_that_does_not_answer_asks_to_come_back(
    server: Running, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def away(self: ReleaseService, model: str) -> None:
        raise OperationalError("SELECT", {}, failure)

    monkeypatch.setattr(ReleaseService, "list", away)
    answer = server.admin.get("/v1/releases/exercise")
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:edgeship:problem:StorageUnavailable")
    assert 30 <= int(answer.headers["retry-after"]) <= 60


def test_another_failure_of_the_disk_stays_an_error_of_the_server(
    server: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: ReleaseService, model: str) -> None:
        raise PermissionError(errno.EACCES, "the secret place")

    monkeypatch.setattr(ReleaseService, "list", broken)
    answer = server.admin.get("/v1/releases/exercise")
    assert (answer.status_code, answer.json()["type"]) == (500, "urn:edgeship:problem:Internal")
    deadline = time.monotonic() + 10  # the traceback is logged behind the answer, and must not reach the next test
    while not (logged := [record for record in caplog.records if record.exc_info]) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert logged


@pytest.mark.parametrize("path", ["/v1/releases", "/v1/outcomes", "/v1/telemetry"])
def test_a_client_that_goes_away_in_the_middle_is_no_error_of_the_server(
    server: Running, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    caplog.set_level(logging.ERROR)
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: {server.admin.headers['authorization']}\r\n"
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as client:
        client.sendall(head.encode() + b"content-length: 1000\r\n\r\nhalf")
        time.sleep(0.2)
    time.sleep(0.2)
    assert server.admin.get("/v1/status").status_code == 200
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert list(server.services.settings.spool_dir.iterdir()) == []
