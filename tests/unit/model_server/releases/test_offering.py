"""Which deltas a release is offered with, where making them goes wrong."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.bundle import Manifest
from model_server.releases.blobs import Blobs
from model_server.releases.delta import make_delta
from model_server.releases.delta.offering import DeltaLimits, Make, Older, offer_deltas
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


def manifest(release: int) -> Manifest:
    data = FILES[release]
    artifact = dataclasses.replace(
        bundles.manifest().artifacts[0], bytes=len(data), sha256=hashlib.sha256(data).hexdigest()
    )
    return dataclasses.replace(bundles.manifest(), release=release, artifacts=(artifact,))


def offered(tmp_path: Path, make: Make | None) -> list[int]:
    """The releases that release 3 has deltas from."""
    blobs = Blobs(FolderStorage(tmp_path))
    for data in FILES.values():
        blobs.put(data)
    older = [Older(release=release, manifest=manifest(release)) for release in (1, 2)]
    return [delta.from_release for delta in offer_deltas(manifest(3), older, blobs, DeltaLimits(), make=make)]


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
