"""What a thief of a device's key, or of something that it once sent, cannot do to the server."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edge_runtime.enrolment.protocol import SCHEME, TYPE, audience, claims, signing_input, to_base64url
from tests.support.devices import SigningDevice, plain_client
from tests.support.server import Running, credentials, make_folder, running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(make_folder(tmp_path_factory.mktemp("assertions") / "server")) as server:
        yield server


@pytest.fixture(scope="module")
def watch(server: Running) -> SigningDevice:
    return enrolled(server, "watch")


def enrolled(server: Running, name: str) -> SigningDevice:
    settings = server.services.settings
    device = SigningDevice(name, audience((settings.directory / "root.json").read_bytes()))
    assert device.enrol(server.url, credentials(settings)["enrolment_token"]).status_code == 201
    return device


def report(device: str, sequence: int = 1) -> bytes:
    body = {"format": 1, "device": device, "model": "exercise", "channel": "stable", "sequence": sequence}
    return json.dumps(body).encode()


def known(server: Running) -> list[str]:
    return [device["device"] for device in server.admin.get("/v1/devices").json()["devices"]]


def test_a_device_cannot_report_for_another(server: Running, watch: SigningDevice) -> None:
    outcomes = f"{server.url}/v1/outcomes"
    for victim in ("victim", enrolled(server, "other").id):
        refused = watch.post(outcomes, report(victim))
        assert (refused.status_code, refused.json()["type"]) == (403, "urn:edgeship:problem:Forbidden")
        refused = watch.post(outcomes, report(victim), sub=victim, iss=victim)
        assert refused.status_code == 401
        assert victim not in known(server)
    assert watch.post(outcomes, report(watch.id)).status_code == 202


def test_the_fleets_token_cannot_report_for_a_device_that_has_enrolled(server: Running) -> None:
    device = enrolled(server, "grown-up")
    assert server.report(device.id, 1).status_code == 403
    assert device.id not in known(server)
    assert server.report("never-enrolled", 1).status_code == 202


@pytest.mark.parametrize(
    ("path", "other"),
    [
        ("/v1/outcomes", report("watch", 9)),
        ("/v1/telemetry", b"another report"),
        ("/v2/repository/index", b'{"ready": true}'),
        ("/v1/outcomes", b""),
    ],
)
def test_a_captured_assertion_cannot_carry_another_body(
    server: Running, watch: SigningDevice, path: str, other: bytes
) -> None:
    captured = watch.signed(report("watch", 2))
    url = server.url + path
    post = plain_client().post
    assert post(url, content=other, headers=captured).status_code == 401

    def pieces() -> Iterator[bytes]:
        yield report("watch", 2)
        yield other or b" "

    assert post(url, content=pieces(), headers=captured).status_code == 401


@pytest.mark.parametrize("path", ["/v1/outcomes", "/v2/repository/index"])
@pytest.mark.parametrize("turned", [False, True])
def test_a_second_authorization_header_does_not_help(
    server: Running, watch: SigningDevice, path: str, turned: bool
) -> None:
    body = report("watch", 77) if path == "/v1/outcomes" else b"{}"
    captured = watch.signed(b"something else")["Authorization"]
    bait = SigningDevice("watch", watch.audience).signed(body)["Authorization"]  # by a key of the thief's
    headers = [("Authorization", bait), ("Authorization", captured)]
    answer = plain_client().post(server.url + path, content=body, headers=headers[::-1] if turned else headers)
    assert answer.status_code == 401


def compact(header: dict[str, Any], body: dict[str, Any], signature: bytes) -> dict[str, str]:
    parts = [to_base64url(json.dumps(part).encode()) for part in (header, body)]
    return {"Authorization": f"{SCHEME} {'.'.join(parts)}.{to_base64url(signature)}"}


def test_only_the_devices_own_signature_counts(server: Running, watch: SigningDevice) -> None:
    body = report("watch", 50)
    said = dict(claims("watch", watch.audience, datetime.now(UTC), body))
    secrets = [
        watch.public_key,
        watch.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        b"",
    ]
    forged = [compact({"alg": alg, "typ": TYPE}, said, b"") for alg in ("none", "None", "EdDSA", "HS256")]
    for secret in secrets:
        head = {"alg": "HS256", "typ": TYPE}
        text = ".".join(to_base64url(json.dumps(part).encode()) for part in (head, said))
        forged.append(compact(head, said, hmac.new(secret, text.encode(), hashlib.sha256).digest()))
    forged.append(SigningDevice("watch", watch.audience).signed(body))
    header = watch.signed(body)["Authorization"]
    forged += [{"Authorization": header[:-4] + "AAAA"}, {"Authorization": header + "."}, {"Authorization": SCHEME}]
    forged += [{"Authorization": f"{SCHEME} {'x' * 3000}"}, {"Authorization": f"{SCHEME} a.b.c"}]
    other_type = signing_input(claims("watch", watch.audience, datetime.now(UTC), body)).partition(".")[2]
    text = f"{to_base64url(json.dumps({'alg': 'EdDSA', 'typ': 'JWT'}).encode())}.{other_type}"
    forged.append({"Authorization": f"{SCHEME} {text}.{to_base64url(watch.key.sign(text.encode()))}"})
    for headers in forged:
        answer = plain_client().post(f"{server.url}/v1/outcomes", content=body, headers=headers)
        assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json"), headers
    assert plain_client().post(f"{server.url}/v1/outcomes", content=body, headers={"Authorization": header}).is_success


def test_an_assertion_for_another_repository_is_refused(server: Running, watch: SigningDevice) -> None:
    for other in (audience(b"another root"), None, [watch.audience], "", watch.audience + "0"):
        assert watch.post(f"{server.url}/v1/outcomes", report("watch", 60), aud=other).status_code == 401


NOW = int(datetime.now(UTC).timestamp())


@pytest.mark.parametrize(
    "times",
    [
        {"iat": NOW - 4000, "exp": NOW - 3700},
        {"iat": NOW + 4000, "exp": NOW + 4300},
        {"iat": NOW - 10, "exp": NOW + 300},
        {"iat": NOW, "exp": NOW + 10**9},
        {"iat": NOW, "exp": None},
        {"iat": None},
        {"exp": float("nan")},
        {"exp": float("inf")},
        {"iat": float("nan"), "exp": float("nan")},
        {"exp": 1e300},
        {"exp": 10**400},
        {"iat": -(10**400)},
        {"iat": NOW + 0.5},
        {"iat": True, "exp": True},
        {"iat": str(NOW)},
        {"iat": NOW + 300, "exp": NOW},
    ],
)
def test_an_assertion_lives_minutes_and_no_number_makes_it_live_longer(
    server: Running, watch: SigningDevice, times: dict[str, Any]
) -> None:
    answer = watch.post(f"{server.url}/v1/outcomes", report("watch", 61), **times)
    assert (answer.status_code, answer.json()["type"]) == (401, "urn:edgeship:problem:Unauthorized")


@pytest.mark.parametrize("stated", [None, "", "0" * 64, 5, ["a"]])
def test_an_assertion_that_binds_no_body_is_refused(server: Running, watch: SigningDevice, stated: object) -> None:
    assert watch.post(f"{server.url}/v1/outcomes", report("watch", 62), body_sha256=stated).status_code == 401


def test_a_proof_of_enrolment_is_no_assertion_and_the_other_way_round(server: Running, watch: SigningDevice) -> None:
    proof = watch.enrolment("a token")["proof"]
    text = signing_input(claims("watch", watch.audience, datetime.now(UTC), b""))
    assert (
        plain_client().get(f"{server.url}/v2", headers={"Authorization": f"{SCHEME} {text}.{proof}"}).status_code == 401
    )
    signature = base64.urlsafe_b64encode(watch.key.sign(text.encode())).rstrip(b"=").decode()
    token = credentials(server.services.settings)["enrolment_token"]
    fresh = SigningDevice("fresh", watch.audience, Ed25519PrivateKey.generate())
    answer = fresh.enrol(server.url, token, proof=signature)
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:edgeship:problem:ProofRejected")


def test_a_device_is_no_person(server: Running, watch: SigningDevice) -> None:
    for path in ("/v1/status", "/v1/devices", "/v1/rollouts", "/v1/enrolment/tokens"):
        answer = plain_client().get(server.url + path, headers=watch.signed(b""))
        assert answer.status_code in (401, 403), path


def test_a_hostile_enrolment_body_is_refused_whatever_it_holds(server: Running) -> None:
    def post(content: bytes) -> httpx.Response:
        return plain_client().post(f"{server.url}/v1/devices", content=content)

    for body in (b"", b"{", b"[]", b"null", b"\xff", b"[" * 4000, b'{"token":' * 400, b"9" * 4000):
        assert post(body).status_code == 400
    assert post(b"x" * 4097).status_code == 413
