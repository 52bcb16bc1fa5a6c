"""A real runtime's telemetry against the real server: counted on one day, taken on the next, refused in no case."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from edge_runtime import EdgeRuntime
from tests.support import tiny
from tests.support.managers import publish
from tests.support.server import SteppedClock, credentials, make_folder, running
from tests.support.world import ManualClock

DAY = 86_400.0


def test_yesterdays_counts_are_taken_by_the_server_once(tmp_path: Path) -> None:
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
            token=credentials(settings)["fleet_token"],
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
            assert runtime.upload_telemetry() == 1
            assert runtime.upload_telemetry() == 0
        seen = server.admin.get("/v1/telemetry/exercise/days").json()
        assert (seen["open"], seen["closed"]) == ([first_day], [])
        there.advance(seconds=DAY)
        seen = server.admin.get("/v1/telemetry/exercise/days").json()
        assert seen["open"] == []
        (closed,) = seen["closed"]
        assert (closed["day"], closed["release"]) == (first_day, 1)
        assert closed["devices"] is None  # one device is no cohort
