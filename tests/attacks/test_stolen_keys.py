"""Whoever has a person's key, and what they can and cannot do with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from model_server.access.people import recover
from model_server.access.roles import ROUTES, Permission, Role
from model_server.settings import Settings
from tests.support.managers import ended, publish, sign, stage
from tests.support.people import headers, key_of
from tests.support.server import Running, make_bundle, make_folder, running

ROLLOUT = "/v1/rollouts/stable/exercise"
START = {"candidate": 1, "stages": ["all"], "holdback": "0%", "salt": "s"}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return make_folder(tmp_path_factory.mktemp("stolen") / "server")


@pytest.fixture(scope="module")
def server(settings: Settings) -> Iterator[Running]:
    """With one published release, and one that is staged and that nobody has signed."""
    folder = settings.directory.parent
    with running(settings) as server:
        assert publish(server, settings, make_bundle(folder / "1.bundle", 1)).status_code == 200
        assert stage(server, make_bundle(folder / "2.bundle", 2)).status_code == 201
        yield server


@pytest.fixture
def thief(server: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


def steal(server: Running, thief: httpx.Client, role: Role) -> httpx.Client:
    thief.headers.update(headers(key_of(server, role, f"robbed-{role}")))
    return thief


def asked(thief: httpx.Client, *permissions: Permission) -> set[int]:
    """The statuses of everything that needs one of these, asked of what there is."""
    names = {"model": "exercise", "release": "2", "channel": "stable", "action": "halt", "name": "alice", "key": "k"}
    names |= {"job": "j", "device": "d", "token": "t"}
    routes = [route.split() for route, permission in ROUTES.items() if permission in permissions]
    names |= {"file": "f", "device": "watch", "token": "0123456789ab"}
    return {thief.request(method, path.format(**names)).status_code for method, path in routes}


def test_a_stolen_viewers_key_changes_nothing(server: Running, thief: httpx.Client) -> None:
    steal(server, thief, Role.VIEWER)
    assert asked(thief, Permission.OPERATE, Permission.RELEASE, Permission.ADMINISTER, Permission.DEVICE) == {403}
    assert thief.get("/v1/status").status_code == 200


def test_a_stolen_operators_key_stops_a_rollout_and_starts_none(server: Running, thief: httpx.Client) -> None:
    steal(server, thief, Role.OPERATOR)
    assert thief.post(ROLLOUT, json=START).status_code == 403
    assert server.admin.post(ROLLOUT, json=START).status_code == 201
    assert thief.post(f"{ROLLOUT}/halt").json()["state"] == "halted"
    assert asked(thief, Permission.RELEASE, Permission.ADMINISTER, Permission.DEVICE) == {403}


def test_a_stolen_managers_key_publishes_nothing_that_two_people_did_not_sign(
    server: Running, settings: Settings, thief: httpx.Client
) -> None:
    steal(server, thief, Role.RELEASE_MANAGER)
    release = "/v1/releases/exercise/2"
    assert thief.post(f"{release}/publish").status_code == 409
    sign(server, settings, "alice", settings.directory.parent / "2.bundle", 2)
    assert thief.post(f"{release}/publish").status_code == 409
    false = {"keyid": "0" * 64, "signature": "ab"}
    assert thief.post(f"{release}/signatures", json=false).status_code == 422
    assert thief.get(release).json()["state"] == "staged"
    assert asked(thief, Permission.ADMINISTER, Permission.DEVICE) == {403}


def test_a_stolen_admins_key_signs_nothing_and_ends_on_the_servers_machine(
    server: Running, settings: Settings, thief: httpx.Client
) -> None:
    steal(server, thief, Role.ADMIN)
    bundle = make_bundle(settings.directory.parent / "g.bundle", 1, model="gesture")
    uploaded = thief.post("/v1/releases", params={"ceiling": "0s=100%"}, content=bundle.read_bytes())
    assert ended(server, uploaded.json()["id"])["state"] == "done"
    assert thief.post("/v1/releases/gesture/1/publish").status_code == 409
    assert thief.post("/v1/people", json={"name": "accomplice", "role": "admin"}).status_code == 201
    made = recover(server.services.engine, "robbed-admin", server.services.clock.now())
    assert thief.get("/v1/status").status_code == 401
    thief.headers.update(headers(made.key))  # the owner, who now sees and removes the accomplice
    assert "accomplice" in {person["name"] for person in thief.get("/v1/people").json()["people"]}
    assert thief.post("/v1/people/accomplice/disable").status_code == 200


def test_a_stolen_database_holds_no_key_and_no_password(server: Running, thief: httpx.Client) -> None:
    password = "a password of some length"
    server.admin.post("/v1/people", json={"name": "owner", "role": "viewer", "password": password})
    session = server.admin.post("/v1/sessions", json={"name": "owner", "password": password}).json()["session_key"]
    key = server.admin.post("/v1/people/owner/keys").json()["api_key"]
    files: list[Path] = list(server.services.settings.directory.glob("edgeship.db*"))
    stored = b"".join(file.read_bytes() for file in files)
    assert b"owner" in stored
    for secret in (password, session, key):
        assert secret.encode() not in stored


def test_guessing_a_password_is_slowed_down_and_says_for_how_long(server: Running, thief: httpx.Client) -> None:
    statuses = []
    for number in range(8):
        answer = thief.post("/v1/sessions", json={"name": "alice", "password": f"a guess, number {number}"})
        statuses.append(answer.status_code)
    assert statuses[0] == 401
    assert statuses[-1] == 429
    assert int(answer.headers["retry-after"]) >= 1


def test_a_request_to_log_in_that_is_too_large_or_odd_is_refused(thief: httpx.Client, server: Running) -> None:
    assert thief.post("/v1/sessions", content=b"x" * 10_000).status_code == 413
    secret = "an odd password, but mine"
    for body in ({"name": 5, "password": secret}, {"name": "a", "password": [secret]}, {"password": secret}):
        answer = thief.post("/v1/sessions", json=body)
        assert answer.status_code == 400
        assert secret not in answer.text
    assert thief.post("/v1/sessions", json={"name": "a\0b", "password": secret}).status_code == 401
    assert server.admin.post("/v1/people/a%00b/disable").status_code == 404
