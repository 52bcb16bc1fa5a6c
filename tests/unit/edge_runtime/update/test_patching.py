"""A release by its delta, over a real server: fewer bytes, the same file; and whatever is wrong, the whole file."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable

import pytest

from edge_runtime.bundle import Delta, ReleaseDocument, delta_file, target_path, write_release
from edge_runtime.errors import Outcome, StoreError
from edge_runtime.update.delta.format import MAGIC
from model_server.releases.delta import make_delta
from tests.support.disks import FullDisk
from tests.support.world import RELEASES, World

FILE = "tiny-fp32.onnx"
OLD, NEW = RELEASES[1].files[FILE], RELEASES[2].files[FILE]


def offer(world: World, patch: bytes, *, signed: bytes | None = None, from_release: int = 1) -> str:
    """Publish release 2 again with a delta; ``signed`` is what the managers sign, where the server has another file."""
    name = delta_file(FILE, from_release)
    signed = patch if signed is None else signed
    path = target_path("tiny", 2, name)
    delta = Delta(
        artifact=FILE,
        from_release=from_release,
        file=name,
        bytes=len(signed),
        sha256=hashlib.sha256(signed).hexdigest(),
    )
    document = ReleaseDocument(model="tiny", release=2, ceiling=(), deltas=(delta,))
    world.repository.add_target("releases-tiny", path, signed)
    world.repository.add_target("releases-tiny", target_path("tiny", 2, "release.json"), write_release(document))
    world.repository.publish()
    if patch is not signed:
        world.tampered(path, lambda data: patch)
    return path


def asked_for(world: World, file: str) -> bool:
    return any(path.endswith(file) for path in world.server.paths())


def test_a_delta_comes_instead_of_the_file(world: World) -> None:
    offer(world, make_delta(OLD, NEW))
    device = world.device()
    result = device.check()
    assert (result.outcome, result.notes) == (Outcome.INSTALLED, ())
    assert device.store.slot(2).read_artifact() == NEW
    assert asked_for(world, ".delta")
    assert not asked_for(world, FILE)
    assert list(device.store.incoming.iterdir()) == []


def test_a_device_that_comes_from_another_release_takes_the_file(world: World) -> None:
    offer(world, make_delta(OLD, NEW))
    device = world.device(first=None)
    assert device.check().outcome is Outcome.INSTALLED
    assert not asked_for(world, ".delta")


def cut(patch: bytes) -> bytes:
    return patch[:-5]


def wrong_result(patch: bytes) -> bytes:
    """Of the right length, from the right file, to another one."""
    return make_delta(OLD, bytes(reversed(NEW)))


def for_another_file(patch: bytes) -> bytes:
    return patch[:8] + b"\0" * 32 + patch[40:]


@pytest.mark.parametrize(
    "damage", [cut, wrong_result, for_another_file, lambda patch: b"no delta", lambda patch: MAGIC]
)
def test_a_signed_delta_that_does_not_make_the_file_is_reported_and_the_file_comes(
    world: World, damage: Callable[[bytes], bytes]
) -> None:
    offer(world, damage(make_delta(OLD, NEW)))
    device = world.device()
    result = device.check()
    assert result.outcome is Outcome.INSTALLED
    assert [(outcome, release) for outcome, release, _ in result.notes] == [(Outcome.DELTA_MISMATCH, 2)]
    assert device.store.slot(2).read_artifact() == NEW
    assert asked_for(world, FILE)
    assert list(device.store.incoming.iterdir()) == []
    assert device.check().notes == (), "it is said once"


def test_a_delta_that_is_not_the_signed_one_is_not_applied(world: World) -> None:
    patch = make_delta(OLD, NEW)
    offer(world, patch[:-1] + bytes([patch[-1] ^ 1]), signed=patch)
    result = world.device().check()
    assert result.outcome is Outcome.INSTALLED
    assert result.notes[0][0] is Outcome.DELTA_MISMATCH


def test_it_is_said_once_where_the_whole_file_breaks_off_and_cannot_be_continued(world: World) -> None:
    world.server.etags = False
    offer(world, wrong_result(make_delta(OLD, NEW)))
    whole = next(path for path in (world.server.folder / "targets" / "models" / "tiny" / "2").glob(f"*.{FILE}"))
    address = "/" + whole.relative_to(world.server.folder).as_posix()
    world.server.faults[address] = lambda handler: handler.send_file(whole.read_bytes(), length=100)
    device = world.device()
    result = device.check()
    assert result.outcome is Outcome.DOWNLOAD_FAILED
    assert [outcome for outcome, _, _ in result.notes] == [Outcome.DELTA_MISMATCH]
    world.server.clear()
    assert device.check().notes == ()
    assert not asked_for(world, ".delta")
    world.server.faults.clear()
    result = device.check()
    assert (result.outcome, result.notes) == (Outcome.INSTALLED, ())
    assert list(device.store.incoming.iterdir()) == []


def test_a_delta_that_the_server_lost_costs_one_request(world: World) -> None:
    path = offer(world, make_delta(OLD, NEW))
    world.repository.file(path).unlink()
    result = world.device().check()
    assert result.outcome is Outcome.INSTALLED
    assert "404" in result.notes[0][2]


def test_a_delta_that_is_not_signed_as_the_release_says_is_not_asked_for(world: World) -> None:
    offer(world, make_delta(OLD, NEW))
    del world.repository.roles["releases-tiny"].targets[target_path("tiny", 2, delta_file(FILE, 1))]
    world.repository.publish()
    assert world.device().check().outcome is Outcome.INSTALLED
    assert not asked_for(world, ".delta")


def test_an_old_file_that_was_damaged_here_costs_a_download_and_nothing_else(world: World) -> None:
    offer(world, make_delta(OLD, NEW))
    device = world.device()
    file = device.store.slot(1).path / FILE
    file.write_bytes(OLD[:100] + bytes([OLD[100] ^ 1]) + OLD[101:])
    result = device.check()
    assert result.outcome is Outcome.INSTALLED
    assert result.notes[0][0] is Outcome.DELTA_MISMATCH
    assert device.store.slot(2).read_artifact() == NEW


def test_a_full_disk_while_a_delta_is_applied_harms_nothing_that_runs(world: World) -> None:
    offer(world, make_delta(OLD, NEW))
    device = world.device()
    for allowed in range(200):
        try:
            device.restart(FullDisk(allowed))
        except StoreError:
            device.open()
            continue
        result = device.check()
        assert device.active is not None
        device.store.slot(device.active).read_artifact()
        if result.outcome is Outcome.INSTALLED:
            return
        assert result.outcome in (Outcome.DOWNLOAD_NO_SPACE, Outcome.STORE_FAILED)
    pytest.fail("it was never installed")


def test_without_zstandard_no_delta_is_asked_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(world, make_delta(OLD, NEW))
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert world.device().check().outcome is Outcome.INSTALLED
    assert not asked_for(world, ".delta")
