"""Staging over a real socket: uploads that wait, are joined, cancelled, refused, and that survive their server."""

from __future__ import annotations

import errno
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path

import pytest

from model_server.clock import SystemClock
from model_server.installation import open_publisher
from model_server.releases.blobs import Blobs
from model_server.releases.jobs.spool import Spool
from model_server.releases.jobs.store import MAX_OPEN
from model_server.settings import Settings
from tests.support.managers import ended, spool_empties, stage, until, upload
from tests.support.postgres import copy_rows
from tests.support.server import Running, connected, make_bundle, make_folder, running


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return make_folder(tmp_path / "server")


@pytest.fixture
def server(settings: Settings) -> Iterator[Running]:
    with running(settings) as server:
        yield server


def test_an_upload_is_answered_with_a_job_that_becomes_a_release(server: Running, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "1.bundle", 1)
    with server.services.repository.lock():
        answer = upload(server, bundle)
        job = answer.json()
        assert (answer.status_code, answer.headers["location"]) == (202, f"/v1/jobs/{job['id']}")
        assert job["bytes"] == bundle.stat().st_size
        shown = until(server, job["id"], lambda found: found["progress"] == "proposing")
        assert (shown["state"], shown["model"], shown["release"], shown["staged"]) == ("running", "exercise", 1, None)
        assert server.admin.get("/v1/releases/exercise").json()["releases"] == []
    done = ended(server, job["id"])
    assert (done["state"], done["problem"], done["staged"]["state"]) == ("done", None, "staged")
    assert done["staged"]["bundle_sha256"] == job["bundle_sha256"]
    assert [known["state"] for known in server.admin.get("/v1/jobs").json()["jobs"]] == ["done"]
    server.admin.delete("/v1/releases/exercise/1")
    assert server.admin.get(f"/v1/jobs/{job['id']}").json()["staged"] is None


def test_a_job_that_fails_has_the_problem_that_says_why(server: Running, tmp_path: Path) -> None:
    job = ended(server, upload(server, b"no bundle").json()["id"])
    assert job["state"] == "failed"
    assert job["problem"] == {
        "type": "urn:edgeship:problem:ArchiveError",
        "title": HTTPStatus(422).phrase,
        "status": 422,
        "detail": job["problem"]["detail"],
    }
    assert job["problem"]["detail"].startswith("the bundle: ")


def test_staging_a_bundle_again_joins_its_job(server: Running, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "1.bundle", 1)
    with server.services.repository.lock():
        first, again = (upload(server, bundle).json()["id"] for _ in range(2))
        other = upload(server, bundle, ceiling="0s=1%").json()["id"]
        assert first == again != other
        assert len(list(server.services.settings.spool_dir.iterdir())) == 2
    assert ended(server, first)["state"] == "done"
    assert ended(server, other)["problem"]["type"] == "urn:edgeship:problem:ReleaseConflict"


def test_uploads_wait_their_turn_and_one_too_many_is_told_to_come_back(server: Running, tmp_path: Path) -> None:
    bundles = [make_bundle(tmp_path / f"{release}.bundle", release) for release in range(1, MAX_OPEN + 2)]
    with server.services.repository.lock():
        jobs = [upload(server, bundle).json() for bundle in bundles[:-1]]
        until(server, jobs[0]["id"], lambda found: found["progress"] == "proposing")
        states = [job["state"] for job in server.admin.get("/v1/jobs").json()["jobs"]]
        assert states == [*["waiting"] * (MAX_OPEN - 1), "running"]
        refused = upload(server, bundles[-1])
        assert (refused.status_code, refused.json()["type"]) == (429, "urn:edgeship:problem:JobQueueFull")
        assert refused.headers["retry-after"]
        assert server.admin.delete(f"/v1/jobs/{jobs[-1]['id']}").json()["state"] == "cancelled"
        assert upload(server, bundles[-1]).status_code == 202
    spool_empties(server)
    assert [release["release"] for release in server.admin.get("/v1/releases/exercise").json()["releases"]] == [1]


def test_a_job_that_is_cancelled_stages_nothing(server: Running, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "1.bundle", 1)
    with server.services.repository.lock():
        job = upload(server, bundle).json()["id"]
        until(server, job, lambda found: found["progress"] == "proposing")
        answer = server.admin.delete(f"/v1/jobs/{job}")
        assert (answer.status_code, answer.json()["state"], answer.json()["cancelling"]) == (202, "running", True)
    assert ended(server, job)["state"] == "cancelled"
    assert server.admin.get("/v1/releases/exercise").json()["releases"] == []
    again = server.admin.delete(f"/v1/jobs/{job}")
    assert (again.status_code, again.json()["type"]) == (409, "urn:edgeship:problem:JobConflict")
    assert server.admin.delete("/v1/jobs/none").status_code == 404
    assert stage(server, bundle).status_code == 201
    spool_empties(server)


@pytest.mark.parametrize("where", [(Spool, "keep"), (Blobs, "add")])
def test_a_full_disk_stages_nothing_and_leaves_nothing(
    server: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: tuple[type, str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    bundle = make_bundle(tmp_path / "1.bundle", 1)
    with monkeypatch.context() as patch:
        patch.setattr(*where, full)
        refused = stage(server, bundle)
        assert (refused.status_code, refused.json()["type"]) == (507, "urn:edgeship:problem:StorageFull")
    spool_empties(server)
    assert stage(server, bundle).status_code == 201


def test_an_upload_that_breaks_off_leaves_neither_a_job_nor_a_file(server: Running) -> None:
    head = f"POST /v1/releases HTTP/1.1\r\nhost: x\r\nauthorization: {server.admin.headers['authorization']}\r\n"
    for _ in range(MAX_OPEN + 1):  # nor does it take room
        with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as client:
            client.sendall(head.encode() + b"content-length: 1000\r\n\r\nhalf")
        spool_empties(server)
    assert server.admin.get("/v1/jobs").json()["jobs"] == []
    deadline = time.monotonic() + 30
    while upload(server, b"no bundle").status_code == 429:  # the last one is noticed a moment later
        assert time.monotonic() < deadline


def test_a_server_that_is_killed_in_the_middle_goes_on_with_it_when_it_is_back(
    settings: Settings, tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path / "1.bundle", 1)
    ready = tmp_path / "ready"
    publisher = open_publisher(settings, SystemClock())
    line = [sys.executable, "-m", "model_server.cli", "serve", str(settings.directory), "--port", "0"]
    killed = subprocess.Popen([*line, "--ready-file", str(ready)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not ready.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        with connected(ready.read_text().strip(), settings) as server, publisher.repository.lock():
            job = upload(server, bundle).json()["id"]
            until(server, job, lambda found: found["progress"] == "proposing")
            killed.send_signal(signal.SIGKILL)
            killed.wait()
    finally:
        killed.kill()
    with running(settings) as server:
        done = ended(server, job)
        assert (done["state"], done["staged"]["release"]) == ("done", 1)
        spool_empties(server)


def test_a_server_that_stops_goes_on_with_its_jobs_when_it_is_back(settings: Settings, tmp_path: Path) -> None:
    bundles = [make_bundle(tmp_path / f"{model}.bundle", 1, model=model) for model in ("exercise", "gesture")]
    with running(settings) as server:
        with server.services.repository.lock():
            jobs = [upload(server, bundle).json()["id"] for bundle in bundles]
            until(server, jobs[0], lambda found: found["progress"] == "proposing")
            stopping = threading.Thread(target=server.services.jobs.stop)
            stopping.start()
        stopping.join()
        assert {server.admin.get(f"/v1/jobs/{job}").json()["state"] for job in jobs} <= {"waiting", "done"}
    with running(settings) as server:
        assert [ended(server, job)["state"] for job in jobs] == ["done", "done"]


def test_two_servers_on_one_database_see_all_jobs_and_run_their_own(
    settings: Settings, tmp_path: Path, postgres_database: str
) -> None:
    copy_rows(settings.database_url, postgres_database)
    first, second = (
        replace(folder, database=postgres_database) for folder in (settings, make_folder(tmp_path / "second"))
    )
    # Its own threads stand still; the lease, which the second server needs too, is free.
    with running(first) as one, running(second) as two, one.services.repository._lock:
        bundles = [make_bundle(tmp_path / f"{release}.bundle", release) for release in (1, 2)]
        job, waiting = (upload(one, bundle).json()["id"] for bundle in bundles)
        until(two, job, lambda found: found["progress"] == "proposing")
        assert upload(two, bundles[0]).json()["id"] == job
        own = upload(two, make_bundle(tmp_path / "g.bundle", 1, model="gesture")).json()["id"]
        assert ended(two, own)["state"] == "done", "the first one's jobs are not in its way"
        assert two.admin.delete(f"/v1/jobs/{waiting}").json()["state"] == "cancelled"
        assert two.admin.get(f"/v1/jobs/{job}").json()["server"] != ended(one, own)["server"]
    with running(first) as one:
        assert ended(one, job)["state"] == "done"
        assert ended(one, waiting)["state"] == "cancelled"
