"""Rollouts against a real server: simulated devices read the published plan as a stock TUF client does, decide with the
runtime's own rule, and report over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_runtime.errors import Outcome
from edge_runtime.update.plan import State, bucket, wanted
from model_server.audit import log as audit
from model_server.db.base import reading
from model_server.signing.publisher import Publisher
from tests.support import rollout_fleet
from tests.support.managers import sign, stage
from tests.support.rollout_fleet import URL, Fleet, events, start, status
from tests.support.server import SteppedClock, make_bundle


@pytest.fixture
def fleet(request: pytest.FixtureRequest, published: Path, tmp_path: Path, clock: SteppedClock) -> Iterator[Fleet]:
    on_sqlite = getattr(request, "param", "sqlite") == "sqlite"
    database = None if on_sqlite else request.getfixturevalue("postgres_database")
    with rollout_fleet.fleet(published, tmp_path, clock, database) as fleet:
        yield fleet


on_both = pytest.mark.parametrize("fleet", ["sqlite", "postgresql"], indirect=True)


def test_a_healthy_rollout_grows_by_itself_to_completion(fleet: Fleet) -> None:
    fleet.size = 60
    fleet.check_in()
    start(fleet)
    adopted = []
    for _ in range(4):
        fleet.check_in()
        adopted.append(fleet.on(2))
    assert adopted[:2] == [10, 30]
    assert adopted[2] == sum(bucket("fixed", f"d{number}") < 80_000_000 for number in range(fleet.size))
    assert adopted[3] == fleet.size
    shown = status(fleet)
    assert (shown["state"], shown["plan"]["state"]) == ("complete", "complete")
    assert [stage["stage"] for stage in shown["stages"]] == ["10", "30", "all", "complete"]
    assert [stage["adopted"] for stage in shown["stages"]] == adopted
    assert all(stage["ended"] for stage in shown["stages"])
    assert shown["stages"][-1]["adopted_share"] == 1.0
    assert shown["settled"] is not None
    assert shown["arms"]["candidate"]["requests"] > shown["arms"]["holdback"]["requests"] > 100


def test_a_candidate_that_errs_is_rolled_back_by_itself_and_every_device_returns(fleet: Fleet) -> None:
    fleet.check_in()
    start(fleet)
    fleet.check_in(faults={2: {"errors": 8}}, evaluate=False)
    assert fleet.on(2) == 10
    fleet.server.services.controller.tick()
    shown = status(fleet)
    assert shown["state"] == "rolled_back"
    assert 2 <= shown["reports_before_halt"] <= 10  # the controller does not wait for the tick
    assert not shown["devices"]["all_returned"]
    assert shown["settled"] is None
    [breach] = [event for event in shown["events"] if event["event"] == "guardrail_breached"]
    assert breach["reason"].startswith("errors: 0.4 is above")
    assert breach["numbers"]["count"] / breach["numbers"]["requests"] == 0.4
    assert breach["numbers"]["devices"] >= 2
    fleet.check_in()
    assert fleet.on(2) == 0
    shown = status(fleet)
    assert shown["devices"]["all_returned"]
    assert shown["devices"]["by_release"] == {"1": fleet.size}
    assert shown["settled"] is not None


@on_both
def test_a_breach_is_acted_on_as_soon_as_reports_tell_of_it(fleet: Fleet) -> None:
    """No tick and no call: the report itself wakes the controller."""
    import time

    fleet.check_in()
    start(fleet)
    fleet.check_in(faults={2: {"errors": 20}}, evaluate=False)
    deadline = time.monotonic() + 10
    while status(fleet)["state"] == "running" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert status(fleet)["state"] == "rolled_back"


def test_on_breach_halt_keeps_adopters_and_lets_nobody_join(fleet: Fleet) -> None:
    fleet.check_in()
    start(fleet, on_breach="halt")
    fleet.check_in(faults={2: {"fallbacks": 15}})
    assert status(fleet)["state"] == "halted"
    fleet.check_in()
    assert fleet.on(2) == 10


@pytest.mark.parametrize("outcome", [Outcome.CANARY_FAILED, Outcome.ROLLED_BACK, Outcome.VERIFICATION_FAILED])
def test_devices_that_cannot_install_it_stop_a_rollout(fleet: Fleet, outcome: Outcome) -> None:
    fleet.check_in()
    start(fleet)
    fleet.check_in(failing={2: outcome})
    shown = status(fleet)
    assert shown["state"] == "rolled_back"
    assert shown["devices"]["by_status"]["failed"] == 10
    assert 2 <= shown["reports_before_halt"] <= 10


def test_devices_that_are_incompatible_do_not(fleet: Fleet) -> None:
    fleet.check_in()
    start(fleet, limits={"min_requests": 1})
    fleet.check_in(failing={2: Outcome.INCOMPATIBLE})
    assert status(fleet)["state"] == "running"
    assert status(fleet)["devices"]["by_status"] == {"incompatible": 10, "pending": fleet.size - 10}


def test_a_slow_candidate_is_stopped(fleet: Fleet) -> None:
    fleet.check_in()
    start(fleet)
    fleet.check_in(latency={1: 210, 2: 240})
    shown = status(fleet)
    assert shown["state"] == "rolled_back"
    assert any(event["reason"].startswith("latency_p95_us") for event in shown["events"])


def test_silence_past_the_deadline_stops_a_rollout(fleet: Fleet, clock: SteppedClock) -> None:
    fleet.check_in()
    start(fleet)
    plan = fleet.plan()
    assert plan is not None
    hit = [n for n in range(fleet.size) if wanted(plan, f"d{n}", {}, current=1, age_s=0, ceiling=()) == 2]
    clock.advance(hours=23)
    fleet.server.services.controller.tick()
    assert status(fleet)["state"] == "running"
    clock.advance(hours=2)
    fleet.server.services.controller.tick()
    shown = status(fleet)
    assert shown["state"] == "rolled_back"
    assert [e["numbers"]["silent"] for e in shown["events"] if e["event"] == "guardrail_breached"] == [len(hit)]


def test_a_device_that_was_heard_before_the_stage_is_silent_in_it(fleet: Fleet, clock: SteppedClock) -> None:
    fleet.check_in()
    start(fleet, growth="manual", stages=["10", "15", "all"])
    fleet.check_in()
    clock.advance(seconds=1)
    fleet.server.admin.post(f"{URL}/advance")
    clock.advance(hours=20)
    on_it = [number for number in range(fleet.size) if fleet.running[f"d{number}"] == 2]
    for number in on_it[:5]:
        fleet.check_in(devices=range(number, number + 1))
    clock.advance(hours=5)
    fleet.server.services.controller.tick()
    [breach] = [event for event in status(fleet)["events"] if event["event"] == "guardrail_breached"]
    assert breach["numbers"] == {
        "observed": 10 / 15, "limit": 0.2, "silent": 10, "selected": 15, "age_s": 90_000.0
    }  # fmt: skip


def test_devices_that_fall_silent_after_they_took_the_candidate_stop_it(fleet: Fleet, clock: SteppedClock) -> None:
    fleet.check_in()
    start(fleet, limits={"soak_s": 7 * 86_400, "deadline_s": 86_400})
    fleet.check_in()
    fleet.check_in()
    assert fleet.on(2) == 10
    alive = [number for number in range(fleet.size) if fleet.running[f"d{number}"] == 1]
    for _ in range(3):
        clock.advance(hours=9)
        for number in alive:
            fleet.check_in(devices=range(number, number + 1), evaluate=False)
    fleet.server.services.controller.tick()
    shown = status(fleet)
    assert shown["state"] == "rolled_back"
    assert [event["reason"] for event in shown["events"] if event["event"] == "guardrail_breached"] == [
        "silent: 1 is above 0.2"
    ]


def test_one_device_with_huge_counters_hides_nothing(fleet: Fleet) -> None:
    fleet.check_in()
    start(fleet)
    fleet.check_in()
    on_it = [number for number in range(fleet.size) if fleet.running[f"d{number}"] == 2]
    loud = {"requests": 2**40, "errors": 0, "latency_us": {"device": [[0, 2**40]]}}
    fleet.check_in(devices=range(on_it[0], on_it[0] + 1), faults={2: loud}, evaluate=False)
    for number in on_it[1:]:
        fleet.check_in(devices=range(number, number + 1), faults={2: {"errors": 20}}, evaluate=False)
    fleet.server.services.rollouts.evaluate("exercise", "stable")
    assert any(event["reason"].startswith("errors") for event in status(fleet)["events"])


def test_manual_growth_waits_for_approval(fleet: Fleet) -> None:
    fleet.check_in()
    start(fleet, growth="manual", stages=["10", "15", "all"])
    for _ in range(3):
        fleet.check_in()
    assert fleet.on(2) == 10
    assert status(fleet)["waiting_for"] == ["approval: edgeship-server rollout advance"]
    assert events(fleet).count("waiting_for_approval") == 1
    assert fleet.server.admin.post(f"{URL}/advance").json()["stage"] == 1
    fleet.check_in()
    assert fleet.on(2) == 15


def test_a_stage_waits_for_all_its_devices(fleet: Fleet) -> None:
    fleet.check_in()
    start(fleet, limits={"min_requests": 1})
    fleet.check_in(devices=range(12))
    assert status(fleet)["stage"] == 0
    assert any("devices on the candidate" in wait for wait in status(fleet)["waiting_for"])
    fleet.check_in(devices=range(12, fleet.size))
    assert status(fleet)["stage"] == 1


def test_a_stage_that_the_signed_ceiling_holds_back_says_so(fleet: Fleet, clock: SteppedClock, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "4.bundle", 4)
    assert stage(fleet.server, bundle, ceiling="0h=1%,24h=10%,72h=100%").status_code == 201
    for person in ("alice", "bob"):
        sign(fleet.server, fleet.settings, person, bundle, 4)
    assert fleet.server.admin.post("/v1/releases/exercise/4/publish").status_code == 200
    fleet.check_in()
    first = start(fleet, candidate=4, limits={"deadline_s": 7 * 86_400})["waiting_for"]
    assert "the signed ceiling of release 4" in first[-1]
    assert "at most 1% have it now" in first[-1]
    clock.advance(hours=25)
    assert "at most 10% have it now" in status(fleet)["waiting_for"][-1]
    completed = fleet.server.admin.post(f"{URL}/complete").json()
    assert "the signed ceiling" in completed["waiting_for"][0]
    fleet.check_in()  # these devices have seen the release for long
    assert status(fleet)["waiting_for"] == []


def test_the_first_rollout_of_a_model_reaches_devices_that_nobody_knew(fleet: Fleet) -> None:
    for number in range(fleet.size):
        fleet.running[f"d{number}"] = None
    start(fleet, candidate=1, baseline=None, stages=["all"], holdback="0%")
    fleet.check_in()
    fleet.check_in()
    assert fleet.on(1) == fleet.size
    assert status(fleet)["state"] == "complete"
    fleet.server.admin.post(f"{URL}/rollback")
    fleet.check_in()
    assert fleet.on(None) == fleet.size  # there is no baseline to return to


def test_the_next_rollout_starts_from_the_last_completed_one(fleet: Fleet) -> None:
    fleet.check_in()
    start(fleet)
    for _ in range(5):
        fleet.check_in()
    shown = start(fleet, candidate=3, baseline=None)
    assert (shown["baseline"], shown["rollout"]) == (2, "exercise-stable-2")
    fleet.check_in(faults={3: {"errors": 20}})
    fleet.check_in()
    assert status(fleet)["devices"]["by_release"] == {"2": fleet.size}
    again = start(fleet, candidate=3, baseline=None)
    assert (again["baseline"], again["attempt"]) == (2, 2)


def test_one_rollout_runs_on_a_channel_at_a_time(fleet: Fleet) -> None:
    fleet.check_in()
    start(fleet)
    body = {"candidate": 3, "stages": ["all"], "baseline": 1}
    assert fleet.server.admin.post(URL, json=body).status_code == 409
    assert fleet.server.admin.post(f"{URL}/halt").json()["state"] == "halted"
    assert fleet.server.admin.post(f"{URL}/halt").status_code == 409
    assert fleet.server.admin.post(URL, json=body).status_code == 201


def test_disable_switches_local_inference_off(fleet: Fleet) -> None:
    fleet.check_in()
    start(fleet)
    assert fleet.server.admin.post(f"{URL}/disable").json()["plan"]["state"] == "disabled"
    fleet.check_in()
    assert fleet.on(None) == fleet.size
    assert status(fleet)["settled"] is not None


def test_staging_first_is_enforced_where_it_is_asked_for(fleet: Fleet) -> None:
    fleet.server.services.rollouts._require_staging = True
    post, body = fleet.server.admin.post, {"candidate": 1, "stages": ["all"]}
    assert post(URL, json=body).status_code == 409
    assert post("/v1/rollouts/staging/exercise", json=body).status_code == 201
    assert post("/v1/rollouts/staging/exercise/complete").status_code == 200
    assert post(URL, json=body).status_code == 201


def test_a_decision_survives_a_crash_before_its_plan_was_published(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.check_in()
    start(fleet)

    def power_cut(*args: object) -> bool:
        raise OSError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(Publisher, "put_plan", power_cut)
        assert fleet.server.admin.post(f"{URL}/halt").status_code == 500
    plan = fleet.plan()
    assert plan is not None
    assert plan.state is State.RUNNING
    fleet.server.services.controller.tick()
    plan = fleet.plan()
    assert plan is not None
    assert plan.state is State.HALTED


@on_both
def test_every_decision_is_in_the_audit_log(fleet: Fleet) -> None:
    fleet.check_in()
    start(fleet)
    fleet.check_in(faults={2: {"errors": 20}})
    with reading(fleet.server.services.engine) as session:
        assert (
            audit.verify(session) == 2 + 3 * 4 + 2
        )  # an admin, their key; three releases: staged, signed twice, published
        actions = [row.action for row in audit._rows(session)]
    assert actions[-2:] == ["rollout.started", "rollout.rolled_back"]
