"""What the server's tests share: databases, SQLite and a PostgreSQL that is started once for a process of the test run;
and a hardware token."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_server.db.base import open_engine
from model_server.db.migrate import upgrade
from model_server.storage.folder import FolderStorage
from model_server.storage.objects import open_objects
from model_server.storage.protocol import Storage
from tests.support.object_store import Store, store
from tests.support.postgres import Cluster, NoPostgres, cluster
from tests.support.softhsm import NoSoftHsm, softhsm


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """Without a PostgreSQL its tests are skipped; continuous integration must have one."""
    try:
        with cluster() as running:
            yield running
    except NoPostgres as error:
        if os.environ.get("CI"):
            pytest.fail(f"this test needs a PostgreSQL: {error}")
        pytest.skip(str(error))


@pytest.fixture
def postgres_database(postgres: Cluster) -> Iterator[str]:
    """The address of a PostgreSQL database with the present schema and no rows."""
    name = postgres.migrated()
    yield postgres.address(name)
    postgres.drop(name)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("sqlite") / "template.db"
    engine = open_engine(f"sqlite:///{file}")
    upgrade(engine)
    engine.dispose()
    return file


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a database with the present schema and no rows, one of each kind that we support."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_database"))
    file = shutil.copyfile(request.getfixturevalue("sqlite_template"), tmp_path / "edgeship.db")
    return f"sqlite:///{file}"


@pytest.fixture(scope="session")
def object_store() -> Iterator[Store]:
    with store() as running:
        yield running


@pytest.fixture(params=["folder", "objects"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """An empty storage of each kind."""
    if request.param == "folder":
        return FolderStorage(tmp_path / "storage")
    running: Store = request.getfixturevalue("object_store")
    return open_objects(running.bucket(), running.options)


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The token "alice" with the keys 2 and 3, the token "server" with key 2. Skipped as above without SoftHSM."""
    try:
        with softhsm(
            tmp_path_factory.mktemp("softhsm"), {"alice": {2: "secp256r1", 3: "secp384r1"}, "server": {2: "secp256r1"}}
        ):
            yield
    except NoSoftHsm as error:
        if os.environ.get("CI"):
            pytest.fail(f"this test needs SoftHSM: {error}")
        pytest.skip(str(error))
