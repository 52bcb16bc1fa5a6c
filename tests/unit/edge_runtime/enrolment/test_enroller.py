"""A device that enrols: one key whatever happens, one word about a refusal, and time that follows nobody but itself."""

from __future__ import annotations

import itertools
import json
import logging
import pickle
import stat
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from devices.static_server import StaticServer, serve
from edge_runtime.authorization import send
from edge_runtime.disk import Disk, RealDisk
from edge_runtime.enrolment.enroller import Enroller
from edge_runtime.enrolment.key import load_key, load_or_make_key
from edge_runtime.enrolment.options import Enrolment
from edge_runtime.enrolment.protocol import audience, from_base64url, statement
from edge_runtime.errors import StoreLocked
from edge_runtime.update.fetcher import default_client
from edge_runtime.waits import Waits
from tests.support.disks import FullDisk, RecordingDisk
from tests.support.world import ManualClock

ROOT = b"root metadata"
TOKEN = "ese_secret"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StaticServer]:
    with serve(tmp_path) as running:
        yield running


class Device:
    """`open` is what a new process does."""

    def __init__(self, folder: Path, server: StaticServer, *, disk: Disk | None = None) -> None:
        self.folder, self.server = folder, server
        self.clock = ManualClock()
        self.client = default_client("http://")
        self.refusals: list[str] = []
        self.let_in()
        self.open(disk=disk)

    def let_in(self) -> None:
        self.server.answers = [(201, {}, b'{"device": "watch", "new": true}')]

    def open(self, *, token: str | None = TOKEN, disk: Disk | None = None, root: bytes = ROOT) -> None:
        disk = disk or RealDisk()
        disk.mkdir(self.folder)
        self.enroller = Enroller(
            folder=self.folder,
            disk=disk,
            clock=self.clock,
            waits=Waits(self.folder, disk, self.clock, lambda least, most: least),
            device="watch",
            server=self.server.url,
            root=root,
            token=token,
            refusal=self.refusals.append,
        )

    def ready(self) -> bool:
        return self.enroller.ready(self.client)

    def asked(self) -> list[dict[str, Any]]:
        return [json.loads(body) for path, body in self.server.posts if path == "/v1/devices"]


@pytest.fixture
def device(tmp_path: Path, server: StaticServer) -> Device:
    return Device(tmp_path / "state", server)


def test_a_device_proves_that_it_has_the_key_and_signs_by_it_from_then_on(device: Device) -> None:
    assert device.ready()
    (asked,) = device.asked()
    key = Ed25519PublicKey.from_public_bytes(from_base64url(asked["public_key"]))
    signed = statement(TOKEN, "watch", from_base64url(asked["public_key"]))
    key.verify(from_base64url(asked["proof"]), signed)
    header = device.enroller.header(b"a body") or ""
    claims = jwt.decode(
        header.removeprefix("Edgeship-Device "),
        key,
        algorithms=["EdDSA"],
        audience=audience(ROOT),
        options={"verify_exp": False, "verify_iat": False},
    )
    assert (claims["iss"], claims["sub"], claims["exp"] - claims["iat"]) == ("watch", "watch", 300)
    assert device.ready()
    device.open(token=None)
    assert device.ready()
    assert len(device.asked()) == 1


def test_the_key_is_on_the_disk_before_it_is_sent_and_only_its_owner_may_read_it(
    tmp_path: Path, server: StaticServer
) -> None:
    disk = RecordingDisk()
    device = Device(tmp_path / "state", server, disk=disk)
    server.answers = [(500, {}, b"")]
    assert not device.ready()
    kept = [entry for entry in disk.log if entry[0] in ("write", "rename", "fsync")]
    assert kept == [("write", ".device-key.json.new"), ("rename", "device-key.json"), ("fsync", "state")]
    assert stat.S_IMODE((device.folder / "device-key.json").stat().st_mode) == 0o600


def test_a_left_over_that_all_may_read_does_not_become_the_key_file(tmp_path: Path) -> None:
    left_over = tmp_path / ".device-key.json.new"
    left_over.write_bytes(b"")
    left_over.chmod(0o644)
    load_or_make_key(tmp_path, RealDisk())
    assert stat.S_IMODE((tmp_path / "device-key.json").stat().st_mode) == 0o600


class PowerCut(BaseException):
    pass


class CutDisk(RecordingDisk):
    def __init__(self, at: int) -> None:
        super().__init__()
        self.left = at

    def before(self, operation: str, path: Path) -> None:
        if self.left == 0:
            raise PowerCut
        self.left -= 1


def test_a_power_cut_anywhere_leaves_a_device_that_enrols_with_the_key_that_it_may_have_sent(
    tmp_path: Path, server: StaticServer
) -> None:
    cuts = 0
    while True:
        device = Device(tmp_path / str(cuts), server)
        before = len(device.asked())
        try:
            device.open(disk=CutDisk(cuts))
            device.ready()
        except PowerCut:
            cuts += 1
        else:
            break
        device.open()
        assert device.ready()
        assert len({asked["public_key"] for asked in device.asked()[before:]}) == 1
    assert cuts >= 6  # the key's three steps and the record's


def test_a_full_disk_reaches_nobody_and_the_device_goes_on_later(tmp_path: Path, server: StaticServer) -> None:
    device = Device(tmp_path / "state", server)
    device.open(disk=FullDisk(0))
    assert not device.ready()
    assert "no space left" in device.enroller.record.detail
    assert device.asked() == []
    device.open()
    assert device.ready()


def test_a_refusal_is_said_once_and_asked_about_ever_less_often(device: Device) -> None:
    device.server.answers = [(403, {}, b'{"detail": "this token was for 5 devices"}')]
    times = []
    for _ in range(100):
        before = len(device.asked())
        assert not device.ready()
        device.open()  # a restart does not make it forget
        if len(device.asked()) > before:
            times.append(device.clock.boot())
        device.clock.advance(1800)
    assert [(b - a) / 3600 for a, b in itertools.pairwise(times)] == [1, 2, 4, 8, 16]
    assert device.refusals == ["it answered 403: this token was for 5 devices"]
    assert device.enroller.record.state == "refused"
    device.let_in()
    device.open(token="ese_another")  # is tried at once
    assert device.ready()


def test_a_server_that_is_away_is_not_hammered(device: Device) -> None:
    device.server.answers = [(500, {}, b"")]
    for _ in range(100):
        assert not device.ready()
        device.clock.advance(10)
    assert 3 <= len(device.asked()) <= 7
    device.let_in()
    device.clock.advance(1800)
    assert device.ready()


def test_a_server_may_ask_a_device_that_enrols_to_wait(device: Device) -> None:
    device.server.answers = [(429, {"Retry-After": "600"}, b"")]
    assert not device.ready()
    device.let_in()
    device.open()
    device.clock.advance(599)
    assert not device.ready()
    device.clock.advance(1)
    assert device.ready()


def test_an_answer_about_another_device_is_not_believed(device: Device) -> None:
    for body in (b'{"device": "other"}', b"", b"[" * 10_000, b'"watch"'):
        device.server.answers = [(200, {}, body)]
        assert not device.ready()
        device.clock.advance(3600)
    device.let_in()
    assert device.ready()


def test_what_enrolled_for_one_server_says_nothing_to_another(device: Device, tmp_path: Path) -> None:
    assert device.ready()
    with serve(tmp_path) as other:
        device.server = other
        device.let_in()
        device.open()
        assert device.ready()
        assert len(device.asked()) == 1


def test_an_app_that_comes_with_a_newer_root_stays_enrolled(device: Device) -> None:
    assert device.ready()
    device.open(token=None, root=b"the next root")
    assert device.ready()
    assert len(device.asked()) == 1
    assert device.enroller.record.repository == audience(b"the next root")


def post(device: Device, body: bytes = b"x") -> int:
    url = f"{device.server.url}/v1/outcomes"
    return send(device.client, url, body, "text/plain", 10, device.enroller).status_code


def issued(header: str) -> int:
    claims = jwt.decode(header.removeprefix("Edgeship-Device "), options={"verify_signature": False})
    return int(claims["iat"])


def test_a_wrong_clock_is_corrected_in_what_is_signed_and_nowhere_else(device: Device) -> None:
    assert device.ready()
    before = device.clock.wall()
    there = before + timedelta(days=4000)
    device.server.now = lambda: there
    device.server.answers = [(401, {}, b""), (202, {}, b"")]
    assert post(device) == 202
    first, second = [headers["authorization"] for _, path, headers in device.server.requests if path == "/v1/outcomes"]
    assert issued(first) == int(before.timestamp())
    assert issued(second) == int(there.timestamp())
    assert device.clock.wall() == before
    assert issued(device.enroller.header(b"next") or "") == int(there.timestamp())


def test_a_refusal_for_another_reason_is_not_tried_again_at_once_and_makes_the_device_enrol_anew(
    device: Device,
) -> None:
    assert device.ready()
    device.server.now = device.clock.wall
    device.server.answers = [(401, {}, b"")]
    device.server.clear()
    assert post(device) == 401
    assert len(device.server.posts) == 1
    device.let_in()
    assert not device.ready()
    device.clock.advance(60)
    assert device.ready()
    assert len(device.asked()) == 1
    assert device.refusals == []


@pytest.mark.parametrize("date", ["", "soon", "Sat, 99 Nov 9999 99:99:99 GMT", "x" * 10_000])
def test_a_date_that_is_none_changes_nothing(device: Device, date: str) -> None:
    assert device.ready()
    assert not device.enroller.corrected({"Date": date})
    assert issued(device.enroller.header(b"") or "") == int(device.clock.wall().timestamp())


def test_a_private_key_is_in_no_text_and_cannot_be_pickled(device: Device, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    assert device.ready()
    key = load_key(device.folder, RealDisk())
    assert key is not None
    secret = json.loads((device.folder / "device-key.json").read_bytes())["ed25519"]
    shown = [repr(key), str(key), repr(Enrolment(token=TOKEN)), repr(device.enroller.record), caplog.text]
    shown += [(device.folder / "enrolment.json").read_text(), *(str(asked) for asked in device.asked())]
    for text in shown:
        assert secret not in text
        assert from_base64url(secret).hex() not in text
    assert TOKEN not in "".join(shown[:6])
    with pytest.raises(TypeError):
        pickle.dumps(key)


def test_a_damaged_key_is_replaced_and_the_server_decides(device: Device) -> None:
    assert device.ready()
    (device.folder / "device-key.json").write_bytes(b"{}")
    device.open()
    device.server.answers = [(409, {}, b'{"detail": "enrolled with another key"}')]
    assert not device.ready()
    assert device.refusals == ["it answered 409: enrolled with another key"]


def test_two_runtimes_of_one_device_make_one_key(tmp_path: Path) -> None:
    disk = RealDisk()
    unlock = disk.lock(tmp_path / "device-key.lock")
    with pytest.raises(StoreLocked):
        load_or_make_key(tmp_path, disk)
    unlock()
    assert load_or_make_key(tmp_path, disk).public == load_or_make_key(tmp_path, disk).public


def test_a_device_without_a_token_asks_nobody(device: Device) -> None:
    device.open(token=None)
    assert not device.ready()
    assert device.asked() == []
    assert "no enrolment token" in device.enroller.record.detail
    assert device.enroller.header(b"") is None


def test_a_server_that_is_gone_is_no_error(tmp_path: Path) -> None:
    with serve(tmp_path) as server:
        device = Device(tmp_path / "state", server)
    assert not device.ready()
