"""The door to the disk: durable, atomic, with errors that have names."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from edge_runtime.disk import RealDisk, read_sealed, remove_folder, write_atomic, write_sealed
from edge_runtime.errors import StoreError, StoreFull, StoreLocked
from tests.support.disks import FullDisk, RecordingDisk

DISK = RealDisk()


def test_an_atomic_write_syncs_the_file_before_its_name_and_the_folder_after(tmp_path: Path) -> None:
    disk = RecordingDisk()
    write_atomic(disk, tmp_path / "state.json", b"new")
    assert disk.log == [("write", ".state.json.new"), ("rename", "state.json"), ("fsync", tmp_path.name)]
    assert (tmp_path / "state.json").read_bytes() == b"new"
    assert DISK.listdir(tmp_path) == ["state.json"]


@pytest.mark.parametrize("allowed", [0, 1])
def test_an_atomic_write_to_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, allowed: int) -> None:
    (tmp_path / "state.json").write_bytes(b"old")
    with pytest.raises(StoreFull):
        write_atomic(FullDisk(allowed), tmp_path / "state.json", b"new")
    assert DISK.listdir(tmp_path) == ["state.json"]
    assert (tmp_path / "state.json").read_bytes() == b"old"


def test_a_full_disk_has_its_own_error(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with pytest.raises(StoreFull, match="no space left"):
        DISK.write(Path("/dev/full"), b"data")


def test_a_missing_file_is_told_apart_from_one_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        DISK.read(tmp_path / "missing")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match=r"cannot read .*folder"):
        DISK.read(tmp_path / "folder")
    with pytest.raises(StoreError, match="cannot write"):
        DISK.write(tmp_path / "folder", b"")
    assert DISK.size(tmp_path / "missing") is None


def test_errors_keep_the_reason_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match=os.strerror(errno.ENOTDIR)):
        DISK.mkdir(tmp_path / "file" / "below")


def test_sealed_files_come_back_and_any_changed_byte_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_sealed(DISK, path, {"format": 1, "text": "é", "list": [1, None, 1.5]})
    assert read_sealed(DISK, path) == {"format": 1, "text": "é", "list": [1, None, 1.5]}
    data = path.read_bytes()
    for i in range(len(data)):
        path.write_bytes(data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :])
        assert read_sealed(DISK, path) in (None, {"format": 1, "text": "é", "list": [1, None, 1.5]})
        path.write_bytes(data[:i])
        assert read_sealed(DISK, path) is None or data[:i].strip() == data.strip()


def test_what_is_not_sealed_json_reads_as_nothing(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    assert read_sealed(DISK, path) is None
    for data in (b"", b"\xff", b"[]", b"{}", b"[" * 100_000):
        path.write_bytes(data)
        assert read_sealed(DISK, path) is None


def test_only_one_holder_has_the_lock(tmp_path: Path) -> None:
    release = DISK.lock(tmp_path / "lock")
    with pytest.raises(StoreLocked, match="in use"):
        DISK.lock(tmp_path / "lock")
    release()
    DISK.lock(tmp_path / "lock")()


def test_a_lock_file_is_private(tmp_path: Path) -> None:
    DISK.lock(tmp_path / "lock")()
    if os.name == "posix":
        assert stat.S_IMODE((tmp_path / "lock").stat().st_mode) == 0o600


def test_removing_a_folder_that_is_not_there_is_fine(tmp_path: Path) -> None:
    remove_folder(DISK, tmp_path / "missing")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(b"")
    remove_folder(DISK, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_does_not_keep_its_parents_lock(tmp_path: Path) -> None:
    release = DISK.lock(tmp_path / "lock")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # lives on with what it inherited, until its parent hangs up
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    os.close(reading)
    try:
        release()
        DISK.lock(tmp_path / "lock")()
    finally:
        os.close(writing)
        os.waitpid(child, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_cannot_give_its_parents_lock_away(tmp_path: Path) -> None:
    release = DISK.lock(tmp_path / "lock")
    child = os.fork()
    if child == 0:
        release()
        os._exit(0)
    os.waitpid(child, 0)
    with pytest.raises(StoreLocked):
        DISK.lock(tmp_path / "lock")
    release()


def test_writing_into_a_folder_that_was_removed_has_a_name(tmp_path: Path) -> None:
    for write in (DISK.write, DISK.append):
        with pytest.raises(StoreError, match="folder was removed"):
            write(tmp_path / "gone" / "file", b"x")
