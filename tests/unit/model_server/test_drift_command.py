"""`edgeship-server drift` against a real server whose days are closed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from fastapi import FastAPI

from model_server.cli import main
from model_server.errors import BaselineRefused
from model_server.telemetry.api import telemetry_router
from model_server.web import add_problems
from tests.support.asgi import serve
from tests.support.watch_fleet import WatchFleet, reports
from tests.unit.model_server.telemetry.world import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def to(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    monkeypatch.setenv("COLUMNS", "160")
    app = FastAPI()
    app.include_router(telemetry_router(world.service, lambda header: header, lambda route, header: header))
    add_problems(app, {BaselineRefused: 409})
    with serve(app) as url:
        yield ["--server", url, "--api-key", "k"]
    world.service.close()


def live(world: World, fleet: WatchFleet, days: int, **turned: object) -> None:
    for _ in range(days):
        assert not any(world.take(reports(fleet.day(**turned), world.day)))  # type: ignore[arg-type]
        world.turn()


def test_a_baseline_is_approved_and_drift_is_shown(
    world: World, to: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*args: str, code: int = 0) -> str:
        assert main(["drift", *args, *to]) == code
        out, err = capsys.readouterr()
        return err if code else out

    fleet, first = WatchFleet(1000, 1, windows=10), world.today
    assert "drift approve exercise" in run("show", "exercise")
    days = ["--from", first.isoformat(), "--to", (first + timedelta(days=6)).isoformat(), "--by", "Alice [sic]"]
    assert "409 2026-03-08 is not closed" in run("approve", "exercise", *days, code=1)
    live(world, fleet, 7)
    told = run("approve", "exercise", *days)
    assert "7 days from 2026-03-02 to 2026-03-08" in told
    assert "Alice [sic]" in told
    assert "az" in told
    assert json.loads(run("approve", "exercise", *days, "--json"))["approved_by"] == "Alice [sic]"

    assert "no day has closed" in run("show", "exercise")
    live(world, WatchFleet(20, 1), 1)
    live(world, fleet, 2, turned=fleet.choose(0.9), axis="az")
    told = run("show", "exercise")
    assert "drift since 2026-03-10" in told
    assert "az" in told
    assert "too few" in told
    assert "What cannot be seen: " in told
    verdict = json.loads(run("show", "exercise", "--json"))
    assert (verdict["alarm"], verdict["since"], verdict["features"][0]) == (True, "2026-03-10", "az")


@pytest.mark.parametrize(
    "args",
    [
        ["drift"],
        ["drift", "show"],
        ["drift", "approve", "m"],
        ["drift", "approve", "m", "--from", "soon", "--to", "2026-03-08", "--by", "Alice"],
        ["drift", "approve", "m", "--from", "2026-03-01", "--to", "2026-03-08"],
    ],
)
def test_wrong_usage_exits_with_2(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(args)
    assert error.value.code == 2
