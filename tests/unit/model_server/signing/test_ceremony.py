from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.update.rules import ROLE_FIELD
from model_server.commands.local import init
from model_server.commands.looking import list_keys
from model_server.errors import KeyRejected, ReleaseConflict, ReviewFailed, SettingsError, ThresholdNotMet
from model_server.installation import open_publisher
from model_server.settings import Settings
from model_server.signing.chain import published_files
from model_server.signing.changes.delegating import signed_delegation
from model_server.signing.changes.publishing import publish_change
from model_server.signing.repository import Repository
from model_server.signing.roles import delegated_models, releases_role, rollouts_role
from model_server.signing.trusted import trusted_state
from tests.support.plans import PLAN, client, seen_plan
from tests.support.server import PASSPHRASE, PEOPLE, SteppedClock, key_file, make_folder, repository_dir


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return make_folder(tmp_path / "server")


def add(settings: Settings, *, targets: list[str] | None = None, releases: list[str] | None = None) -> None:
    delegate(
        settings,
        [key_file(settings, "targets", person) for person in targets or PEOPLE],
        [key_file(settings, "releases", person) for person in releases or PEOPLE],
    )


def delegate(settings: Settings, targets: list[Path], releases: list[Path], passphrase: bytes = PASSPHRASE) -> None:
    now = SteppedClock().now()
    publisher = open_publisher(settings, SteppedClock())
    change = signed_delegation(publisher, "pose", targets, releases, passphrase, now, settings.expiry)
    publish_change(publisher, change, now)


def test_root_and_targets_need_two_people_and_online_roles_one_key(settings: Settings) -> None:
    root = open_publisher(settings, SteppedClock()).repository.root().signed
    assert {name: (role.threshold, len(role.keyids)) for name, role in root.roles.items()} == {
        "root": (2, 3),
        "targets": (2, 3),
        "snapshot": (1, 1),
        "timestamp": (1, 1),
    }
    assert root.consistent_snapshot


def says_its_name(repository: Repository) -> None:
    for model in delegated_models(repository.top_level_targets().signed):
        for role in (releases_role(model), rollouts_role(model)):
            assert repository.role(role).signed.unrecognized_fields == {ROLE_FIELD: role}


def test_every_role_of_a_model_says_its_name_for_ever(settings: Settings) -> None:
    repository = open_publisher(settings, SteppedClock()).repository
    says_its_name(repository)
    add(settings)
    open_publisher(settings, SteppedClock()).put_plan(PLAN)
    says_its_name(repository)


def test_a_manager_is_not_shown_another_models_role_for_theirs(settings: Settings, tmp_path: Path) -> None:
    """The same people sign both models, so the signatures alone would do."""
    root = (settings.directory / "root.json").read_bytes()
    files = published_files(open_publisher(settings, SteppedClock()).repository, ["exercise", "gesture"])
    how: dict[str, Any] = {"fresh": True, "accept_expired": False, "now": datetime.now(UTC)}
    trusted_state("here", ["exercise"], root, tmp_path / "trust", files=files, **how)
    swapped = {**files, "1.releases-exercise.json": files["1.releases-gesture.json"]}
    with pytest.raises(ReviewFailed, match="'releases-gesture' for releases-exercise"):
        trusted_state("here", ["exercise"], root, tmp_path / "fresh", files=swapped, **how)


def test_no_key_has_two_roles(settings: Settings) -> None:
    keys = [key["keyid"] for role in list_keys(settings.directory)["roles"] for key in role["keys"]]  # type: ignore[attr-defined]
    shared = {key for key in keys if keys.count(key) > 1}
    by_role = {
        role["role"]: {key["keyid"] for key in role["keys"]}
        for role in list_keys(settings.directory)["roles"]  # type: ignore[attr-defined]
    }
    assert shared == by_role["releases-exercise"] | by_role["rollouts-exercise"]  # one a person, for every model
    assert not by_role["releases-exercise"] & by_role["rollouts-exercise"]


def test_the_top_level_targets_list_nothing(settings: Settings) -> None:
    assert open_publisher(settings, SteppedClock()).repository.top_level_targets().signed.targets == {}


def test_fewer_than_three_people_are_refused_and_leave_nothing_behind(tmp_path: Path) -> None:
    for people in (["alice", "bob"], ["alice", "alice", "bob"], ["Alice", "bob", "carol"], ["../x", "bob", "carol"]):
        with pytest.raises(SettingsError):
            init(tmp_path / "new", ["m"], people, PASSPHRASE, SteppedClock())
    assert list(tmp_path.iterdir()) == []


def test_a_short_passphrase_is_refused_and_leaves_nothing_behind(tmp_path: Path) -> None:
    for short in (b"ab", b"elevenchars", "\u00e9".encode() * 11):
        with pytest.raises(KeyRejected, match="at least 12 characters"):
            init(tmp_path / "new", ["m"], PEOPLE, short, SteppedClock())
    assert list(tmp_path.iterdir()) == []


def test_init_never_touches_a_folder_that_holds_something(settings: Settings) -> None:
    before = (settings.directory / "root.json").read_bytes()
    with pytest.raises(SettingsError, match="never overwrites"):
        init(settings.directory, ["m"], PEOPLE, PASSPHRASE, SteppedClock())
    assert (settings.directory / "root.json").read_bytes() == before


def test_a_model_can_be_added_later_and_clients_follow(settings: Settings, tmp_path: Path) -> None:
    client(settings, tmp_path / "client").refresh()
    add(settings)
    publisher = open_publisher(settings, SteppedClock())
    assert delegated_models(publisher.repository.top_level_targets().signed) == ("exercise", "gesture", "pose")
    plan = replace(PLAN, model="pose")
    publisher.put_plan(plan)
    assert seen_plan(settings, tmp_path / "client", "rollouts/stable/pose.json") == plan


def test_one_persons_targets_key_cannot_add_a_model(settings: Settings) -> None:
    with pytest.raises(ThresholdNotMet, match="alice"):
        add(settings, targets=["alice"], releases=["alice", "bob"])
    with pytest.raises(ThresholdNotMet, match="alice"):
        add(settings, targets=["alice", "alice"], releases=["alice", "bob"])


def test_a_model_needs_two_release_managers(settings: Settings) -> None:
    with pytest.raises(ThresholdNotMet):
        add(settings, releases=["alice"])


def test_a_releases_key_cannot_sign_a_delegation(settings: Settings) -> None:
    with pytest.raises(ThresholdNotMet):
        managers = [key_file(settings, "releases", person) for person in PEOPLE]
        delegate(settings, managers, managers)


def test_an_online_key_cannot_become_a_managers_key(settings: Settings) -> None:
    with pytest.raises(KeyRejected):
        online = settings.online_passphrase.read_bytes().strip()
        delegate(
            settings, [], [settings.keys_dir / "online-rollouts.pem", settings.keys_dir / "online-snapshot.pem"], online
        )


def test_a_model_is_delegated_once(settings: Settings) -> None:
    add(settings)
    with pytest.raises(ReleaseConflict):
        add(settings)


def test_the_root_for_devices_is_the_first_root(settings: Settings) -> None:
    assert (settings.directory / "root.json").read_bytes() == (
        repository_dir(settings) / "metadata" / "1.root.json"
    ).read_bytes()
