"""The declarative base of every table, the engine, and how to read and write.

SQLite runs in WAL mode: readers never wait for the writer. A transaction takes the write lock when it begins, because
one that reads first and writes later fails at once, whatever ``busy_timeout`` says, if another writer came between.
`reading` opens the cheaper kind that takes no lock; `writing` also queues this process's threads, which SQLite's
busy handler would let overtake each other. PostgreSQL's readers have one snapshot each, and its writers take the locks
that they name (see `postgres`). What `writing` committed survives a power cut: the plan that a halt makes is published
after it, and a server that had forgotten the halt would publish the old plan again. Reports may be ``relaxed``: a power
cut can take the last moments of them, never the database's consistency.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import DateTime, Engine, MetaData, create_engine, event
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.pool import Pool
from sqlalchemy.types import TypeDecorator

from model_server.db.postgres import POSTGRES, Lock, begin_writing, database_address

__all__ = ["BUSY_TIMEOUT_MS", "Base", "Lock", "UtcDateTime", "open_engine", "reading", "writing"]

BUSY_TIMEOUT_MS = 10_000
READ_ONLY = "edgeship_read_only"
RELAXED = "edgeship_relaxed"
_READING: dict[str, dict[str, Any]] = {
    "sqlite": {READ_ONLY: True},
    POSTGRES: {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
}
_write_locks: WeakKeyDictionary[Pool, threading.Lock] = WeakKeyDictionary()


class Base(DeclarativeBase):
    """Every part's tables share this metadata; names of constraints are fixed, so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime in UTC. SQLite keeps no zone, so one is required going in and put back coming out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a datetime without a zone cannot be stored")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def open_engine(address: str) -> Engine:
    """An engine for ``sqlite:////var/lib/edgeship/edgeship.db`` or ``postgresql://user@host/name``. Connects on first
    use. Raises: SettingsError, ModuleNotFoundError without the driver."""
    url = database_address(address)
    # An error repeats no values: they would put exact telemetry sums into the log.
    options: dict[str, Any] = {"pool_size": 16, "max_overflow": 32, "hide_parameters": True}
    if url.drivername != "sqlite":
        return create_engine(url, pool_pre_ping=True, isolation_level="READ COMMITTED", **options)
    engine = create_engine(url, **options)
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


@contextmanager
def reading(engine: Engine) -> Iterator[Session]:
    """A session that only reads: a consistent view, and no lock."""
    with Session(engine.execution_options(**_READING[engine.dialect.name])) as session:
        yield session


@contextmanager
def writing(engine: Engine, *locks: Lock, relaxed: bool = False) -> Iterator[Session]:
    """A session in one transaction: committed on leaving, rolled back if an error leaves it.

    What it reads stays true until then: nobody else writes. On PostgreSQL, where it names ``locks``, others do, if they
    name none of those.
    """
    if engine.dialect.name == POSTGRES:
        with Session(engine, expire_on_commit=False) as session, session.begin():
            begin_writing(session, locks, relaxed=relaxed)
            yield session
        return
    bound = engine.execution_options(**{RELAXED: relaxed})
    with _lock_of(engine), Session(bound, expire_on_commit=False) as session, session.begin():
        yield session


def _lock_of(engine: Engine) -> threading.Lock:
    # By pool, not by engine: an engine with execution options is another object over the same pool.
    return _write_locks.setdefault(engine.pool, threading.Lock())


def _configure_sqlite(connection: Any, record: object) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself; `_begin_sqlite` does
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA secure_delete=ON")  # what telemetry forgets is overwritten, however SQLite was built
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    options = connection.get_execution_options()
    if options.get(READ_ONLY, False):
        connection.exec_driver_sql("BEGIN")
        return
    # Before the transaction begins: inside one it would not count.
    connection.exec_driver_sql(f"PRAGMA synchronous={'NORMAL' if options.get(RELAXED, False) else 'FULL'}")
    connection.exec_driver_sql("BEGIN IMMEDIATE")
