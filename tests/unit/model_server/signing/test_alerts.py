"""A role that comes near its expiry is said once a level, in the log, in the database and in the status."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from model_server.settings import Settings
from model_server.signing.alerts import expiry_message
from model_server.signing.health import RoleHealth
from tests.support.server import Running, SteppedClock, make_folder, running

NOW = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def server(tmp_path: Path, clock: SteppedClock) -> Iterator[Running]:
    settings: Settings = dataclasses.replace(make_folder(tmp_path / "server"), controller_interval_s=3600.0)
    with running(settings, clock) as server:
        yield server


def alerts(server: Running) -> dict[str, str]:
    server.services.controller.tick()
    return {alert["subject"]: alert["level"] for alert in server.admin.get("/v1/status").json()["alerts"]}


def test_each_level_is_raised_once_and_the_next_takes_its_place(
    server: Running, clock: SteppedClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="model_server.signing.alerts")
    assert alerts(server) == {}
    offline = ("role/releases-exercise", "role/releases-gesture", "role/targets")
    for days, level in ((61, "30 days"), (16, "14 days"), (11, "3 days"), (3, "expired")):
        clock.advance(days=days)
        assert alerts(server) == dict.fromkeys(offline, level)
        assert alerts(server) == dict.fromkeys(offline, level)
        assert len(caplog.records) == len(offline)
        caplog.clear()


def test_online_roles_never_alert_while_the_server_renews_them(server: Running, clock: SteppedClock) -> None:
    for _ in range(20):
        clock.advance(hours=11)
        assert alerts(server) == {}


def test_an_alert_ends_when_the_role_was_signed_again(server: Running, clock: SteppedClock) -> None:
    clock.advance(days=61)
    assert "role/targets" in alerts(server)
    clock.advance(days=-61)
    assert alerts(server) == {}


@pytest.mark.parametrize(
    ("role", "offline", "alert", "says"),
    [
        ("releases-exercise", True, "14 days", "release renew exercise"),
        ("targets", True, "3 days", "keys renew targets"),
        ("root", True, "expired", "halts included"),
        ("timestamp", False, "expired", "renews it by itself"),
    ],
)
def test_an_alert_says_what_to_do(role: str, offline: bool, alert: str, says: str) -> None:
    health = RoleHealth(
        role=role,
        version=1,
        expires=NOW + timedelta(days=2),
        offline=offline,
        alert=alert,  # type: ignore[arg-type]
    )
    assert says in expiry_message(health, NOW)
