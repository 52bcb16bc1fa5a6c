"""A real runtime's telemetry against the real server: counted on one day, taken on the next, refused in no case."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edge_runtime import Device, EdgeRuntime, Enrolment
from model_server.db.schema import metadata
from model_server.enrolment.tables import EnrolledDeviceRow
from tests.support import tiny
from tests.support.managers import publish
from tests.support.server import Running, SteppedClock, credentials, make_folder, running
from tests.support.world import ManualClock

DAY = 86_400.0


WATCH = "watch-of-alice"


def devices_of(server: Running) -> list[dict[str, object]]:
    """What the server knows of devices, with all times."""
    with server.services.engine.connect() as connection:
        return [dict(row) for row in connection.execute(EnrolledDeviceRow.__table__.select()).mappings()]


def rows_about(server: Running, what: str) -> list[str]:
    """The tables that hold ``what`` anywhere."""
    found = []
    with server.services.engine.connect() as connection:
        for table in metadata().sorted_tables:
            rows = connection.execute(table.select()).all()
            if any(what in str(value) for row in rows for value in row):
                found.append(table.name)
    return found


def test_yesterdays_counts_are_taken_by_the_server_once_and_nobody_keeps_whose_they_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    settings = make_folder(tmp_path / "server")
    here, there = ManualClock(now=datetime.now(UTC)), SteppedClock()
    first_day = here.wall().date().isoformat()
    factory = tiny.release(1, model="exercise").factory(tmp_path)
    with running(settings, there) as server:
        assert publish(server, settings, Path(factory.path)).status_code == 200
        with EdgeRuntime.open(
            tmp_path / "device",
            model="exercise",
            root=settings.directory / "root.json",
            server=server.url,
            enrolment=Enrolment(token=credentials(settings)["enrolment_token"]),
            device=Device(id=WATCH),
            factory=factory,
            engines=("onnx",),
            background=False,
            clock=here,
        ) as runtime:
            for window in tiny.windows(40):
                runtime.predict({"window": window})
            assert runtime.upload_telemetry() == 0  # the day is not over
            here.advance(DAY)
            there.advance(seconds=DAY)
            assert runtime.enrol()
            enrolled = devices_of(server)
            caplog.clear()
            assert runtime.upload_telemetry() == 1
            assert devices_of(server) == enrolled
            assert rows_about(server, WATCH) == ["enrolled_devices"]
            assert WATCH not in caplog.text
            assert runtime.upload_telemetry() == 0
        seen = server.admin.get("/v1/telemetry/exercise/days").json()
        assert (seen["open"], seen["closed"]) == ([first_day], [])
        there.advance(seconds=DAY)
        seen = server.admin.get("/v1/telemetry/exercise/days").json()
        assert seen["open"] == []
        (closed,) = seen["closed"]
        assert (closed["day"], closed["release"]) == (first_day, 1)
        assert closed["devices"] is None  # one device is no cohort
