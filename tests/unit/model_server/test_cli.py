"""The commands as a release manager types them, against `edgeship-server serve` in a process of its own."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from model_server.cli import main
from model_server.errors import ReviewFailed
from tests.support.server import PASSPHRASE, make_bundle, make_folder

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def passphrase(tmp_path: Path) -> Path:
    path = tmp_path / "passphrase"
    path.write_bytes(PASSPHRASE + b"\n")
    return path


@contextmanager
def serving(directory: Path) -> Iterator[str]:
    ready = directory.parent / "ready"
    process = subprocess.Popen(
        [sys.executable, "-m", "model_server.cli", "serve", str(directory), "--port", "0", "--ready-file", str(ready)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while not ready.exists():
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield ready.read_text().strip()
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        if process.stderr:
            process.stderr.close()
        assert not ready.exists()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command with ``--json`` and parse its answer."""

    def run(*args: object, code: int = 0) -> dict[str, Any]:
        capsys.readouterr()
        assert main([*map(str, args), "--json"]) == code
        out, err = capsys.readouterr()
        return {"error": err} if code else dict(json.loads(out))

    return run


def test_the_whole_way_from_an_empty_folder_to_a_rollout(run: Run, tmp_path: Path, passphrase: Path) -> None:
    folder = tmp_path / "server"
    people = [option for person in ("alice", "bob", "carol") for option in ("--person", person)]
    made = run("init", folder, "--model", "exercise", *people, "--passphrase-file", passphrase)
    credentials = folder / "credentials.json"
    assert json.loads(credentials.read_text()) == {
        "admin_api_key": made["admin_api_key"],
        "enrolment_token": made["enrolment_token"],
    }
    assert stat.S_IMODE(credentials.stat().st_mode) == 0o600
    assert (folder / "root.json").exists()
    bundle = make_bundle(tmp_path / "1.bundle", 1)
    with serving(folder) as url:
        to = ["--server", url, "--credentials", credentials]
        assert run("release", "stage", bundle, "--ceiling", "0s=100%", *to)["state"] == "staged"
        refused = run("release", "publish", "exercise", 1, *to, code=1)
        assert "ServerRefused" in refused["error"]
        assert "409" in refused["error"]
        for signatures, person in enumerate(("alice", "bob"), 1):
            key = folder / "keys" / f"releases-{person}.pem"
            sign = ("release", "sign", "exercise", 1, "--key", key, "--passphrase-file", passphrase)
            assert "--yes" in run(*sign, "--bundle", bundle, *to, code=1)["error"]  # there is no terminal
            signed = run(*sign, "--bundle", bundle, "--yes", *to)
            assert len(signed["release"]["signatures"]) == signatures
            assert signed["person"] == person
            assert signed["review"]["kept"] == 0
        assert run("release", "publish", "exercise", 1, *to)["state"] == "published"
        assert [release["state"] for release in run("release", "list", "exercise", *to)["releases"]] == ["published"]
        started = run(
            *("rollout", "start", "exercise", 1, "--channel", "stable", "--stages", "all", "--holdback", "0%"),
            *("--on-breach", "rollback", "--growth", "auto", "--min-requests", "5", "--salt", "fixed", *to),
        )
        assert started["limits"]["min_requests"] == 5
        assert started["plan"]["salt"] == "fixed"
        assert run("rollout", "status", "exercise", *to)["state"] == "running"
        for action, state in (("halt", "halted"), ("rollback", "rolled_back"), ("disable", "disabled")):
            assert run("rollout", action, "exercise", *to)["plan"]["state"] == state
        assert run("status", *to)["models"]["exercise"][0]["release"] == 1
        proposed = run("release", "revoke", "exercise", 1, "--reason", "wrong labels", *to)
        assert (proposed["revoked"], proposed["pending"]["revoked"]) == ([], [1])
        for person in ("alice", "bob"):
            key = folder / "keys" / f"releases-{person}.pem"
            sign = ("release", "sign", "exercise", "policy", "--key", key, "--passphrase-file", passphrase)
            assert "--yes" in run(*sign, *to, code=1)["error"]
            assert run(*sign, "--yes", *to)["review"]["revoked"] == [1]
        assert run("release", "publish", "exercise", "policy", *to)["revoked"] == [1]
        assert run("release", "show", "exercise", "policy", *to)["pending"] is None
        run("release", "renew", "exercise", *to)
        assert run("release", "withdraw", "exercise", "policy", *to)["state"] == "withdrawn"
        assert "7 is not published" in run("release", "revoke", "exercise", 7, *to, code=1)["error"]


@pytest.mark.parametrize(
    ("release", "function"),
    [("policy", "model_server.commands.policy.sign_policy"), ("1", "model_server.commands.remote.sign_release")],
)
def test_what_has_expired_is_signed_again_if_that_is_said(
    run: Run, tmp_path: Path, passphrase: Path, monkeypatch: pytest.MonkeyPatch, release: str, function: str
) -> None:
    asked: list[bool] = []

    def sign(*args: object, accept_expired: bool, **_: object) -> None:
        asked.append(accept_expired)
        raise ReviewFailed("enough")

    monkeypatch.setattr(function, sign)
    (tmp_path / "root.json").write_bytes(b"{}")
    to = ("--server", "http://127.0.0.1:9", "--api-key", "k", "--passphrase-file", passphrase)
    more = () if release == "policy" else ("--bundle", tmp_path / "b")
    for option in ((), ("--accept-expired",)):
        run("release", "sign", "exercise", release, "--key", tmp_path / "k.pem", *more, *option, *to, code=1)
    assert asked == [False, True]


def test_keys_list_names_the_people_and_delegate_adds_a_model(run: Run, tmp_path: Path, passphrase: Path) -> None:
    folder = make_folder(tmp_path / "server").directory
    run("keys", "delegate", "pose", "--dir", folder, "--passphrase-file", passphrase)
    roles = {role["role"]: role for role in run("keys", "list", folder)["roles"]}
    assert [key["owner"] for key in roles["releases-pose"]["keys"]] == ["alice", "bob", "carol"]
    assert roles["releases-pose"]["threshold"] == 2
    assert [key["owner"] for key in roles["rollouts-pose"]["keys"]] == ["server"]


def test_tables_are_for_people(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "server").directory
    assert main(["keys", "list", str(folder)]) == 0
    assert "releases-exercise" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["serve", "nowhere"], "edgeship-server init nowhere"),
        (["keys", "list", "nowhere"], "edgeship-server init nowhere"),
        (["status"], "--server"),
        (["status", "--server", "http://127.0.0.1:9"], "--api-key"),
        (["status", "--server", "http://127.0.0.1:9", "--api-key", "k"], "ServerUnreachable"),
        (["status", "--server", "no address", "--api-key", "k"], "ServerUnreachable"),
        (["status", "--server", "http://[::1", "--api-key", "k"], "no address of a server"),
        (["status", "--server", "http://127.0.0.1:9", "--api-key", "kéy"], "API key"),
        (["status", "--server", "http://127.0.0.1:9", "--api-key", "k\nx: y"], "API key"),
        (["rollout", "start", "m", "1", "--errors", "nan", "--server", "http://x", "--api-key", "k"], "errors"),
        (["release", "stage", "none.bundle", "--server", "http://x", "--api-key", "k"], "none.bundle"),
        (["release", "list", "UPPER", "--server", "http://x", "--api-key", "k"], "InvalidName"),
        (["release", "sign", "m", "1", "--key", "k", "--server", "http://x", "--api-key", "k"], "--bundle"),
        (
            ["release", "sign", "m", "policy", "--key", "k", "--bundle", "b", "--server", "http://x", "--api-key", "k"],
            "leave out --bundle",
        ),
        (["init", "d", "--model", "m", "--person", "a", "--passphrase-file", "none"], "none"),
        (["init", "d", "--model", "m", "--person", "a"], "--passphrase-file"),
        (
            ["rollout", "start", "m", "1", "--predicate", "{", "--server", "http://x", "--api-key", "k"],
            "--predicate is not JSON",
        ),
    ],
)
def test_a_command_that_fails_says_why_in_one_line(
    args: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("EDGESHIP_SERVER", "EDGESHIP_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))  # whoever runs this may be logged in
    assert main(args) == 1
    error = capsys.readouterr().err
    assert says in error
    assert error.startswith("edgeship-server: ")
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_port_that_is_taken_is_an_error_of_its_own(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "server").directory
    with serving(folder) as url:
        other = make_folder(tmp_path / "other").directory
        second = subprocess.run(
            [sys.executable, "-m", "model_server.cli", "serve", str(other), "--port", url.rpartition(":")[2]],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert second.returncode == 1
        assert "SettingsError" in second.stderr
        assert "Traceback" not in second.stderr


def test_wrong_usage_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    for args in (
        [],
        ["explode"],
        ["release", "sign", "m"],
        ["rollout", "start", "m", "one"],
        ["serve", "d", "--port", "65536"],
    ):
        with pytest.raises(SystemExit) as error:
            main(args)
        assert error.value.code == 2


def test_init_fills_the_empty_folder_that_one_stands_in(
    run: Run, tmp_path: Path, passphrase: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    before = here.stat().st_ino
    monkeypatch.chdir(here)
    people = [option for person in ("alice", "bob", "carol") for option in ("--person", person)]
    run("init", ".", "--model", "exercise", *people, "--passphrase-file", passphrase)
    assert (here.stat().st_ino, stat.S_IMODE(here.stat().st_mode)) == (before, 0o700)
    assert len(run("keys", "list", ".")["roles"]) == 6
    assert {entry.name for entry in tmp_path.iterdir()} == {"here", "passphrase"}
    assert (
        "never overwrites"
        in run("init", ".", "--model", "m", *people, "--passphrase-file", passphrase, code=1)["error"]
    )


def test_an_input_that_ends_at_a_question_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ended(prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", ended)
    assert main(["init", "d", "--model", "m", "--person", "a"]) == 1
    assert "the input ended" in capsys.readouterr().err


def test_the_address_of_a_server_that_was_killed_is_not_left_for_the_next(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "server").directory
    ready = tmp_path / "ready"
    ready.write_text("http://127.0.0.1:1\n")
    blocked = subprocess.run(
        [
            sys.executable,
            "-m",
            "model_server.cli",
            "serve",
            str(folder),
            "--host",
            "256.0.0.1",
            "--ready-file",
            str(ready),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert blocked.returncode == 1
    assert not ready.exists()
