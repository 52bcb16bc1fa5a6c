"""What a power cut takes, operation by operation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from devices.faults.power import Loss, PowerCut, PowerDisk


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    (folder / "kept").mkdir(parents=True)
    (folder / "old.txt").write_bytes(b"old")
    return folder


def left(root: Path, work: Callable[[PowerDisk], object], at: int) -> dict[Loss, dict[str, bytes]]:
    """The files that each kind of cut leaves, by their place below the root."""
    disk = PowerDisk(root, at)
    with pytest.raises(PowerCut):
        work(disk)
    found = {}
    for loss in Loss:
        place = root.parent / loss.value
        disk.leave(loss, place)
        found[loss] = {str(file.relative_to(place)): file.read_bytes() for file in place.rglob("*") if file.is_file()}
    return found


def test_what_was_there_is_durable(root: Path) -> None:
    found = left(root, lambda disk: disk.unlink(root / "old.txt"), 0)
    assert found == {loss: {"old.txt": b"old"} for loss in Loss}


def test_a_written_file_has_its_content_and_no_name_before_its_folder_is_synced(root: Path) -> None:
    def work(disk: PowerDisk) -> None:
        disk.write(root / "new.txt", b"new")
        disk.fsync(root / "kept")

    found = left(root, work, 1)
    assert "new.txt" not in found[Loss.ALL]
    assert found[Loss.CONTENT]["new.txt"] == b"new"


def test_a_synced_folder_keeps_its_names(root: Path) -> None:
    def work(disk: PowerDisk) -> None:
        disk.write(root / "new.txt", b"new")
        disk.unlink(root / "old.txt")
        disk.fsync(root)
        disk.rmdir(root / "kept")

    assert left(root, work, 3) == {loss: {"new.txt": b"new"} for loss in Loss}


def test_appended_bytes_are_lost_before_the_file_is_synced(root: Path) -> None:
    def work(disk: PowerDisk) -> None:
        disk.append(root / "old.txt", b" and more")
        disk.fsync(root / "old.txt")

    found = left(root, work, 1)
    assert found[Loss.ALL]["old.txt"] == b"old"
    assert found[Loss.CONTENT]["old.txt"] == b"old"
    assert found[Loss.NAMES]["old.txt"] == b"old and more"


def test_a_write_that_is_cut_leaves_half_and_has_taken_what_was_there(root: Path) -> None:
    found = left(root, lambda disk: disk.write(root / "old.txt", b"newer"), 0)
    assert found[Loss.ALL]["old.txt"] == b""
    assert found[Loss.NAMES]["old.txt"] == b"ne"


def test_a_rename_is_undone_before_its_folder_is_synced(root: Path) -> None:
    def work(disk: PowerDisk) -> None:
        disk.rename(root / "old.txt", root / "kept" / "moved.txt")
        disk.mkdir(root / "another")

    found = left(root, work, 1)
    assert found[Loss.ALL] == {"old.txt": b"old"}
    assert found[Loss.CONTENT] == {"kept/moved.txt": b"old"}


def test_a_new_folder_and_all_in_it_is_lost_before_its_parent_is_synced(root: Path) -> None:
    def work(disk: PowerDisk) -> None:
        disk.mkdir(root / "a")
        disk.write(root / "a" / "file", b"x")
        disk.fsync(root / "a")
        disk.rename(root / "a", root / "b")
        disk.fsync(root)

    found = left(root, work, 4)
    assert found[Loss.ALL] == {"old.txt": b"old"}
    assert found[Loss.CONTENT] == {"old.txt": b"old", "b/file": b"x"}


def test_after_the_cut_nothing_works_any_more(root: Path) -> None:
    disk = PowerDisk(root, 0)
    for _ in range(2):
        with pytest.raises(PowerCut):
            disk.write(root / "new.txt", b"new")
    assert (root / "new.txt").read_bytes() == b"n", "only the first one began"
