"""Revoking, raising the floor and renewing, over a real socket, down to what a device then runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tuf.api.metadata import Targets

from edge_runtime.bundle import read_policy
from edge_runtime.errors import Outcome
from edge_runtime.update.plan import PARTS, State
from model_server.audit import log as audit
from model_server.db.base import reading
from model_server.errors import ReviewFailed, ServerRefused
from model_server.installation import open_publisher
from model_server.settings import Settings
from tests.support.managers import download, publish, sign, sign_the_policy, stage
from tests.support.plans import PLAN
from tests.support.server import (
    Running,
    SteppedClock,
    make_bundle,
    make_folder,
    repository_dir,
    running,
)
from tests.support.watch import watch

POLICY = "/v1/policies/exercise"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return dataclasses.replace(make_folder(tmp_path / "server"), delta_releases=0)


@pytest.fixture
def server(settings: Settings, tmp_path: Path) -> Iterator[Running]:
    """Releases 1 and 2 are published."""
    with running(settings, SteppedClock()) as server:
        for release in (1, 2):
            bundle = make_bundle(tmp_path / f"{release}.bundle", release, data=b"model %d" % release)
            assert publish(server, settings, bundle, release).status_code == 200
        yield server


def signed_and_published(server: Running, settings: Settings, **change: object) -> httpx.Response:
    assert server.admin.post(POLICY, json=change).status_code == 201
    for person in ("alice", "bob"):
        sign_the_policy(server, settings, person)
    answer = server.admin.post(f"{POLICY}/publish")
    assert answer.status_code == 200, answer.text
    return answer


def problem(answer: httpx.Response) -> str:
    return str(answer.json()["type"]).rpartition(":")[2]


def test_two_people_revoke_a_release_and_a_stock_client_sees_it(
    server: Running, settings: Settings, tmp_path: Path
) -> None:
    proposed = server.admin.post(POLICY, json={"revoke": [2], "reason": "wrong labels"}).json()
    assert (proposed["revoked"], proposed["pending"]["revoked"], proposed["pending"]["missing"]) == ([], [2], 2)
    approval, answer = sign_the_policy(server, settings, "alice")
    assert (approval.review.revoked, answer["pending"]["missing"]) == ((2,), 1)
    assert problem(server.admin.post(f"{POLICY}/publish")) == "ThresholdNotMet"
    assert download(server, settings, tmp_path / "early", "models/exercise/policy.json") is None
    sign_the_policy(server, settings, "bob")
    published = server.admin.post(f"{POLICY}/publish").json()
    assert (published["revoked"], published["pending"]) == ([2], None)
    data = download(server, settings, tmp_path / "client", "models/exercise/policy.json")
    assert data is not None
    assert read_policy(data).revoked == (2,)
    with reading(server.services.engine) as session:
        audit.verify(session)


def test_the_same_person_twice_is_one(server: Running, settings: Settings) -> None:
    server.admin.post(POLICY, json={"min_release": 2})
    for _ in range(2):
        sign_the_policy(server, settings, "alice")
    assert problem(server.admin.post(f"{POLICY}/publish")) == "ThresholdNotMet"


def test_a_device_that_runs_a_revoked_release_stops_and_returns(
    server: Running, settings: Settings, tmp_path: Path
) -> None:
    publisher = open_publisher(settings, SteppedClock())
    with watch(server, settings, tmp_path / "device") as (store, updater):
        for release in (1, 2):
            plan = dataclasses.replace(
                PLAN, candidate=release, share=PARTS, state=State.COMPLETE, rollout=f"r-{release}"
            )
            publisher.put_plan(plan)
            assert updater.check().outcome is Outcome.INSTALLED
            store.start()
            store.good(1, commit_after=1)
        signed_and_published(server, settings, revoke=[2])
        result = updater.check()
        assert (result.outcome, result.active) == (Outcome.REVOKED, 1)
        signed_and_published(server, settings, min_release=2)
        result = updater.check()
        assert (result.outcome, result.active) == (Outcome.REVOKED, None)


def start(server: Running, candidate: int, baseline: int | None = None) -> httpx.Response:
    body: dict[str, object] = {"candidate": candidate, "stages": ["all"], "holdback": "0%"}
    if baseline is not None:
        body["baseline"] = baseline
    for number in range(6):  # a stage must select some devices
        server.report(f"d{number}", candidate)
    return server.admin.post("/v1/rollouts/stable/exercise", json=body)


def test_a_running_rollout_of_a_revoked_release_is_halted(server: Running, settings: Settings) -> None:
    assert start(server, 2, baseline=1).status_code == 201
    answer = server.admin.post(POLICY, json={"revoke": [2]}).json()
    assert [(plan["channel"], plan["named_as"]) for plan in answer["forbids"]] == [("stable", "candidate")]
    for person in ("alice", "bob"):
        sign_the_policy(server, settings, person)
    server.admin.post(f"{POLICY}/publish")
    server.services.controller.tick()
    shown = server.admin.get("/v1/rollouts/stable/exercise").json()
    assert shown["state"] == "halted"
    assert [event["reason"] for event in shown["events"] if event["event"] == "halted"] == [
        "exercise 2 is revoked or below the floor"
    ]


def test_no_rollout_of_a_revoked_release_starts_and_none_returns_to_one(server: Running, settings: Settings) -> None:
    assert start(server, 2, baseline=1).status_code == 201
    signed_and_published(server, settings, min_release=2)
    assert problem(server.admin.post("/v1/rollouts/stable/exercise/rollback")) == "RolloutConflict"
    assert server.admin.post("/v1/rollouts/stable/exercise/halt").status_code == 200
    assert problem(start(server, 1)) == "RolloutConflict"
    assert problem(start(server, 2, baseline=1)) == "RolloutConflict"


def test_a_renewal_gives_the_role_its_whole_time_again(server: Running, settings: Settings) -> None:
    role = "releases-exercise"
    before = server.services.repository.role(role).signed
    server.services.clock.advance(days=1)  # type: ignore[attr-defined]
    server.services.controller.tick()
    signed_and_published(server, settings)
    after = server.services.repository.role(role).signed
    assert after.version == before.version + 1
    assert after.expires > before.expires
    assert after.targets == before.targets


def test_a_change_waits_for_one_thing_at_a_time_and_can_be_withdrawn(server: Running, settings: Settings) -> None:
    assert problem(server.admin.post(f"{POLICY}/publish")) == "UnknownPolicy"
    assert server.admin.post(POLICY, json={"revoke": [1]}).status_code == 201
    assert problem(server.admin.post(POLICY, json={"revoke": [2]})) == "ReleaseConflict"
    assert server.admin.delete(POLICY).status_code == 204
    assert problem(server.admin.delete(POLICY)) == "UnknownPolicy"
    assert server.admin.get(POLICY).json()["pending"] is None


def test_what_was_signed_before_the_role_changed_is_not_published_after_it(
    server: Running, settings: Settings, tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path / "3.bundle", 3, data=b"model 3")
    stage(server, bundle)
    for person in ("alice", "bob"):
        sign(server, settings, person, bundle, 3)
    signed_and_published(server, settings, revoke=[1])
    assert problem(server.admin.post("/v1/releases/exercise/3/publish")) == "ReleaseConflict"
    server.admin.delete("/v1/releases/exercise/3")
    assert publish(server, settings, bundle, 3).status_code == 200
    assert server.admin.get(POLICY).json()["revoked"] == [1], "a release keeps the policy"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"revoke": [9]}, "UnknownRelease"),
        ({"min_release": 3}, "ReleaseConflict"),
        ({"min_release": 0}, "MalformedRequest"),
        ({"revoke": ["1"] * 10_000}, "MalformedRequest"),
        ({"unrevoke": [1]}, "MalformedRequest"),
    ],
)
def test_what_cannot_be_meant_is_refused(server: Running, body: dict[str, object], kind: str) -> None:
    assert problem(server.admin.post(POLICY, json=body)) == kind
    assert server.admin.get(POLICY).json()["pending"] is None


def test_a_model_that_nobody_delegated_has_no_policy(server: Running) -> None:
    assert problem(server.admin.get("/v1/policies/other")) == "UnknownModel"
    assert problem(server.admin.post("/v1/policies/other", json={})) == "UnknownModel"
    assert server.device.post(POLICY, json={"revoke": [1]}).status_code == 403


def test_a_server_that_died_after_publishing_notes_it_when_it_starts(settings: Settings, tmp_path: Path) -> None:
    with running(settings, SteppedClock()) as server:
        publish(server, settings, make_bundle(tmp_path / "1.bundle", 1), 1)
        server.admin.post(POLICY, json={"revoke": [1]})
        for person in ("alice", "bob"):
            sign_the_policy(server, settings, person)
        service = server.services.policies

        def dies(model: str, actor: str) -> None:
            raise KeyboardInterrupt

        service._mark_published = dies  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            service.publish("exercise", "admin:test")
    with running(settings, SteppedClock()) as server:
        answer = server.admin.get(POLICY).json()
        assert (answer["revoked"], answer["pending"]) == ([1], None)


def test_a_server_that_hides_what_it_wants_signed_gets_no_signature(
    server: Running, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.admin.post(POLICY, json={"revoke": [1]})
    monkeypatch.setattr(server.services.policies, "document", lambda model: b"")
    with pytest.raises(ReviewFailed, match="does not show it"):
        sign_the_policy(server, settings, "alice")


def test_a_published_policy_that_was_exchanged_on_the_server_is_noticed_by_the_signer(
    server: Running, settings: Settings
) -> None:
    signed_and_published(server, settings, revoke=[1])
    repository = server.services.repository
    target = repository.role("releases-exercise").signed.targets["models/exercise/policy.json"]
    server.admin.post(POLICY, json={"revoke": [2]})
    file = repository_dir(settings).parent / repository.target_name(target)
    file.write_bytes(file.read_bytes().replace(b"1", b"2"))
    with pytest.raises((ReviewFailed, ServerRefused)):
        sign_the_policy(server, settings, "alice")
    assert isinstance(repository.role("releases-exercise").signed, Targets)
