"""The drill: each offline role runs to its expiry in front of a real server and a device; what is said, what devices
do, and how people end it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import httpx
import pytest

from edge_runtime.errors import Outcome
from edge_runtime.store import Store
from edge_runtime.update.plan import PARTS, State
from edge_runtime.update.updater import CheckResult, Updater
from model_server.errors import ReviewFailed
from model_server.settings import Settings
from tests.support.ceremonies import Ceremony
from tests.support.managers import manager, publish, sign_the_policy
from tests.support.plans import PLAN
from tests.support.server import Running, SteppedClock, make_bundle, make_folder, running
from tests.support.watch import watch


@dataclass
class DeviceClock:
    """The server's time, on the device."""

    server: SteppedClock

    def wall(self) -> datetime:
        return self.server.now()

    def boot(self) -> float:
        return self.server.monotonic()


def client_at(clock: SteppedClock) -> httpx.Client:
    """The server's Date is the machine's; in the drill it is the drill's."""

    def dated(response: httpx.Response) -> None:
        response.headers["Date"] = format_datetime(clock.now(), usegmt=True)

    return httpx.Client(event_hooks={"response": [dated]})


@dataclass
class Drill:
    server: Running
    settings: Settings
    clock: SteppedClock
    store: Store
    updater: Updater
    ceremony: Ceremony

    def check(self) -> CheckResult:
        return self.updater.check()

    def plan(self, release: int, state: State = State.COMPLETE) -> None:
        publisher = self.server.services.rollouts._publisher
        publisher.put_plan(
            dataclasses.replace(PLAN, candidate=release, share=PARTS, state=state, rollout=f"r-{release}-{state}")
        )

    def alerts(self) -> dict[str, str]:
        self.server.services.controller.tick()
        return {each["subject"]: each["level"] for each in self.server.admin.get("/v1/status").json()["alerts"]}

    def advance(self, **step: float) -> None:
        """Time passes while the server runs: it renews what it signs itself."""
        self.clock.advance(**step)
        self.server.services.controller.tick()


@pytest.fixture
def drill(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Drill]:
    settings = dataclasses.replace(make_folder(tmp_path / "server"), controller_interval_s=3600.0, delta_releases=0)
    clock = SteppedClock()
    (tmp_path / "people").mkdir()
    with running(settings, clock) as server:
        for release in (1, 2):
            bundle = make_bundle(tmp_path / f"{release}.bundle", release, data=b"model %d" % release)
            assert publish(server, settings, bundle, release).status_code == 200
        with watch(server, settings, tmp_path / "device", clock=DeviceClock(clock), http=lambda: client_at(clock)) as (
            store,
            updater,
        ):
            ceremony = Ceremony(settings, tmp_path / "people", capsys, clock)
            drill = Drill(server, settings, clock, store, updater, ceremony)
            drill.plan(1)
            assert drill.check().outcome is Outcome.INSTALLED
            store.start()
            store.good(1, commit_after=1)
            yield drill


def until_expired(drill: Drill, role: str, expires: datetime) -> None:
    """Each alert comes in its turn, and the device goes on until the day itself."""
    days = ((31, None), (29, "30 days"), (13, "14 days"), (2, "3 days"), (0.01, "3 days"), (-0.01, "expired"))
    for left, level in days:
        drill.advance(seconds=(expires - timedelta(days=left) - drill.clock.now()).total_seconds())
        assert drill.alerts().get(f"role/{role}") == level
        if left > 0:
            assert drill.check().outcome is Outcome.UNCHANGED


def expect_frozen(drill: Drill) -> None:
    """Devices keep what they run, and nothing new arrives: not even that it is switched off."""
    for release, state in ((2, State.COMPLETE), (1, State.DISABLED)):
        drill.plan(release, state)
        result = drill.check()
        assert (result.outcome, result.active) == (Outcome.METADATA_EXPIRED, 1)


def expect_alive(drill: Drill, role: str) -> None:
    """What waited arrives, and the alert ends."""
    drill.plan(2)
    result = drill.check()
    assert (result.outcome, result.release) == (Outcome.INSTALLED, 2)
    assert f"role/{role}" not in drill.alerts()


def renew(drill: Drill, role: str, kind: str, *options: str) -> None:
    change = drill.ceremony.propose("renew", role)
    for person in ("alice", "bob"):
        drill.ceremony.sign(change, drill.ceremony.key(kind, person), options=options)
    drill.ceremony.publish(change)


def renew_releases(drill: Drill, *, accept_expired: bool = False) -> None:
    """As `edgeship-server release renew exercise` and what follows it."""
    assert drill.server.admin.post("/v1/policies/exercise", json={"reason": "renewal"}).status_code == 201
    for person in ("alice", "bob"):
        by = dataclasses.replace(manager(drill.settings, person), accept_expired=accept_expired, now=drill.clock.now())
        sign_the_policy(drill.server, drill.settings, person, by=by)
    assert drill.server.admin.post("/v1/policies/exercise/publish").status_code == 200


def test_releases_run_to_their_expiry(drill: Drill) -> None:
    role = "releases-exercise"
    drill.advance(days=1)
    renew(drill, "targets", "targets")  # a day later than the releases, so that they expire first
    until_expired(drill, role, drill.server.services.repository.role(role).signed.expires)
    expect_frozen(drill)
    with pytest.raises(ReviewFailed, match="--accept-expired"):
        renew_releases(drill)
    assert drill.server.admin.delete("/v1/policies/exercise").status_code == 204
    renew_releases(drill, accept_expired=True)
    expect_alive(drill, role)


def test_targets_run_to_their_expiry(drill: Drill) -> None:
    drill.advance(days=1)
    renew_releases(drill)
    until_expired(drill, "targets", drill.server.services.repository.top_level_targets().signed.expires)
    expect_frozen(drill)
    renew(drill, "targets", "targets", "--accept-expired")
    expect_alive(drill, "targets")


def test_root_runs_to_its_expiry(drill: Drill) -> None:
    expires = drill.server.services.repository.root().signed.expires
    for _ in range(4):
        drill.advance(days=80)
        renew(drill, "targets", "targets")
        renew_releases(drill)
        assert drill.check().outcome is Outcome.UNCHANGED
    until_expired(drill, "root", expires)
    expect_frozen(drill)
    renew(drill, "root", "root", "--accept-expired")
    expect_alive(drill, "root")
