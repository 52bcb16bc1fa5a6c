"""What PostgreSQL needs beyond SQLite: an address that names its driver, and locks.

SQLite has one writer at a time, PostgreSQL any number, in any number of processes. So what reads and then writes names
what it relies on, and `begin_writing` takes an advisory lock for each name until the transaction ends. A transaction
that names nothing excludes all others, as on SQLite. Locks are taken in one order, which rules deadlocks out: what
`writing` is given, from the widest to the narrowest; then rows; last the audit log's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.orm import Session

from model_server.errors import SettingsError

__all__ = ["LOCK_NOT_AVAILABLE", "POSTGRES", "Lock", "begin_writing", "database_address", "hold", "rewrite", "sqlstate"]

POSTGRES = "postgresql"
LOCK_WAIT_MS = 10_000  # as long as SQLite's writers wait
SILENT_MS = 300_000  # of a server that died or froze inside a transaction: its locks must not outlive it for long
LOCK_NOT_AVAILABLE = "55P03"
_DRIVER = "postgresql+psycopg"


@dataclass(frozen=True, slots=True)
class Lock:
    """What a transaction relies on, by name. ``shared`` holders go on beside each other and exclude the one that is
    not."""

    name: str
    shared: bool = False

    @property
    def key(self) -> int:
        """PostgreSQL's locks have 64-bit numbers for names; two that fall together only wait for each other."""
        return int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:8], "big", signed=True)


_ALL = "everything"


def database_address(address: str) -> URL:
    """The SQLAlchemy URL of what ``settings.toml`` names, with the driver that we test with.

    Raises: SettingsError, which repeats nothing of the address, since that may hold a password.
    """
    try:
        url = make_url(address)
    except (ArgumentError, ValueError):
        raise SettingsError(
            "the address of the database cannot be read: write postgresql://user@host/name, and any of /:@?#% in a "
            "part of it as %2F and so on"
        ) from None
    if url.drivername == "sqlite":
        return url
    if url.drivername not in (POSTGRES, "postgres", _DRIVER):
        raise SettingsError("the address of the database must begin with postgresql:// or sqlite://")
    password = url.query.get("password")
    if isinstance(password, str):  # nobody hides what stands there
        url = url.difference_update_query(["password"]).set(password=password)
    return url.set(drivername=_DRIVER)


def begin_writing(session: Session | Connection, locks: Sequence[Lock], *, relaxed: bool, tables: bool = True) -> None:
    """The first statement of a transaction that writes: one round trip, whatever it asks for. Its isolation level must
    be READ COMMITTED, so that each later statement sees what was committed before the locks were had. Without
    ``tables`` it only holds its locks, and keeps away nobody who names none of them."""
    asked = [
        "set_config('lock_timeout', :wait, true)",
        "set_config('idle_in_transaction_session_timeout', :silent, true)",
    ]
    if relaxed:
        asked.append("set_config('synchronous_commit', 'off', true)")
    wanted = (*([Lock(_ALL, shared=bool(locks))] if tables else []), *locks)
    # PostgreSQL evaluates a list of results from the left.
    asked += [_taking(lock, f"key{number}") for number, lock in enumerate(wanted)]
    keys = {f"key{number}": lock.key for number, lock in enumerate(wanted)}
    session.execute(text(f"SELECT {', '.join(asked)}"), {"wait": str(LOCK_WAIT_MS), "silent": str(SILENT_MS), **keys})


def hold(session: Session, lock: Lock) -> None:
    """Take one more lock until the transaction ends. On SQLite, whoever writes has them all."""
    if session.get_bind().dialect.name == POSTGRES:
        session.execute(text(f"SELECT {_taking(lock, 'key')}"), {"key": lock.key})


def _taking(lock: Lock, parameter: str) -> str:
    function = "pg_advisory_xact_lock_shared" if lock.shared else "pg_advisory_xact_lock"
    return f"{function}(CAST(:{parameter} AS bigint))"


def rewrite(engine: Engine, tables: Sequence[str], wait_ms: int) -> bool:
    """Write tables anew, so that their files hold no deleted row. False if somebody uses them for longer than
    ``wait_ms``: then it must be tried again."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(f"SET lock_timeout = {wait_ms:d}")
        try:
            connection.exec_driver_sql(f"VACUUM (FULL) {', '.join(tables)}")
        except OperationalError as error:
            if sqlstate(error) != LOCK_NOT_AVAILABLE:
                raise
            return False
        finally:
            connection.exec_driver_sql("RESET lock_timeout")
    return True


def sqlstate(error: DBAPIError) -> str | None:
    """PostgreSQL's code of an error; None for SQLite's, and where no server has answered."""
    code = getattr(error.orig, "sqlstate", None)
    return code if isinstance(code, str) else None
