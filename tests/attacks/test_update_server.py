"""What a server, or whoever sits on the way to it, can do to a device, in the spirit of TUF's conformance suite.

Each test: a legitimate step, the attack, the outcome, what is still trusted, and that the running release answers.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

import numpy as np
import pytest
from securesystemslib.signer import Signature
from tuf.api.metadata import Metadata, MetaFile

from devices.repository import TufRepository, signer
from devices.static_server import Handler
from edge_runtime.errors import Outcome
from edge_runtime.session import Session
from edge_runtime.update import fetcher
from edge_runtime.update.plan import State
from tests.support import tiny
from tests.support.world import RELEASES, ManualClock, TestDevice, World

REJECTED, EXPIRED = Outcome.METADATA_REJECTED, Outcome.METADATA_EXPIRED
PLAN = "rollouts/stable/tiny.json"


@pytest.fixture
def device(world: World) -> TestDevice:
    """A device that runs release 2, which it took in a legitimate way."""
    made = world.device()
    assert made.check().outcome is Outcome.INSTALLED
    made.commit()
    return made


def trusted(device: TestDevice) -> dict[str, int]:
    """The version of every role that the device trusts."""
    files = (device.folder / "metadata").glob("*.json")
    return {file.stem: int(json.loads(file.read_bytes())["signed"]["version"]) for file in files}


def answers(device: TestDevice, release: int = 2) -> None:
    """The release that runs still gives its right answers."""
    slot = device.store.slot(release)
    session = Session.load(slot.manifest, slot.artifact, slot.read_artifact())
    examples = tiny.windows(3)
    logits = session.run({"window": examples})["logits"]
    assert np.allclose(logits, tiny.expected(examples, RELEASES[release].manifest.release), atol=1e-4)
    session.close()


def stands(device: TestDevice, outcome: Outcome, moved: Mapping[str, int] | None = None) -> None:
    """Two checks, with a restart, end in ``outcome``; what is trusted is what was before, but for what ``moved``."""
    before = trusted(device)
    for _ in range(2):
        result = device.check()
        assert (result.outcome, result.active) == (outcome, 2), result.detail
        device.restart()
    assert trusted(device) == before | (moved or {})
    answers(device)


# Rollback, and rotations of keys


def rotated(repository: TufRepository, role: str, count: int) -> None:
    """The next root gives ``role`` new keys."""
    for old in list(repository.root.roles[role].keyids):
        repository.root.revoke_key(old, role)
    repository.signers[role] = [signer() for _ in range(count)]
    for key in repository.signers[role]:
        repository.root.add_key(key.public_key, role)


@pytest.mark.parametrize(("old", "new"), [(1, 2), (2, 1), (2, 0), (0, 2), (1, 1)])
def test_a_root_needs_enough_old_keys_and_enough_new_ones(world: World, device: TestDevice, old: int, new: int) -> None:
    repository = world.repository
    before = repository.signers["root"]
    rotated(repository, "root", 2)
    after = repository.signers["root"]
    repository.root.version = 2
    repository.signers["root"] = before[:old] + after[:new]
    repository.publish_root()
    repository.publish_timestamp()
    stands(device, REJECTED)
    repository.signers["root"] = before + after
    repository.publish_root()
    assert device.check().outcome is Outcome.UNCHANGED
    assert trusted(device)["root"] == 2


@pytest.mark.parametrize("version", [1, 2, 4])
def test_a_root_neither_goes_back_nor_leaves_one_out(world: World, device: TestDevice, version: int) -> None:
    repository = world.repository
    repository.root.version = 2
    repository.publish_root()
    repository.publish_timestamp()
    assert device.check().outcome is Outcome.UNCHANGED
    repository.root.version = version
    (repository.metadata / "3.root.json").write_bytes(repository.sign("root", repository.root))
    repository.publish_timestamp()
    stands(device, REJECTED)
    assert trusted(device)["root"] == 2


def test_a_fast_forward_with_a_stolen_timestamp_key_ends_when_the_key_is_rotated(
    world: World, device: TestDevice
) -> None:
    repository = world.repository
    stolen = repository.signers["timestamp"]
    repository.timestamp.version = 2**31 - 2
    repository.publish_timestamp()
    assert device.check().outcome is Outcome.UNCHANGED
    repository.timestamp.version = 10
    repository.publish_timestamp()
    stands(device, REJECTED)  # a rollback, as far as the device can tell
    rotated(repository, "timestamp", 1)
    repository.root.version = 2
    repository.publish_root()
    repository.publish_timestamp()
    assert device.check().outcome is Outcome.UNCHANGED
    assert (trusted(device)["root"], trusted(device)["timestamp"]) == (2, 12)
    own, repository.signers["timestamp"] = repository.signers["timestamp"], stolen
    repository.timestamp.version = 2**31 - 2
    repository.publish_timestamp()
    stands(device, REJECTED)
    repository.signers["timestamp"], repository.timestamp.version = own, 12
    repository.publish_timestamp()
    assert device.check().outcome is Outcome.UNCHANGED


def test_old_release_managers_sign_nothing_after_their_keys_were_rotated(world: World, device: TestDevice) -> None:
    repository = world.repository
    before = repository.signers["releases-tiny"]
    keys = [signer(), signer()]
    repository.delegate("releases-tiny", keys, 2, ["models/tiny/*", "models/tiny/*/*"])
    repository.publish()
    assert device.check().outcome is Outcome.UNCHANGED
    repository.signers["releases-tiny"] = [before[0], keys[0]]
    repository.add_release(RELEASES[3])
    world.plan(candidate=3)
    stands(device, REJECTED, moved=online(repository))


def online(repository: TufRepository) -> dict[str, int]:
    """What a device takes before it comes to the role that it refuses."""
    return {"timestamp": repository.timestamp.version, "snapshot": repository.snapshot.version}


# Freeze


def test_a_server_that_says_not_modified_for_ever_is_believed_for_a_day(world: World, device: TestDevice) -> None:
    world.server.faults["/metadata/timestamp.json"] = lambda handler: handler.send(304, b"")
    assert device.check().outcome is Outcome.UNCHANGED
    world.plan(state=State.HALTED)
    assert device.check().outcome is Outcome.UNCHANGED  # withheld, and nobody can know it yet
    world.clock.advance(25 * 3600)
    stands(device, EXPIRED)


def test_when_everything_has_expired_what_runs_goes_on_and_new_signatures_end_it(
    world: World, device: TestDevice
) -> None:
    repository = world.repository
    world.clock.advance(400 * 24 * 3600)
    stands(device, EXPIRED)
    for signed in (repository.root, repository.snapshot, repository.timestamp, *repository.roles.values()):
        signed.expires = world.clock.now + timedelta(days=1)
    repository.root.version = 2
    repository.publish_root()
    repository.publish()
    assert device.check().outcome is Outcome.UNCHANGED


def test_an_expired_root_on_the_way_to_a_good_one_is_no_obstacle_and_the_last_one_is(
    world: World, device: TestDevice
) -> None:
    repository = world.repository
    good = repository.root.expires
    for version, expires in ((2, world.clock.now - timedelta(days=1)), (3, good)):
        repository.root.version, repository.root.expires = version, expires
        repository.publish_root()
    repository.publish_timestamp()
    assert device.check().outcome is Outcome.UNCHANGED
    assert trusted(device)["root"] == 3
    repository.root.version, repository.root.expires = 4, world.clock.now - timedelta(days=1)
    repository.publish_root()
    repository.publish_timestamp()
    stands(device, EXPIRED, moved={"root": 4})


# Mix and match


@pytest.mark.parametrize("role", ["releases", "rollouts"])
@pytest.mark.parametrize("named", [True, False])
def test_another_models_role_under_the_same_keys_is_not_taken_for_this_one(
    world: World, device: TestDevice, role: str, named: bool
) -> None:
    """As everywhere, the same people and the same server sign two models. Nothing here needs a key."""
    repository = world.repository
    ours, other = f"{role}-tiny", f"{role}-other"
    paths = {"releases": ["models/other/*", "models/other/*/*"], "rollouts": ["rollouts/*/other.json"]}[role]
    repository.delegate(other, repository.signers[ours], len(repository.signers[ours]), paths)
    if not named:  # as repositories were made before a role said its name
        repository.roles[other].unrecognized_fields.clear()
        repository.add_target(other, paths[0].replace("*", "x", 1), b"{}")
    repository.set_policy("tiny", revoked=[9])
    world.plan(state=State.HALTED)
    repository.roles[other].version = repository.roles[ours].version
    (repository.metadata / f"{repository.roles[ours].version}.{ours}.json").write_bytes(
        repository.sign(other, repository.roles[other])
    )
    repository.publish_timestamp()
    before = trusted(device)
    for _ in range(2):
        result = device.check()
        assert (result.outcome, result.active) == (REJECTED, 2), result.detail
        device.restart()
    assert device.updater.plan is not None
    assert trusted(device)["root"] == before["root"]
    answers(device)


@pytest.mark.parametrize("role", ["targets", "releases-tiny", "rollouts-tiny"])
def test_an_old_role_under_a_new_number_is_not_taken_for_the_new_one(
    world: World, device: TestDevice, role: str
) -> None:
    repository = world.repository
    old = (repository.metadata / f"{repository.roles[role].version}.{role}.json").read_bytes()
    repository.roles[role].expires += timedelta(hours=1)
    repository.publish()
    (repository.metadata / f"{repository.roles[role].version}.{role}.json").write_bytes(old)
    stands(device, REJECTED, moved=online(repository))


@pytest.mark.parametrize("what", ["shorter", "longer", "another hash"])
def test_a_snapshot_of_another_length_or_hash_than_the_timestamp_says_is_not_believed(
    world: World, device: TestDevice, what: str
) -> None:
    repository = world.repository
    world.plan(state=State.HALTED)
    meta = repository.timestamp.snapshot_meta
    assert meta.length is not None
    assert meta.hashes is not None
    length = meta.length + {"shorter": -1, "longer": 1, "another hash": 0}[what]
    hashes = {"sha256": "0" * 64} if what == "another hash" else dict(meta.hashes)
    repository.timestamp.snapshot_meta = MetaFile(meta.version, length, hashes)
    repository.publish_timestamp()
    stands(device, REJECTED, moved={"timestamp": repository.timestamp.version})


# Delegations


@pytest.mark.parametrize("role", ["targets", "releases-tiny", "rollouts-tiny"])
def test_a_role_that_nobody_signed_is_not_believed(world: World, device: TestDevice, role: str) -> None:
    repository = world.repository
    copied = Metadata.from_bytes(repository.sign(role, repository.roles[role])).signatures
    keyids = list(copied)
    forgeries = {
        "none": {},
        "empty": {keyid: Signature(keyid, "") for keyid in keyids},
        "of what the role said before": copied,
        "by nobody": {"f" * 64: Signature("f" * 64, copied[keyids[0]].signature)},
    }
    for signatures in forgeries.values():
        repository.roles[role].expires += timedelta(hours=1)
        repository.publish()
        forged = Metadata(repository.roles[role], signatures)
        (repository.metadata / f"{repository.roles[role].version}.{role}.json").write_bytes(forged.to_bytes())
        stands(device, REJECTED, moved=online(repository))


def test_a_role_that_delegates_further_makes_nobody_trusted(world: World, device: TestDevice) -> None:
    """The online key's thief delegates the plan to a key of their own, and releases too."""
    repository = world.repository
    repository.delegate("accomplice", [signer()], 1, ["rollouts/*/*", "models/*/*/*"])
    delegations = repository.targets.delegations
    assert delegations is not None
    assert delegations.roles is not None
    key = repository.signers["accomplice"][0].public_key
    inner = type(delegations)({key.keyid: key}, {"accomplice": delegations.roles.pop("accomplice")})
    del delegations.keys[key.keyid]
    repository.roles["rollouts-tiny"].delegations = inner
    plan = repository.roles["rollouts-tiny"].targets.pop(PLAN)
    repository.roles["accomplice"].targets[PLAN] = plan
    repository.publish()
    for _ in range(2):
        assert device.check().outcome is Outcome.NO_PLAN
        device.restart()
    assert "accomplice" not in trusted(device)
    answers(device)


# Slow retrieval


class Slow(ManualClock):
    """Between two looks at it, 20 seconds pass."""

    def boot(self) -> float:
        self.advance(20)
        return super().boot()


@contextmanager
def dripping(world: World, path: str) -> Iterator[None]:
    """The server sends the file a byte at a time."""
    done = threading.Event()

    def fault(handler: Handler) -> None:
        data = (world.server.folder / path.lstrip("/")).read_bytes()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.close_connection = True
        for byte in data:
            handler.wfile.write(bytes([byte]))
            if done.wait(0.005):
                return

    world.server.faults[path] = fault
    yield
    done.set()
    world.server.faults.clear()


@pytest.mark.parametrize("what", ["timestamp", "snapshot", "releases-tiny", "plan", "manifest", "artifact"])
def test_a_server_that_drips_holds_a_device_for_a_bounded_time_only(
    world: World, device: TestDevice, what: str
) -> None:
    repository = world.repository
    repository.add_release(RELEASES[3])
    world.plan(candidate=3)
    files = {
        "timestamp": "/metadata/timestamp.json",
        "snapshot": f"/metadata/{repository.snapshot.version}.snapshot.json",
        "releases-tiny": f"/metadata/{repository.roles['releases-tiny'].version}.releases-tiny.json",
        "plan": repository.url_path(PLAN),
        "manifest": repository.url_path("models/tiny/3/manifest.json"),
        "artifact": repository.url_path("models/tiny/3/tiny-fp32.onnx"),
    }
    device.clock = Slow(now=world.clock.now)
    device.restart()
    with dripping(world, files[what]):
        result = device.check()
        outcome = Outcome.DOWNLOAD_FAILED if what == "artifact" else Outcome.SERVER_UNREACHABLE
        assert (result.outcome, result.active) == (outcome, 2), result.detail
        assert "slowly" in result.detail
        answers(device)
    device.clock = world.clock
    device.restart()
    result = device.check()
    assert (result.outcome, result.active) == (Outcome.INSTALLED, 3)
    answers(device, 3)


def test_framing_that_never_becomes_a_byte_is_cut_off(
    world: World, device: TestDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk's extension, a byte at a time: no chunk ever comes, at which one could look at the clock."""
    monkeypatch.setattr(fetcher, "GRACE_S", 0.2)
    done, ended = threading.Event(), threading.Event()

    def fault(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.close_connection = True
        handler.wfile.write(b"1;")
        for _ in range(300):
            if done.wait(0.02):
                return
            handler.wfile.write(b"x")
        ended.set()

    world.server.faults["/metadata/timestamp.json"] = fault
    stands(device, Outcome.SERVER_UNREACHABLE)
    assert not ended.is_set()
    done.set()
    world.server.faults.clear()
    assert device.check().outcome is Outcome.UNCHANGED


# A server that answers something else


def test_a_redirect_is_not_followed(world: World, device: TestDevice) -> None:
    target = f"{world.server.url}/elsewhere"
    world.server.faults["/metadata/timestamp.json"] = lambda handler: handler.send(302, b"", Location=target)
    stands(device, Outcome.SERVER_UNREACHABLE)
    assert "/elsewhere" not in world.server.paths()


def test_an_etag_that_no_server_takes_back_does_not_end_a_download(world: World, device: TestDevice) -> None:
    """It comes with the beginning of a file, and would go with every request for the rest of it."""
    repository = world.repository
    repository.add_release(RELEASES[3])
    world.plan(candidate=3)
    path = repository.url_path("models/tiny/3/tiny-fp32.onnx")
    data = (world.server.folder / path.lstrip("/")).read_bytes()
    world.server.faults[path] = lambda handler: handler.send(200, data, length=100, ETag='"' + "x" * 9000 + '"')
    result = device.check()
    assert (result.outcome, result.active) == (Outcome.DOWNLOAD_FAILED, 2)
    answers(device)

    def strict(handler: Handler) -> None:
        large = sum(len(value) for value in handler.headers.values()) > 8192
        handler.send(431, b"") if large else handler.send_file(data)

    world.server.faults[path] = strict
    assert device.check().outcome is Outcome.INSTALLED
    answers(device, 3)
