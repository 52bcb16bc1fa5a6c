"""Which deltas a release is offered with, where making them goes wrong."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.bundle import Manifest
from model_server.releases.blobs import Blobs
from model_server.releases.delta import make_delta
from model_server.releases.delta.offering import DeltaLimits, Older, offer_deltas
from model_server.releases.delta.process import Make
from model_server.releases.watch import UNWATCHED, Watch
from model_server.storage.folder import FolderStorage
from tests.support import bundles

RANDOM = np.random.default_rng(1)
VALUES = RANDOM.normal(0, 0.05, 10_000)
FILES = {
    release: (VALUES * (1 + 0.001 * release * RANDOM.normal(0, 1, 10_000))).astype(np.float32).tobytes()
    for release in (1, 2, 3)
}


# At the top of the module, for the other process to find them.


def fails_over_release_1(old: bytes, new: bytes) -> bytes:
    if old == FILES[1]:
        raise ArithmeticError("a codec stumbles")
    return make_delta(old, new)


def makes_another_file(old: bytes, new: bytes) -> bytes:
    return make_delta(old, new[:-1] + bytes([new[-1] ^ 1]))


def makes_a_shorter_file(old: bytes, new: bytes) -> bytes:
    return make_delta(old, new[:-1])


def dies(old: bytes, new: bytes) -> bytes:
    os._exit(9)


def takes_for_ever_over_release_1(old: bytes, new: bytes) -> bytes:
    if old == FILES[1]:
        time.sleep(600)
    return make_delta(old, new)


def holds_a_lock(old: bytes, new: bytes) -> bytes:
    with Path("lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        Path("locked").touch()
        time.sleep(600)
    return b""


class Cancelled(Exception):
    pass


class Impatient:
    """Wants nothing more once the second delta is being made."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.looked = 0

    def about(self, model: str, release: int) -> None:
        pass

    def at(self, stage: str, step: int = 0, steps: int = 0) -> None:
        self.seen.append(f"{stage} {step} of {steps}")

    def check(self) -> None:
        if len(self.seen) == 2:
            raise Cancelled


def manifest(release: int) -> Manifest:
    data = FILES[release]
    artifact = dataclasses.replace(
        bundles.manifest().artifacts[0], bytes=len(data), sha256=hashlib.sha256(data).hexdigest()
    )
    return dataclasses.replace(bundles.manifest(), release=release, artifacts=(artifact,))


def offered(
    tmp_path: Path, make: Make | None, limits: DeltaLimits | None = None, watch: Watch = UNWATCHED
) -> list[int]:
    """The releases that release 3 has deltas from."""
    blobs = Blobs(FolderStorage(tmp_path))
    for data in FILES.values():
        blobs.put(data)
    older = [Older(release=release, manifest=manifest(release)) for release in (1, 2)]
    found = offer_deltas(manifest(3), older, blobs, limits or DeltaLimits(), watch, make)
    return [delta.from_release for delta in found]


def test_every_older_release_gets_one(tmp_path: Path) -> None:
    assert offered(tmp_path, None) == [2, 1]


def test_one_that_cannot_be_made_is_left_out_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert offered(tmp_path, fails_over_release_1) == [2]
    assert "from release 1" in caplog.text
    assert "a codec stumbles" in caplog.text


@pytest.mark.parametrize("make", [makes_another_file, makes_a_shorter_file, dies])
def test_none_is_offered_that_does_not_make_its_file(tmp_path: Path, make: Make) -> None:
    assert offered(tmp_path, make) == []


def test_a_file_that_is_gone_costs_its_own_delta_only(tmp_path: Path) -> None:
    blobs = Blobs(FolderStorage(tmp_path))
    for release in (2, 3):
        blobs.put(FILES[release])
    older = [Older(release=release, manifest=manifest(release)) for release in (1, 2)]
    assert [delta.from_release for delta in offer_deltas(manifest(3), older, blobs, DeltaLimits())] == [2]


def test_one_that_takes_too_long_is_cut_off_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert offered(tmp_path, takes_for_ever_over_release_1, DeltaLimits(seconds=3)) == [2]
    assert "longer than 3 s" in caplog.text


def test_who_wants_none_any_more_does_not_wait_for_the_one_that_is_made(tmp_path: Path) -> None:
    watch = Impatient()
    with pytest.raises(Cancelled):
        offered(tmp_path, takes_for_ever_over_release_1, watch=watch)
    assert watch.seen == ["delta 1 of 2", "delta 2 of 2"]
    assert multiprocessing.active_children() == []


def test_a_server_that_is_killed_leaves_no_process_behind(tmp_path: Path) -> None:
    for release in (1, 3):
        (tmp_path / f"{release}").write_bytes(FILES[release])
    code = (
        "from pathlib import Path; from model_server.releases.delta.process import PatchMaker;"
        "from tests.unit.model_server.releases.test_offering import holds_a_lock as make;"
        "PatchMaker(make).patch(Path('1'), Path('3'), None, limit_s=600, check=lambda: None)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    server = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=environment)
    deadline = time.monotonic() + 60
    while not (tmp_path / "locked").exists():
        assert server.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    server.kill()
    server.wait()
    with (tmp_path / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel gives it once the process is gone
