"""Errors as RFC 9457 problems, whoever answers with them: a request, or a job that a request began."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from sqlalchemy.exc import OperationalError

from edge_runtime.bundle.errors import EdgeshipError
from model_server.db.postgres import LOCK_NOT_AVAILABLE, sqlstate
from model_server.errors import StorageFull, StorageUnavailable

__all__ = ["problem", "problem_of", "storage_error"]

DISK_FULL = "53100"  # PostgreSQL's code


def _is_full(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    if isinstance(error, OperationalError) and sqlstate(error) == DISK_FULL:
        return True
    return "disk is full" in str(error)  # SQLite's SQLITE_FULL


def _is_away(error: Exception) -> bool:
    """No connection, one that broke, a server that shuts down or starts, or another writer that does not end."""
    if not isinstance(error, OperationalError):
        return False
    code = sqlstate(error)
    if code is None:
        return "database is locked" in str(error) or not isinstance(error.orig, sqlite3.Error)
    return code == LOCK_NOT_AVAILABLE or code[:2] in ("08", "57")  # connection exception, operator intervention


def problem_of(error: Exception, statuses: Mapping[type[EdgeshipError], int]) -> dict[str, Any]:
    """The RFC 9457 problem that answers ``error``: one of ours by the status of its closest class, a disk or a database
    that failed by what it means, and anything else without saying what it was."""
    named = error if isinstance(error, EdgeshipError) else storage_error(error)
    if named is None:
        return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "an error inside the server; its log says more", "Internal")
    status = next((statuses[kind] for kind in type(named).__mro__ if kind in statuses), 500)
    return problem(status, str(named), type(named).__name__)


def storage_error(error: Exception) -> EdgeshipError | None:
    named: EdgeshipError
    if _is_full(error):
        named = StorageFull("the server's disk is full, and nothing was changed: free some space, then send this again")
    elif _is_away(error):
        named = StorageUnavailable("the database does not answer, and nothing was changed: send this again later")
    else:
        return None
    named.__cause__ = error
    return named


def problem(status: int, detail: str, kind: str) -> dict[str, Any]:
    """``kind`` is the error's class name, for programs, ``detail`` is for people."""
    return {
        "type": f"urn:edgeship:problem:{kind}",
        "title": HTTPStatus(status).phrase,
        "status": int(status),
        "detail": detail[:2000],
    }
