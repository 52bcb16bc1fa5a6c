"""A server of its own on PostgreSQL, from `init` to a rollout that is rolled back, over HTTP."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from model_server.audit import log as audit
from model_server.commands.local import init
from model_server.db.base import reading
from model_server.errors import SettingsError
from model_server.settings import Place, load_settings
from tests.support.managers import publish
from tests.support.postgres import Cluster
from tests.support.rollout_fleet import Fleet, start, status
from tests.support.server import PASSPHRASE, PEOPLE, SteppedClock, let_fleet_in, make_bundle, running


def test_releases_rollouts_and_the_audit_log_live_in_the_database_that_init_was_given(
    postgres: Cluster, tmp_path: Path
) -> None:
    address = postgres.address(postgres.empty())
    init(tmp_path / "server", ["exercise"], PEOPLE, PASSPHRASE, SteppedClock(), Place(database=address))
    let_fleet_in(tmp_path / "server")
    settings = replace(load_settings(tmp_path / "server"), controller_interval_s=3600.0)
    assert settings.database_url == address
    assert not list((tmp_path / "server").glob("*.db*"))
    with running(settings) as server:
        for release in (1, 2):
            bundle = make_bundle(tmp_path / f"{release}.bundle", release, data=b"model %d" % release)
            assert publish(server, settings, bundle, release).status_code == 200
        fleet = Fleet(server, settings, tmp_path / "clients")
        fleet.check_in()
        start(fleet)
        fleet.check_in(faults={2: {"errors": 8}})
        assert status(fleet)["state"] == "rolled_back"
    with running(settings) as server:  # and they are there after a restart
        fleet = Fleet(server, settings, tmp_path / "later", running=fleet.running, sequence=fleet.sequence)
        fleet.check_in()
        assert status(fleet)["devices"]["all_returned"]
        with reading(server.services.engine) as session:
            assert audit.verify(session) == 3 + 2 * 4 + 2  # the admin, their key and a token, releases, the rollout


def test_init_refuses_a_database_that_another_server_has(postgres_database: str, tmp_path: Path) -> None:
    init(tmp_path / "first", ["m"], PEOPLE, PASSPHRASE, SteppedClock(), Place(database=postgres_database))
    with pytest.raises(SettingsError, match="a server already"):
        init(tmp_path / "second", ["m"], PEOPLE, PASSPHRASE, SteppedClock(), Place(database=postgres_database))
    assert [path.name for path in tmp_path.iterdir()] == ["first"]


def test_init_says_what_is_wrong_with_a_database_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be used") as error:
        init(
            *(tmp_path / "new", ["m"], PEOPLE, PASSPHRASE, SteppedClock()),
            Place(database="postgresql://bob:secret@127.0.0.1:1/edgeship?connect_timeout=2"),
        )
    assert "secret" not in str(error.value)
    assert list(tmp_path.iterdir()) == []
