"""Attacks on plans, manifests and downloads that the signatures alone do not stop."""

from __future__ import annotations

import dataclasses
import json

import pytest

from devices.static_server import Handler
from edge_runtime.bundle import write_manifest
from edge_runtime.errors import Outcome
from edge_runtime.update.plan import PARTS, State
from tests.support.disks import FullDisk
from tests.support.world import PLAN, RELEASES, TestDevice, World

PLAN_PATH = "rollouts/stable/tiny.json"
MODEL_PATH = "models/tiny/2/tiny-fp32.onnx"


def untouched(device: TestDevice, expected: Outcome) -> None:
    """The check ends as expected; release 1 runs, nothing is staged and no half slot is left."""
    for _ in range(2):
        result = device.check()
        assert result.outcome is expected, result.detail
        assert result.active == 1
    assert device.store.slots.staged is None
    assert [path.name for path in device.store.folder.iterdir()] == ["1"]
    device.restart()
    device.store.slot(1).read_artifact()


@pytest.mark.parametrize("changes", [{"model": "other"}, {"channel": "beta"}])
def test_a_plan_for_another_model_or_channel_is_not_followed(world: World, changes: dict[str, str]) -> None:
    plan = dataclasses.replace(PLAN, **changes)
    world.repository.add_target("rollouts-tiny", PLAN_PATH, plan.to_json())
    world.repository.publish()
    untouched(world.device(), Outcome.PLAN_INVALID)


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b"\xff", b'{"format":1,"format":1}', b" " * 9000, PLAN.to_json().replace(b"100000000", b"1e9")],
    ids=["empty", "object", "list", "binary", "twice", "long", "float"],
)
def test_a_plan_that_is_none_is_not_followed(world: World, data: bytes) -> None:
    world.repository.add_target("rollouts-tiny", PLAN_PATH, data)
    world.repository.publish()
    untouched(world.device(), Outcome.PLAN_INVALID)


def test_a_plan_for_a_release_that_nobody_signed_is_not_followed(world: World) -> None:
    world.plan(candidate=99)
    untouched(world.device(), Outcome.PLAN_INVALID)


@pytest.mark.parametrize("changes", [{"model": "other"}, {"release": 3}])
def test_a_manifest_about_something_else_is_not_used(world: World, changes: dict[str, object]) -> None:
    """Two managers signed it under the wrong path."""
    manifest = dataclasses.replace(RELEASES[2].manifest, **changes)  # type: ignore[arg-type]
    world.repository.add_target("releases-tiny", "models/tiny/2/manifest.json", write_manifest(manifest))
    world.repository.publish()
    untouched(world.device(), Outcome.VERIFICATION_FAILED)


# What is no file name on some system that a device may have: paths, Unicode that looks like one, devices and streams of
# Windows, what other software takes for an option, and what no file system takes.
BAD_NAMES = [
    *(
        "../../../etc/passwd",
        "a/b.onnx",
        "/etc/passwd",
        "..",
        ".",
        ".hidden",
        "x\x00.onnx",
        "",
        "a\nb.onnx",
        "-rf.onnx",
    ),
    *("..\\..\\x.onnx", "C:\\x.onnx", "C:x.onnx", "\\\\host\\share", "x.onnx:stream", "x.onnx.", "x.onnx "),
    *("nul.onnx", "CON", "com1.onnx", "Aux.tar.onnx", "lpt9", "%2e%2e%2fx.onnx", "a\uff0fb.onnx", "\uff0e\uff0e"),
    *("x\u202exnno.onnx", "\u00e9.onnx", "e\u0301.onnx", "x\u200b.onnx", "x" * 129, "x" * 5000),
]


@pytest.mark.parametrize("where", ["artifact", "golden"])
def test_a_file_name_that_leaves_the_slot_is_not_used(world: World, where: str) -> None:
    device = world.device()
    for name in BAD_NAMES:
        body = json.loads(write_manifest(RELEASES[2].manifest))
        for artifact in body["artifacts"]:
            (artifact if where == "artifact" else artifact["golden"])["file"] = name
        world.repository.add_target("releases-tiny", "models/tiny/2/manifest.json", json.dumps(body).encode())
        world.repository.publish()
        result = device.check()
        assert (result.outcome, result.active) == (Outcome.VERIFICATION_FAILED, 1), name
    untouched(device, Outcome.VERIFICATION_FAILED)
    assert {path.name for path in world.folder.iterdir()} == {"device-1"}


@pytest.mark.parametrize("second", ["tiny-fp32.onnx", "Tiny-FP32.onnx", "tiny-fp32.onnx.GOLDEN.npz", "manifest.json"])
def test_two_files_of_one_name_in_any_case_are_not_used(world: World, second: str) -> None:
    """On a file system that does not tell cases apart one would take the other's place."""
    body = json.loads(write_manifest(RELEASES[2].manifest))
    body["artifacts"][1]["file"] = second
    world.repository.add_target("releases-tiny", "models/tiny/2/manifest.json", json.dumps(body).encode())
    world.repository.publish()
    untouched(world.device(), Outcome.VERIFICATION_FAILED)


@pytest.mark.parametrize(
    "path", ["models/tiny/2/../3/manifest.json", "models//tiny/3/manifest.json", "/models/tiny/3/x"]
)
def test_a_path_that_leads_to_another_release_is_found_by_nobody(world: World, path: str) -> None:
    """Two managers list it; a device asks for paths that it makes itself."""
    world.repository.delegate(
        "releases-tiny", world.repository.signers["releases-tiny"], 2, ["*", "*/*", "*/*/*", "*/*/*/*", "*/*/*/*/*/*"]
    )
    target = world.repository.add_target("releases-tiny", "models/tiny/9/manifest.json", b"{}")
    target.path = path
    world.repository.roles["releases-tiny"].targets = {path: target, **world.repository.roles["releases-tiny"].targets}
    del world.repository.roles["releases-tiny"].targets["models/tiny/9/manifest.json"]
    world.plan(candidate=3)
    untouched(world.device(), Outcome.PLAN_INVALID)


def test_a_manifest_that_disagrees_with_what_is_signed_costs_no_download(world: World) -> None:
    other = RELEASES[3].files["tiny-fp32.onnx"] + b"longer"
    world.repository.add_target("releases-tiny", MODEL_PATH, other)
    world.repository.publish()
    device = world.device()
    untouched(device, Outcome.VERIFICATION_FAILED)
    assert not any("tiny-fp32.onnx" in path and "golden" not in path for path in world.server.paths())


def test_a_manifest_whose_file_is_not_signed_costs_no_download(world: World) -> None:
    del world.repository.roles["releases-tiny"].targets[MODEL_PATH]
    world.repository.publish()
    untouched(world.device(), Outcome.VERIFICATION_FAILED)


@pytest.mark.parametrize("path", [MODEL_PATH, MODEL_PATH + ".golden.npz", "models/tiny/2/manifest.json"])
def test_wrong_bytes_of_the_right_length_are_not_used(world: World, path: str) -> None:
    world.tampered(path, lambda data: data[:-1] + bytes([data[-1] ^ 1]))
    untouched(world.device(), Outcome.VERIFICATION_FAILED)


@pytest.mark.parametrize("path", [PLAN_PATH, "models/tiny/2/release.json"])
def test_wrong_bytes_of_a_document_are_not_used(world: World, path: str) -> None:
    world.tampered(path, lambda data: data.replace(b"1", b"3"))
    untouched(world.device(), Outcome.VERIFICATION_FAILED)


def endless(handler: Handler) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.close_connection = True
    while True:
        handler.wfile.write(b"x" * 65536)


@pytest.mark.parametrize("path", [MODEL_PATH, PLAN_PATH, "models/tiny/2/manifest.json", "models/tiny/2/release.json"])
def test_an_endless_download_is_cut_off_at_the_signed_length(world: World, path: str) -> None:
    world.server.faults[world.repository.url_path(path)] = endless
    device = world.device()
    before = device.check().bytes
    assert before < 1_000_000
    untouched(device, Outcome.VERIFICATION_FAILED)
    assert list(device.store.incoming.glob("*.onnx")) == []


@pytest.mark.parametrize("keep", [0, 1, 500])
def test_a_truncated_download_is_not_used(world: World, keep: int) -> None:
    world.tampered(MODEL_PATH, lambda data: data[:keep])
    device = world.device()
    result = device.check()
    assert (result.outcome, result.active) == (Outcome.DOWNLOAD_FAILED, 1)
    assert device.store.slots.staged is None
    assert [path.name for path in device.store.folder.iterdir()] == ["1"]


def test_a_length_beyond_the_disk_is_refused_before_the_download(world: World) -> None:
    body = json.loads(write_manifest(RELEASES[2].manifest))
    body["artifacts"][0]["bytes"] = 2**31
    world.repository.add_target("releases-tiny", "models/tiny/2/manifest.json", json.dumps(body).encode())
    world.repository.roles["releases-tiny"].targets[MODEL_PATH].length = 2**31
    world.repository.publish()

    class Small(FullDisk):
        def free_bytes(self, path: object) -> int:
            return 2**30

    device = world.device()
    device.restart(Small(10**9))
    untouched(device, Outcome.DOWNLOAD_NO_SPACE)
    assert world.repository.url_path(MODEL_PATH) not in world.server.paths()


def test_a_disk_that_fills_up_at_any_write_never_harms_what_runs(world: World) -> None:
    """For every k: the k-th write finds the disk full, half of it written. Then there is room again."""
    finished = False
    for allowed in range(200):
        device = world.device(f"device-{allowed}")
        disk = FullDisk(10**9)
        device.restart(disk)
        disk.used, disk.allowed = 0, allowed
        result = device.check()
        finished = not disk.ran_out
        if finished:
            assert result.outcome is Outcome.INSTALLED
        else:
            assert result.outcome in (Outcome.DOWNLOAD_NO_SPACE, Outcome.INSTALLED), result.detail
        assert result.active is not None
        assert result.active == device.active
        device.restart()
        assert device.active == result.active, f"write {allowed}"
        for number in {slot.release for slot in (device.store.slots.active, device.store.slots.staged) if slot}:
            slot = device.store.slot(number)
            slot.read_artifact()
            slot.read_golden()
        names = {path.name for path in device.store.folder.iterdir()}
        assert names <= {"1", "2"}
        device.check()
        assert device.active == 2, f"write {allowed}"
        device.close()
        if finished:
            break
    assert finished
    assert allowed > 30


def test_a_disk_that_is_full_still_lets_a_device_go_on_checking(world: World) -> None:
    device = world.device()
    device.check()
    device.restart(FullDisk(0))
    assert device.check().outcome is Outcome.UNCHANGED
    world.plan(candidate=2, attempt=2)
    assert device.check().outcome is Outcome.DOWNLOAD_NO_SPACE
    assert device.active == 2


def test_a_share_beyond_everybody_is_no_way_around_the_holdback(world: World) -> None:
    world.plan(share=PARTS, holdback=PARTS, state=State.RUNNING)
    assert world.device().check().outcome is Outcome.UNCHANGED
