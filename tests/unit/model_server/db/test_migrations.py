"""Databases of older versions."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, MetaData, text

import model_server.db
from model_server.access.keys import digest_of
from model_server.access.passwords import Passwords
from model_server.access.people import People
from model_server.access.roles import Role
from model_server.access.service import Access, Kind
from model_server.clock import SystemClock
from model_server.db.base import open_engine, reading
from model_server.db.migrate import upgrade
from model_server.db.schema import metadata
from model_server.releases.tables import ReleaseRow

VALUES = {
    int: 1,
    str: "x",
    bytes: b"x",
    bool: True,
    float: 0.5,
    date: date(2026, 3, 2),
    datetime: datetime(2026, 3, 2, 1, 2, 3, 456789),
}


MOVED = {"releases", "release_files", "release_signatures"}  # into proposals: a test of its own


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    if request.param == "sqlite":
        engine = open_engine(f"sqlite:///{tmp_path / 'old.db'}")
        yield engine
        engine.dispose()
        return
    cluster = request.getfixturevalue("postgres")
    name = cluster.empty()
    engine = open_engine(cluster.address(name))
    yield engine
    engine.dispose()
    cluster.drop(name)


def reflected(connection: Connection) -> MetaData:
    found = MetaData()
    found.reflect(connection)
    found.remove(found.tables["alembic_version"])
    return found


def rows(engine: Engine) -> dict[str, list[dict[str, object]]]:
    with engine.connect() as connection:
        return {
            table.name: [dict(row) for row in connection.execute(table.select()).mappings()]
            for table in reflected(connection).sorted_tables
        }


def test_the_previous_versions_rows_stay_and_its_schema_becomes_this_one(empty: Engine) -> None:
    upgrade(empty, "0001")
    with empty.begin() as connection:
        for table in reflected(connection).sorted_tables:
            if empty.dialect.name == "postgresql":
                values = {**VALUES, datetime: VALUES[datetime].replace(tzinfo=UTC)}  # type: ignore[attr-defined]
            else:
                values = VALUES
            connection.execute(table.insert(), {c.name: values[c.type.python_type] for c in table.columns})
    before = rows(empty)
    assert all(len(found) == 1 for found in before.values())
    upgrade(empty)
    after = rows(empty)
    assert set(after) == set(metadata().tables)
    assert {name: after.get(name) for name in before.keys() - MOVED} == {
        name: found for name, found in before.items() if name not in MOVED
    }
    with empty.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata()) == []
    with pytest.raises(Exception, match="append-only"), empty.begin() as connection:
        connection.execute(text("DELETE FROM audit"))


@pytest.mark.parametrize("empty", ["postgresql"], indirect=True)  # on SQLite 0002 changes nothing
def test_a_migration_that_fails_leaves_the_database_as_it_was(empty: Engine) -> None:
    upgrade(empty, "0001")
    with empty.begin() as connection:
        connection.execute(text("CREATE FUNCTION audit_refuses() RETURNS int LANGUAGE sql AS 'SELECT 1'"))
    with pytest.raises(Exception, match="audit_refuses"):
        upgrade(empty)
    with empty.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == "0001"
        kind = "SELECT pg_typeof(sequence) FROM (SELECT) AS one LEFT JOIN audit ON true"
        assert connection.execute(text(kind)).scalar_one() == "integer"


def test_there_is_no_way_down_but_a_backup(empty: Engine) -> None:
    upgrade(empty)
    config = Config()
    config.set_main_option("script_location", str(Path(model_server.db.__path__[0]) / "migrations"))
    with empty.connect() as connection, pytest.raises(NotImplementedError, match="backup"):
        config.attributes["connection"] = connection
        command.downgrade(config, "base")


def test_releases_of_the_first_schema_keep_their_files_and_signatures(empty: Engine) -> None:
    engine = empty
    upgrade(engine, "0001")
    with engine.begin() as connection:
        for number, state, published in ((1, "published", "2026-11-02 00:00:00"), (2, "staged", None)):
            connection.execute(
                text(
                    "INSERT INTO releases VALUES (:id, 'exercise', :n, :v, :state, 'b', :mv, :pending, 'admin:a', "
                    "'2026-11-01 00:00:00', :published)"
                ),
                {
                    "id": 10 * number,
                    "n": number,
                    "v": f"{number}.0",
                    "state": state,
                    "mv": number + 1,
                    "pending": b"{}",
                    "published": published,
                },
            )
            for name in ("manifest.json", "m.onnx"):
                connection.execute(
                    text("INSERT INTO release_files VALUES (:id, :file, 5, 'd')"), {"id": 10 * number, "file": name}
                )
        connection.execute(
            text("INSERT INTO release_signatures VALUES (10, 'k', 'alice', 'ab', '2026-11-01 12:00:00')")
        )
    upgrade(engine)
    with reading(engine) as session:
        first, second = session.query(ReleaseRow).order_by(ReleaseRow.release).all()
        assert (first.version, first.state, first.proposal.version) == ("1.0", "published", 2)
        assert [file.file for file in first.files] == ["m.onnx", "manifest.json"]
        assert [(known.person, known.signature) for known in first.proposal.signatures] == [("alice", "ab")]
        assert first.proposal.published_at is not None
        assert (first.proposal.role, first.proposal.subject) == ("releases-exercise", "exercise/1")
        assert (second.proposal.pending, second.proposal.published_at) == (b"{}", None)
        assert second.proposal.signatures == []


def test_the_admin_key_of_an_older_version_goes_on_working_as_a_key_of_a_person(empty: Engine) -> None:
    upgrade(empty, "0003")
    add = text("INSERT INTO credentials VALUES (:digest, :kind, :kind, '2026-11-01 00:00:00+00:00')")
    with empty.begin() as connection:
        for kind, token in (("admin", "esk_old"), ("fleet", "esf_old")):
            connection.execute(add, {"digest": digest_of(token), "kind": kind})
    upgrade(empty)
    access = Access(empty, SystemClock())
    admin, fleet = access.identify("Bearer esk_old"), access.identify("Bearer esf_old")
    assert admin is not None
    assert fleet is not None
    assert (admin.name, admin.role, fleet.kind) == ("admin", Role.ADMIN, Kind.FLEET)
    People(empty, SystemClock(), Passwords()).revoke_all("admin", "local:test")
    assert access.identify("Bearer esk_old") is None
