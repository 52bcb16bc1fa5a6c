"""Two servers of one installation: two processes on one PostgreSQL, with their files in a folder or an object store
that both have. No version is ever signed twice, and devices never see an older state."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from edge_runtime.update.plan import State
from model_server.clock import SystemClock
from model_server.db.base import open_engine, reading
from model_server.errors import LeaseLost, StorageUnavailable
from model_server.installation import open_publisher
from model_server.rollouts.ingest import latest_rollout
from model_server.rollouts.starting import plan_of
from model_server.settings import SETTINGS_FILE, Place, Settings, load_settings, settings_text
from model_server.signing.lease import Check, database_lease
from model_server.signing.publisher import Publisher
from model_server.signing.repository import METADATA
from model_server.storage.opening import open_storage
from tests.support import two_servers
from tests.support.object_store import Store
from tests.support.plans import PLAN, client, seen_plan
from tests.support.server import SteppedClock, make_folder
from tests.support.two_servers import ROUNDS, Pair


@pytest.fixture(scope="module")
def servers(object_store: Store) -> Iterator[Pair]:  # its credentials are in the environment that both inherit
    with two_servers.pair() as pair:
        yield pair


@pytest.fixture
def engine(postgres_database: str) -> Iterator[Engine]:
    engine = open_engine(postgres_database)
    yield engine
    engine.dispose()


@pytest.fixture
def local(tmp_path: Path) -> Settings:
    """A server with SQLite and a folder."""
    return make_folder(tmp_path / "server")


@pytest.fixture(params=["folder", "objects"])
def settings(request: pytest.FixtureRequest, local: Settings, postgres_database: str) -> Settings:
    """A server's folder whose database is PostgreSQL, and whose files are its own or in an object store."""
    place = Place(database=postgres_database)
    if request.param == "objects":
        store: Store = request.getfixturevalue("object_store")
        place = replace(place, objects=store.bucket(), endpoint=store.endpoint, region=store.options["region"])
        storage = open_storage(local.directory, place.objects, store.options)
        for path in (local.directory / "repository").rglob("*.json"):
            storage.replace(path.relative_to(local.directory).as_posix(), path.read_bytes())
        shutil.rmtree(local.directory / "repository")
    (local.directory / SETTINGS_FILE).write_text(settings_text(place))
    return load_settings(local.directory)


def copied(settings: Settings, folder: Path) -> Settings:
    """The same repository as a folder, for clients that read files."""
    storage = open_storage(settings.directory, settings.objects, settings.object_options)
    for name in storage.names("repository/"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(storage.read(name).data)
    shutil.copyfile(settings.directory / "root.json", folder / "root.json")
    return replace(settings, directory=folder)


def test_two_servers_never_sign_the_same_version(
    servers: Pair, settings: Settings, postgres_database: str, tmp_path: Path
) -> None:
    first, second = servers.do("publish_plans", address=postgres_database, given=str(settings.directory))
    signed = [tuple(each) for each in (*first, *second)]
    assert len(set(signed)) == len(signed)
    plans = 2 * 2 * 2 * ROUNDS
    for role in ("targets", "snapshot", "timestamp"):
        assert sorted(version for kind, version in signed if kind == role) == list(range(2, plans + 2))
    here = copied(settings, tmp_path / "copy")
    last = (2 * ROUNDS - 1) * 2
    for number in (0, 1):
        assert seen_plan(here, tmp_path / "client", f"rollouts/own-{number}/exercise.json").share == last + number
    assert seen_plan(here, tmp_path / "client", "rollouts/both/exercise.json").share in (last, last + 1)


def test_what_devices_see_in_the_end_is_what_was_decided_last(
    servers: Pair, settings: Settings, engine: Engine, postgres_database: str, tmp_path: Path
) -> None:
    servers.do("decide", address=postgres_database, given=str(settings.directory))
    with reading(engine) as session:
        row = latest_rollout(session, "exercise", "stable")
        assert row is not None
        assert seen_plan(copied(settings, tmp_path / "copy"), tmp_path / "client") == plan_of(row)


def test_the_slower_of_two_servers_does_not_bring_back_what_the_other_has_halted(
    local: Settings, engine: Engine, tmp_path: Path
) -> None:
    slow, fast = open_publisher(local, SystemClock(), engine), open_publisher(local, SystemClock(), engine)
    two_servers.start(engine, publisher=fast)
    asked, go = threading.Event(), threading.Event()

    @contextmanager
    def late() -> Iterator[Check]:
        asked.set()
        assert go.wait(30)
        with database_lease(engine)() as check:
            yield check

    slow.repository._lease = late
    completing = threading.Thread(
        target=two_servers.rollouts(engine, slow).act, args=("exercise", "stable", "complete", "admin")
    )
    completing.start()
    assert asked.wait(30)  # it has decided, and does not publish yet
    two_servers.rollouts(engine, fast).act("exercise", "stable", "rollback", "admin")
    go.set()
    completing.join(30)
    assert seen_plan(local, tmp_path / "client").state is State.ROLLED_BACK


def test_a_server_that_lost_its_connection_writes_nothing_more(
    local: Settings, engine: Engine, postgres_database: str
) -> None:
    publisher = open_publisher(local, SystemClock(), engine)
    before = files(local)
    with publisher.repository.lock():
        other = open_engine(postgres_database)
        with other.connect() as connection:
            holders = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
            assert connection.execute(text(holders)).all() == [(True,)]
        with pytest.raises(LeaseLost):
            publisher.put_plan(PLAN)
        assert files(local) == before
        second = open_publisher(local, SystemClock(), other)
        assert second.put_plan(replace(PLAN, share=7))  # nobody waits for the dead one
        other.dispose()


def test_a_server_that_waits_for_a_publisher_says_so_in_the_end(
    local: Settings, engine: Engine, postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model_server.db.postgres.LOCK_WAIT_MS", 50)
    second = open_engine(postgres_database)
    publisher = open_publisher(local, SystemClock(), second)
    with open_publisher(local, SystemClock(), engine).repository.lock(), pytest.raises(StorageUnavailable):
        publisher.put_plan(PLAN)
    second.dispose()


def careless(settings: Settings) -> Publisher:
    """A publisher that thinks it has the lease, as one that was frozen does."""

    @contextmanager
    def lease() -> Iterator[Check]:
        yield lambda: None

    publisher = open_publisher(settings, SteppedClock())
    publisher.repository._lease = lease
    return publisher


@pytest.mark.parametrize(("stop", "writes"), [*(("create", number) for number in range(4)), ("replace", 0)])
def test_a_frozen_server_that_wakes_up_overwrites_nothing(
    local: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: str, writes: int
) -> None:
    """Frozen before each thing that it writes (the plan, its role, the snapshot, a claim, the timestamp), while another
    publishes twice. Devices follow what the other published, and never meet an older state."""
    slow, other = careless(local), careless(local)
    client(local, tmp_path / "client").refresh()
    method, left = getattr(slow.repository.storage, stop), writes

    def write(name: str, *args: object) -> object:
        nonlocal left
        if left == 0:
            for share in (1, 2):
                other.put_plan(replace(PLAN, share=share))
                client(local, tmp_path / "client").refresh()
        left -= 1
        return method(name, *args)

    monkeypatch.setattr(slow.repository.storage, stop, write)
    with pytest.raises(LeaseLost):
        slow.put_plan(replace(PLAN, share=3))
    assert left < 0
    assert seen_plan(local, tmp_path / "client").share == 2
    slow.put_plan(replace(PLAN, share=4))
    assert seen_plan(local, tmp_path / "client").share == 4


def files(settings: Settings) -> dict[Path, bytes]:
    folder = settings.directory / METADATA
    return {path: path.read_bytes() for path in folder.iterdir()}
