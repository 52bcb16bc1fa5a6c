"""Bringing a database to the present schema."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Engine, inspect
from sqlalchemy.exc import SQLAlchemyError

from model_server.db.base import open_engine
from model_server.db.postgres import POSTGRES, begin_writing, database_address
from model_server.errors import SettingsError

__all__ = ["check_empty", "open_database", "upgrade"]


def open_database(address: str) -> Engine:
    """An engine for a database that has the present schema. Raises: SettingsError, without the address in it."""
    with _in_words(address):
        engine = open_engine(address)
        upgrade(engine)
        _check_encoding(engine)
    return engine


def check_empty(address: str) -> None:
    """Reach the database and change nothing. Raises: SettingsError, without the address in it, if it cannot be used or
    holds tables."""
    with _in_words(address):
        engine = open_engine(address)
        try:
            _check_encoding(engine)
            tables = inspect(engine).get_table_names()
        finally:
            engine.dispose()
    if tables:
        raise SettingsError(f"the database holds tables already ({', '.join(tables[:3])}…): name an empty one")


@contextmanager
def _in_words(address: str) -> Iterator[None]:
    password = database_address(address).password
    try:
        yield
    except ImportError as error:
        raise SettingsError(
            f"the database cannot be used without its driver ({_first_line(error)}): pip install 'edgeship[postgres]'"
        ) from error
    except (SQLAlchemyError, CommandError) as error:
        reason = _first_line(error)
        if password:
            reason = reason.replace(password, "***")
        raise SettingsError(f"the database (storage.database in settings.toml) cannot be used: {reason}") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Apply every migration that the database has not seen, all or none. `init` and `serve` do it before anything
    else; of servers that start together, one does it and the others wait."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with engine.begin() as connection:
        if engine.dialect.name == POSTGRES:
            begin_writing(connection, (), relaxed=False)
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def _check_encoding(engine: Engine) -> None:
    if engine.dialect.name != POSTGRES:
        return
    with engine.connect() as connection:
        encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
    if encoding != "UTF8":
        raise SettingsError(f"the database keeps text as {encoding}: make one with ENCODING 'UTF8'")
