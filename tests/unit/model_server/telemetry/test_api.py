"""Telemetry over a real uvicorn."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from edge_runtime.authorization import Bearer
from edge_runtime.telemetry.upload import upload
from model_server.audit import log as audit
from model_server.db.base import reading
from model_server.errors import (
    BaselineRefused,
    BodyTooLarge,
    DuplicateReport,
    IngestBusy,
    MalformedRequest,
    NotFound,
    ReportRefused,
    Unauthorized,
)
from model_server.telemetry.api import telemetry_router
from model_server.telemetry.intake import Intake
from model_server.telemetry.reports import Submission
from model_server.telemetry.store import decode_cells
from model_server.telemetry.tables import OpenCohortRow
from model_server.web import add_problems
from tests.support.asgi import serve
from tests.support.watch_fleet import WatchFleet, reports
from tests.unit.model_server.telemetry.world import World

STATUSES = {
    Unauthorized: 401,
    MalformedRequest: 400,
    BodyTooLarge: 413,
    NotFound: 404,
    ReportRefused: 422,
    DuplicateReport: 409,
    BaselineRefused: 409,
    IngestBusy: 429,
}
DEVICE = {"authorization": "Bearer fleet"}
ADMIN = {"authorization": "Bearer admin"}


def only_admin(route: str, header: str | None) -> str:
    if header != "Bearer admin":
        raise Unauthorized("not the admin")
    return "admin"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def http(world: World) -> Iterator[httpx.Client]:
    app = FastAPI()
    app.include_router(
        telemetry_router(
            world.service,
            lambda header: "fleet" if header == "Bearer fleet" else None,
            only_admin,
        )
    )
    add_problems(app, STATUSES)
    with serve(app) as url, httpx.Client(base_url=url, timeout=20) as client:
        yield client
    world.service.close()


def counted(world: World) -> int:
    with reading(world.engine) as session:
        return sum(int(decode_cells(row.sums)[-1]) for row in session.scalars(select(OpenCohortRow))) // 1024


def test_a_report_is_stored_when_it_is_acknowledged(http: httpx.Client, world: World) -> None:
    for number, report in enumerate(reports(WatchFleet(5, 1).day(), world.day), start=1):
        answer = http.post("/v1/telemetry", content=report, headers=DEVICE)
        assert (answer.status_code, answer.json()) == (202, {"accepted": True})
        assert counted(world) == number


def test_the_devices_own_upload_is_understood(http: httpx.Client, world: World) -> None:
    (report,) = reports(WatchFleet(1, 1).day(), world.day)
    server = str(http.base_url)
    assert upload(report, http, server, Bearer("fleet")) is True
    assert upload(report, http, server, Bearer("fleet")) is True  # it had been taken before
    assert counted(world) == 1


def test_many_at_once_are_each_counted_once(http: httpx.Client, world: World) -> None:
    batch = reports(WatchFleet(300, 1).day(), world.day)

    async def send() -> list[int]:
        async with httpx.AsyncClient(base_url=str(http.base_url), headers=DEVICE, timeout=20) as client:
            answers = await asyncio.gather(*(client.post("/v1/telemetry", content=one) for one in batch + batch[:50]))
        return [answer.status_code for answer in answers]

    statuses = asyncio.run(send())
    assert sorted(statuses) == [202] * 300 + [409] * 50
    assert counted(world) == 300


@pytest.mark.parametrize("header", [{}, {"authorization": "Bearer admin"}, {"authorization": "nonsense"}])
def test_only_the_fleet_may_report(http: httpx.Client, world: World, header: dict[str, str]) -> None:
    (report,) = reports(WatchFleet(1, 1).day(), world.day)
    answer = http.post("/v1/telemetry", content=report, headers=header)
    assert answer.status_code == 401
    assert counted(world) == 0


def test_refusals_are_problems(http: httpx.Client, world: World) -> None:
    rows = WatchFleet(1, 1).day()
    (good,) = reports(rows, world.day)
    cases = {
        400: b"not a report",
        404: reports(rows, world.day, release=99)[0],
        413: bytes(8193),
        422: reports(rows, world.day - 3)[0],
    }
    for status, body in cases.items():
        answer = http.post("/v1/telemetry", content=body, headers=DEVICE)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"]
    assert http.post("/v1/telemetry", content=good, headers=DEVICE).status_code == 202
    assert http.post("/v1/telemetry", content=good, headers=DEVICE).status_code == 409


def test_a_body_without_end_is_cut_off(http: httpx.Client) -> None:
    sent = 0

    def long() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(100_000):
            sent += 1
            yield bytes(4096)

    try:
        status = http.post("/v1/telemetry", content=long(), headers=DEVICE).status_code
    except httpx.TransportError:  # the server closed the connection while we were still writing
        status = 413
    assert status == 413
    assert sent < 10_000


def test_people_approve_a_baseline_and_read_the_verdict(http: httpx.Client, world: World) -> None:
    fleet, first = WatchFleet(600, 1, windows=10), world.today
    for _ in range(7):
        world.take(reports(fleet.day(), world.day))
        world.turn()
    for path in ("/v1/drift/exercise", "/v1/telemetry/exercise/days"):
        assert http.get(path).status_code == 401
        assert http.get(path, headers=DEVICE).status_code == 401
    assert http.get("/v1/drift/exercise", headers=ADMIN).json()["baseline"]["approved"] is False
    asked = {"from": first.isoformat(), "to": first.replace(day=8).isoformat(), "approved_by": "Alice"}
    assert http.post("/v1/drift/exercise/baseline", json=asked, headers=DEVICE).status_code == 401
    answer = http.post("/v1/drift/exercise/baseline", json=asked, headers=ADMIN)
    assert answer.status_code == 201
    assert answer.json()["training_gap"]
    with reading(world.engine) as session:
        assert audit.verify(session) == 1
        (entry,) = audit._rows(session)
    assert (entry.actor, entry.action, entry.subject) == ("admin", "drift.baseline_approved", "exercise")
    assert json.loads(entry.detail) == {**asked, "layout": answer.json()["layout"]}
    told = http.get("/v1/drift/exercise", headers=ADMIN).json()
    assert told["baseline"]["approved_by"] == "Alice"
    assert (told["mode"], told["epsilon"], told["delta"]) == ("central", 1.0, 1e-6)
    assert len(http.get("/v1/telemetry/exercise/days", headers=ADMIN).json()["closed"]) == 7


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"from": "2026-03-02", "to": "2026-03-08"}',
        b'{"from": "2026-03-02", "to": "2026-03-08", "approved_by": " "}',
        b'{"from": "soon", "to": "2026-03-08", "approved_by": "Alice"}',
        b'{"from": "2026-03-02", "to": "2026-03-08", "approved_by": "Alice", "force": true}',
    ],
)
def test_a_baseline_request_that_is_none_is_refused(http: httpx.Client, body: bytes) -> None:
    assert http.post("/v1/drift/exercise/baseline", content=body, headers=ADMIN).status_code == 400


def test_a_baseline_without_days_is_refused(http: httpx.Client) -> None:
    body = {"from": "2020-01-01", "to": "2020-01-14", "approved_by": "Alice"}
    assert http.post("/v1/drift/exercise/baseline", json=body, headers=ADMIN).status_code == 409


class TestIntake:
    """Group commit by itself."""

    def test_what_waits_while_the_writer_works_goes_into_one_transaction(self) -> None:
        import threading

        release, sizes = threading.Event(), []

        def store(batch: list[Submission]) -> list[None]:
            sizes.append(len(batch))
            release.wait(5)
            return [None] * len(batch)

        async def run() -> None:
            intake = Intake(store, 100)  # type: ignore[arg-type]
            waiting = [asyncio.ensure_future(intake.submit(None)) for _ in range(1)]  # type: ignore[arg-type]
            await asyncio.sleep(0.05)
            waiting += [asyncio.ensure_future(intake.submit(None)) for _ in range(9)]  # type: ignore[arg-type]
            await asyncio.sleep(0)
            release.set()
            await asyncio.gather(*waiting)
            intake.close()

        asyncio.run(run())
        assert sizes == [1, 9]

    def test_a_caller_that_goes_away_takes_nobody_with_it(self) -> None:
        import threading

        release = threading.Event()

        def store(batch: list[Submission]) -> list[None]:
            release.wait(5)
            return [None] * len(batch)

        async def run() -> list[object]:
            intake = Intake(store, 100)  # type: ignore[arg-type]
            calls = [asyncio.ensure_future(intake.submit(None)) for _ in range(3)]  # type: ignore[arg-type]
            await asyncio.sleep(0.05)
            calls[0].cancel()
            release.set()
            answers = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 5)
            await asyncio.wait_for(intake.submit(None), 5)  # type: ignore[arg-type]
            intake.close()
            return [type(answer) for answer in answers]

        assert asyncio.run(run()) == [asyncio.CancelledError, type(None), type(None)]

    def test_more_than_the_queue_holds_is_told_to_come_later(self) -> None:
        import threading

        release = threading.Event()

        def store(batch: list[Submission]) -> list[None]:
            release.wait(5)
            return [None] * len(batch)

        async def run() -> list[object]:
            intake = Intake(store, 3)  # type: ignore[arg-type]
            first = asyncio.ensure_future(intake.submit(None))  # type: ignore[arg-type]
            await asyncio.sleep(0.05)
            rest = [asyncio.ensure_future(intake.submit(None)) for _ in range(5)]  # type: ignore[arg-type]
            await asyncio.sleep(0)
            release.set()
            answers = await asyncio.gather(first, *rest, return_exceptions=True)
            intake.close()
            return [type(answer) for answer in answers]

        assert asyncio.run(run()) == [type(None)] * 4 + [IngestBusy] * 2

    def test_a_transaction_that_fails_is_told_to_everybody_in_it_and_the_next_one_runs(self) -> None:
        failures = [OperationalError("insert", {}, OSError("disk full"))]

        def store(batch: list[Submission]) -> list[None]:
            if failures:
                raise failures.pop()
            return [None] * len(batch)

        async def run() -> list[object]:
            intake = Intake(store, 100)  # type: ignore[arg-type]
            both = [asyncio.ensure_future(intake.submit(None)) for _ in range(2)]  # type: ignore[arg-type]
            answers = await asyncio.gather(*both, return_exceptions=True)
            await intake.submit(None)  # type: ignore[arg-type]
            intake.close()
            return [type(answer) for answer in answers]

        assert asyncio.run(run()) == [OperationalError, OperationalError]
