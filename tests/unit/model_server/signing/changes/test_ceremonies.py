"""Ceremonies whole, as people type them; stock TUF clients that hold the first root follow every one of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from model_server.installation import open_publisher
from model_server.settings import Settings
from model_server.signing.roles import releases_role
from model_server.storage.folder import FolderStorage
from model_server.storage.protocol import Write
from tests.support.ceremonies import Ceremony
from tests.support.plans import PLAN, client, seen_plan
from tests.support.server import SteppedClock, make_folder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return make_folder(tmp_path / "server")


@pytest.fixture
def ceremony(settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Ceremony:
    folder = tmp_path / "people"
    folder.mkdir()
    return Ceremony(settings, folder, capsys)


def follow(settings: Settings, tmp_path: Path) -> None:
    """A client that has seen everything so far, and one that was never here, find all that is published."""
    for folder in (tmp_path / "old-client", tmp_path / "new-client"):
        updater = client(settings, folder)
        updater.refresh()
        updater.get_targetinfo("models/exercise/1/manifest.json")
        updater.get_targetinfo("rollouts/stable/exercise.json")
    shutil.rmtree(tmp_path / "new-client")


def test_somebody_joins_the_releases_of_one_model(ceremony: Ceremony, settings: Settings, tmp_path: Path) -> None:
    follow(settings, tmp_path)
    change = ceremony.propose("add", ceremony.new("dave", "releases"), "--model", "exercise")
    assert "targets is signed by nobody" in ceremony.publish(change, code=1)
    ceremony.signed_by(change, ["alice"], "targets")
    assert "ThresholdNotMet" in ceremony.publish(change, code=1)
    ceremony.signed_by(change, ["bob"], "targets")
    assert ceremony.publish(change)["lines"][0].startswith("releases-exercise: dave joins with key")
    assert ceremony.owners("releases-exercise") == ["alice", "bob", "carol", "dave"]
    assert ceremony.owners("releases-gesture") == ["alice", "bob", "carol"]
    follow(settings, tmp_path)


def test_a_root_change_needs_two_people_of_the_old_root_and_two_of_the_new(
    ceremony: Ceremony, settings: Settings, tmp_path: Path
) -> None:
    follow(settings, tmp_path)
    public = ceremony.new("dave", "root", "targets", "releases")
    change = ceremony.propose("remove", "alice", "--add", public)
    # Everything that alice signed with somebody else is proposed again, for those who stay.
    assert set(json.loads(change.read_text())["metadata"]) == {"root", "targets"}
    ceremony.signed_by(change, ["dave", "carol"], "root", "targets")
    assert "the present root asks for 2" in ceremony.publish(change, code=1)
    ceremony.signed_by(change, ["bob"], "root", "targets")
    ceremony.publish(change)
    for role in ("root", "targets", "releases-exercise", "releases-gesture"):
        assert ceremony.owners(role) == ["bob", "carol", "dave"]
    follow(settings, tmp_path)


def test_a_key_that_leaves_takes_no_signature_along(ceremony: Ceremony, settings: Settings, tmp_path: Path) -> None:
    """The releases role is signed by alice and bob; once alice has left, bob alone is not enough."""
    renewal = ceremony.propose("renew", "releases-exercise")
    ceremony.signed_by(renewal, ["alice", "bob"], "releases")
    ceremony.publish(renewal)
    follow(settings, tmp_path)
    change = ceremony.propose("remove", "alice", "--role", "releases", "--model", "exercise")
    assert set(json.loads(change.read_text())["metadata"]) == {"targets", "releases-exercise"}
    ceremony.signed_by(change, ["bob", "carol"], "targets")
    assert "releases-exercise is signed by nobody" in ceremony.publish(change, code=1)
    ceremony.signed_by(change, ["bob", "carol"], "releases")
    ceremony.publish(change)
    assert ceremony.owners("releases-exercise") == ["bob", "carol"]
    follow(settings, tmp_path)


def test_a_change_from_which_the_second_signing_was_taken_out_is_not_published(ceremony: Ceremony) -> None:
    renewal = ceremony.propose("renew", "releases-exercise")
    ceremony.signed_by(renewal, ["alice", "bob"], "releases")
    ceremony.publish(renewal)
    change = ceremony.propose("remove", "alice", "--role", "releases", "--model", "exercise")
    document = json.loads(change.read_text())
    del document["metadata"]["releases-exercise"]
    change.write_text(json.dumps(document))
    ceremony.signed_by(change, ["bob", "carol"], "targets")
    assert "releases-exercise would be signed by bob only" in ceremony.publish(change, code=1)


def test_people_rotate_their_keys(ceremony: Ceremony, settings: Settings, tmp_path: Path) -> None:
    follow(settings, tmp_path)
    public = ceremony.new("alice", "root", "targets", "releases", folder="alice-2")
    change = ceremony.propose("rotate", public)
    for person in ("bob", "carol"):
        ceremony.sign(change, *(ceremony.key(kind, person) for kind in ("root", "targets")))
    lines = ceremony.publish(change)["lines"]
    assert [line for line in lines if "alice gets a new key" in line]
    follow(settings, tmp_path)
    # The old key is worth nothing now, the new one signs.
    renewal = ceremony.propose("renew", "targets")
    assert "KeyWithoutRole" in ceremony.sign(renewal, ceremony.key("targets", "alice"), code=1)
    ceremony.sign(renewal, ceremony.folder / "alice-2" / "targets-alice.pem")
    ceremony.sign(renewal, ceremony.key("targets", "bob"))
    ceremony.publish(renewal)
    follow(settings, tmp_path)


def test_a_stolen_key_is_revoked_by_its_id(ceremony: Ceremony, settings: Settings, tmp_path: Path) -> None:
    roles = ceremony.run("list", settings.directory)["roles"]
    stolen = next(role for role in roles if role["role"] == "releases-exercise")["keys"][0]
    change = ceremony.propose("revoke", stolen["keyid"][:12])
    ceremony.signed_by(change, ["bob", "carol"], "targets")
    ceremony.publish(change)
    for model in ("exercise", "gesture"):
        assert ceremony.owners(releases_role(model)) == ["bob", "carol"]
    follow(settings, tmp_path)


@pytest.mark.parametrize("use", ["snapshot", "timestamp", "rollouts"])
def test_the_server_gets_another_key_while_it_runs(
    ceremony: Ceremony, settings: Settings, tmp_path: Path, use: str
) -> None:
    running = open_publisher(settings, SteppedClock())
    running.put_plan(PLAN)
    follow(settings, tmp_path)
    change = ceremony.propose("rotate-online", use)
    ceremony.signed_by(change, ["alice", "bob"], "targets" if use == "rollouts" else "root")
    ceremony.publish(change)
    follow(settings, tmp_path)
    (settings.keys_dir / f"online-{use}.pem").unlink()
    later = replace(PLAN, share=20)
    running.put_plan(later)  # by a publisher that was opened before
    assert seen_plan(settings, tmp_path / "old-client") == later
    assert open_publisher(settings, SteppedClock()).renew() == ()


def test_copies_that_were_signed_apart_are_merged(ceremony: Ceremony, settings: Settings, tmp_path: Path) -> None:
    change = ceremony.propose("renew", "root")
    other = change.with_name("copy.change.json")
    shutil.copyfile(change, other)
    ceremony.signed_by(change, ["alice"], "root")
    ceremony.signed_by(other, ["carol"], "root")
    assert "ThresholdNotMet" in ceremony.publish(change, code=1)
    ceremony.publish(change, other)
    follow(settings, tmp_path)


def test_a_change_that_something_overtook_is_made_again(ceremony: Ceremony) -> None:
    first = ceremony.propose("add", ceremony.new("dave", "releases"))
    second = ceremony.propose("renew", "targets")
    for change in (first, second):
        ceremony.signed_by(change, ["alice", "bob"], "targets")
    ceremony.publish(first)
    assert "has changed since" in ceremony.publish(second, code=1)
    assert ceremony.publish(first)["lines"] == ["everything in it was published already"]


def refused(ceremony: Ceremony, *args: object) -> str:
    before = sorted(ceremony.settings.directory.rglob("*.json"))
    said = ceremony.run(*args, "--dir", ceremony.settings.directory, "--out", ceremony.folder / "x", code=1)
    assert not (ceremony.folder / "x").exists()
    assert sorted(ceremony.settings.directory.rglob("*.json")) == before
    return str(said)


def test_what_would_weaken_the_repository_is_not_even_proposed(ceremony: Ceremony) -> None:
    assert "3 people must hold root keys" in refused(ceremony, "remove", "alice")
    assert "3 people must hold root keys" in refused(ceremony, "remove", "alice", "--role", "root")
    assert "alice already has key" in refused(ceremony, "add", ceremony.new("alice", "targets", folder="a2"))
    assert "mallory holds no key here" in refused(ceremony, "remove", "mallory")
    assert "no role that people sign" in refused(ceremony, "renew", "timestamp")
    assert "at least 8 characters" in refused(ceremony, "revoke", "ab")
    assert "holds no key here" in refused(ceremony, "revoke", "0123456789")
    assert "no model 'pose'" in refused(ceremony, "add", ceremony.new("eve", "releases"), "--model", "pose")
    removal = ceremony.propose("remove", "alice", "--role", "releases")
    ceremony.signed_by(removal, ["bob", "carol"], "targets")
    ceremony.publish(removal)
    assert "2 people must sign it: add somebody" in refused(ceremony, "remove", "bob", "--role", "releases")


def test_a_public_key_that_is_there_already_is_refused_under_any_name(ceremony: Ceremony) -> None:
    public = ceremony.new("dave", "releases")
    document = json.loads(public.read_text())
    change = ceremony.propose("add", public)
    ceremony.signed_by(change, ["alice", "bob"], "targets")
    ceremony.publish(change)
    assert "is there already" in refused(ceremony, "add", public)
    document["person"] = "mallory"
    document["keys"]["releases"]["x-edgeship-person"] = "mallory"
    twin = public.with_name("mallory.public.json")
    twin.write_text(json.dumps(document))
    assert "is there already" in refused(ceremony, "add", twin)
    document["keys"] = {"targets": document["keys"]["releases"]}
    twin.write_text(json.dumps(document))
    assert "is there already" in refused(ceremony, "add", twin)


@pytest.mark.parametrize(
    "damage",
    [
        lambda document: document.update(person="../x"),
        lambda document: document.update(keys={}),
        lambda document: document.update(format=2),
        lambda document: document["keys"].update(timestamp=document["keys"]["releases"]),
        lambda document: document["keys"]["releases"].update(keyid="0" * 64),
        lambda document: document["keys"]["releases"].pop("x-edgeship-person"),
        lambda document: document["keys"]["releases"]["keyval"].update(public="zz"),
        lambda document: document["keys"]["releases"].update(keytype="rsa"),
        lambda document: document["keys"].update(releases=[]),
    ],
)
def test_a_public_key_file_that_is_not_one_is_refused(ceremony: Ceremony, damage: Callable[[object], object]) -> None:
    public = ceremony.new("dave", "releases")
    document = json.loads(public.read_text())
    damage(document)
    public.write_text(json.dumps(document))
    assert "is no file of public keys" in refused(ceremony, "add", public)


class Cut(Exception):
    """The power went."""


def people_change(ceremony: Ceremony) -> Path:
    """Root and targets at once."""
    change = ceremony.propose("remove", "alice", "--add", ceremony.new("dave", "root", "targets", "releases"))
    ceremony.signed_by(change, ["bob", "carol"], "root", "targets")
    return change


def servers_key_changes(use: str, kind: str) -> Callable[[Ceremony], Path]:
    def proposed(ceremony: Ceremony) -> Path:
        change = ceremony.propose("rotate-online", use)
        ceremony.signed_by(change, ["bob", "carol"], kind)
        return change

    return proposed


@pytest.mark.parametrize(
    ("proposed", "least"),
    [
        pytest.param(people_change, 7, id="people"),
        pytest.param(servers_key_changes("snapshot", "root"), 5, id="snapshot"),
        pytest.param(servers_key_changes("timestamp", "root"), 5, id="timestamp"),
        pytest.param(servers_key_changes("rollouts", "targets"), 5, id="rollouts"),
    ],
)
def test_wherever_publishing_is_cut_off_clients_verify_and_saying_it_again_finishes_it(
    ceremony: Ceremony,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    proposed: Callable[[Ceremony], Path],
    least: int,
) -> None:
    """Cut at every file of metadata that is written."""
    follow(settings, tmp_path)
    change = proposed(ceremony)
    create, replace_object = FolderStorage.create, FolderStorage.replace
    cuts, finished = 0, False
    whole = settings.directory
    while not finished:
        shutil.copytree(whole, tmp_path / f"cut-{cuts}")
        here = replace(settings, directory=tmp_path / f"cut-{cuts}")
        left = cuts

        def count(name: str) -> None:
            nonlocal left
            if name.startswith("repository/"):
                if left == 0:
                    raise Cut
                left -= 1

        def cut_create(storage: FolderStorage, name: str, write: Write) -> bool:
            count(name)
            return create(storage, name, write)

        def cut_replace(storage: FolderStorage, name: str, data: bytes, expected: str | None = None) -> str:
            count(name)
            return replace_object(storage, name, data, expected)

        monkeypatch.setattr(FolderStorage, "create", cut_create)
        monkeypatch.setattr(FolderStorage, "replace", cut_replace)
        cut = Ceremony(here, ceremony.folder, ceremony.capsys)
        try:
            cut.publish(change)
            finished = True
        except Cut:
            cuts += 1
        monkeypatch.setattr(FolderStorage, "create", create)
        monkeypatch.setattr(FolderStorage, "replace", replace_object)
        shutil.copytree(tmp_path / "old-client", tmp_path / "kept-client")
        follow(here, tmp_path)
        if not finished:
            cut.publish(change)
            follow(here, tmp_path)
            assert cut.publish(change)["lines"] == ["everything in it was published already"]
        shutil.rmtree(tmp_path / "old-client")
        (tmp_path / "kept-client").rename(tmp_path / "old-client")
    assert cuts >= least
