"""What keeps a server from starting, each with a reason and without a traceback of a library."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from model_server.errors import SettingsError
from model_server.services import open_services
from tests.support.server import make_folder, running


def test_two_servers_never_share_a_folder(tmp_path: Path) -> None:
    settings = make_folder(tmp_path / "server")
    with running(settings) as server:
        upload = settings.spool_dir / "in-flight.bundle"
        upload.write_bytes(b"half")
        with pytest.raises(SettingsError, match="another server runs on"):
            open_services(settings)
        assert upload.exists()
        assert server.admin.get("/v1/status").status_code == 200
    with running(settings) as server:
        assert server.admin.get("/v1/status").status_code == 200


def test_a_start_that_failed_leaves_the_folder_free(tmp_path: Path) -> None:
    settings = make_folder(tmp_path / "server")
    with pytest.raises(SettingsError):
        open_services(replace(settings, database="no/such/folder.db"))
    open_services(settings).claim.close()


@pytest.mark.parametrize("database", ["no/such/folder.db", "nonsense://x", "://", "postgresql+asyncpg://u:secret@h/d"])
def test_a_database_that_cannot_be_opened_is_an_error_of_its_own(tmp_path: Path, database: str) -> None:
    settings = replace(make_folder(tmp_path / "server"), database=database)
    with pytest.raises(SettingsError, match="database") as error:
        open_services(settings)
    assert "secret" not in str(error.value)


def test_a_database_that_is_damaged_is_an_error_of_its_own(tmp_path: Path) -> None:
    settings = make_folder(tmp_path / "server")
    (settings.directory / "edgeship.db").write_bytes(b"no database at all" * 1000)
    with pytest.raises(SettingsError, match="not a database"):
        open_services(settings)


def test_a_database_of_a_newer_version_is_an_error_of_its_own(tmp_path: Path) -> None:
    settings = make_folder(tmp_path / "server")
    services = open_services(settings)
    with services.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    services.engine.dispose()
    services.claim.close()
    with pytest.raises(SettingsError, match="9999"):
        open_services(settings)
