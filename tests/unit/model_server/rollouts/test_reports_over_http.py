"""What is refused, what is counted once, and what is not mixed up. One server for all of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import rollout_fleet
from tests.support.rollout_fleet import URL, Fleet, start, status

sequences = count(1_000)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def one_fleet(
    request: pytest.FixtureRequest, published: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    database = None
    if request.param == "postgresql":
        cluster = request.getfixturevalue("postgres")
        database = cluster.address(cluster.migrated())
    with rollout_fleet.fleet(published, tmp_path_factory.mktemp("reports"), database=database) as fleet:
        fleet.check_in()
        yield fleet


@pytest.fixture
def fleet(one_fleet: Fleet) -> Iterator[Fleet]:
    """Known devices, and no rollout running."""
    yield one_fleet
    one_fleet.server.admin.post(f"{URL}/halt")


@pytest.mark.parametrize(
    ("change", "code", "kind"),
    [
        ({"candidate": 9}, 404, "UnknownRelease"),
        ({"baseline": 9}, 404, "UnknownRelease"),
        ({"baseline": 2}, 422, "InvalidRollout"),
        ({"stages": ["3"]}, 422, "StageTooSmall"),
        ({"stages": ["ten"]}, 422, "InvalidRollout"),
        ({"holdback": "20"}, 400, "MalformedRequest"),
        ({"holdback": "99.9%"}, 422, "StageTooSmall"),
        ({"predicate": {"eq": ["arch", "riscv"]}}, 422, "StageTooSmall"),
        ({"predicate": {"all": [{}] * 3000}}, 422, "InvalidRollout"),
        ({"predicate": {"all": ["x" * 9000] * 2}}, 413, "BodyTooLarge"),
        ({"salt": "not a salt"}, 422, "InvalidRollout"),
        ({"limits": {"erors": 1}}, 422, "InvalidRollout"),
        ({"growth": "wild"}, 400, "MalformedRequest"),
        ({"surprise": 1}, 400, "MalformedRequest"),
        ({"candidate": "2"}, 400, "MalformedRequest"),
    ],
)
def test_a_rollout_that_cannot_work_is_refused_by_name(
    fleet: Fleet, change: dict[str, Any], code: int, kind: str
) -> None:
    body = {"candidate": 2, "baseline": 1, "stages": ["10", "all"], "salt": "fixed", **change}
    answer = fleet.server.admin.post(URL, json=body)
    assert (answer.status_code, answer.json()["type"]) == (code, f"urn:edgeship:problem:{kind}"), answer.text


@pytest.mark.parametrize("number", [b"NaN", b"1e999", b"-Infinity"])
def test_a_predicate_with_a_number_that_json_has_not_is_refused(fleet: Fleet, number: bytes) -> None:
    body = b'{"candidate": 2, "stages": ["all"], "predicate": {"lt": ["battery", %s]}}' % number
    answer = fleet.server.admin.post(URL, content=body)
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:edgeship:problem:InvalidRollout")


def test_what_does_not_exist_is_not_found(fleet: Fleet) -> None:
    assert fleet.server.admin.get("/v1/rollouts/beta/exercise").status_code == 404
    assert fleet.server.admin.post("/v1/rollouts/beta/exercise/halt").status_code == 404
    assert fleet.server.admin.post(f"{URL}/explode").status_code == 422
    assert fleet.server.admin.get("/v1/rollouts/UPPER/exercise").status_code == 422


def test_a_rollout_of_a_model_that_nobody_delegated_says_so(fleet: Fleet) -> None:
    refused = fleet.server.admin.post("/v1/rollouts/stable/unheard-of", json={"candidate": 1})
    assert (refused.status_code, refused.json()["type"]) == (404, "urn:edgeship:problem:UnknownModel")


def test_a_report_that_is_sent_twice_counts_once(fleet: Fleet) -> None:
    rollout = start(fleet)["rollout"]
    counters = [{"release": 1, "arm": "holdback", "requests": 5}]
    number = next(sequences)
    for code in (202, 200, 200):
        answer = fleet.server.report("d1", number, running=1, rollout=rollout, counters=counters)
        assert answer.status_code == code
    assert status(fleet)["arms"]["holdback"]["requests"] == 5
    assert fleet.server.report("d1", number - 1, running=1).json() == {"accepted": True, "duplicate": True}


@pytest.mark.parametrize(
    ("about", "counters"),
    [
        ("another", {"release": 1, "arm": "holdback"}),
        (None, {"release": 9, "arm": "candidate"}),
        (None, {"release": 2, "arm": "baseline"}),
        (None, {"release": 3, "arm": "holdback"}),
    ],
)
def test_counters_of_another_rollout_or_release_are_not_mixed_in(
    fleet: Fleet, about: str | None, counters: dict[str, Any]
) -> None:
    rollout = about or start(fleet)["rollout"]
    if about:
        start(fleet)
    fleet.server.report("d1", next(sequences), rollout=rollout, running=1, counters=[{**counters, "requests": 5}])
    assert status(fleet)["arms"] == {}


def test_without_a_baseline_the_holdback_counts_with_what_it_has(fleet: Fleet) -> None:
    rollout = start(fleet, baseline=None)["rollout"]
    counters = [{"release": 1, "arm": "holdback", "requests": 5}]
    fleet.server.report("d1", next(sequences), rollout=rollout, running=1, counters=counters)
    assert status(fleet)["arms"]["holdback"]["requests"] == 5


def test_more_errors_than_requests_are_as_many(fleet: Fleet) -> None:
    rollout = start(fleet)["rollout"]
    counters = [{"release": 1, "arm": "holdback", "requests": 5, "errors": 500, "fallbacks": 9}]
    fleet.server.report("d1", next(sequences), rollout=rollout, running=1, counters=counters)
    assert status(fleet)["arms"]["holdback"]["errors"] == 5


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"device": ""},
        {"device": "x" * 129},
        {"device": "a/b"},
        {"model": "NOT"},
        {"sequence": -1},
        {"sequence": "1"},
        {"sequence": 1.5},
        {"attributes": {str(n): 1 for n in range(33)}},
        {"attributes": {"a": [1]}},
        {"running": 0},
        {"arm": "leg"},
        {"rollout": "r\0"},
        {"outcomes": [{"outcome": "x" * 65}]},
        {"outcomes": [{"outcome": "Installed\0"}]},
        {"outcomes": [{"outcome": "Installed", "detail": "x" * 201}]},
        {"outcomes": [{"outcome": "Installed"}] * 65},
        {"counters": [{"release": 1, "arm": "candidate", "requests": -1}]},
        {"counters": [{"release": 1, "arm": "candidate", "requests": 2**41}]},
        {"counters": [{"release": 1, "arm": "candidate", "requests": True}]},
        {"counters": [{"release": 1, "arm": "candidate", "requests": 1, "latency_us": {"device": [[384, 1]]}}]},
        {"counters": [{"release": 1, "arm": "candidate", "requests": 1}] * 33},
    ],
)
def test_a_malformed_report_is_refused_with_a_problem(fleet: Fleet, change: dict[str, Any]) -> None:
    answer = fleet.server.report(**{"device": "never-seen", "sequence": 1, **change})
    assert answer.status_code in (400, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    devices = fleet.server.admin.get("/v1/devices").json()["devices"]
    assert "never-seen" not in [device["device"] for device in devices]


def test_text_that_a_database_cannot_keep_does_no_harm(fleet: Fleet) -> None:
    rollout = start(fleet, predicate={"not": {"eq": ["os", "\0"]}})["rollout"]
    outcomes = [{"outcome": "Installed", "release": 2, "detail": "\0"}]
    answer = fleet.server.report(
        "d1", next(sequences), rollout=rollout, running=2, attributes={"mood\0": "\0é\U0001f600"}, outcomes=outcomes
    )
    assert answer.status_code == 202, answer.text
    get = fleet.server.admin.get
    assert get("/v1/devices", params={"after": "\0"}).status_code == 400
    assert get("/v1/devices", params={"model": "\0"}).status_code == 422
    for path in ("/v1/rollouts/stable/%00", "/v1/releases/%00", "/v1/drift/%00", "/v1/telemetry/%00/days"):
        assert get(path).status_code in (404, 422), path
    baseline = {"from": "2026-03-02", "to": "2026-03-08", "approved_by": "Alice\0"}
    assert fleet.server.admin.post("/v1/drift/exercise/baseline", json=baseline).status_code == 400


def test_numbers_above_32_bits_are_kept(fleet: Fleet) -> None:
    rollout = start(fleet)["rollout"]
    largest, top = 2**53, {"requests": 2**40, "errors": 2**40, "latency_us": {"device": [[383, 2**40]]}}
    number = largest - 1
    for device in ("d20", "d21"):
        counters = [{"release": 1, "arm": "holdback", **top}]
        answer = fleet.server.report(device, number, rollout=rollout, running=2**31 - 1, counters=counters)
        assert answer.status_code == 202, answer.text
    devices = fleet.server.admin.get("/v1/devices", params={"after": "d2", "limit": 2}).json()["devices"]
    assert [(device["device"], device["sequence"]) for device in devices] == [("d20", number), ("d21", number)]
    assert status(fleet)["arms"]["holdback"]["requests"] == 2_000  # one report weighs a thousand at most


def test_a_hostile_body_is_refused_whatever_it_holds(fleet: Fleet) -> None:
    post = fleet.server.device.post
    for body in (b"", b"{", b"[]", b"null", b"\xff", b"[" * 60_000, b'{"a":' * 12_000, b"9" * 60_000):
        assert post("/v1/outcomes", content=body).status_code == 400
    assert post("/v1/outcomes", content=b"x" * 65_537).status_code == 413

    def endless() -> Iterator[bytes]:
        for _ in range(64):
            yield b"x" * 65_536

    with contextlib.suppress(httpx.WriteError):  # the server may close before all of it was sent
        assert post("/v1/outcomes", content=endless()).status_code == 413
    assert fleet.server.report("d1", next(sequences)).status_code == 202


def test_unknown_keys_of_a_newer_device_are_ignored(fleet: Fleet) -> None:
    assert (
        fleet.server.report(
            "d1", next(sequences), battery=0.5, outcomes=[{"outcome": "Teleported", "mood": 1}]
        ).status_code
        == 202
    )


def test_a_report_about_an_unknown_model_or_without_a_token_is_refused(fleet: Fleet) -> None:
    assert fleet.server.report("d1", 1, model="unheard-of").status_code == 404
    for headers in ({}, {"Authorization": "Bearer no"}, {"Authorization": "Basic x"}, {"Authorization": "Bearer"}):
        answer = httpx.post(f"{fleet.server.url}/v1/outcomes", json={}, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"


def test_devices_are_listed_page_by_page(fleet: Fleet) -> None:
    get = fleet.server.admin.get
    first = get("/v1/devices", params={"limit": 3, "model": "exercise"}).json()["devices"]
    rest = get("/v1/devices", params={"after": first[-1]["device"], "limit": 2}).json()["devices"]
    assert [device["device"] for device in first + rest] == ["d0", "d1", "d10", "d11", "d12"]
    assert first[0]["running"] == 1
