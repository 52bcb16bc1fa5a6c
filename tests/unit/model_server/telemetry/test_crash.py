from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import httpx
from sqlalchemy import func, select

from model_server.db.base import open_engine, reading
from model_server.telemetry.reports import EPOCH
from model_server.telemetry.store import decode_cells
from model_server.telemetry.tables import DailyIdRow, OpenCohortRow
from tests.support.watch_fleet import WatchFleet, reports
from tests.unit.model_server.telemetry.world import FIRST_DAY


def test_a_killed_server_has_every_acknowledged_report_once(tmp_path: Path) -> None:
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.unit.model_server.telemetry.crashing_server", str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    url = server.stdout.readline().strip()
    batch = reports(WatchFleet(4000, 1).day(), (FIRST_DAY - EPOCH).days)
    acknowledged: list[int] = []
    enough = threading.Event()

    def send(mine: list[bytes]) -> None:
        with httpx.Client(base_url=url, timeout=10) as client:
            for report in mine:
                try:
                    answer = client.post("/v1/telemetry", content=report)
                except httpx.TransportError:
                    return
                assert answer.status_code == 202
                acknowledged.append(1)
                if len(acknowledged) >= 150:
                    enough.set()

    senders = [threading.Thread(target=send, args=(batch[i::6],)) for i in range(6)]
    for sender in senders:
        sender.start()
    assert enough.wait(30)
    server.kill()
    for sender in senders:
        sender.join()
    server.wait()
    server.stdout.close()

    engine = open_engine(f"sqlite:///{tmp_path / 'telemetry.db'}")
    with reading(engine) as session:
        counted = sum(int(decode_cells(sums)[-1]) for sums in session.scalars(select(OpenCohortRow.sums))) // 1024
        ids = session.execute(select(func.count()).select_from(DailyIdRow)).scalar_one()
    engine.dispose()
    # A report may be stored and its acknowledgement lost with the process; one of each sender at most.
    assert len(acknowledged) <= counted <= len(acknowledged) + len(senders)
    assert ids == counted
