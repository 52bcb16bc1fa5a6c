"""`release stage` and `jobs`, as they are typed, against a server in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from model_server.cli import main
from model_server.client import Client
from model_server.commands.jobs import UNREACHABLE_S, follow
from model_server.errors import ServerUnreachable
from tests.support.managers import ended, upload
from tests.support.server import Running, make_bundle, make_folder, running

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(make_folder(tmp_path_factory.mktemp("jobs") / "server")) as server:
        yield server


@pytest.fixture
def run(server: Running, capsys: pytest.CaptureFixture[str]) -> Run:
    """Exit status, standard output and standard error of a command."""
    key = server.admin.headers["authorization"].removeprefix("Bearer ")

    def run(*args: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main([*map(str, args), "--server", server.url, "--api-key", key])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def bundle(server: Running, tmp_path: Path) -> Iterator[Path]:
    yield make_bundle(tmp_path / "1.bundle", 1)
    server.admin.delete("/v1/releases/exercise/1")


def test_staging_follows_the_job_and_shows_each_step_and_the_release(run: Run, server: Running, bundle: Path) -> None:
    status, out, _ = run("release", "stage", bundle)
    assert status == 0
    assert "exercise 1 (1.0.0): staged, signed by nobody" in out
    status, out, _ = run("jobs", "list")
    assert status == 0
    assert server.admin.get("/v1/jobs").json()["jobs"][0]["id"] in out
    assert "exercise 1" in out


def test_without_waiting_the_job_is_shown_and_followed_later(run: Run, server: Running, bundle: Path) -> None:
    with server.services.repository.lock():
        job = json.loads(run("release", "stage", bundle, "--no-wait", "--json")[1])
        assert job["state"] in ("waiting", "running")
        assert f"jobs show {job['id']} --wait" in run("release", "stage", bundle, "--no-wait")[1].replace("\n", " ")
        assert json.loads(run("jobs", "show", job["id"], "--json")[1])["ended"] is None
    release = json.loads(run("jobs", "show", job["id"], "--wait", "--json")[1])
    assert (release["state"], release["release"]) == ("staged", 1)
    status, _, err = run("jobs", "cancel", job["id"])
    assert status == 1
    assert "409" in err
    assert run("jobs", "show", job["id"])[1].startswith(f"job {job['id']}: done")


def test_a_job_that_fails_fails_the_command_with_its_reason(run: Run, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.bundle"
    damaged.write_bytes(b"no bundle")
    status, _, err = run("release", "stage", damaged, "--json")
    assert status == 1
    assert "422 the bundle: " in err
    assert err.count("\n") == 1


def test_a_job_that_is_cancelled_fails_the_command(run: Run, server: Running, bundle: Path) -> None:
    with server.services.repository.lock():
        job = json.loads(run("release", "stage", bundle, "--no-wait", "--json")[1])["id"]
        assert run("jobs", "cancel", job)[0] == 0
    status, _, err = run("jobs", "show", job, "--wait")
    assert status == 1
    assert "nothing was staged" in err


def test_who_interrupts_is_told_how_to_go_on(
    run: Run, server: Running, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("model_server.commands.jobs.follow", interrupted)
        status, _, err = run("release", "stage", bundle)
    job = server.admin.get("/v1/jobs").json()["jobs"][0]["id"]
    assert status == 130
    assert f"edgeship-server jobs show {job} --wait" in err
    ended(server, job)
    with monkeypatch.context() as patch:
        patch.setattr(Client, "upload", interrupted)
        status, _, err = run("release", "stage", bundle)
    assert status == 130
    assert "nothing was staged" in err


def test_a_server_that_is_away_for_a_moment_is_waited_for(server: Running, bundle: Path) -> None:
    job, now, said = upload(server, bundle).json(), 0.0, list[str]()
    answers: list[Any] = [ServerUnreachable("away"), ended(server, job["id"])]

    class Flaky:
        def get(self, path: str) -> Any:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    job["state"] = "waiting"
    assert follow(Flaky(), job, said.append, sleep=sleep, monotonic=lambda: now)["state"] == "done"  # type: ignore[arg-type]
    assert said
    answers = [ServerUnreachable("away")] * 1000
    with pytest.raises(ServerUnreachable, match=f"jobs show {job['id']}"):
        follow(Flaky(), job, said.append, sleep=sleep, monotonic=lambda: now)  # type: ignore[arg-type]
    assert now > UNREACHABLE_S
