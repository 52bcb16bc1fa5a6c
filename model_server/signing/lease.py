"""The publisher's lease: one publisher at a time, whatever runs where.

A publisher reads the present version of a role, signs the next and puts it in place; two that did so at once would
sign one version twice, and devices would refuse the one that they see second. With SQLite, everybody is on one machine,
and a locked file keeps others away. With PostgreSQL, servers may be anywhere, and the database's lock does: it ends
with the connection, so that a server which dies holds nobody up.

A server that was frozen may have lost its lease without knowing. So it is asked again before every write, and no write
overwrites another's version: see `Repository`.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError, OperationalError

from model_server.db.postgres import LOCK_NOT_AVAILABLE, POSTGRES, Lock, begin_writing, sqlstate
from model_server.errors import LeaseLost, StorageUnavailable

__all__ = ["Check", "Leasing", "database_lease", "file_lease", "lease_of"]

Check = Callable[[], None]
"""Raises LeaseLost if the lease is not held any more."""

Leasing = Callable[[], AbstractContextManager[Check]]

_PUBLISHER = Lock("publisher")


def lease_of(engine: Engine, directory: Path) -> Leasing:
    """The lease of an installation with this database, whose server's folder is ``directory``."""
    if engine.dialect.name == POSTGRES:
        return database_lease(engine)
    return file_lease(directory / ".publisher.lock")


def file_lease(path: Path) -> Leasing:
    """A lease among the processes of this machine. The kernel gives it up with the process."""

    @contextmanager
    def lease() -> Iterator[Check]:
        with path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield lambda: None

    return lease


def database_lease(engine: Engine) -> Leasing:
    """A lease among all who have this PostgreSQL database. Waits as long as any writer does, then raises
    StorageUnavailable."""

    @contextmanager
    def lease() -> Iterator[Check]:
        with engine.connect() as connection:
            # Whoever publishes reads and writes the database meanwhile, by other connections.
            try:
                begin_writing(connection, (_PUBLISHER,), relaxed=False, tables=False)
            except OperationalError as error:
                raise StorageUnavailable(
                    "another server has been publishing for too long: try again"
                    if sqlstate(error) == LOCK_NOT_AVAILABLE
                    else "the database does not answer, so nothing can be published: try again later"
                ) from error

            def check() -> None:
                try:
                    connection.execute(text("SELECT 1"))
                except DBAPIError as error:
                    raise LeaseLost(
                        "the connection that held the publisher's lease is gone, so another server may be publishing; "
                        "nothing more was written"
                    ) from error

            yield check

    return lease
