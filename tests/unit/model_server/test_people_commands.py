"""`people`, `login`, `logout` and `whoami` as they are typed."""

from __future__ import annotations

import json
import logging
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from model_server.cli import main
from tests.support.server import Running, make_folder, running

Run = Callable[..., dict[str, Any]]
PASSWORD = "a long enough password"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(make_folder(tmp_path_factory.mktemp("people") / "server")) as server:
        yield server


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Running) -> Path:
    """Where a session is kept; the server is the one that runs."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("EDGESHIP_SERVER", server.url)
    monkeypatch.delenv("EDGESHIP_API_KEY", raising=False)
    return tmp_path / "config" / "edgeship" / "credentials.json"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], home: Path) -> Run:
    """Run a command with ``--json`` and parse its answer."""

    def run(*args: object, code: int = 0) -> dict[str, Any]:
        capsys.readouterr()
        assert main([*map(str, args), "--json"]) == code
        out, err = capsys.readouterr()
        return {"error": err} if code else dict(json.loads(out))

    return run


@pytest.fixture
def admin(server: Running) -> tuple[str, Path]:
    return "--credentials", server.services.settings.directory / "credentials.json"


@pytest.fixture
def password(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text(PASSWORD + "\n")
    return path


def test_a_person_is_added_logs_in_works_and_logs_out(
    run: Run, home: Path, admin: tuple[str, Path], password: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    added = run("people", "add", "olga", "--role", "operator", "--password-file", password, *admin)
    assert (added["role"], added["has_password"]) == ("operator", True)
    assert run("whoami", *admin)["name"] == "alice"  # the first person that init was told of
    opened = run("login", "olga", "--password-file", password)
    assert "session_key" not in opened
    assert stat.S_IMODE(home.stat().st_mode) == 0o600
    key = json.loads(home.read_text())["session_key"]
    me = run("whoami")
    assert (me["name"], me["role"]) == ("olga", "operator")
    assert "403" in run("release", "revoke", "exercise", 1, code=1)["error"]
    assert "operator" in run("people", "list", code=1)["error"]
    assert "404" in run("rollout", "halt", "exercise", code=1)["error"]  # let in; there is none
    assert [info["kind"] for info in run("people", "key", "list", "olga", *admin)["keys"]] == ["session"]
    run("logout")
    assert not home.exists()
    assert "login" in run("whoami", code=1)["error"]
    assert "401" in run("whoami", "--api-key", key, code=1)["error"]
    assert key not in caplog.text
    assert PASSWORD not in caplog.text


def test_keys_are_made_listed_and_revoked(run: Run, admin: tuple[str, Path], tmp_path: Path) -> None:
    run("people", "add", "victor", "--role", "viewer", *admin)
    file = tmp_path / "keys" / "ci.json"
    made = run("people", "key", "add", "victor", "--name", "ci", "--expires", 30, "--out", file, *admin)
    assert "api_key" not in made
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    shown = run("people", "key", "add", "victor", *admin)
    assert run("status", "--credentials", file)["rollouts"] == []
    assert run("whoami", "--api-key", shown["api_key"])["key"] == shown["id"]
    assert "exists" in run("people", "key", "add", "victor", "--out", file, *admin, code=1)["error"]
    run("people", "key", "revoke", "victor", made["id"], *admin)
    assert "401" in run("status", "--credentials", file, code=1)["error"]
    states = {key["id"]: key["state"] for key in run("people", "key", "list", "victor", *admin)["keys"]}
    assert states == {made["id"]: "revoked", shown["id"]: "valid"}
    assert run("people", "key", "revoke", "victor", "--all", *admin)["revoked"] == "all"
    assert "401" in run("whoami", "--api-key", shown["api_key"], code=1)["error"]
    assert "404" in run("people", "key", "revoke", "victor", "abc", *admin, code=1)["error"]


def test_a_person_changes_role_and_password_and_comes_and_goes(
    run: Run, admin: tuple[str, Path], password: Path
) -> None:
    run("people", "add", "mia", "--role", "viewer", *admin)
    assert "401" in run("login", "mia", "--password-file", password, code=1)["error"]
    assert run("people", "set-password", "mia", "--password-file", password, *admin)["has_password"]
    assert run("people", "set-role", "mia", "--role", "release-manager", *admin)["role"] == "release-manager"
    assert run("login", "mia", "--password-file", password)["role"] == "release-manager"
    assert run("people", "disable", "mia", *admin)["disabled"]
    assert "401" in run("status", code=1)["error"]
    assert run("people", "enable", "mia", *admin)["disabled"] is None
    assert "last admin" in run("people", "disable", "alice", *admin, code=1)["error"]
    run("logout")  # the session has ended already; its file goes


def test_who_lost_every_key_gets_back_in_on_the_servers_machine(run: Run, server: Running, tmp_path: Path) -> None:
    folder, file = server.services.settings.directory, tmp_path / "back.json"
    made = run("people", "recover", folder, "rosa", "--out", file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(file.read_text())["api_key"] not in str(made)
    assert run("whoami", "--credentials", file)["role"] == "admin"
    assert "exists" in run("people", "recover", folder, "rosa", "--out", file, code=1)["error"]


def test_a_session_is_shown_to_no_other_server_and_init_s_keys_are_not_overwritten(
    run: Run, admin: tuple[str, Path], password: Path, home: Path
) -> None:
    run("people", "add", "nora", "--role", "viewer", "--password-file", password, *admin)
    before = admin[1].read_bytes()
    assert "holds keys" in run("login", "nora", "--password-file", password, *admin, code=1)["error"]
    assert admin[1].read_bytes() == before
    run("login", "nora", "--password-file", password)
    assert "log in there" in run("status", "--server", "http://127.0.0.1:9", code=1)["error"]
    assert "only a session" in run("logout", *admin, code=1)["error"]
    run("logout")


def test_tables_are_for_people(
    server: Running, home: Path, admin: tuple[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    to = list(map(str, admin))
    assert main(["people", "list", *to]) == main(["people", "key", "list", "alice", *to]) == main(["whoami", *to]) == 0
    assert main(["people", "add", "tess", "--role", "viewer", *to]) == 0
    assert main(["people", "key", "add", "tess", *to]) == 0
    out = capsys.readouterr().out
    assert "alice (admin)" in out
    assert "esk_" in out
