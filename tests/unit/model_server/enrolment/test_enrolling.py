"""Letting devices in, over HTTP: tokens with limits, keys that prove themselves, and what people do about both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import select

from edge_runtime.enrolment.protocol import audience, from_base64url, token_digest
from model_server.audit.tables import AuditRow
from model_server.db.base import open_engine, reading
from model_server.enrolment.devices import Devices, Request
from model_server.enrolment.gate import Audiences
from model_server.enrolment.rules import Token, used_once_more
from model_server.enrolment.tables import EnrolmentTokenRow
from model_server.enrolment.tokens import TokenLimits, Tokens
from model_server.errors import EnrolmentBusy, ProofRejected, TokenRefused
from model_server.signing.lease import file_lease
from model_server.signing.repository import Repository
from model_server.storage.folder import FolderStorage
from tests.support.devices import SigningDevice, plain_client
from tests.support.server import Running, SteppedClock, credentials, make_folder, running

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(make_folder(tmp_path_factory.mktemp("enrolment") / "server")) as server:
        yield server


def device(server: Running, name: str) -> SigningDevice:
    return SigningDevice(name, audience((server.services.settings.directory / "root.json").read_bytes()))


def token(server: Running, **limits: Any) -> str:
    answer = server.admin.post("/v1/enrolment/tokens", json={"uses": 1, "expires_days": 1, **limits})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["token"])


def problem(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"].rpartition(":")[2]


def used(server: Running, secret: str) -> int:
    tokens = server.admin.get("/v1/enrolment/tokens").json()["tokens"]
    return next(int(entry["used"]) for entry in tokens if entry["id"] == token_digest(secret)[:12])


def test_a_device_enrols_with_its_own_key_and_then_reports_by_it(server: Running) -> None:
    watch = device(server, "watch-1")
    answer = watch.enrol(server.url, token(server, group="shop-a"))
    assert (answer.status_code, answer.json()) == (201, {"device": "watch-1", "new": True})
    body = report(watch.id)
    assert watch.post(f"{server.url}/v1/outcomes", body).status_code == 202
    listed = server.admin.get("/v1/enrolment/devices", params={"group": "shop-a"}).json()["devices"]
    assert [(one["device"], one["state"], one["group"]) for one in listed] == [("watch-1", "enrolled", "shop-a")]


def report(name: str, sequence: int = 1) -> bytes:
    body = {"format": 1, "device": name, "model": "exercise", "channel": "stable", "sequence": sequence}
    return json.dumps(body).encode()


def test_asking_again_with_the_same_key_is_no_second_use_and_no_error(server: Running) -> None:
    watch, secret = device(server, "watch-2"), token(server)
    for code in (201, 200, 200):
        assert watch.enrol(server.url, secret).status_code == code
    assert used(server, secret) == 1
    other = device(server, "watch-2b").enrol(server.url, secret)
    assert problem(other) == (403, "TokenRefused")
    assert "one device" in other.json()["detail"]


def test_another_key_for_a_known_device_is_refused_until_a_person_resets_it(server: Running) -> None:
    first, thief, secret = device(server, "watch-3"), device(server, "watch-3"), token(server, uses=5)
    assert first.enrol(server.url, secret).status_code == 201
    assert problem(thief.enrol(server.url, secret)) == (409, "DeviceTaken")
    assert problem(thief.post(f"{server.url}/v1/outcomes", report("watch-3"))) == (401, "Unauthorized")
    assert used(server, secret) == 1
    assert server.admin.post("/v1/enrolment/devices/watch-3/reset").json()["state"] == "reset"
    assert problem(first.post(f"{server.url}/v1/outcomes", report("watch-3"))) == (401, "DeviceNotEnrolled")
    assert thief.enrol(server.url, secret).status_code == 201
    assert problem(first.enrol(server.url, secret)) == (409, "DeviceTaken")


def test_without_a_token_nobody_learns_which_devices_there_are(server: Running) -> None:
    watch = device(server, "watch-4")
    watch.enrol(server.url, token(server))
    for name in ("watch-4", "never-seen"):
        assert problem(device(server, name).enrol(server.url, "ese_guessed")) == (403, "TokenRefused")


def test_a_revoked_device_is_refused_at_once_and_stays_so(server: Running) -> None:
    watch, secret = device(server, "watch-5"), token(server, uses=5)
    watch.enrol(server.url, secret)
    assert watch.post(f"{server.url}/v1/outcomes", report("watch-5")).status_code == 202
    assert server.admin.post("/v1/enrolment/devices/watch-5/revoke").json()["state"] == "revoked"
    assert problem(watch.post(f"{server.url}/v1/outcomes", report("watch-5", 2))) == (403, "DeviceRevoked")
    assert problem(watch.post(f"{server.url}/v1/telemetry", b"x")) == (403, "DeviceRevoked")
    assert watch.post(f"{server.url}/v2/repository/index", b"{}").status_code == 403
    assert problem(watch.enrol(server.url, secret)) == (403, "DeviceRevoked")
    assert problem(device(server, "watch-5").enrol(server.url, secret)) == (403, "DeviceRevoked")
    assert problem(server.report("watch-5", 3)) == (403, "Forbidden")  # nor by the fleet's token


def test_a_token_that_is_revoked_or_expired_or_used_up_for_this_hour_lets_nobody_in(tmp_path: Path) -> None:
    clock = SteppedClock()
    with running(make_folder(tmp_path / "server"), clock) as server:
        secret = token(server, uses=9, expires_days=2)
        assert device(server, "d1").enrol(server.url, secret).status_code == 201
        clock.advance(days=2)
        late = device(server, "d2").enrol(server.url, secret)
        assert problem(late) == (403, "TokenRefused")
        assert "expired" in late.json()["detail"]
        other = token(server, uses=9)
        revoked = server.admin.post(f"/v1/enrolment/tokens/{token_digest(other)[:12]}/revoke").json()
        assert revoked["state"] == "revoked"
        assert problem(device(server, "d2").enrol(server.url, other)) == (403, "TokenRefused")
        with reading(server.services.engine) as session:
            actions = [(row.action, row.subject) for row in session.execute(select(AuditRow)).scalars()]
        assert ("devices.token_revoked", token_digest(other)[:12]) in actions
        secret = token(server, uses=9, per_hour=2)
        codes = [device(server, f"e{n}").enrol(server.url, secret).status_code for n in range(2)]
        assert codes == [201, 201]
        busy = device(server, "e3").enrol(server.url, secret)
        assert problem(busy) == (429, "EnrolmentBusy")
        assert 3600 <= int(busy.headers["retry-after"]) <= 7202
        clock.advance(hours=1)
        assert device(server, "e3").enrol(server.url, secret).status_code == 201
        assert used(server, secret) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"device": "another"},
        {"token": "ese_another"},
        {"public_key": "A" * 43},
        {"proof": "A" * 86},
    ],
)
def test_a_proof_of_anything_else_enrols_nothing(server: Running, change: dict[str, str]) -> None:
    watch = device(server, "watch-6")
    assert problem(watch.enrol(server.url, token(server), **change)) == (422, "ProofRejected")
    assert "watch-6" not in server.admin.get("/v1/enrolment/devices").text


@pytest.mark.parametrize(
    "change",
    [
        {"device": ""},
        {"device": "a/b"},
        {"device": "x" * 129},
        {"device": "a\0"},
        {"public_key": "AAAA"},
        {"public_key": "A" * 42 + "B"},  # a second spelling of the same bytes
        {"proof": "A" * 85},
        {"proof": "="},
        {"token": ""},
        {"token": "x" * 201},
    ],
)
def test_a_malformed_enrolment_is_refused_by_name(server: Running, change: dict[str, str]) -> None:
    answer = device(server, "watch-7").enrol(server.url, token(server), **change)
    assert problem(answer) == (400, "MalformedRequest")
    assert next(iter(change)) in answer.json()["detail"]


@pytest.mark.parametrize("limits", [{"uses": 0}, {"uses": 1.5}, {"expires_days": 0}, {"expires_days": 1e9}, {"x": 1}])
def test_a_token_without_sensible_limits_is_not_made(server: Running, limits: dict[str, Any]) -> None:
    answer = server.admin.post("/v1/enrolment/tokens", json={"uses": 1, "expires_days": 1, **limits})
    assert problem(answer) == (400, "MalformedRequest")


def test_only_people_with_a_key_decide_about_tokens_and_devices(server: Running) -> None:
    watch = device(server, "watch-8")
    watch.enrol(server.url, token(server))
    for method, path in (
        ("GET", "/v1/enrolment/devices"),
        ("GET", "/v1/enrolment/tokens"),
        ("POST", "/v1/enrolment/tokens"),
        ("POST", "/v1/enrolment/tokens/0123456789ab/revoke"),
        ("POST", "/v1/enrolment/devices/watch-8/revoke"),
        ("POST", "/v1/enrolment/devices/watch-8/reset"),
    ):
        for headers in ({}, dict(server.device.headers), watch.signed(b"")):
            answer = plain_client().request(method, server.url + path, headers=headers)
            assert answer.status_code in (401, 403), (method, path)


def test_what_nobody_made_is_not_found(server: Running) -> None:
    assert problem(server.admin.post("/v1/enrolment/devices/nobody/revoke")) == (404, "UnknownDevice")
    assert problem(server.admin.post("/v1/enrolment/tokens/0123456789ab/revoke")) == (404, "UnknownEnrolmentToken")
    assert server.admin.post("/v1/enrolment/devices/%00/revoke").status_code == 400


def test_devices_are_listed_page_by_page(server: Running) -> None:
    secret = token(server, uses=4, group="pages")
    for number in range(4):
        device(server, f"page-{number}").enrol(server.url, secret)
    get = server.admin.get
    first = get("/v1/enrolment/devices", params={"limit": 3, "group": "pages"}).json()["devices"]
    rest = get("/v1/enrolment/devices", params={"after": first[-1]["device"], "group": "pages"}).json()["devices"]
    assert [one["device"] for one in (*first, *rest)] == [f"page-{number}" for number in range(4)]


def test_no_secret_is_stored(server: Running) -> None:
    secret = token(server)
    assert secret not in server.admin.get("/v1/enrolment/tokens").text
    files = list(server.services.settings.directory.glob("edgeship.db*"))
    assert files
    for path in files:
        assert secret.encode() not in path.read_bytes()


def test_a_new_installation_has_an_enrolment_token_with_limits(server: Running) -> None:
    (first,) = [
        entry for entry in server.admin.get("/v1/enrolment/tokens").json()["tokens"] if entry["created_by"] == "init"
    ]
    assert (first["uses"], first["per_hour"]) == (1000, 1000)
    secret = credentials(server.services.settings)["enrolment_token"]
    assert device(server, "watch-9").enrol(server.url, secret).status_code == 201


def test_an_operator_can_end_the_fleets_token_and_have_devices_report_less_often(tmp_path: Path) -> None:
    settings = replace(make_folder(tmp_path / "server"), fleet_token=False, minimum_report_interval_s=600.0)
    with running(settings) as server:
        assert server.report("d1", 1).status_code == 403
        assert server.device.get("/v2").status_code == 403
        assert server.admin.get("/v1/status").status_code == 200
        watch, spread = device(server, "watch-1"), set()
        watch.enrol(server.url, token(server))
        for sequence in (1, 2, 3, 4, 4):
            answer = watch.post(f"{server.url}/v1/outcomes", report("watch-1", sequence))
            assert answer.is_success
            spread.add(int(answer.headers["retry-after"]))
        assert min(spread) >= 600
        assert max(spread) <= 660
        assert len(spread) > 1


def test_a_device_may_be_pinned_to_any_root_that_was_ever_published(tmp_path: Path) -> None:
    repository = Repository(FolderStorage(tmp_path), file_lease(tmp_path / "lock"))
    audiences = Audiences(repository)
    repository.write_role("root", 1, b"the first")
    assert audiences.has(audience(b"the first"))
    assert not audiences.has(audience(b"the second"))
    repository.write_role("root", 2, b"the second")  # while the server runs
    assert audiences.has(audience(b"the second"))
    assert audiences.has(audience(b"the first"))


# Both databases


def test_many_devices_at_once_use_a_token_no_more_often_than_it_allows(database: str) -> None:
    engine, clock = open_engine(database), SteppedClock()
    secret = Tokens(engine, clock).add(TokenLimits(uses=5, valid=timedelta(days=1)), "admin:alice").secret
    devices = Devices(engine, clock)

    def enrol(number: int) -> bool:
        watch = SigningDevice(f"d{number % 10}", "", Ed25519PrivateKey.from_private_bytes(bytes([number % 10]) * 32))
        made = watch.enrolment(secret)
        try:
            return devices.enrol(
                Request(
                    token=secret,
                    device=watch.id,
                    public_key=watch.public_key,
                    proof=from_base64url(made["proof"]),
                )
            )
        except TokenRefused:
            return False

    with ThreadPoolExecutor(8) as pool:
        let_in = sum(pool.map(enrol, range(20)))
    with reading(engine) as session:
        row = session.execute(select(EnrolmentTokenRow)).scalar_one()
        assert (let_in, row.used, row.hour_used) == (5, 5, 5)
    assert len(devices.list()) == 5
    engine.dispose()


def test_a_key_that_is_no_point_of_the_curve_is_refused(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'none.db'}")
    weak = Request(token="t", device="d", public_key=b"\xff" * 32, proof=bytes(64))
    with pytest.raises(ProofRejected):
        Devices(engine, SteppedClock()).enrol(weak)
    engine.dispose()


# The rule, pure


def test_an_hour_begins_with_its_first_device_and_ends_by_itself() -> None:
    token = Token(uses=10, used=0, per_hour=2, hour=None, hour_used=0, expires=NOW + timedelta(days=1), revoked=None)
    for minutes in (0, 59):
        token = used_once_more(token, NOW + timedelta(minutes=minutes))
    with pytest.raises(EnrolmentBusy) as caught:
        used_once_more(token, NOW + timedelta(minutes=59, seconds=30))
    assert caught.value.retry_after_s == 31
    token = used_once_more(token, NOW + timedelta(minutes=60))
    assert (token.used, token.hour_used) == (3, 1)
    # A clock that was set back must not lock the token for longer than an hour.
    assert used_once_more(token, NOW).hour_used == 1
