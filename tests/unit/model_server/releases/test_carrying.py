"""A proposal that is carried to people without a network and back, as they type it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model_server.cli import main
from model_server.settings import Settings
from tests.support.managers import stage
from tests.support.server import PASSPHRASE, Running, credentials, key_file, make_bundle, make_folder, running


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return make_folder(tmp_path / "server")


@pytest.fixture
def server(settings: Settings) -> Iterator[Running]:
    with running(settings) as server:
        yield server


class People:
    """Everybody's commands; a signer's have no server to ask."""

    def __init__(self, server: Running, settings: Settings, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._to = ("--server", server.url, "--api-key", credentials(settings)["admin_api_key"])
        self._settings, self._folder, self._capsys = settings, folder, capsys
        (folder / "passphrase").write_bytes(PASSPHRASE + b"\n")

    def run(self, *args: object, code: int = 0) -> Any:
        self._capsys.readouterr()
        assert main(["release", *map(str, args), "--json"]) == code
        out, err = self._capsys.readouterr()
        return err if code else json.loads(out)

    def online(self, *args: object, code: int = 0) -> Any:
        return self.run(*args, *self._to, code=code)

    def sign(self, person: str, proposal: Path, what: object, *options: object, code: int = 0) -> Any:
        key, root = key_file(self._settings, "releases", person), self._settings.directory / "root.json"
        who = ("--key", key, "--passphrase-file", self._folder / "passphrase", "--root", root)
        trust = ("--trust", self._folder / f"trust-{person}")
        asked = ("sign", "exercise", what, "--proposal", proposal, "--yes")
        return self.run(*asked, *who, *trust, *options, code=code)


@pytest.fixture
def people(
    server: Running,
    settings: Settings,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> People:
    for name in [name for name in os.environ if name.startswith("EDGESHIP_")]:
        monkeypatch.delenv(name)
    return People(server, settings, tmp_path, capsys)


def test_copies_that_different_people_signed_are_submitted_together_and_again(
    server: Running, people: People, tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path / "1.bundle", 1)
    stage(server, bundle)
    fetched, bobs = tmp_path / "1.proposal", tmp_path / "bobs.proposal"
    people.online("fetch", "exercise", 1, "--out", fetched)
    shutil.copy(fetched, bobs)
    first = people.sign("alice", fetched, 1, "--bundle", bundle)
    assert (first["person"], first["signed_by"], first["threshold"]) == ("alice", ["alice"], 2)
    assert people.sign("bob", bobs, 1, "--bundle", bundle)["signed_by"] == ["bob"]
    for _ in range(2):
        assert people.online("submit", fetched, bobs)["missing"] == 0
    assert people.online("publish", "exercise", 1)["state"] == "published"
    assert people.online("submit", bobs)["state"] == "published"


def test_one_copy_goes_from_person_to_person_and_one_may_leave_it_as_it_is(
    server: Running, people: People, tmp_path: Path
) -> None:
    """A policy: the published one is carried too, and the change is signed for it."""
    bundle = make_bundle(tmp_path / "1.bundle", 1)
    stage(server, bundle)
    file, signed = tmp_path / "x.proposal", tmp_path / "signed.proposal"
    people.online("fetch", "exercise", 1, "--out", file)
    for person in ("alice", "bob"):
        people.sign(person, file, 1, "--bundle", bundle)
    people.online("submit", file)
    people.online("publish", "exercise", 1)
    for action, argument in (("revoke", 1), ("renew", None)):
        people.online(action, "exercise", *([] if argument is None else [argument]))
        people.online("fetch", "exercise", "policy", "--out", file)
        unsigned = file.read_bytes()
        people.sign("alice", file, "policy", "--out", signed)
        assert file.read_bytes() == unsigned
        answer = people.sign("bob", signed, "policy")
        assert answer["signed_by"] == ["alice", "bob"]
        assert answer["review"]["revoked"] == ([1] if argument else [])
        assert people.online("submit", signed)["pending"]["missing"] == 0
        assert people.online("publish", "exercise", "policy")["revoked"] == [1]
    assert "no change of the policy of exercise waits" in people.online("submit", signed, code=1)
    assert "proposes the policy of exercise, not exercise 1" in people.sign(
        "alice", file, 1, "--bundle", bundle, code=1
    )


def test_what_is_missing_or_too_much_is_said(server: Running, people: People, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "1.bundle", 1)
    stage(server, bundle)
    file = tmp_path / "1.proposal"
    people.online("fetch", "exercise", 1, "--out", file)
    assert "--bundle" in people.sign("alice", file, 1, code=1)
    assert "cannot be read" in people.sign("alice", tmp_path / "none", 1, "--bundle", bundle, code=1)
    assert "404" in people.online("fetch", "exercise", 2, "--out", tmp_path / "2.proposal", code=1)
    assert not (tmp_path / "2.proposal").exists()
    stage(server, make_bundle(tmp_path / "g.bundle", 1, model="gesture"))
    people.online("fetch", "gesture", 1, "--out", tmp_path / "g.proposal")
    assert "different proposals" in people.online("submit", file, tmp_path / "g.proposal", code=1)
