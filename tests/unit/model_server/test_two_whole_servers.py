"""Two whole servers of one installation, on one PostgreSQL and one object store: whichever is asked, it is one."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from tuf.api.exceptions import BadVersionNumberError
from tuf.ngclient import Updater

from edge_runtime.update.plan import Plan, State
from model_server.commands.local import init
from model_server.errors import SettingsError
from model_server.settings import Place, Settings, load_settings
from tests.support.managers import sign, stage
from tests.support.object_store import Store
from tests.support.postgres import Cluster
from tests.support.server import PASSPHRASE, PEOPLE, Running, SteppedClock, let_fleet_in, make_bundle, running


@pytest.fixture
def place(postgres: Cluster, object_store: Store) -> Place:
    return Place(
        database=postgres.address(postgres.empty()),
        objects=object_store.bucket(),
        endpoint=object_store.endpoint,
        region=object_store.options["region"],
    )


@pytest.fixture
def folders(place: Place, tmp_path: Path) -> tuple[Settings, Settings]:
    """The second server's folder is a copy of the first one's, as the guide says."""
    init(tmp_path / "first", ["exercise"], PEOPLE, PASSPHRASE, SteppedClock(), place)
    let_fleet_in(tmp_path / "first")
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    first, second = (
        replace(load_settings(tmp_path / name), controller_interval_s=3600.0) for name in ("first", "second")
    )
    return first, second


@pytest.fixture
def servers(folders: tuple[Settings, Settings]) -> Iterator[tuple[Running, Running]]:
    with running(folders[0]) as first, running(folders[1]) as second:
        yield first, second


def seen(server: Running, settings: Settings, folder: Path) -> Plan | None:
    """What a device that asks this server finds, which has seen what the others have shown."""
    (folder / "targets").mkdir(parents=True, exist_ok=True)
    root = (settings.directory / "root.json").read_bytes()
    metadata, targets = f"{server.url}/metadata/", f"{server.url}/targets/"
    updater = Updater(str(folder), metadata, str(folder / "targets"), targets, bootstrap=root)
    target = updater.get_targetinfo("rollouts/stable/exercise.json")
    return None if target is None else Plan.from_json(Path(updater.download_target(target)).read_bytes())


def becomes(state: State, server: Running, settings: Settings, folder: Path) -> bool:
    """A server asks the store for the timestamp once a second at most; for so long it may show one that this device,
    which has asked the other server, refuses."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with suppress(BadVersionNumberError):
            plan = seen(server, settings, folder)
            if plan is not None and plan.state is state:
                return True
        time.sleep(0.1)
    return False


def test_a_release_goes_through_both_and_devices_may_ask_either(
    servers: tuple[Running, Running], folders: tuple[Settings, Settings], tmp_path: Path
) -> None:
    first, second = servers
    bundle = make_bundle(tmp_path / "1.bundle", 1)
    stage(first, bundle)
    sign(second, folders[1], "alice", bundle)
    sign(first, folders[0], "bob", bundle)
    assert second.admin.post("/v1/releases/exercise/1/publish").status_code == 200
    assert first.admin.get("/v1/releases/exercise/1").json()["state"] == "published"
    start = {"candidate": 1, "stages": ["all"], "holdback": "0%"}
    assert first.admin.post("/v1/rollouts/stable/exercise", json=start).status_code == 201
    assert becomes(State.RUNNING, first, folders[0], tmp_path / "device")
    assert second.admin.post("/v1/rollouts/stable/exercise/halt").status_code == 200
    assert becomes(State.HALTED, second, folders[1], tmp_path / "device")
    first.services.controller.tick()
    second.services.controller.tick()
    assert becomes(State.HALTED, first, folders[0], tmp_path / "device")


def test_when_one_is_gone_the_other_renews(folders: tuple[Settings, Settings], tmp_path: Path) -> None:
    clock = SteppedClock()
    with running(folders[1], clock) as second:
        with running(folders[0], clock):
            pass
        clock.advance(days=3)
        second.services.controller.tick()
        timestamp = second.services.repository.timestamp().signed
        assert timestamp.expires - clock.now() > timedelta(hours=23)


def test_a_place_that_another_installation_has_is_refused(
    place: Place, folders: tuple[Settings, Settings], postgres: Cluster, tmp_path: Path
) -> None:
    other = replace(place, database=postgres.address(postgres.empty()))
    with pytest.raises(SettingsError, match="holds a repository already"):
        init(tmp_path / "third", ["exercise"], PEOPLE, PASSPHRASE, SteppedClock(), other)
    assert not (tmp_path / "third").exists()
