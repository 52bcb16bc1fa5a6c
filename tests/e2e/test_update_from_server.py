"""A device's updater and outcome reports against the real server: its signatures, its static files, its API."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from edge_runtime.authorization import Bearer
from edge_runtime.device import Device
from edge_runtime.errors import Outcome
from edge_runtime.outcomes import CounterDelta, Outcomes, Posted
from edge_runtime.store import Store
from edge_runtime.update.fetcher import default_client
from edge_runtime.update.plan import PARTS, Plan, State
from edge_runtime.update.updater import Updater
from model_server.installation import open_publisher
from tests.support.managers import publish
from tests.support.server import SteppedClock, credentials, make_bundle, make_folder, running
from tests.support.world import Canary

PLAN = Plan(
    model="exercise",
    channel="stable",
    rollout="r-1",
    salt="salt",
    candidate=1,
    baseline=None,
    share=PARTS,
    holdback=0,
    predicate=None,
    state=State.COMPLETE,
    attempt=1,
)


def test_a_device_follows_what_managers_sign_and_the_server_plans(tmp_path: Path) -> None:
    settings = make_folder(tmp_path / "server")
    device = Device(id="watch-1", attributes={"arch": "x86_64", "os": "linux"})
    store = Store(tmp_path / "device")
    with running(settings, SteppedClock()) as server:
        for release in (1, 2):
            bundle = make_bundle(tmp_path / f"{release}.bundle", release, data=b"model %d" % release * 1000)
            assert publish(server, settings, bundle, release).status_code == 200
        publisher = open_publisher(settings, SteppedClock())
        updater = Updater(
            store=store,
            device=device,
            model="exercise",
            channel="stable",
            root=(settings.directory / "root.json").read_bytes(),
            server=server.url,
            engines=("onnx",),
            try_out=Canary(),
        )
        assert updater.check().outcome is Outcome.NO_PLAN

        def follow(plan: Plan, expected: Outcome, active: int | None) -> None:
            publisher.put_plan(plan)
            result = updater.check()
            assert (result.outcome, result.active) == (expected, active), result.detail
            idle = updater.check()
            assert (idle.requests, idle.bytes, idle.active) == (1, 0, active)

        follow(PLAN, Outcome.INSTALLED, 1)
        assert store.slot(1).read_artifact() == b"model 1" * 1000
        store.good(1, commit_after=1)
        candidate = dataclasses.replace(PLAN, candidate=2, baseline=1, rollout="r-2", state=State.RUNNING)
        follow(candidate, Outcome.INSTALLED, 2)
        follow(dataclasses.replace(candidate, state=State.ROLLED_BACK), Outcome.RETURNED, 1)
        follow(dataclasses.replace(candidate, state=State.DISABLED), Outcome.DISABLED, None)

        outcomes = Outcomes(tmp_path / "device", device=device, model="exercise", channel="stable")
        outcomes.record(Outcome.RETURNED, 2, "back to release 1")
        outcomes.count(CounterDelta(release=2, arm="candidate", requests=3, latency_device={120: 3}))
        fleet = Bearer(credentials(settings)["fleet_token"])
        with default_client(server.url) as client:
            sent = outcomes.sequence
            posted = outcomes.post(client, server.url, fleet, running=1, plan=updater.plan, engine="onnxruntime")
            assert posted is Posted.ACCEPTED
            assert outcomes.sequence == sent + 1
            assert outcomes.post(client, server.url, Bearer("wrong"), running=1, plan=None) is Posted.UNREACHABLE
        known = server.admin.get("/v1/devices").json()
        assert "watch-1" in str(known)
        updater.close()
    assert updater.check().outcome is Outcome.SERVER_UNREACHABLE
    updater.close()
    store.close()
