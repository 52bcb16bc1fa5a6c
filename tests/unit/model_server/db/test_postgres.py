"""What is PostgreSQL's own: addresses and passwords, snapshots, locks, and what is left in its files."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError, InternalError, OperationalError, StatementError

from model_server.access.credentials import CredentialRow
from model_server.db import postgres as dialect
from model_server.db.base import Lock, open_engine, reading, writing
from model_server.db.migrate import check_empty, open_database
from model_server.db.postgres import database_address, rewrite, sqlstate
from model_server.errors import SettingsError
from tests.support.postgres import Cluster

PASSWORD = "s3cret/of:bob@home"  # every character that a URL gives a meaning to


@pytest.fixture
def engine(postgres_database: str) -> Iterator[Engine]:
    engine = open_engine(postgres_database)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def guarded(postgres: Cluster) -> str:
    """A database of a role that must show its password."""
    postgres.execute(f"CREATE ROLE secretive LOGIN PASSWORD '{PASSWORD}'")
    name = postgres.empty()
    postgres.execute(f"ALTER DATABASE {name} OWNER TO secretive")
    return name


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_every_spelling_of_postgresql_means_the_same_driver(scheme: str) -> None:
    url = database_address(f"{scheme}://bob@db.example/edgeship?sslmode=verify-full")
    assert url.drivername == "postgresql+psycopg"
    assert (url.username, url.host, url.database, url.query) == (
        "bob",
        "db.example",
        "edgeship",
        {"sslmode": "verify-full"},
    )


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://bob@db:secret/edgeship",
        "://secret",
        "mysql://bob:secret@db/edgeship",
        "postgresql+asyncpg://bob:secret@db/edgeship",
    ],
)
def test_an_address_that_cannot_be_is_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(SettingsError, match="database") as error:
        database_address(address)
    assert "secret" not in str(error.value)
    assert error.value.__suppress_context__ or error.value.__context__ is None


def test_a_password_among_the_options_is_hidden_as_any_other() -> None:
    url = database_address("postgresql://bob@db/edgeship?password=secret&sslmode=require")
    assert url.password == "secret"
    assert "secret" not in repr(url)


def test_without_the_driver_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(SettingsError, match=r"edgeship\[postgres\]") as error:
        open_database("postgresql://bob:secret@db/edgeship")
    assert "secret" not in str(error.value)


def test_a_password_is_taken_from_where_libpq_takes_it(
    postgres: Cluster, guarded: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bare = postgres.address(guarded, "secretive")

    def asks(address: str) -> str:
        engine = open_engine(address)
        with engine.connect() as connection:
            who = connection.execute(text("SELECT current_user")).scalar_one()
        engine.dispose()
        return str(who)

    with pytest.raises(OperationalError, match="password"):
        asks(bare)
    with monkeypatch.context() as patch:
        patch.setenv("PGPASSWORD", PASSWORD)
        assert asks(bare) == "secretive"
    file = tmp_path / "pgpass"
    file.write_text("*:*:*:secretive:" + PASSWORD.replace(":", "\\:") + "\n")
    file.chmod(0o600)
    assert asks(f"{bare}&passfile={file}") == "secretive"
    with monkeypatch.context() as patch:
        patch.setenv("PGPASSFILE", str(file))
        assert asks(bare) == "secretive"


def test_a_password_is_in_no_error_and_no_log(
    postgres: Cluster, guarded: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    written = "s3cret%2Fof%3Abob%40home"
    good = postgres.address(guarded, f"secretive:{written}")
    engine = open_database(good)
    assert PASSWORD not in repr(engine)
    engine.dispose()
    for wrong in (good.replace("s3cret", "s3cretly"), good.replace(f"/{guarded}?", "/nowhere?")):
        with pytest.raises(SettingsError, match="cannot be used") as error:
            open_database(wrong)
        told = str(error.value) + str(error.value.__cause__)
        assert "s3cret" not in told
    assert "s3cret" not in caplog.text


def test_an_error_repeats_no_values(engine: Engine) -> None:
    with pytest.raises(StatementError) as error, writing(engine) as session:
        session.execute(text("SELECT CAST(:value AS int) / 0"), {"value": 4711})
    assert "4711" not in str(error.value)


def test_a_database_with_another_encoding_is_refused(postgres: Cluster) -> None:
    name = postgres.empty("ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'")
    with pytest.raises(SettingsError, match="ENCODING 'UTF8'"):
        open_database(postgres.address(name))
    postgres.drop(name)


def test_only_a_database_that_is_empty_passes_for_one_and_it_stays_so(
    postgres: Cluster, postgres_database: str
) -> None:
    with pytest.raises(SettingsError, match="holds tables already"):
        check_empty(postgres_database)
    name = postgres.empty()
    for _ in range(2):
        check_empty(postgres.address(name))
    postgres.drop(name)


def test_a_reader_cannot_write(engine: Engine) -> None:
    with pytest.raises(InternalError, match="read-only"), reading(engine) as session:
        session.execute(text("DELETE FROM credentials"))
    with writing(engine) as session:  # the connection that comes back can
        session.execute(text("DELETE FROM credentials"))


def test_a_server_that_is_told_otherwise_still_reads_what_was_committed(postgres: Cluster) -> None:
    """An operator's default of another isolation level would make a writer decide on what it saw before its lock."""
    name = postgres.migrated()
    postgres.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    engine = open_engine(postgres.address(name))
    with writing(engine) as session:
        assert session.execute(text("SHOW transaction_isolation")).scalar_one() == "read committed"
    engine.dispose()
    postgres.drop(name)


def test_who_shares_a_lock_goes_on_beside_others_and_who_does_not_waits(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialect, "LOCK_WAIT_MS", 50)
    with writing(engine, Lock("a", shared=True)):
        with writing(engine, Lock("a", shared=True)), writing(engine, Lock("b")):
            pass
        for refused in ((Lock("a"),), ()):
            with pytest.raises(OperationalError) as error, writing(engine, *refused):
                pass
            assert sqlstate(error.value) == dialect.LOCK_NOT_AVAILABLE
    with writing(engine, Lock("a")), pytest.raises(OperationalError), writing(engine, Lock("a", shared=True)):
        pass
    with writing(engine, Lock("a")):  # nothing is held on to
        pass


def test_a_server_that_falls_silent_loses_its_locks(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialect, "SILENT_MS", 50)
    with pytest.raises(DBAPIError, match="terminating connection"), writing(engine, Lock("a")) as session:
        with writing(engine, Lock("a")):  # after a while
            pass
        session.execute(text("SELECT 1"))


def test_deleted_rows_are_in_no_file_once_their_table_is_rewritten(postgres: Cluster, engine: Engine) -> None:
    with engine.connect() as connection:
        path = connection.execute(text("SELECT pg_relation_filepath('credentials')")).scalar_one()
    folder = (postgres.socket / "data" / path).parent

    def on_disk() -> bool:
        postgres.execute("CHECKPOINT")
        return any(b"the needle" in file.read_bytes() for file in folder.iterdir() if file.is_file())

    with writing(engine) as session:
        session.add(CredentialRow(digest="d", kind="admin", name="the needle", created=datetime.now(UTC)))
    assert on_disk()
    with writing(engine) as session:
        session.execute(text("DELETE FROM credentials"))
    assert on_disk()
    with reading(engine) as session:
        session.execute(text("SELECT count(*) FROM credentials"))
        assert not rewrite(engine, ("credentials",), 50)
    assert rewrite(engine, ("credentials",), 5_000)
    assert not on_disk()
    with engine.connect() as connection:
        assert connection.execute(text("SHOW lock_timeout")).scalar_one() == "0"


@pytest.mark.skipif(os.name != "posix", reason="a socket's path")
def test_a_server_that_is_not_there_is_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be used"):
        open_database(f"postgresql://bob:secret@/edgeship?host={tmp_path}")
