"""A PostgreSQL of our own: a cluster in a temporary folder, reached through a socket in it, and databases on demand."""

from __future__ import annotations

import ctypes
import itertools
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Engine, create_engine, text
from sqlalchemy.pool import NullPool

from model_server.db.base import open_engine
from model_server.db.migrate import upgrade
from model_server.db.schema import metadata

__all__ = ["Cluster", "NoPostgres", "cluster", "copy_rows", "find_binaries"]

OWNER = "edgeship"
TEMPLATE = "edgeship_template"
START_S = 60
# It is thrown away, so it need not survive a power cut.
OPTIONS = {
    "listen_addresses": "",
    "fsync": "off",
    "synchronous_commit": "on",  # what is relaxed must show
    "full_page_writes": "off",
    "password_encryption": "scram-sha-256",
    "shared_buffers": "32MB",
    "max_connections": "120",
}
# One role must show its password, so that passwords are tested too; all others are let in.
HBA = "local all secretive scram-sha-256\nlocal all all trust\n"


class NoPostgres(Exception):
    """There is no PostgreSQL here, or it cannot be run."""


@dataclass
class Cluster:
    """A running cluster. Its databases sort as people do, as most do that are not made for us, and not by bytes."""

    socket: Path
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def address(self, database: str, user: str = OWNER) -> str:
        return f"postgresql://{user}@/{database}?host={self.socket}"

    def empty(self, options: str = "") -> str:
        """The name of a new database without tables."""
        return self._create(f"TEMPLATE template0 {options or self._sorting()}")

    def migrated(self) -> str:
        """The name of a new database with the present schema."""
        with self._admin() as engine, engine.connect() as connection:
            known = connection.execute(text("SELECT 1 FROM pg_database WHERE datname = :name"), {"name": TEMPLATE})
            missing = known.first() is None
        if missing:
            self.execute(f"CREATE DATABASE {TEMPLATE} TEMPLATE template0 {self._sorting()}")
            made = open_engine(self.address(TEMPLATE))
            upgrade(made)
            made.dispose()
        return self._create(f"TEMPLATE {TEMPLATE}")

    def drop(self, name: str) -> None:
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def execute(self, statement: str) -> None:
        with self._admin() as engine, engine.connect() as connection:
            connection.exec_driver_sql(statement)

    def _create(self, options: str) -> str:
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} {options}")
        return name

    def _sorting(self) -> str:
        with self._admin() as engine, engine.connect() as connection:
            version = connection.exec_driver_sql("SHOW server_version_num").scalar_one()
        return "LOCALE_PROVIDER icu ICU_LOCALE 'en-US'" if int(version) >= 150_000 else ""

    @contextmanager
    def _admin(self) -> Iterator[Engine]:
        address = self.address("postgres").replace("postgresql://", "postgresql+psycopg://")
        engine = create_engine(address, isolation_level="AUTOCOMMIT", poolclass=NullPool)
        yield engine
        engine.dispose()


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Make a cluster and run it. Raises NoPostgres."""
    binaries = find_binaries()
    user = _unprivileged()
    # In the system's folder and not in pytest's, which its user could not enter; and a socket's path must be short.
    folder = Path(tempfile.mkdtemp(prefix="edgeship-pg-"))
    try:
        if user is not None:
            os.chown(folder, user.pw_uid, user.pw_gid)
        as_user = {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        _run(
            [binaries / "initdb", "-D", folder / "data", "-U", OWNER, "-E", "UTF8", "--locale=C", "-A", "trust", "-N"],
            folder,
            as_user,
        )
        (folder / "data" / "pg_hba.conf").write_text(HBA)
        with _postmaster(binaries, folder, as_user):
            yield Cluster(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def copy_rows(source: str, target: str) -> None:
    """Put every row of a database into an empty one, both with the present schema."""
    old, new = open_engine(source), open_engine(target)
    with old.connect() as reader, new.begin() as writer:
        for table in metadata().sorted_tables:
            rows = [dict(row) for row in reader.execute(table.select()).mappings()]
            if rows:
                writer.execute(table.insert(), rows)
            if table.autoincrement_column is not None and new.dialect.name == "postgresql":
                name = table.autoincrement_column.name
                last = f"SELECT setval(pg_get_serial_sequence('{table.name}', '{name}'), max({name})) FROM {table.name}"
                writer.execute(text(last))
    old.dispose()
    new.dispose()


def find_binaries() -> Path:
    """The folder of ``initdb`` and ``postgres``: on the path, where Debian puts them, or where ``pg_config`` says.
    Raises NoPostgres."""
    on_path = shutil.which("postgres")
    places = [Path(on_path).resolve().parent] if on_path else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version, reverse=True)
    if shutil.which("pg_config"):
        told = subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True, check=False).stdout.strip()
        places += [Path(told)] if told else []
    for place in places:
        if (place / "initdb").exists() and (place / "postgres").exists():
            return place
    raise NoPostgres("no PostgreSQL is installed (Debian and Ubuntu: apt-get install postgresql)")


def _version(place: Path) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", place.parent.name)]


def _unprivileged() -> pwd.struct_passwd | None:
    """Somebody else if this is root, as whom PostgreSQL refuses to run."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise NoPostgres("PostgreSQL does not run as root, and there is no user postgres or nobody")


def _run(command: list[str | Path], folder: Path, as_user: dict[str, object]) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, **as_user)  # type: ignore[call-overload]
    if done.returncode != 0:
        raise NoPostgres(f"{Path(command[0]).name} failed: {done.stderr or done.stdout}")


@contextmanager
def _postmaster(binaries: Path, folder: Path, as_user: dict[str, object]) -> Iterator[None]:
    options = [f"--{name}={value}" for name, value in {**OPTIONS, "unix_socket_directories": folder}.items()]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(  # type: ignore[call-overload]
            [binaries / "postgres", "-D", folder / "data", *options],
            cwd=folder,
            stdout=log,
            stderr=log,
            preexec_fn=_end_with_us,
            **as_user,
        )
    try:
        deadline = time.monotonic() + START_S
        while not _accepts(folder):
            if process.poll() is not None or time.monotonic() > deadline:
                raise NoPostgres(f"postgres did not start: {(folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)
        yield
    finally:
        process.send_signal(signal.SIGINT)  # ends its sessions, and itself
        process.wait(30)


def _end_with_us() -> None:
    """Ask Linux to stop the server when this process ends, however it does: a test run may be interrupted or killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGINT)  # PR_SET_PDEATHSIG


def _accepts(folder: Path) -> bool:
    """The last line of the file is "ready" once connections are accepted."""
    status = folder / "data" / "postmaster.pid"
    return status.exists() and status.read_text().split()[-1:] == ["ready"]
