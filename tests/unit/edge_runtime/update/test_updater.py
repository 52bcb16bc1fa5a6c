"""Whole update checks against a real TUF repository on a real HTTP server."""

from __future__ import annotations

import dataclasses
import json
from datetime import timedelta
from functools import partial

import httpx
import pytest

from devices.repository import signer
from edge_runtime import slots
from edge_runtime.bundle import Requirements
from edge_runtime.errors import ConfigurationError, Outcome
from edge_runtime.update.canary import run_canary
from edge_runtime.update.plan import PARTS, State, bucket
from edge_runtime.update.updater import Updater
from tests.support.world import RELEASES, TestDevice, World


def urls(world: World) -> list[str]:
    return world.server.paths()


def test_a_device_takes_the_release_that_the_plan_asks_for(world: World) -> None:
    device = world.device()
    result = device.check()
    assert result.outcome is Outcome.INSTALLED
    assert (result.release, result.active) == (2, 2)
    assert (device.active, device.previous) == (2, 1)
    assert device.store.slots.trial == slots.Trial(attempt=1, rollout="r-1")
    assert device.canary.tried == [2]
    slot = device.store.slot(2)
    assert slot.read_artifact() == RELEASES[2].files["tiny-fp32.onnx"]
    assert (slot.path / "release.json").exists()
    assert list(device.store.incoming.iterdir()) == []
    assert result.requests == len(world.server.requests)
    assert result.bytes > len(RELEASES[2].files["tiny-fp32.onnx"])


def test_the_real_canary_stands_between_download_and_trial(world: World) -> None:
    device = world.device()
    updater = Updater(
        store=device.store,
        device=device.device,
        model="tiny",
        channel="stable",
        root=world.root,
        server=world.server.url,
        engines=("onnx",),
        clock=world.clock,
        try_out=partial(run_canary, timeout_s=60.0),
    )
    assert updater.check().outcome is Outcome.INSTALLED
    updater.close()


def test_only_the_artifact_for_this_device_is_downloaded(world: World) -> None:
    device = world.device(engines=("tflite", "onnx"))
    device.check()
    assert device.store.slot(2).artifact.target == "tflite"
    assert not any("tiny-fp32.onnx" in url for url in urls(world))


def test_a_check_without_change_is_one_request_with_an_empty_answer(world: World) -> None:
    device = world.device()
    device.check()
    world.server.clear()
    result = device.check()
    assert result.outcome is Outcome.UNCHANGED
    assert (result.requests, result.bytes) == (1, 0)
    assert urls(world) == ["/metadata/timestamp.json"]
    assert "if-none-match" in world.server.requests[0][2]


def test_a_server_without_etags_gets_one_request_too(world: World) -> None:
    world.server.etags = False
    device = world.device()
    device.check()
    world.server.clear()
    assert device.check().outcome is Outcome.UNCHANGED
    assert urls(world) == ["/metadata/timestamp.json"]


def test_another_process_goes_on_with_one_request_and_knows_the_plan(world: World) -> None:
    device = world.device()
    plan = device.check().plan
    device.restart()
    world.server.clear()
    assert device.updater.plan == plan
    assert device.check().outcome is Outcome.UNCHANGED
    assert urls(world) == ["/metadata/timestamp.json"]


def test_a_check_without_change_writes_nothing(world: World) -> None:
    from tests.support.disks import RecordingDisk

    device = world.device()
    device.check()
    disk = RecordingDisk()
    device.restart(disk)
    disk.log.clear()
    for _ in range(3):
        world.clock.advance(1800)
        device.check()
    assert disk.log == []


def test_a_renewed_timestamp_downloads_no_document_again(world: World) -> None:
    device = world.device()
    device.check()
    world.repository.publish_timestamp()
    world.server.clear()
    assert device.check().outcome is Outcome.UNCHANGED
    assert urls(world) == ["/metadata/timestamp.json", "/metadata/2.root.json"]


def test_another_models_change_costs_two_small_files_more(world: World) -> None:
    world.repository.add_model("other")
    world.repository.publish()
    device = world.device()
    device.check()
    world.repository.add_target("rollouts-other", "rollouts/stable/other.json", b"{}")
    world.repository.publish()
    world.server.clear()
    assert device.check().outcome is Outcome.UNCHANGED
    assert [url.split(".")[-2].rpartition("/")[2] for url in urls(world)] == ["timestamp", "root", "snapshot"]


def test_an_expired_role_ends_the_one_request_check(world: World) -> None:
    device = world.device()
    device.check()
    world.clock.advance(86_400 + 1)
    result = device.check()
    assert result.outcome is Outcome.METADATA_EXPIRED
    assert device.active == 2


def test_a_halted_plan_stops_who_has_not_joined_and_keeps_who_has(world: World) -> None:
    inside, late = world.device("inside"), world.device("late")
    inside.check()
    world.plan(state=State.HALTED)
    assert inside.check().outcome is Outcome.UNCHANGED
    assert late.check().outcome is Outcome.UNCHANGED
    assert (inside.active, late.active) == (2, 1)


def test_a_rollback_returns_to_the_slot_that_is_still_there_without_a_download(world: World) -> None:
    device = world.device()
    device.check()
    device.commit()
    world.plan(state=State.ROLLED_BACK)
    world.server.clear()
    result = device.check()
    assert result.outcome is Outcome.RETURNED
    assert (result.active, device.active, device.previous) == (1, 1, None)
    assert not any("models/tiny/1/" in url for url in urls(world))
    assert not (device.store.folder / "2").exists()
    assert device.check().outcome is Outcome.UNCHANGED


def test_a_rollback_downloads_a_baseline_that_is_not_here_and_never_goes_back(world: World) -> None:
    device = world.device(first=None)
    assert device.check().outcome is Outcome.INSTALLED
    device.commit()
    world.plan(state=State.ROLLED_BACK)
    result = device.check()
    assert result.outcome is Outcome.RETURNED
    assert (device.active, device.previous) == (1, None)
    for _ in range(4):
        device.store.start()
    assert device.active is None


def test_a_rolled_back_candidate_without_baseline_leaves_nothing_active(world: World) -> None:
    device = world.device(first=None)
    device.check()
    world.plan(state=State.ROLLED_BACK, baseline=None)
    result = device.check()
    assert (result.outcome, result.active) == (Outcome.RETURNED, None)


def test_a_disabled_plan_switches_off_and_on_again_without_a_download(world: World) -> None:
    device = world.device()
    device.check()
    world.plan(state=State.DISABLED)
    result = device.check()
    assert (result.outcome, result.active) == (Outcome.DISABLED, None)
    device.restart()
    assert device.store.slots.disabled
    assert device.check().outcome is Outcome.DISABLED
    world.plan(state=State.COMPLETE)
    world.server.clear()
    result = device.check()
    assert (result.outcome, result.active) == (Outcome.UNCHANGED, 2)
    assert not any("models/tiny/2/" in url for url in urls(world))


def test_shares_grow_device_by_device(world: World) -> None:
    devices = [world.device(f"watch-{i}") for i in range(6)]
    by_bucket = sorted(devices, key=lambda device: bucket("salt", device.device.id))
    for adopted in (0, 2, 6):
        share = 0 if adopted == 0 else bucket("salt", by_bucket[adopted - 1].device.id) + 1
        world.plan(share=share)
        for device in devices:
            device.check()
        assert [device.active for device in by_bucket] == [2] * adopted + [1] * (6 - adopted)


def test_the_holdback_takes_the_release_when_the_rollout_is_complete(world: World) -> None:
    device = world.device()
    world.plan(holdback=PARTS)
    assert device.check().outcome is Outcome.UNCHANGED
    world.plan(holdback=PARTS, state=State.COMPLETE)
    assert device.check().outcome is Outcome.INSTALLED


def test_a_predicate_leaves_other_devices_alone(world: World) -> None:
    world.plan(predicate={"eq": ["arch", "arm64"]})
    arm, x86 = world.device("arm", attributes={"arch": "arm64"}), world.device("x86")
    arm.check()
    x86.check()
    assert (arm.active, x86.active) == (2, 1)


def test_channels_do_not_mix(world: World) -> None:
    world.plan(channel="beta")
    world.plan(state=State.HALTED)
    stable, beta = world.device("stable"), world.device("beta", channel="beta")
    assert stable.check().outcome is Outcome.UNCHANGED
    assert beta.check().outcome is Outcome.INSTALLED


def test_without_a_plan_there_is_nothing_to_do(world: World) -> None:
    device = world.device(channel="nightly")
    for _ in range(2):
        result = device.check()
        assert result.outcome is Outcome.NO_PLAN
        assert result.plan is None
    assert device.active == 1


def test_an_unknown_model_is_named(world: World) -> None:
    result = world.device(model="unknown", first=None).check()
    assert result.outcome is Outcome.UNKNOWN_MODEL
    assert "unknown" in result.detail


def test_a_failed_canary_denies_the_attempt_and_asks_no_more(world: World) -> None:
    device = world.device()
    device.canary.bad.add(2)
    result = device.check()
    assert (result.outcome, result.release, result.active) == (Outcome.CANARY_FAILED, 2, 1)
    assert [path.name for path in device.store.folder.iterdir()] == ["1"]
    device.canary.bad.clear()
    world.server.clear()
    result = device.check()
    assert result.outcome is Outcome.DENIED_AFTER_ROLLBACK
    assert urls(world) == ["/metadata/timestamp.json"]
    world.plan(attempt=2)
    assert device.check().outcome is Outcome.INSTALLED


def test_a_release_that_crash_looped_is_not_taken_again_in_the_same_attempt(world: World) -> None:
    device = world.device()
    device.check()
    for _ in range(4):
        device.store.start()
    assert device.active == 1
    assert device.check().outcome is Outcome.DENIED_AFTER_ROLLBACK
    world.plan(attempt=2)
    assert device.check().outcome is Outcome.INSTALLED


def test_a_release_that_fits_no_engine_is_incompatible_and_changes_nothing(world: World) -> None:
    device = world.device(engines=("coreml",))
    for _ in range(2):
        result = device.check()
        assert (result.outcome, result.release, result.active) == (Outcome.INCOMPATIBLE, 2, 1)
    assert not any("tiny-fp32" in url for url in urls(world))


def test_a_release_that_needs_another_machine_is_incompatible(world: World) -> None:
    release = RELEASES[3]
    manifest = dataclasses.replace(release.manifest, requirements=Requirements(arch=("riscv64",)))
    world.repository.add_release(dataclasses.replace(release, manifest=manifest))
    world.plan(candidate=3)
    assert world.device().check().outcome is Outcome.INCOMPATIBLE


def test_a_manifest_of_a_newer_format_says_to_update_the_runtime(world: World) -> None:
    data = json.loads(world.repository.file("models/tiny/2/manifest.json").read_bytes())
    data["critical"] = ["unheard_of"]
    world.repository.add_target("releases-tiny", "models/tiny/2/manifest.json", json.dumps(data).encode())
    world.repository.publish()
    result = world.device().check()
    assert result.outcome is Outcome.INCOMPATIBLE
    assert "update" in result.detail


def test_a_broken_download_goes_on_at_the_next_check(world: World) -> None:
    path = world.repository.url_path("models/tiny/2/tiny-fp32.onnx")
    data = world.repository.file("models/tiny/2/tiny-fp32.onnx").read_bytes()
    world.server.faults[path] = lambda handler: handler.send_file(data, length=500)
    device = world.device()
    result = device.check()
    assert (result.outcome, result.active) == (Outcome.DOWNLOAD_FAILED, 1)
    world.server.faults.clear()
    world.server.clear()
    device.restart()
    assert device.check().outcome is Outcome.INSTALLED
    ranges = [headers.get("range") for _, url, headers in world.server.requests if url == path]
    assert ranges == ["bytes=500-"]


def test_a_download_that_is_no_longer_wanted_is_removed(world: World) -> None:
    path = world.repository.url_path("models/tiny/2/tiny-fp32.onnx")
    world.server.faults[path] = lambda handler: handler.send_file(b"x" * 1000, length=100)
    device = world.device()
    device.check()
    assert any(device.store.incoming.iterdir())
    world.repository.add_release(RELEASES[3])
    world.plan(candidate=3)
    assert device.check().outcome is Outcome.INSTALLED
    assert list(device.store.incoming.iterdir()) == []


def test_a_staged_release_is_not_downloaded_again(world: World) -> None:
    device = world.device()

    def power_cut(slot: object) -> None:
        raise KeyboardInterrupt

    device.updater._try_out = power_cut
    with pytest.raises(KeyboardInterrupt):
        device.check()
    device.restart()
    world.server.clear()
    assert device.check().outcome is Outcome.INSTALLED
    assert not any("tiny-fp32" in url for url in urls(world))


def test_a_staged_release_that_was_damaged_is_downloaded_again(world: World) -> None:
    device = world.device()

    def power_cut(slot: object) -> None:
        raise KeyboardInterrupt

    device.updater._try_out = power_cut
    with pytest.raises(KeyboardInterrupt):
        device.check()
    (device.store.folder / "2" / "tiny-fp32.onnx").write_bytes(b"damaged")
    device.restart()
    assert device.check().outcome is Outcome.INSTALLED
    assert device.store.slot(2).read_artifact() == RELEASES[2].files["tiny-fp32.onnx"]


def test_a_ceiling_lets_a_release_in_by_age_on_this_device(world: World) -> None:
    world.repository.add_release(RELEASES[3], ceiling=[(0, 0), (3600, PARTS)])
    world.plan(candidate=3)
    device = world.device()
    assert device.check().outcome is Outcome.UNCHANGED
    world.server.clear()
    world.clock.advance(1800)
    assert device.check().outcome is Outcome.UNCHANGED
    assert urls(world) == ["/metadata/timestamp.json"]
    world.clock.advance(1800)
    assert device.check().outcome is Outcome.INSTALLED


def test_the_age_survives_a_restart_and_leaves_out_the_time_switched_off(world: World) -> None:
    world.repository.add_release(RELEASES[3], ceiling=[(0, 0), (3600, PARTS)])
    world.plan(candidate=3)
    device = world.device()
    device.check()
    world.clock.advance(3000)
    device.check()
    device.restart()
    world.clock.now += timedelta(hours=12)  # switched off
    world.clock.since_boot = 10.0
    device.check()
    assert device.active == 1
    world.clock.advance(580)
    assert device.check().outcome is Outcome.UNCHANGED
    world.clock.advance(10)
    assert device.check().outcome is Outcome.INSTALLED


def test_setting_the_wall_clock_forward_does_not_age_a_release(world: World) -> None:
    world.repository.add_release(RELEASES[3], ceiling=[(0, 0), (3600, PARTS)])
    world.plan(candidate=3)
    device = world.device()
    device.check()
    world.clock.now += timedelta(hours=20)
    assert device.check().outcome is Outcome.UNCHANGED
    assert device.active == 1


def test_a_revoked_release_stops_and_the_last_good_one_runs(world: World) -> None:
    device = world.device()
    device.check()
    device.commit()
    world.repository.set_policy("tiny", revoked=[2])
    world.repository.publish()
    result = device.check()
    assert (result.outcome, result.release, result.active) == (Outcome.REVOKED, 2, 1)
    assert not (device.store.folder / "2").exists()
    assert device.check().outcome is Outcome.REVOKED  # the plan still asks for it
    device.restart()
    assert device.store.slots.revoked == (2,)


def test_below_the_floor_nothing_runs(world: World) -> None:
    device = world.device()
    world.repository.set_policy("tiny", min_release=3)
    world.repository.publish()
    result = device.check()
    assert (result.outcome, result.active) == (Outcome.REVOKED, None)
    world.repository.add_release(RELEASES[3])
    world.plan(candidate=3)
    assert device.check().outcome is Outcome.INSTALLED


def test_a_rotated_root_is_followed(world: World) -> None:
    device = world.device()
    device.check()
    repository = world.repository
    old = repository.signers["timestamp"][0]
    new = signer()
    repository.root.revoke_key(old.public_key.keyid, "timestamp")
    repository.root.add_key(new.public_key, "timestamp")
    repository.signers["timestamp"] = [new]
    repository.root.version = 2
    repository.publish_root()
    repository.publish_timestamp()
    assert device.check().outcome is Outcome.UNCHANGED
    root = json.loads((device.folder / "metadata" / "root.json").read_bytes())
    assert root["signed"]["version"] == 2
    assert not (device.folder / "metadata" / "root.json").is_symlink()
    device.restart()
    repository.publish_timestamp()
    assert device.check().outcome is Outcome.UNCHANGED


def test_a_timestamp_that_was_asked_for_before_a_rotation_is_asked_for_again(world: World) -> None:
    device = world.device()
    device.check()
    repository = world.repository
    repository.publish_timestamp()
    before = (repository.metadata / "timestamp.json").read_bytes()
    new = signer()
    repository.root.revoke_key(repository.signers["timestamp"][0].public_key.keyid, "timestamp")
    repository.root.add_key(new.public_key, "timestamp")
    repository.signers["timestamp"] = [new]
    repository.root.version = 2
    repository.publish_root()
    repository.publish_timestamp()
    after = (repository.metadata / "timestamp.json").read_bytes()
    answers = [before, after]
    world.server.faults["/metadata/timestamp.json"] = lambda handler: handler.send(200, answers.pop(0))
    assert device.check().outcome is Outcome.UNCHANGED
    assert answers == []


def test_an_unreachable_server_changes_nothing(world: World) -> None:
    device = world.device()
    device.check()
    world.server.faults["/metadata/timestamp.json"] = lambda handler: handler.send(503, b"")
    result = device.check()
    assert (result.outcome, result.active) == (Outcome.SERVER_UNREACHABLE, 2)
    assert "503" in result.detail
    world.server.faults.clear()
    assert device.check().outcome is Outcome.UNCHANGED


def test_an_address_without_a_server_changes_nothing(world: World) -> None:
    device = world.device()
    updater = Updater(
        store=device.store,
        device=device.device,
        model="tiny",
        channel="stable",
        root=world.root,
        server="http://127.0.0.1:9",
        engines=("onnx",),
        clock=world.clock,
    )
    result = updater.check()
    assert (result.outcome, result.active, result.requests) == (Outcome.SERVER_UNREACHABLE, 1, 1)


@pytest.mark.parametrize("broken", ["snapshot", "releases-tiny", "rollouts-tiny", "targets"])
def test_a_server_that_lacks_a_metadata_file_changes_nothing(world: World, broken: str) -> None:
    device = world.device()
    for path in world.repository.metadata.glob(f"*.{broken}.json"):
        path.unlink()
    assert device.check().outcome is Outcome.SERVER_UNREACHABLE
    assert device.active == 1


def test_a_ceiling_that_cannot_be_read_does_not_stop_a_rollback(world: World) -> None:
    device = world.device()
    device.check()
    world.repository.add_target("releases-tiny", "models/tiny/2/release.json", b"{}")
    world.plan(state=State.ROLLED_BACK)
    assert device.check().outcome is Outcome.RETURNED
    assert device.active == 1


def test_a_ceiling_that_cannot_be_read_keeps_a_release_out_and_is_reported(world: World) -> None:
    device = world.device()
    world.repository.add_target("releases-tiny", "models/tiny/2/release.json", b"{}")
    world.repository.publish()
    for _ in range(2):
        assert device.check().outcome is Outcome.VERIFICATION_FAILED
        assert device.active == 1


def test_the_client_is_made_once_and_closed(world: World) -> None:
    device = world.device()
    made: list[httpx.Client] = []

    def make() -> httpx.Client:
        made.append(httpx.Client())
        return made[-1]

    updater = Updater(
        store=device.store,
        device=device.device,
        model="tiny",
        channel="stable",
        root=world.root,
        server=world.server.url + "/",
        engines=("onnx",),
        http=make,
        clock=world.clock,
        try_out=device.canary,
    )
    for _ in range(3):
        updater.check()
    assert len(made) == 1
    updater.close()
    assert made[0].is_closed
    assert updater.check().outcome is Outcome.UNCHANGED
    updater.close()
    assert len(made) == 2


@pytest.mark.parametrize(
    "wrong", [{"model": "Tiny"}, {"channel": "../stable"}, {"server": "models.example.com"}, {"server": ""}]
)
def test_an_option_that_cannot_work_is_refused_at_once(world: World, wrong: dict[str, str]) -> None:
    device = world.device()
    options = {"model": "tiny", "channel": "stable", "server": world.server.url} | wrong
    with pytest.raises(ConfigurationError):
        Updater(store=device.store, device=device.device, root=world.root, engines=("onnx",), **options)


def test_a_root_that_is_no_root_is_rejected(world: World) -> None:
    device = world.device()
    for root in (b"", b"{}", (world.repository.metadata / "timestamp.json").read_bytes()):
        updater = Updater(
            store=device.store,
            device=device.device,
            model="tiny",
            channel="stable",
            root=root,
            server=world.server.url,
            engines=("onnx",),
            clock=world.clock,
        )
        assert updater.check().outcome is Outcome.METADATA_REJECTED
        updater.close()


def test_many_devices_of_one_process_do_not_disturb_each_other(world: World) -> None:
    from concurrent.futures import ThreadPoolExecutor

    devices = [world.device(f"watch-{i}") for i in range(12)]
    with ThreadPoolExecutor(6) as pool:
        outcomes = list(pool.map(TestDevice.check, devices))
    assert {result.outcome for result in outcomes} == {Outcome.INSTALLED}
    assert [device.active for device in devices] == [2] * 12


def test_importing_the_updater_loads_neither_tuf_nor_httpx_nor_numpy() -> None:
    import subprocess
    import sys

    code = (
        "import sys, edge_runtime.update.updater, edge_runtime.outcomes\n"
        "loaded = {'tuf', 'httpx', 'numpy', 'asyncio', 'pydantic', 'subprocess'} & set(sys.modules)\n"
        "sys.exit(repr(sorted(loaded)) if loaded else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
