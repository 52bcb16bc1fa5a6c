"""The record of what was verified, which makes the next check one request."""

from __future__ import annotations

import dataclasses
import hashlib
from datetime import timedelta
from pathlib import Path

import pytest

from edge_runtime.disk import RealDisk, sealed
from edge_runtime.update.conditional import Scope, Verified, load, save, unchanged
from edge_runtime.update.fetcher import Answer
from edge_runtime.update.plan import PARTS
from tests.support.disks import RecordingDisk
from tests.support.world import NOW, PLAN

SCOPE = Scope(server="https://s", root_sha256="1" * 64, model="tiny", channel="stable")
RECORD = Verified(
    timestamp_sha256=hashlib.sha256(b"timestamp").hexdigest(),
    etag='"abc"',
    expires=NOW + timedelta(days=1),
    plan=PLAN,
    ceilings={1: (), 2: ((0, 1), (3600, PARTS))},
)


def test_a_record_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "verified.json"
    for record in (RECORD, dataclasses.replace(RECORD, plan=None, etag=None, ceilings={})):
        save(RealDisk(), path, SCOPE, record)
        assert load(RealDisk(), path, SCOPE) == record


def test_the_same_record_is_not_written_twice(tmp_path: Path) -> None:
    disk = RecordingDisk()
    save(disk, tmp_path / "verified.json", SCOPE, RECORD)
    disk.log.clear()
    save(disk, tmp_path / "verified.json", SCOPE, RECORD)
    assert disk.log == []


@pytest.mark.parametrize("changed", ["server", "root_sha256", "model", "channel"])
def test_a_record_about_something_else_says_nothing(tmp_path: Path, changed: str) -> None:
    save(RealDisk(), tmp_path / "verified.json", SCOPE, RECORD)
    assert load(RealDisk(), tmp_path / "verified.json", dataclasses.replace(SCOPE, **{changed: "2" * 64})) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", 2),
        ("expires", "tomorrow"),
        ("plan", "{}"),
        ("plan", 5),
        ("timestamp_sha256", ""),
        ("ceilings", [[1, [[0]]]]),
        ("etag", 5),
    ],
)
def test_a_damaged_record_says_nothing(tmp_path: Path, key: str, value: object) -> None:
    path = tmp_path / "verified.json"
    assert load(RealDisk(), path, SCOPE) is None
    save(RealDisk(), path, SCOPE, RECORD)
    from edge_runtime.disk import read_sealed

    body = read_sealed(RealDisk(), path)
    assert body is not None
    path.write_bytes(sealed(body | {key: value}))
    assert load(RealDisk(), path, SCOPE) is None


def test_the_record_holds_for_the_identical_timestamp_until_something_expires() -> None:
    same = Answer(status=200, etag=None, body=b"timestamp")
    assert unchanged(RECORD, same, NOW)
    assert unchanged(RECORD, Answer(status=304, etag=None, body=b""), NOW)
    assert not unchanged(RECORD, Answer(status=200, etag=None, body=b"another"), NOW)
    assert not unchanged(RECORD, Answer(status=200, etag='"abc"', body=b""), NOW)
    assert not unchanged(RECORD, same, RECORD.expires)
    assert not unchanged(RECORD, Answer(status=304, etag=None, body=b""), RECORD.expires)
