"""A telemetry service over a fresh database, on a calendar that the test turns."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path

from edge_runtime.bundle import Manifest
from model_server.db.base import Base, open_engine
from model_server.errors import EdgeshipError, ServerError
from model_server.telemetry import tables
from model_server.telemetry.reports import EPOCH, admit
from model_server.telemetry.service import TelemetryService
from model_server.telemetry.settings import TelemetrySettings
from tests.support.watch_fleet import manifest

__all__ = ["FIRST_DAY", "World"]

FIRST_DAY = date(2026, 3, 2)
assert tables.SumRow.__tablename__ in Base.metadata.tables


class World:
    """``today`` is what the service believes; releases 2 and 3 of ``exercise`` are published. A day is reported while
    it lasts and closes when it ends, unless the settings say otherwise."""

    def __init__(
        self,
        folder: Path,
        settings: TelemetrySettings | None = None,
        *,
        seed: int = 1,
        database: str | None = None,
    ) -> None:
        """``database`` is the address of one with the present schema; without it, a file is made in ``folder``."""
        self.path = folder / "telemetry.db"
        self.engine = open_engine(database or f"sqlite:///{self.path}")
        if database is None:
            Base.metadata.create_all(self.engine)
        self.today = FIRST_DAY
        self.manifests: dict[tuple[str, int], Manifest] = {
            ("exercise", 2): manifest(),
            ("exercise", 3): manifest(release=3),
        }
        self.settings = settings or TelemetrySettings(late_days=0)
        self.service = self.new_service(seed)

    def new_service(self, seed: int = 1) -> TelemetryService:
        """As after a restart."""
        return TelemetryService(
            self.engine, lambda m, r: self.manifests.get((m, r)), lambda: self.today, random.Random(seed), self.settings
        )

    @property
    def day(self) -> int:
        """Today as reports have it."""
        return (self.today - EPOCH).days

    def turn(self, days: int = 1) -> None:
        self.today += timedelta(days=days)

    def take(self, reports: Iterable[bytes]) -> list[ServerError | None]:
        """What HTTP does, for many reports at once."""
        batch = [admit(data, self.today, self.settings.late_days, self.service._mechanisms) for data in reports]
        return self.service._store(batch)

    def refusal(self, data: bytes) -> EdgeshipError:
        """The error that ``data`` ends in."""
        try:
            (answer,) = self.take([data])
        except EdgeshipError as error:
            return error
        assert answer is not None
        return answer
