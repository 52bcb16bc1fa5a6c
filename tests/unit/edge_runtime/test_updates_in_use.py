"""A runtime that is updated while it answers: real TUF repository, real canary, real HTTP."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime import (
    ConfigurationError,
    DeviceState,
    EdgeRuntime,
    NoModel,
    Outcome,
    RoutingPolicy,
    RuntimeClosed,
    Source,
    UpdateRules,
    Window,
)
from edge_runtime.device import Device
from edge_runtime.telemetry.layout import Layout
from edge_runtime.telemetry.wire import ReportArm, decode_report
from edge_runtime.update.plan import State
from tests.support import tiny
from tests.support.sideloading import export
from tests.support.tiny import TinyRelease
from tests.support.update_fixtures import server, world
from tests.support.world import PLAN, RELEASES, World

__all__ = ["server", "world"]

WINDOW = tiny.windows(1)[0]
INPUTS = {"window": WINDOW}
LOGITS = {n: tiny.expected(WINDOW[np.newaxis], n)[0] for n in RELEASES}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "app"


def open_(world: World, folder: Path, **options: Any) -> EdgeRuntime:
    folder.mkdir(exist_ok=True)
    given = {
        "model": "tiny",
        "root": world.root,
        "server": world.server.url,
        "factory": RELEASES[1].factory(folder),
        "device": Device(id="device-1", attributes={"arch": "x86_64", "os": "linux"}),
        "engines": ("onnx",),
        "token": "fleet",
        "clock": world.clock,
        "device_state": DeviceState,
        "background": False,
        "commit_after": 5,
    }
    return EdgeRuntime.open(folder / "state", **(given | options))


@pytest.fixture
def runtime(world: World, folder: Path) -> Iterator[EdgeRuntime]:
    with open_(world, folder) as opened:
        yield opened


def answer_of(runtime: EdgeRuntime) -> int | None:
    p = runtime.predict(INPUTS)
    assert p.release is not None
    np.testing.assert_allclose(p.output["logits"], LOGITS[p.release], atol=1e-4)
    return p.release


def posts(world: World, path: str) -> list[Any]:
    return [json.loads(body) for where, body in world.server.posts if where == path]


def test_an_update_is_used_from_the_next_prediction_on_and_committed_after_good_ones(
    world: World, runtime: EdgeRuntime
) -> None:
    assert answer_of(runtime) == 1
    result = runtime.update()
    assert (result.outcome, result.active) == (Outcome.INSTALLED, 2)
    assert [answer_of(runtime) for _ in range(5)] == [2] * 5
    assert runtime.stats()["trial"] is not None
    assert runtime.update().outcome is Outcome.UNCHANGED
    assert runtime.stats()["trial"] is None


def test_an_update_that_fails_leaves_the_runtime_answering(world: World, runtime: EdgeRuntime) -> None:
    world.server.faults["/metadata/timestamp.json"] = lambda handler: handler.send(503, b"")
    assert runtime.update().outcome is Outcome.SERVER_UNREACHABLE
    assert answer_of(runtime) == 1


def test_a_rolled_back_plan_brings_the_baseline_back(world: World, runtime: EdgeRuntime) -> None:
    runtime.update()
    answer_of(runtime)
    world.plan(state=State.ROLLED_BACK)
    assert runtime.update().outcome is Outcome.RETURNED
    assert answer_of(runtime) == 1


def test_a_revoked_release_stops_at_once_and_the_chain_answers(world: World, folder: Path) -> None:
    with open_(world, folder, policy=RoutingPolicy(static_default={"logits": [0, 0, 0, 1]})) as runtime:
        world.repository.set_policy("tiny", revoked=[1, 2])
        world.repository.publish()
        assert runtime.update().outcome is Outcome.REVOKED
        p = runtime.predict(INPUTS)
        assert (p.source, p.label, p.degraded) == (Source.DEFAULT, "press", True)
        assert runtime.release is None


def test_a_disabled_plan_switches_off_and_a_new_one_on_again(world: World, folder: Path) -> None:
    with open_(world, folder, policy=RoutingPolicy(static_default={})) as runtime:
        world.plan(state=State.DISABLED)
        assert runtime.update().outcome is Outcome.DISABLED
        assert runtime.predict(INPUTS).source is Source.DEFAULT
        world.plan(state=State.HALTED)
        runtime.update()
        assert answer_of(runtime) == 1


def test_a_device_without_a_first_model_gets_one_by_its_first_check(world: World, folder: Path) -> None:
    with open_(world, folder, factory=None) as runtime:
        assert runtime.release is None
        runtime.update()
        assert answer_of(runtime) == 2


def test_outcomes_and_counters_reach_the_server_once(world: World, runtime: EdgeRuntime) -> None:
    for _ in range(3):
        runtime.predict(INPUTS)
    runtime.update()
    for _ in range(5):
        runtime.predict(INPUTS)
    assert runtime.report()
    runtime.predict(INPUTS)
    assert runtime.report()
    first, second = posts(world, "/v1/outcomes")
    assert (first["running"], first["arm"], first["rollout"]) == (2, "candidate", "r-1")
    assert first["attributes"]["engine"] == "onnxruntime"
    assert [entry["outcome"] for entry in first["outcomes"]] == ["Installed", "Committed"]
    assert [(c["release"], c["arm"], c["requests"]) for c in first["counters"]] == [(1, "none", 3), (2, "candidate", 5)]
    assert sum(count for _, count in first["counters"][1]["latency_us"]["device"]) == 5
    assert [(c["release"], c["requests"]) for c in second["counters"]] == [(2, 1)]
    assert second["sequence"] == first["sequence"] + 1
    assert world.server.requests[-1][2]["authorization"] == "Bearer fleet"


def test_counters_are_kept_while_the_server_is_away(world: World, runtime: EdgeRuntime) -> None:
    world.server.answers = [(500, {}, b""), (202, {}, b"{}")]
    runtime.predict(INPUTS)
    assert not runtime.report()
    runtime.predict(INPUTS)
    assert runtime.report()
    total = sum(c["requests"] for report in posts(world, "/v1/outcomes")[1:] for c in report["counters"])
    assert total == 2


def test_the_holdback_counts_as_such(world: World, runtime: EdgeRuntime) -> None:
    world.plan(holdback=10**8)
    runtime.update()
    runtime.predict(INPUTS)
    runtime.report()
    assert posts(world, "/v1/outcomes")[0]["arm"] == "holdback"
    assert [c["arm"] for c in posts(world, "/v1/outcomes")[0]["counters"]] == ["holdback"]


def test_telemetry_of_a_day_is_sent_once_that_day_is_over(world: World, runtime: EdgeRuntime) -> None:
    runtime.update()
    for window in tiny.windows(10):
        runtime.predict({"window": window})
    assert runtime.upload_telemetry() == 0
    world.clock.advance(86_400)
    assert runtime.upload_telemetry() == 1
    assert runtime.upload_telemetry() == 0
    ((_, body),) = [post for post in world.server.posts if post[0] == "/v1/telemetry"]
    layout = Layout.of(RELEASES[2].artifact)
    report = decode_report(body, lambda *_: layout)
    assert (report.header.model, report.header.release, report.header.arm) == ("tiny", 2, ReportArm.CANDIDATE)
    assert sum(report.counts["classes"]) == sum(report.counts["latency_device"]) == 10
    assert b"device-1" not in body


@pytest.mark.parametrize(("target", "candidate"), [("onnx", 2), ("tflite", 3)])
def test_no_request_is_dropped_and_no_answer_mixes_releases_while_releases_swap(
    world: World, folder: Path, target: str, candidate: int
) -> None:
    # There is one TFLite file, so its releases differ in their labels only.
    third = tiny.release(3, tflite_data=tiny.tflite_bytes())
    world.repository.add_release(TinyRelease(replace(third.manifest, labels=("a", "b", "c", "d")), third.files))
    labels = {1: tiny.LABELS, 2: tiny.LABELS, 3: ("a", "b", "c", "d")}
    logits = LOGITS if target == "onnx" else dict.fromkeys((1, 3), tiny.expected(WINDOW[np.newaxis], 0)[0])
    wrong: list[object] = []
    seen: set[int | None] = set()
    stop = threading.Event()
    with open_(world, folder, engines=(target,), interpreters=2) as runtime:

        def work() -> None:
            while not stop.is_set():
                p = runtime.predict(INPUTS)
                release = p.release or 0
                right = np.allclose(p.output["logits"], logits[release], atol=1e-4)
                if not right or p.label != labels[release][int(logits[release].argmax())]:
                    wrong.append(p)
                seen.add(release)

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for state in (State.RUNNING, State.ROLLED_BACK):
            world.plan(PLAN, state=state, candidate=candidate)
            runtime.update()
        stop.set()
        for thread in threads:
            thread.join()
        counters = runtime.stats()["counters"]
    assert wrong == []
    assert seen == {1, candidate}
    assert sum(c["sources"].get("device", 0) for c in counters) == sum(c["requests"] for c in counters) > 100


def test_the_background_thread_updates_reports_and_commits_by_itself(world: World, folder: Path) -> None:
    with open_(world, folder, background=True, update_interval_s=0.3) as runtime:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            runtime.predict(INPUTS)
            stats = runtime.stats()
            if stats["release"] == 2 and stats["trial"] is None and posts(world, "/v1/outcomes"):
                break
            time.sleep(0.02)
        assert runtime.stats()["release"] == 2
        assert runtime.stats()["trial"] is None
        assert runtime.stats()["background_error"] is None
    assert posts(world, "/v1/outcomes")


def test_a_server_that_is_gone_never_reaches_the_app(world: World, folder: Path) -> None:
    with open_(world, folder, background=True, update_interval_s=0.05, server="http://127.0.0.1:9") as runtime:
        for _ in range(20):
            assert answer_of(runtime) == 1
            time.sleep(0.02)
        assert runtime.stats()["last_check"]["outcome"] == "ServerUnreachable"


def reported(world: World) -> list[list[str]]:
    """The outcomes in each report, in the order in which they came."""
    return [[entry["outcome"] for entry in report["outcomes"]] for report in posts(world, "/v1/outcomes")]


def test_a_deferral_is_reported_once_and_what_ends_it_too(world: World, folder: Path) -> None:
    state = [DeviceState(metered=True)]
    for _ in range(2):  # also over a restart
        with open_(world, folder, device_state=lambda: state[0]) as runtime:
            for _ in range(2):
                assert runtime.update().outcome is Outcome.DEFERRED_METERED
                assert runtime.report()
    assert reported(world) == [["DeferredMetered"], [], [], []]
    world.server.clear()
    with open_(world, folder, device_state=lambda: state[0]) as runtime:
        state[0] = DeviceState(metered=True, battery=0.1)
        runtime.update()
        state[0] = DeviceState(metered=False, battery=0.1)
        runtime.update()
        state[0] = DeviceState(metered=False, battery=0.9)
        runtime.update()
        assert runtime.report()
    assert reported(world) == [["DeferredBattery", "Installed"]]


def test_a_deferral_is_not_said_again_because_the_server_was_away(world: World, folder: Path) -> None:
    with open_(world, folder, device_state=lambda: DeviceState(metered=True)) as runtime:
        runtime.update()
        assert runtime.report()
        world.server.faults["/metadata/timestamp.json"] = lambda handler: handler.send(503, b"")
        runtime.update()
        world.server.faults.clear()
        runtime.update()
        assert runtime.report()
    assert reported(world) == [["DeferredMetered"], ["ServerUnreachable"]]


def test_a_wrong_clock_is_reported_once_and_shown(world: World, folder: Path) -> None:
    world.server.now = lambda: world.clock.now + timedelta(days=2)
    with open_(world, folder) as runtime:
        for _ in range(3):
            runtime.update()
            assert runtime.report()
        clock = runtime.stats()["clock"]
        assert (clock["off_s"], clock["evidence"]) == (pytest.approx(-2 * 86_400, abs=2), "server")
        world.server.now = world.clock.wall
        runtime.update()
        assert runtime.stats()["clock"] is None
    assert reported(world) == [["ClockWrong", "Installed"], [], []]


def test_a_clock_that_is_a_little_off_is_shown_and_not_reported(world: World, folder: Path) -> None:
    world.server.now = lambda: world.clock.now + timedelta(hours=1)
    with open_(world, folder) as runtime:
        runtime.update()
        assert runtime.report()
        assert "60 minutes behind" in runtime.stats()["clock"]["detail"]
    assert reported(world) == [["Installed"]]


def test_closing_ends_a_download_and_the_next_start_goes_on_with_it(world: World, folder: Path) -> None:
    data = hashlib.shake_256(b"a model").digest(400_000)
    world.repository.add_release(tiny.release(3, onnx_data=data))
    world.plan(candidate=3)
    runtime = open_(world, folder, updates=UpdateRules(bytes_per_s=1))
    ends: list[object] = []

    def update() -> None:
        try:
            ends.append(runtime.update())
        except RuntimeClosed as error:
            ends.append(error)

    def here() -> int:
        sizes = [path.stat().st_size for path in (folder / "state" / "incoming").iterdir() if path.suffix != ".etag"]
        return max(sizes, default=0)

    thread = threading.Thread(target=update)
    thread.start()
    while here() < 10_000 and thread.is_alive():
        time.sleep(0.01)
    assert answer_of(runtime) == 1
    assert runtime.stats()["release"] == 1  # nor does this wait for the download
    runtime.close()
    thread.join()
    assert [type(end) for end in ends] == [RuntimeClosed]
    have = here()
    assert 10_000 <= have < len(data)
    world.server.clear()
    with open_(world, folder) as runtime:
        assert runtime.update().outcome is Outcome.CANARY_FAILED  # all of it came, and it is no model
    asked = [headers for _, path, headers in world.server.requests if path.endswith("tiny-fp32.onnx")]
    assert [headers.get("range") for headers in asked] == [f"bytes={have}-"]


def test_the_rules_of_an_app_hold(world: World, folder: Path) -> None:
    rules = UpdateRules(windows=[Window.parse("02:00-05:00")], time_zone="UTC")
    with open_(world, folder, updates=rules) as runtime:
        assert runtime.update().outcome is Outcome.DEFERRED_WINDOW
        assert answer_of(runtime) == 1


def test_a_runtime_without_a_server_swaps_to_what_a_bundle_brings(world: World, folder: Path) -> None:
    bundle = export(world, 2)
    with open_(world, folder, server=None, factory=None) as runtime:
        assert runtime.release is None
        assert runtime.install_bundle(bundle).outcome is Outcome.INSTALLED
        assert runtime.release == 2
        for _ in range(5):
            np.testing.assert_allclose(runtime.predict(INPUTS).output["logits"], LOGITS[2], rtol=1e-4, atol=1e-5)
        assert runtime.install_bundle(bundle).outcome is Outcome.UNCHANGED
        refused = runtime.install_bundle(folder / "none.bundle")
        assert (refused.outcome, refused.active) == (Outcome.VERIFICATION_FAILED, 2)
    with open_(world, folder) as runtime:  # with the server again, whose plan asks for what is here
        assert runtime.update().outcome is Outcome.UNCHANGED
        assert runtime.report()
    [report] = posts(world, "/v1/outcomes")
    assert [entry["outcome"] for entry in report["outcomes"]] == ["Installed", "Committed", "VerificationFailed"]


def test_without_a_root_no_bundle_is_installed(world: World, folder: Path) -> None:
    with open_(world, folder, server=None, root=None) as runtime, pytest.raises(ConfigurationError, match="root"):
        runtime.install_bundle(export(world, 2))
    with pytest.raises(NoModel, match="root metadata"):
        open_(world, folder / "empty", server=None, root=None, factory=None)
