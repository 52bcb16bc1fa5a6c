"""Every route of the app, as its own description lists them: what it needs, and whom it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import httpx
import pytest
from sqlalchemy import select

from model_server.access.roles import ROUTES, Permission, Role, least_role, may
from model_server.audit.tables import AuditRow
from model_server.db.base import reading
from tests.support.people import headers, key_of
from tests.support.server import Running, make_folder, running

MUTATING = {"POST", "PUT", "PATCH", "DELETE"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(make_folder(tmp_path_factory.mktemp("routes") / "server")) as server:
        yield server


@pytest.fixture(scope="module")
def keys(server: Running) -> dict[Role, str]:
    return {role: key_of(server, role) for role in Role}


@pytest.fixture(scope="module")
def routes(server: Running) -> list[str]:
    paths = httpx.get(f"{server.url}/v1/openapi.json").json()["paths"]
    return [f"{method.upper()} {path}" for path, methods in paths.items() for method in methods]


@pytest.fixture(scope="module")
def stranger() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=30) as client:
        yield client


def call(stranger: httpx.Client, server: Running, route: str, key: str | None) -> httpx.Response:
    """A request that would change nothing if it were let in: nothing has such a name."""
    method, path = route.split()
    with_key = {} if key is None else headers(key)
    return stranger.request(method, server.url + re.sub(r"{\w+}", "1", path), headers=with_key)


def test_every_route_stands_in_the_table_and_nothing_else_does(routes: list[str]) -> None:
    assert sorted(routes) == sorted(ROUTES)


def test_every_route_refuses_a_missing_key_a_devices_token_and_the_role_below(
    stranger: httpx.Client, server: Running, routes: list[str], keys: dict[Role, str]
) -> None:
    seen = 0
    for route in routes:
        permission = ROUTES[route]
        least = least_role(permission)
        if least is None:
            continue
        assert call(stranger, server, route, None).status_code == 401, route
        assert call(stranger, server, route, "esk_unknown").status_code == 401, route
        if permission is not Permission.DEVICE:
            token = server.device.headers["authorization"].removeprefix("Bearer ")
            assert call(stranger, server, route, token).status_code == 403, route
        if least is not Role.VIEWER:
            below = list(Role)[least.rank - 1]
            assert call(stranger, server, route, keys[below]).status_code == 403, route
        seen += 1
    assert seen == len(routes) - 2  # all but those that open a session and let a device in


def test_every_route_lets_the_role_in_that_it_needs(
    stranger: httpx.Client, server: Running, routes: list[str], keys: dict[Role, str]
) -> None:
    for route in routes:
        least = least_role(ROUTES[route])
        if least is not None and route != "DELETE /v1/sessions/own":
            assert call(stranger, server, route, keys[least]).status_code not in (401, 403), route


def test_whatever_changes_something_needs_more_than_reading(routes: list[str]) -> None:
    own = {"POST /v1/sessions", "DELETE /v1/sessions/own", "POST /v1/devices"}
    for route in routes:
        if route.split()[0] in MUTATING and route not in own:
            assert ROUTES[route] not in (Permission.READ, Permission.ANYBODY), route


def test_each_role_may_do_all_that_the_one_before_may() -> None:
    for permission in Permission:
        allowed = [may(role, permission) for role in Role]
        assert allowed == sorted(allowed), permission
        assert allowed[-1], permission


def test_stopping_a_rollout_needs_an_operator_and_starting_one_a_release_manager() -> None:
    assert ROUTES["POST /v1/rollouts/{channel}/{model}/{action}"] is Permission.OPERATE
    assert ROUTES["POST /v1/rollouts/{channel}/{model}"] is Permission.RELEASE
    assert least_role(Permission.OPERATE) is Role.OPERATOR
    assert least_role(Permission.RELEASE) is Role.RELEASE_MANAGER


def test_who_was_refused_what_is_in_the_audit_log(
    stranger: httpx.Client, server: Running, keys: dict[Role, str]
) -> None:
    answer = call(stranger, server, "POST /v1/policies/{model}", keys[Role.OPERATOR])
    assert answer.status_code == 403
    assert "needs the role release-manager" in answer.json()["detail"]
    with reading(server.services.engine) as session:
        entry = session.execute(select(AuditRow).order_by(AuditRow.sequence.desc()).limit(1)).scalar_one()
    assert (entry.actor, entry.action) == ("person:some-operator", "access.refused")
    assert entry.subject == "POST /v1/policies/{model}"
    assert json.loads(entry.detail)["needs"] == "release-manager"


def test_a_device_endpoint_takes_the_fleets_token_and_no_viewers_key(
    stranger: httpx.Client, server: Running, keys: dict[Role, str]
) -> None:
    assert server.device.get("/v2").status_code == 200
    assert stranger.get(f"{server.url}/v2", headers=headers(keys[Role.RELEASE_MANAGER])).status_code == 403
    for path in ("/v1/telemetry", "/v1/outcomes"):
        assert stranger.post(server.url + path, headers=headers(keys[Role.RELEASE_MANAGER])).status_code == 403
