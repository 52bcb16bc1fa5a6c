"""All tables of the server, in one place, for the migrations."""

from __future__ import annotations

from importlib import import_module

from sqlalchemy import MetaData

from model_server.db.base import Base

__all__ = ["metadata"]

# A module's tables join the metadata when it is imported.
_TABLES = (
    "model_server.access.credentials",
    "model_server.access.tables",
    "model_server.audit.tables",
    "model_server.enrolment.tables",
    "model_server.releases.jobs.tables",
    "model_server.releases.tables",
    "model_server.rollouts.tables",
    "model_server.signing.alert_tables",
    "model_server.signing.tables",
    "model_server.telemetry.tables",
)


def metadata() -> MetaData:
    for module in _TABLES:
        import_module(module)
    return Base.metadata
