"""Attacks on a device's signed metadata: a legitimate step, the attack, then the outcome and what is still trusted."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from tuf.api.metadata import DelegatedRole, TargetFile

from devices.repository import same_key, signer
from devices.static_server import Handler
from edge_runtime.bundle import write_manifest
from edge_runtime.errors import Outcome
from edge_runtime.update.plan import PARTS, State
from tests.support.keys import SPELLINGS, respelt
from tests.support.world import PLAN, RELEASES, TestDevice, World


def trusted_version(device: TestDevice, role: str) -> int:
    data = json.loads((device.folder / "metadata" / f"{role}.json").read_bytes())
    return int(data["signed"]["version"])


def attacked(device: TestDevice, expected: Outcome = Outcome.METADATA_REJECTED, running: int | None = 2) -> None:
    """The check ends as expected, and what runs still runs, also after a restart."""
    for _ in range(2):
        result = device.check()
        assert result.outcome is expected, result.detail
        assert result.active == running
        device.restart()
    if running is not None:
        device.store.slot(running).read_artifact()


@pytest.fixture
def device(world: World) -> TestDevice:
    """A device that has taken release 2 in a legitimate way."""
    made = world.device()
    assert made.check().outcome is Outcome.INSTALLED
    made.commit()
    return made


def test_an_old_timestamp_is_not_believed(world: World, device: TestDevice) -> None:
    file = world.repository.metadata / "timestamp.json"
    old = file.read_bytes()
    world.repository.publish_timestamp()
    assert device.check().outcome is Outcome.UNCHANGED
    file.write_bytes(old)
    attacked(device)
    assert trusted_version(device, "timestamp") == world.repository.timestamp.version


def test_an_old_snapshot_is_not_believed(world: World, device: TestDevice) -> None:
    """The thief of the timestamp key points back to a snapshot from before a newer plan."""
    before = world.repository.timestamp.snapshot_meta
    world.plan(state=State.HALTED)
    device.check()
    world.repository.timestamp.snapshot_meta = before
    world.repository.publish_timestamp()
    attacked(device)
    assert trusted_version(device, "snapshot") == world.repository.snapshot.version


def test_a_snapshot_that_takes_a_role_back_is_not_believed(world: World, device: TestDevice) -> None:
    """The thief of the snapshot key brings back the releases role from before a revocation."""
    world.repository.set_policy("tiny", revoked=[9])
    world.repository.publish()
    device.check()
    world.repository.snapshot.meta["releases-tiny.json"].version -= 1
    world.repository.publish_snapshot()
    world.repository.publish_timestamp()
    attacked(device)


def test_a_snapshot_that_leaves_a_role_out_is_not_believed(world: World, device: TestDevice) -> None:
    del world.repository.snapshot.meta["rollouts-tiny.json"]
    world.repository.publish_snapshot()
    world.repository.publish_timestamp()
    attacked(device)


def test_a_frozen_timestamp_is_not_believed_after_its_day(world: World, device: TestDevice) -> None:
    world.clock.advance(23 * 3600)
    assert device.check().outcome is Outcome.UNCHANGED
    world.clock.advance(2 * 3600)
    attacked(device, Outcome.METADATA_EXPIRED)


@pytest.mark.parametrize("role", ["snapshot", "targets", "releases-tiny", "rollouts-tiny", "root"])
def test_any_expired_role_stops_updates_and_not_what_runs(world: World, device: TestDevice, role: str) -> None:
    repository = world.repository
    signed = {"snapshot": repository.snapshot, "root": repository.root, **repository.roles}[role]
    signed.expires = world.clock.now + timedelta(hours=1)
    if role == "root":
        repository.root.version += 1
        repository.publish_root()
    repository.publish()
    assert device.check().outcome is Outcome.UNCHANGED
    world.clock.advance(3600)
    attacked(device, Outcome.METADATA_EXPIRED)


@pytest.mark.parametrize("etag", ['"\xe9"', '"' + "x" * 5000 + '"'])
def test_an_etag_that_cannot_be_sent_back_does_not_end_all_checks(world: World, etag: str) -> None:
    def tagged(handler: Handler) -> None:
        data = (world.server.folder / "metadata" / "timestamp.json").read_bytes()
        handler.send(200, data, ETag=etag)

    device = world.device()
    world.server.faults["/metadata/timestamp.json"] = tagged
    assert device.check().outcome is Outcome.INSTALLED
    assert device.check().outcome is Outcome.UNCHANGED
    device.restart()
    world.server.clear()
    assert device.check().outcome is Outcome.UNCHANGED
    assert len(world.server.requests) == 1  # what was verified is remembered


def test_a_top_level_target_wins_nothing(world: World, device: TestDevice) -> None:
    """TUF alone would take the model from the top-level role, with no release manager's signature."""
    evil = RELEASES[3]
    for name, data in {"manifest.json": write_manifest(evil.manifest), **evil.files}.items():
        world.repository.add_target("targets", f"models/tiny/3/{name}", data)
    world.plan(candidate=3)
    attacked(device)


def test_even_an_unrelated_top_level_target_is_refused(world: World, device: TestDevice) -> None:
    world.repository.add_target("targets", "readme.txt", b"hello")
    world.repository.publish()
    attacked(device)


def test_one_signature_of_two_publishes_nothing(world: World, device: TestDevice) -> None:
    world.repository.add_release(RELEASES[3])
    world.repository.signers["releases-tiny"] = world.repository.signers["releases-tiny"][:1]
    world.plan(candidate=3)
    attacked(device)
    assert not any("models/tiny/3" in path for path in world.server.paths())


def test_the_same_person_signing_twice_publishes_nothing(world: World, device: TestDevice) -> None:
    world.repository.add_release(RELEASES[3])
    alice = world.repository.signers["releases-tiny"][0]
    world.repository.signers["releases-tiny"] = [alice, same_key(alice, "f" * 64)]
    world.plan(candidate=3)
    attacked(device)


def test_one_key_under_two_ids_is_no_threshold_of_two(world: World, device: TestDevice) -> None:
    """TUF alone counts key ids; here the targets managers were made to list one person's key twice."""
    alice = world.repository.signers["releases-tiny"][0]
    world.repository.delegate(
        "releases-tiny", [alice, same_key(alice, "f" * 64)], 2, ["models/tiny/*", "models/tiny/*/*"]
    )
    world.repository.add_release(RELEASES[3])
    world.plan(candidate=3)
    attacked(device)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_one_key_spelt_in_two_ways_is_no_threshold_of_two(world: World, device: TestDevice, spelling: str) -> None:
    alice = SPELLINGS[spelling]()
    again = same_key(alice, "f" * 64)
    again.public_key.keyval["public"] = respelt(alice.public_key.keyval["public"], spelling)
    signature = again.sign(b"signed")
    again.public_key.verify_signature(signature, b"signed")
    world.repository.delegate("releases-tiny", [alice, again], 2, ["models/tiny/*", "models/tiny/*/*"])
    world.repository.add_release(RELEASES[3])
    world.plan(candidate=3)
    attacked(device)


def test_one_key_under_two_ids_in_the_root_is_refused_too(world: World, device: TestDevice) -> None:
    key = world.repository.signers["targets"][0]
    again = same_key(key, "e" * 64)
    for role_key in world.repository.signers["targets"]:
        world.repository.root.revoke_key(role_key.public_key.keyid, "targets")
    for role_key in (key, again):
        world.repository.root.add_key(role_key.public_key, "targets")
    world.repository.signers["targets"] = [key, again]
    world.repository.root.version += 1
    world.repository.publish_root()
    world.repository.publish()
    attacked(device)


def test_a_stranger_signs_nothing(world: World, device: TestDevice) -> None:
    world.repository.add_release(RELEASES[3])
    world.repository.signers["releases-tiny"] = [signer(), signer()]
    world.plan(candidate=3)
    attacked(device)


def test_a_root_that_its_predecessor_did_not_sign_is_not_believed(world: World, device: TestDevice) -> None:
    repository = world.repository
    repository.signers["root"] = [signer(), signer()]
    for key in repository.signers["root"]:
        repository.root.add_key(key.public_key, "root")
    repository.root.version = 2
    repository.publish_root()
    repository.publish_timestamp()
    attacked(device)
    assert trusted_version(device, "root") == 1


def test_the_online_key_cannot_sign_a_release(world: World, device: TestDevice) -> None:
    """The thief of the rollouts key lists a model in its own role: the path was never delegated to it."""
    evil = RELEASES[3]
    for name, data in {"manifest.json": write_manifest(evil.manifest), **evil.files}.items():
        world.repository.add_target("rollouts-tiny", f"models/tiny/3/{name}", data)
    world.plan(candidate=3)
    device.check()
    assert device.active == 2
    assert not any("models/tiny/3" in path for path in world.server.paths())


def test_a_release_manager_cannot_sign_a_plan(world: World, device: TestDevice) -> None:
    plan = world.repository.roles["rollouts-tiny"].targets.pop("rollouts/stable/tiny.json")
    world.repository.roles["releases-tiny"].targets[plan.path] = plan
    world.repository.publish()
    assert device.check().outcome is Outcome.NO_PLAN
    assert device.active == 2


def test_the_managers_of_another_model_cannot_sign_this_one(world: World, device: TestDevice) -> None:
    world.repository.add_model("other")
    evil = RELEASES[3]
    for name, data in {"manifest.json": write_manifest(evil.manifest), **evil.files}.items():
        world.repository.add_target("releases-other", f"models/tiny/3/{name}", data)
    world.plan(candidate=3)
    device.check()
    assert device.active == 2


def test_a_broader_delegation_in_front_of_the_releases_role_wins_nothing(world: World, device: TestDevice) -> None:
    """TUF alone asks delegations in their order; this device asks the one role that may answer."""
    repository = world.repository
    repository.delegate("convenience", [signer()], 1, ["models/*/*", "models/*/*/*", "rollouts/*/*"])
    delegations = repository.targets.delegations
    assert delegations is not None
    assert delegations.roles is not None
    roles: dict[str, DelegatedRole] = {"convenience": delegations.roles.pop("convenience")}
    delegations.roles = roles | delegations.roles
    evil = RELEASES[3]
    for name, data in {"manifest.json": write_manifest(evil.manifest), **evil.files}.items():
        repository.add_target("convenience", f"models/tiny/3/{name}", data)
    world.plan(candidate=3)
    device.check()
    assert device.active == 2


def test_a_delegation_that_does_not_cover_the_path_gives_no_right_to_it(world: World, device: TestDevice) -> None:
    repository = world.repository
    repository.delegate("releases-tiny", repository.signers["releases-tiny"], 2, ["models/tiny/2/*"])
    repository.add_release(RELEASES[3])
    world.plan(candidate=3)
    attacked(device)


@pytest.mark.parametrize("digest", ["../../../../tmp/evil", "", "AB" * 32, "a" * 63])
def test_a_digest_that_is_no_digest_reaches_neither_a_path_nor_an_address(
    world: World, device: TestDevice, digest: str
) -> None:
    """The thief of the online key chooses what stands in its own role."""
    role = world.repository.roles["rollouts-tiny"]
    path = "rollouts/stable/tiny.json"
    role.targets[path] = TargetFile(100, {"sha256": digest} if digest else {"sha512": "0" * 128}, path)
    world.repository.publish()
    world.server.clear()
    attacked(device)
    assert not any(path.startswith("/targets/") for path in world.server.paths())


def test_the_online_keys_move_a_fleet_no_faster_than_the_ceiling(world: World) -> None:
    """Every way that a plan can name a release: as candidate, and as baseline in each state."""
    world.repository.add_release(RELEASES[3], ceiling=[(0, 0), (3600, PARTS)])
    ways: list[dict[str, object]] = [
        {"candidate": 3, "share": PARTS},
        {"candidate": 3, "share": PARTS, "state": State.COMPLETE},
        {"candidate": 2, "baseline": 3, "share": 0},
        {"candidate": 2, "baseline": 3, "state": State.HALTED},
        {"candidate": 2, "baseline": 3, "state": State.ROLLED_BACK},
        {"candidate": 1, "baseline": 3, "state": State.ROLLED_BACK},
    ]
    for i, way in enumerate(ways):
        device = world.device(f"watch-{i}")
        for _ in range(3):
            world.plan(**way)
            device.check()
            assert device.active != 3, way
            world.clock.advance(600)


def test_the_online_keys_cannot_forge_halt_or_aim_below_the_floor(world: World, device: TestDevice) -> None:
    world.repository.set_policy("tiny", min_release=2, revoked=[4])
    world.repository.add_release(RELEASES[4])
    world.repository.publish()
    device.check()
    for plan in (
        {"candidate": 4},
        {"candidate": 4, "state": State.COMPLETE},
        {"candidate": 3, "baseline": 1, "share": 0},
        {"candidate": 2, "baseline": 1, "state": State.ROLLED_BACK},
        {"candidate": 5, "baseline": None},
    ):
        world.plan(**plan)
        device.check()
        assert device.active in (2, None), plan


def test_a_reset_device_may_be_shown_old_metadata_that_has_not_expired(world: World, device: TestDevice) -> None:
    """Known and stated in the threat model: a device without a memory cannot know of a revocation it never saw."""
    old = {file.name: file.read_bytes() for file in world.repository.metadata.iterdir()}
    world.repository.set_policy("tiny", revoked=[2])
    world.repository.publish()
    for name, data in old.items():
        (world.repository.metadata / name).write_bytes(data)
    assert world.device("reset").check().outcome is Outcome.INSTALLED


def hostile(handler: Handler) -> None:
    handler.send(200, b'{"signed":' + b"[" * 5000 + b"]" * 5000 + b',"signatures":[]}')


def endless(handler: Handler) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.close_connection = True
    while True:
        handler.wfile.write(b"x" * 65536)


@pytest.mark.parametrize(
    ("data", "outcome"),
    [
        (b"", Outcome.METADATA_REJECTED),
        (b"\0\xff", Outcome.METADATA_REJECTED),
        (b"{}", Outcome.METADATA_REJECTED),
        (b"[]", Outcome.METADATA_REJECTED),
        (b'{"signed":{"_type":"timestamp"},"signatures":[]}', Outcome.METADATA_REJECTED),
        (b'{"signed":' + b"[" * 5000 + b"]" * 5000 + b',"signatures":[]}', Outcome.METADATA_REJECTED),
        (b"x" * 20_000, Outcome.VERIFICATION_FAILED),
    ],
    ids=["empty", "binary", "object", "list", "bare", "deep", "long"],
)
def test_a_timestamp_that_is_none_changes_nothing(
    world: World, device: TestDevice, data: bytes, outcome: Outcome
) -> None:
    world.server.faults["/metadata/timestamp.json"] = lambda handler: handler.send(200, data)
    attacked(device, outcome)
    world.server.faults.clear()
    assert device.check().outcome is Outcome.UNCHANGED


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "releases-tiny", "rollouts-tiny", "root"])
def test_endless_metadata_is_cut_off(world: World, role: str) -> None:
    device = world.device()
    repository = world.repository
    repository.root.version = 2
    repository.publish_root()
    for file in repository.metadata.glob(f"*{role}.json"):
        world.server.faults[f"/metadata/{file.name}"] = endless
    result = device.check()
    assert result.outcome in (Outcome.METADATA_REJECTED, Outcome.VERIFICATION_FAILED)
    assert device.active == 1
    assert result.bytes < 20_000_000


def damaged(file: Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at % len(data)] ^= 1
    file.write_bytes(bytes(data))


@pytest.mark.parametrize("role", ["timestamp", "2.snapshot", "1.targets", "2.releases-tiny", "2.rollouts-tiny"])
def test_any_changed_byte_of_metadata_is_detected_or_harmless(world: World, role: str) -> None:
    file = world.repository.metadata / f"{role}.json"
    whole = file.read_bytes()
    for i, at in enumerate(range(3, len(whole), max(1, len(whole) // 12))):
        damaged(file, at)
        device = world.device(f"d-{role}-{i}")
        result = device.check()
        assert result.outcome in (Outcome.INSTALLED, Outcome.METADATA_REJECTED, Outcome.UNKNOWN_MODEL), result.detail
        if result.outcome is Outcome.INSTALLED:
            assert device.store.slot(2).read_artifact() == RELEASES[2].files["tiny-fp32.onnx"]
        else:
            assert device.active == 1
        file.write_bytes(whole)
        device.close()


def test_damage_to_the_cached_metadata_is_repaired_by_the_next_full_check(world: World, device: TestDevice) -> None:
    for file in (device.folder / "metadata").glob("*.json"):
        file.write_bytes(b"{")
    (device.folder / "verified.json").write_bytes(b"{")
    device.restart()
    assert device.check().outcome is Outcome.UNCHANGED
    assert trusted_version(device, "snapshot") == world.repository.snapshot.version
    assert PLAN.candidate == 2
