"""The publisher against the stock TUF client, which reads the repository's files as a device would."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata, Targets

from edge_runtime.update.plan import State
from model_server.errors import KeyRejected, RepositoryDamaged
from model_server.installation import open_publisher
from model_server.settings import Settings
from model_server.signing.health import alert_level, role_health
from model_server.signing.published import PublishedRoles
from model_server.signing.publisher import Publisher
from model_server.signing.repository import Repository
from tests.support.plans import PLAN, client, seen_plan
from tests.support.server import SteppedClock, make_folder, repository_dir


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return make_folder(tmp_path / "server")


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def publisher(settings: Settings, clock: SteppedClock) -> Publisher:
    return open_publisher(settings, clock)


def test_a_new_repository_verifies_from_its_root(settings: Settings, tmp_path: Path) -> None:
    updater = client(settings, tmp_path / "client")
    updater.refresh()
    assert updater.get_targetinfo("models/exercise/1/manifest.json") is None
    assert updater.get_targetinfo("rollouts/stable/exercise.json") is None


def test_a_plan_reaches_a_client_and_the_next_one_replaces_it(
    settings: Settings, publisher: Publisher, tmp_path: Path
) -> None:
    assert publisher.put_plan(PLAN)
    assert seen_plan(settings, tmp_path / "client") == PLAN
    halted = replace(PLAN, state=State.HALTED)
    assert publisher.put_plan(halted)
    assert seen_plan(settings, tmp_path / "client") == halted


def test_the_plan_that_is_published_already_makes_no_new_metadata(publisher: Publisher) -> None:
    publisher.put_plan(PLAN)
    before = publisher.repository.timestamp().signed.version
    assert not publisher.put_plan(PLAN)
    assert publisher.repository.timestamp().signed.version == before


def test_plans_of_channels_and_models_stand_beside_each_other(
    settings: Settings, publisher: Publisher, tmp_path: Path
) -> None:
    beta, gesture = replace(PLAN, channel="beta"), replace(PLAN, model="gesture")
    for plan in (PLAN, beta, gesture):
        publisher.put_plan(plan)
    assert seen_plan(settings, tmp_path / "a") == PLAN
    assert seen_plan(settings, tmp_path / "b", "rollouts/beta/exercise.json") == beta
    assert seen_plan(settings, tmp_path / "c", "rollouts/stable/gesture.json") == gesture


def test_a_crash_before_the_timestamp_leaves_the_state_before(
    settings: Settings, publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher.put_plan(PLAN)

    def power_cut(self: Repository, version: int, data: bytes) -> None:
        raise OSError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(Repository, "write_timestamp", power_cut)
        with pytest.raises(OSError, match="power cut"):
            publisher.put_plan(replace(PLAN, share=20))
    assert seen_plan(settings, tmp_path / "client") == PLAN
    publisher.put_plan(replace(PLAN, share=30))
    assert seen_plan(settings, tmp_path / "client").share == 30


def test_only_the_next_version_of_a_role_can_be_published(publisher: Publisher) -> None:
    with pytest.raises(RepositoryDamaged, match="cannot follow"):
        publisher.publish({"rollouts-exercise": Metadata(Targets(version=3))})


def test_online_roles_are_renewed_at_half_of_their_time(
    settings: Settings, publisher: Publisher, clock: SteppedClock, tmp_path: Path
) -> None:
    assert publisher.renew() == ()
    clock.advance(hours=13)
    assert publisher.renew() == ("timestamp",)
    assert publisher.renew() == ()
    clock.advance(days=4)
    assert set(publisher.renew()) == {"rollouts-exercise", "rollouts-gesture", "snapshot", "timestamp"}
    timestamp = publisher.repository.timestamp().signed
    assert timestamp.expires - clock.now() > timedelta(hours=23)
    client(settings, tmp_path / "client").refresh()


def test_a_wrong_online_passphrase_is_refused(settings: Settings, clock: SteppedClock) -> None:
    settings.online_passphrase.write_text("another\n")
    with pytest.raises(KeyRejected):
        open_publisher(settings, clock)


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"signed": {"_type": "targets"}}'])
def test_damaged_metadata_is_named(publisher: Publisher, settings: Settings, damage: bytes) -> None:
    (repository_dir(settings) / "metadata" / "1.snapshot.json").write_bytes(damage)
    with pytest.raises(RepositoryDamaged, match="snapshot"):
        publisher.put_plan(PLAN)


def test_every_role_shows_how_long_it_lasts(publisher: Publisher, clock: SteppedClock) -> None:
    roles = {role.role: role for role in role_health(PublishedRoles(publisher.repository), clock.now())}
    assert {name for name, role in roles.items() if role.offline} == {
        "root",
        "targets",
        "releases-exercise",
        "releases-gesture",
    }
    assert {role.alert for role in roles.values()} == {"ok"}


@pytest.mark.parametrize(
    ("days", "offline", "alert"),
    [
        (31, True, "ok"),
        (30, True, "30 days"),
        (14, True, "14 days"),
        (3, True, "3 days"),
        (0, True, "expired"),
        (3, False, "ok"),
        (-1, False, "expired"),
    ],
)
def test_an_offline_role_alerts_long_before_it_expires(days: int, offline: bool, alert: str) -> None:
    now = SteppedClock().now()
    assert alert_level(now + timedelta(days=days), now, offline=offline) == alert
