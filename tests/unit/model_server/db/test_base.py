import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, text
from sqlalchemy.exc import StatementError

from model_server.access.credentials import CredentialRow
from model_server.audit.tables import AuditRow
from model_server.db.base import open_engine, reading, writing
from model_server.db.migrate import upgrade
from model_server.db.schema import metadata

NOW = datetime(2026, 11, 23, 1, 2, 3, 456789, tzinfo=UTC)


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    engine = open_engine(database)
    yield engine
    engine.dispose()


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Engine]:
    engine = open_engine(f"sqlite:///{tmp_path / 'edgeship.db'}")
    upgrade(engine)
    yield engine
    engine.dispose()


def test_the_migrations_make_exactly_the_declared_tables(engine: Engine) -> None:
    options = {"compare_type": True, "compare_server_default": True}
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata()) == []


def test_upgrading_again_changes_nothing(engine: Engine) -> None:
    with writing(engine) as session:
        session.add(CredentialRow(digest="d", kind="admin", name="n", created=NOW))
    upgrade(engine)
    with reading(engine) as session:
        assert session.get(CredentialRow, "d") is not None


def test_sqlite_keeps_a_log_ahead_of_writing(sqlite: Engine) -> None:
    with sqlite.connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA busy_timeout")).scalar() == 10_000
        assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1


def test_a_reader_sees_one_state_while_others_write(engine: Engine) -> None:
    with reading(engine) as reader:
        assert reader.query(CredentialRow).count() == 0
        with writing(engine) as writer:
            writer.add(CredentialRow(digest="d", kind="admin", name="n", created=NOW))
        assert reader.query(CredentialRow).count() == 0
    with reading(engine) as reader:
        assert reader.query(CredentialRow).count() == 1


def test_an_error_takes_everything_of_its_transaction_back(engine: Engine) -> None:
    def fail() -> None:
        with writing(engine) as session:
            session.add(CredentialRow(digest="d", kind="admin", name="n", created=NOW))
            session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with reading(engine) as session:
        assert session.query(CredentialRow).count() == 0


def test_many_threads_that_read_and_then_write_lose_nothing(engine: Engine) -> None:
    with writing(engine) as session:
        session.add(CredentialRow(digest="counter", kind="0", name="n", created=NOW))

    def work() -> None:
        for _ in range(10):
            with writing(engine) as session:
                row = session.get(CredentialRow, "counter")
                assert row is not None
                row.kind = str(int(row.kind) + 1)

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with reading(engine) as session:
        row = session.get(CredentialRow, "counter")
        assert row is not None
        assert row.kind == "120"


def test_a_time_comes_back_in_utc_and_one_without_a_zone_is_refused(engine: Engine) -> None:
    local = NOW.astimezone(timezone(timedelta(hours=5)))
    with writing(engine) as session:
        session.add(CredentialRow(digest="d", kind="admin", name="n", created=local))
    with reading(engine) as session:
        row = session.get(CredentialRow, "d")
        assert row is not None
        assert (row.created, row.created.tzinfo) == (NOW, UTC)
    with pytest.raises(StatementError), writing(engine) as session:
        session.add(CredentialRow(digest="e", kind="admin", name="n", created=NOW.replace(tzinfo=None)))


def test_audit_rows_cannot_be_changed_or_deleted(engine: Engine) -> None:
    row = AuditRow(
        sequence=1, time=NOW, actor="a", action="b", subject="c", detail="{}", previous="0" * 64, digest="1" * 64
    )
    with writing(engine) as session:
        session.add(row)
    truncate = ("TRUNCATE audit",) if engine.dialect.name == "postgresql" else ()
    for statement in ("UPDATE audit SET actor = 'x'", "DELETE FROM audit", *truncate):
        with pytest.raises(Exception, match="append-only"), writing(engine) as session:
            session.execute(text(statement))


def test_a_decision_is_on_the_disk_when_it_is_committed_and_a_report_may_be_later(engine: Engine) -> None:
    on_sqlite = engine.dialect.name == "sqlite"
    asked, levels = ("PRAGMA synchronous", (2, 1)) if on_sqlite else ("SHOW synchronous_commit", ("on", "off"))
    for relaxed in (False, True, False):
        with writing(engine, relaxed=relaxed) as session:
            assert session.execute(text(asked)).scalar_one() == levels[relaxed]
