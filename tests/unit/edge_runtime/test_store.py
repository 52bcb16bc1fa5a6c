"""The state folder: whole slots or none, a state that survives damage, one holder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_runtime import slots as transitions
from edge_runtime.bundle import write_manifest
from edge_runtime.errors import SlotDamaged, StoreError, StoreFull, StoreLocked
from edge_runtime.store import Slot, Store, read_slots
from tests.support import tiny
from tests.support.disks import FullDisk, RecordingDisk

RELEASES = {number: tiny.release(number, seed=number, golden_count=1) for number in (1, 2, 3)}


def install(store: Store, number: int) -> Slot:
    release = RELEASES[number]
    return store.install(write_manifest(release.manifest), release.artifact, release.files)


def adopt(store: Store, number: int) -> None:
    install(store, number)
    store.apply(transitions.adopt)


def try_out(store: Store, number: int) -> None:
    install(store, number)
    store.apply(lambda slots: transitions.activate(slots, attempt=1))


def folders(store: Store) -> list[str]:
    return sorted(path.name for path in store.folder.iterdir())


def read_all(store: Store, number: int) -> None:
    slot = store.slot(number)
    slot.read_artifact()
    slot.read_golden()


def active(store: Store) -> int | None:
    return None if store.slots.active is None else store.slots.active.release


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "state")


def test_a_new_folder_has_no_release(store: Store) -> None:
    assert store.slots == transitions.Slots()
    with pytest.raises(StoreError, match="not installed"):
        store.slot(1)


def test_an_installed_release_is_staged_and_reads_back(store: Store) -> None:
    slot = install(store, 1)
    assert slot.release == 1
    assert slot.manifest == RELEASES[1].manifest
    assert slot.read_artifact() == RELEASES[1].files["tiny-fp32.onnx"]
    assert slot.read_golden() == RELEASES[1].files["tiny-fp32.onnx.golden.npz"]
    assert store.slots.staged is not None
    assert store.slots.active is None


def test_the_state_survives_closing_and_opening(store: Store) -> None:
    adopt(store, 1)
    try_out(store, 2)
    store.good(3, commit_after=20)
    slots = store.slots
    store.close()
    again = Store(store.root)
    assert again.slots == slots
    assert again.slot(2).read_artifact() == RELEASES[2].files["tiny-fp32.onnx"]


def test_downloaded_files_are_moved_not_copied(store: Store) -> None:
    release = RELEASES[1]
    part = store.incoming / "part"
    part.write_bytes(release.files["tiny-fp32.onnx"])
    inode = part.stat().st_ino
    store.install(write_manifest(release.manifest), release.artifact, release.files | {"tiny-fp32.onnx": part})
    assert not part.exists()
    assert (store.folder / "1" / "tiny-fp32.onnx").stat().st_ino == inode


def test_files_are_durable_before_the_folder_gets_its_name(tmp_path: Path) -> None:
    disk = RecordingDisk()
    store = Store(tmp_path, disk=disk)
    disk.log.clear()
    install(store, 1)
    named = disk.log.index(("rename", "1"))
    for name in ("manifest.json", "tiny-fp32.onnx", "tiny-fp32.onnx.golden.npz"):
        assert ("write", name) in disk.log[:named]
    assert disk.log[named - 1] == ("fsync", ".new-1")
    assert disk.log[named + 1] == ("fsync", "slots")
    assert [entry for entry in disk.log[named + 2 :] if entry[0] == "rename"] == [("rename", "state.json")]


def test_the_trial_marker_is_durable_when_start_returns(tmp_path: Path) -> None:
    disk = RecordingDisk()
    store = Store(tmp_path, disk=disk)
    adopt(store, 1)
    try_out(store, 2)
    disk.log.clear()
    store.start()
    assert disk.log[-1] == ("fsync", tmp_path.name)
    assert read_slots(tmp_path).trial == transitions.Trial(attempt=1, started=True)


def test_starting_a_committed_release_writes_nothing(tmp_path: Path) -> None:
    disk = RecordingDisk()
    store = Store(tmp_path, disk=disk)
    adopt(store, 1)
    disk.log.clear()
    store.start()
    store.good(100, commit_after=1)
    store.ended_cleanly()
    assert disk.log == []


def test_enough_good_predictions_commit_once(store: Store) -> None:
    adopt(store, 1)
    try_out(store, 2)
    store.start()
    assert not store.good(19, commit_after=20)
    assert store.good(1, commit_after=20)
    assert not store.good(20, commit_after=20)
    assert store.slots.trial is None


def test_good_predictions_of_the_release_before_do_not_commit_the_new_one(store: Store) -> None:
    adopt(store, 1)
    try_out(store, 2)
    assert not store.good(100, commit_after=20, release=1)
    assert store.slots.trial == transitions.Trial(attempt=1)
    assert store.good(20, commit_after=20, release=2)


def test_a_release_that_kills_its_process_three_times_is_rolled_back(store: Store) -> None:
    adopt(store, 1)
    try_out(store, 2)
    root = store.root
    for _ in range(3):
        store.start()
        assert active(store) == 2
        store.close()  # what the system does when a process dies: the lock goes, no clean end is written
        store = Store(root)
    store.start()
    assert active(store) == 1
    assert transitions.is_denied(store.slots, 2, 1)
    assert not (store.folder / "2").exists()


def test_folders_that_nothing_names_are_removed(store: Store) -> None:
    adopt(store, 1)
    try_out(store, 2)
    store.good(20, commit_after=20)
    try_out(store, 3)
    assert folders(store) == ["2", "3"]
    (store.folder / ".new-9").mkdir()
    (store.folder / ".new-9" / "half").write_bytes(b"")
    store.close()
    assert folders(Store(store.root)) == ["2", "3"]


@pytest.mark.parametrize("name", ["manifest.json", "tiny-fp32.onnx", "tiny-fp32.onnx.golden.npz"])
@pytest.mark.parametrize("damage", ["flip", "cut", "grow", "remove"])
def test_damage_to_a_slot_is_found_when_it_is_read(store: Store, name: str, damage: str) -> None:
    install(store, 1)
    path = store.folder / "1" / name
    data = path.read_bytes()
    changed = {"flip": data[:-2] + bytes([data[-2] ^ 1]) + data[-1:], "cut": data[:-1], "grow": data + b"\n"}
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(changed[damage])
    with pytest.raises(SlotDamaged, match=name):
        read_all(store, 1)


def test_a_damaged_release_can_be_forgotten_and_installed_again(store: Store) -> None:
    adopt(store, 1)
    with pytest.raises(StoreError, match="installed already"):
        install(store, 1)
    store.forget(1)
    assert active(store) is None
    adopt(store, 1)
    assert store.slot(1).read_artifact() == RELEASES[1].files["tiny-fp32.onnx"]


@pytest.mark.parametrize("file", ["tiny-fp32.onnx", "tiny-fp32.onnx.golden.npz"])
def test_bytes_that_are_not_the_manifests_make_no_slot(store: Store, file: str) -> None:
    release = RELEASES[1]
    wrong = release.files | {file: release.files[file][:-1] + b"?"}
    part = store.incoming / "part"
    part.write_bytes(wrong[file])
    for files in (wrong, release.files | {file: part}):
        with pytest.raises(SlotDamaged, match=file):
            store.install(write_manifest(release.manifest), release.artifact, files)
        assert folders(store) == []
        assert store.slots.staged is None


def test_files_that_do_not_belong_are_refused(store: Store) -> None:
    release = RELEASES[1]
    manifest = write_manifest(release.manifest)
    with pytest.raises(StoreError, match="does not belong"):
        store.install(manifest, release.artifact, release.files | {"../evil": b""})
    with pytest.raises(StoreError, match="was not given"):
        store.install(manifest, release.artifact, {"tiny-fp32.onnx": release.files["tiny-fp32.onnx"]})
    with pytest.raises(StoreError, match="not an artifact"):
        store.install(manifest, RELEASES[2].artifact, release.files)
    assert folders(store) == []


def test_only_one_store_may_be_open(store: Store) -> None:
    with pytest.raises(StoreLocked):
        Store(store.root)
    store.close()
    store.close()
    Store(store.root).close()


@pytest.mark.parametrize("damage", [b"", b"{}", b"\0" * 100, None])
def test_a_damaged_state_gives_way_to_the_version_before_it(store: Store, damage: bytes | None) -> None:
    adopt(store, 1)
    before = store.slots
    store.apply(lambda slots: transitions.deny(slots, 9, 1))
    store.close()
    state = store.root / "state.json"
    state.write_bytes(state.read_bytes()[:-20] if damage is None else damage)
    again = Store(store.root)
    assert again.slots == before
    # And the next write must not put the damaged version where the good one is.
    again.apply(lambda slots: transitions.deny(slots, 8, 1))
    again.close()
    assert transitions.is_denied(read_slots(store.root), 8, 1)


@pytest.mark.parametrize("allowed", range(4))
def test_a_damaged_state_never_replaces_the_good_version_before_it(tmp_path: Path, allowed: int) -> None:
    disk = FullDisk(10**9)
    store = Store(tmp_path, disk=disk)
    adopt(store, 1)
    before = store.slots
    store.apply(lambda slots: transitions.deny(slots, 9, 1))
    store.close()
    (tmp_path / "state.json").write_bytes(b"damaged")
    store = Store(tmp_path, disk=disk)
    disk.used, disk.allowed = 0, allowed
    if allowed < 2:
        with pytest.raises(StoreFull):
            store.apply(lambda slots: transitions.deny(slots, 8, 1))
    else:
        store.apply(lambda slots: transitions.deny(slots, 8, 1))
    store.close()
    assert read_slots(tmp_path).active == before.active


def test_a_power_cut_between_the_two_renames_loses_the_step_only(store: Store) -> None:
    adopt(store, 1)
    before = store.slots
    store.close()
    (store.root / "state.json").rename(store.root / "state.old.json")
    assert Store(store.root).slots == before


def test_a_state_that_is_damaged_twice_is_a_clear_error(store: Store) -> None:
    adopt(store, 1)
    try_out(store, 2)
    store.close()
    for name in ("state.json", "state.old.json"):
        (store.root / name).write_bytes(b"\0" * 10)
    with pytest.raises(StoreError, match="factory"):
        Store(store.root)
    with pytest.raises(StoreError, match="damaged"):
        Store(store.root)  # and not StoreLocked: the failed attempt gave the lock back


def test_a_state_with_a_right_digest_and_wrong_content_is_not_believed(store: Store) -> None:
    from edge_runtime.disk import sealed

    adopt(store, 1)
    store.apply(lambda slots: transitions.deny(slots, 9, 1))
    store.close()
    (store.root / "state.json").write_bytes(sealed(store.slots.to_body() | {"active": "1"}))
    assert Store(store.root).slots.denied == ()


def test_a_lost_folder_gives_way_to_the_last_good_release(store: Store) -> None:
    adopt(store, 1)
    try_out(store, 2)
    store.close()
    for path in (store.folder / "2").iterdir():
        path.unlink()
    (store.folder / "2").rmdir()
    again = Store(store.root)
    assert active(again) == 1
    assert again.slots.trial is None


def scenario(store: Store) -> None:
    """Everything that happens to a store in its life."""
    adopt(store, 1)
    try_out(store, 2)
    store.start()
    store.good(20, commit_after=20)
    try_out(store, 3)
    store.start()
    store.roll_back()


def test_a_disk_that_fills_up_at_any_write_leaves_whole_slots_and_a_readable_state(tmp_path: Path) -> None:
    finished = False
    for allowed in range(1, 200):
        root = tmp_path / str(allowed)
        disk = FullDisk(allowed)
        try:
            store = Store(root, disk=disk)
        except StoreFull:
            continue
        try:
            scenario(store)
        except StoreFull:
            assert disk.ran_out
        finished = not disk.ran_out
        in_memory = store.slots
        store.close()
        disk.allowed = 10**9
        again = Store(root, disk=disk)
        assert again.slots == in_memory
        assert json.loads((root / "state.json").read_bytes())["format"] == 1 if (root / "state.json").exists() else True
        for release in transitions.referenced(again.slots):
            read_all(again, release)
        assert folders(again) == [str(r) for r in sorted(transitions.referenced(again.slots))]
        again.close()
        if finished:
            break
    assert finished
    assert allowed > 25
