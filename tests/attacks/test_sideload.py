"""Attacks by bundle: a legitimate step, the attack, then the outcome, what still runs and what is still trusted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from devices.repository import TufRepository
from edge_runtime.bundle import (
    PolicyDocument,
    ReleaseDocument,
    open_bundle,
    write_bundle,
    write_manifest,
    write_policy,
    write_release,
)
from edge_runtime.errors import Outcome, StoreLocked
from edge_runtime.store import Store
from edge_runtime.update.plan import State
from tests.support import tiny
from tests.support.sideloading import export, install
from tests.support.update_fixtures import server, world
from tests.support.world import NOW, PLAN, RELEASES, TestDevice, World

__all__ = ["server", "world"]

DAY = 86_400


@pytest.fixture
def device(world: World) -> TestDevice:
    """A device that has taken release 2 from a bundle in a legitimate way. Releases 3 and 4 are published since."""
    made = world.device()
    assert install(made, export(world, 2)).outcome is Outcome.INSTALLED
    made.commit()
    for number in (3, 4):
        world.repository.add_release(RELEASES[number])
    world.repository.publish()
    return made


def trusted(device: TestDevice) -> Mapping[str, int]:
    """The versions that are trusted, by file."""
    folder = device.folder / "metadata"
    return {path.name: json.loads(path.read_bytes())["signed"]["version"] for path in folder.glob("*.json")}


def refused(device: TestDevice, bundle: Path, expected: Outcome, says: str = "", running: int | None = 2) -> None:
    """The installation ends as expected, nothing is trusted less, and what runs still runs, also after a restart."""
    before = trusted(device)
    for _ in range(2):
        result = install(device, bundle)
        assert result.outcome is expected, result.detail
        assert says in result.detail
        assert result.active == running
        assert device.active == running
        device.restart()
    after = trusted(device)
    assert all(after[name] >= version for name, version in before.items())
    if running is not None:
        device.store.slot(running).read_artifact()


def test_a_signed_bundle_is_tried_and_committed_without_a_network(world: World, device: TestDevice) -> None:
    world.server.requests.clear()
    result = install(device, export(world, 3))
    assert (result.outcome, result.release, result.active) == (Outcome.INSTALLED, 3, 3)
    assert device.canary.tried == [2, 3]
    assert device.store.slots.trial is not None
    assert device.previous == 2
    device.commit()
    assert install(device, export(world, 3)).outcome is Outcome.UNCHANGED
    assert world.server.requests == []


# Expiry


def test_an_expired_timestamp_and_snapshot_are_accepted(world: World, device: TestDevice) -> None:
    bundle = export(world, 3)
    world.clock.advance(30 * DAY)
    assert install(device, bundle).outcome is Outcome.INSTALLED


@pytest.mark.parametrize("role", ["targets", "releases-tiny", "root"])
def test_any_other_role_that_expired_is_refused_and_not_trusted(world: World, device: TestDevice, role: str) -> None:
    repository = world.repository
    signed = {"root": repository.root, **repository.roles}[role]
    signed.expires = world.clock.now + timedelta(hours=1)
    if role == "root":
        repository.root.version += 1
        repository.publish_root()
    repository.publish()
    bundle, known = export(world, 3), trusted(device)
    world.clock.advance(3600)
    refused(device, bundle, Outcome.METADATA_EXPIRED, f"{role} expired")
    if role != "root":
        assert trusted(device)[f"{role}.json"] == known[f"{role}.json"]


def test_a_clock_in_1970_brings_no_expired_bundle_back(world: World, device: TestDevice) -> None:
    """The time is never before what is signed on the device."""
    world.repository.targets.expires = NOW - timedelta(days=3)  # before release 2 was made
    world.repository.publish()
    bundle = export(world, 3)
    world.clock.now = NOW.replace(year=1970)
    refused(device, bundle, Outcome.METADATA_EXPIRED)


# Rollback and freeze


def test_a_bundle_older_than_what_a_bundle_brought_is_refused(world: World, device: TestDevice) -> None:
    old = export(world, 3)
    world.repository.set_policy("tiny", revoked=[3])
    world.repository.publish()
    assert install(device, export(world, 4)).outcome is Outcome.INSTALLED
    device.commit()
    refused(device, old, Outcome.METADATA_REJECTED, running=4)
    assert device.store.slots.revoked == (3,)


def test_a_bundle_older_than_what_an_online_check_brought_is_refused(world: World, device: TestDevice) -> None:
    old = export(world, 3)
    world.repository.set_policy("tiny", min_release=4)
    world.plan(candidate=4)
    assert device.check().outcome is Outcome.INSTALLED
    device.commit()
    refused(device, old, Outcome.METADATA_REJECTED, running=4)


def test_a_server_older_than_a_bundle_is_refused_until_it_has_caught_up(world: World, device: TestDevice) -> None:
    """Also where the server says that nothing has changed since the last online check."""
    assert device.check().outcome is Outcome.UNCHANGED
    file = world.repository.metadata / "timestamp.json"
    old = file.read_bytes()
    world.plan(candidate=3)
    bundle, new = export(world, 3), file.read_bytes()
    assert install(device, bundle).outcome is Outcome.INSTALLED
    device.commit()
    file.write_bytes(old)
    for _ in range(2):
        result = device.check()
        assert (result.outcome, result.active) == (Outcome.METADATA_REJECTED, 3)
        device.restart()
    file.write_bytes(new)
    assert device.check().outcome is Outcome.UNCHANGED


def test_the_next_online_check_follows_the_plan_again(world: World, device: TestDevice) -> None:
    assert install(device, export(world, 3)).outcome is Outcome.INSTALLED
    device.commit()
    result = device.check()
    assert (result.outcome, result.active) == (Outcome.INSTALLED, 2), "the plan's candidate"


def test_a_snapshot_that_takes_the_releases_role_back_is_refused(world: World, device: TestDevice) -> None:
    """The thief of the online keys brings the role back from before a revocation."""
    world.repository.set_policy("tiny", revoked=[3])
    world.repository.publish()
    assert install(device, export(world, 3)).outcome is Outcome.REVOKED
    version = world.repository.snapshot.meta["releases-tiny.json"].version
    world.repository.snapshot.meta["releases-tiny.json"].version = version - 1
    world.repository.publish_snapshot()
    world.repository.publish_timestamp()
    refused(device, export(world, 3, changes={"models/tiny/policy.json": None}), Outcome.METADATA_REJECTED)
    assert trusted(device)["releases-tiny.json"] == version


# Floors, revocations, denials


def test_a_revoked_release_is_refused(world: World, device: TestDevice) -> None:
    world.repository.set_policy("tiny", revoked=[3])
    world.repository.publish()
    refused(device, export(world, 3), Outcome.REVOKED)


def test_a_release_below_the_floor_is_refused_and_what_runs_below_it_ends(world: World, device: TestDevice) -> None:
    world.repository.set_policy("tiny", min_release=4)
    world.repository.publish()
    refused(device, export(world, 3), Outcome.REVOKED, running=None)
    assert install(device, export(world, 4)).active == 4


def test_a_floor_that_was_known_before_holds_where_the_trusted_metadata_is_lost(
    world: World, device: TestDevice
) -> None:
    world.repository.set_policy("tiny", min_release=2)
    world.repository.publish()
    old = export(world, 3)
    world.repository.set_policy("tiny", min_release=4, revoked=[9])
    world.repository.publish()
    assert install(device, export(world, 4)).outcome is Outcome.INSTALLED
    device.commit()
    for path in (device.folder / "metadata").glob("*.json"):
        path.unlink()
    refused(device, old, Outcome.REVOKED, running=4)
    assert (device.store.slots.min_release, device.store.slots.revoked) == (4, (9,))


def test_a_bundle_that_leaves_the_signed_policy_out_is_refused(world: World, device: TestDevice) -> None:
    world.repository.set_policy("tiny", revoked=[3])
    world.repository.publish()
    left_out = export(world, 3, changes={"models/tiny/policy.json": None})
    refused(device, left_out, Outcome.VERIFICATION_FAILED, "leaves out models/tiny/policy.json")


def test_a_policy_that_nobody_signed_revokes_nothing(world: World, device: TestDevice) -> None:
    forged = export(
        world, 3, changes={"models/tiny/policy.json": write_policy(PolicyDocument(model="tiny", revoked=(2,)))}
    )
    refused(device, forged, Outcome.VERIFICATION_FAILED, "nobody signed models/tiny/policy.json")
    assert install(device, forged).release is None, "nothing is held against a release by a bundle that did not verify"
    assert device.store.slots.revoked == ()


def test_a_release_that_failed_here_stays_denied(world: World, device: TestDevice) -> None:
    device.canary.bad = {3}
    result = install(device, export(world, 3))
    assert (result.outcome, result.active) == (Outcome.CANARY_FAILED, 2)
    device.canary.bad = set()
    refused(device, export(world, 3), Outcome.DENIED_AFTER_ROLLBACK)
    world.plan(candidate=4)
    device.canary.bad = {4}
    assert device.check().outcome is Outcome.CANARY_FAILED
    refused(device, export(world, 4), Outcome.DENIED_AFTER_ROLLBACK)
    assert device.check().outcome is Outcome.DENIED_AFTER_ROLLBACK


def test_a_model_that_the_plan_switched_off_stays_off(world: World, device: TestDevice) -> None:
    world.plan(PLAN, state=State.DISABLED)
    assert device.check().outcome is Outcome.DISABLED
    result = install(device, export(world, 3))
    assert (result.outcome, result.active) == (Outcome.INSTALLED, None)


# What is signed, and by whom


def test_one_signature_of_two_installs_nothing(world: World, device: TestDevice) -> None:
    world.repository.signers["releases-tiny"] = world.repository.signers["releases-tiny"][:1]
    world.repository.add_release(RELEASES[5])
    world.repository.publish()
    refused(device, export(world, 5), Outcome.METADATA_REJECTED)


def test_an_unsigned_bundle_is_refused(world: World, device: TestDevice, tmp_path: Path) -> None:
    path = tiny.release(3, seed=3, golden_count=1).factory(tmp_path).path
    refused(device, Path(path), Outcome.METADATA_REJECTED, "not signed")


def test_metadata_of_another_release_signs_nothing(world: World, device: TestDevice, tmp_path: Path) -> None:
    """The tuf/ of a true bundle in front of a release that nobody signed."""
    true = export(world, 3)
    tuf = {f"tuf/{name}": data for name, data in open_bundle(true).tuf.items()}
    evil = {f"models/tiny/5/{name}": data for name, data in RELEASES[5].files.items()}
    evil["models/tiny/5/manifest.json"] = write_manifest(RELEASES[5].manifest)
    evil["models/tiny/5/release.json"] = write_release(ReleaseDocument(model="tiny", release=5, ceiling=()))
    path = tmp_path / "evil.bundle"
    write_bundle(path, {**tuf, **evil})
    refused(device, path, Outcome.VERIFICATION_FAILED, "nobody signed models/tiny/5/")


def test_a_swapped_artifact_is_refused(world: World, device: TestDevice, tmp_path: Path) -> None:
    """Another artifact with a manifest that fits it, under the path of a signed release."""
    other = tiny.release(3, seed=77, golden_count=1, tflite_data=tiny.tflite_bytes())
    swapped: dict[str, bytes | None] = {f"models/tiny/3/{name}": data for name, data in other.files.items()}
    swapped["models/tiny/3/manifest.json"] = write_manifest(other.manifest)
    refused(device, export(world, 3, changes=swapped), Outcome.VERIFICATION_FAILED, "is not the file that was signed")


@pytest.mark.parametrize("at", [0.2, 0.5, 0.8])
def test_a_changed_byte_is_refused(world: World, device: TestDevice, at: float) -> None:
    path = export(world, 3)
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 1
    path.write_bytes(data)
    refused(device, path, Outcome.VERIFICATION_FAILED)


def test_a_release_document_that_was_left_out_is_refused(world: World, device: TestDevice) -> None:
    bundle = export(world, 3, changes={"models/tiny/3/release.json": None})
    refused(device, bundle, Outcome.VERIFICATION_FAILED, "no release.json")


@pytest.mark.parametrize("name", ["timestamp.json", "snapshot.json", "targets.json", "releases-tiny.json"])
def test_metadata_that_was_left_out_is_missed(world: World, name: str) -> None:
    fresh = world.device()
    [missing] = [found for found in open_bundle(export(world, 2)).tuf if found.endswith(name)]
    bundle = export(world, 2, changes={f"tuf/{missing}": None})
    refused(fresh, bundle, Outcome.METADATA_REJECTED, missing, running=1)


def test_extra_metadata_changes_nothing(world: World, device: TestDevice) -> None:
    world.repository.delegate("releases-evil", world.repository.signers["timestamp"], 1, ["models/*/*/*"])
    extra: dict[str, bytes | None] = {
        "tuf/7.releases-evil.json": world.repository.sign("timestamp", world.repository.roles["releases-evil"]),
        "tuf/rollouts-tiny.json": b"{}",
    }
    assert install(device, export(world, 3, changes=extra)).outcome is Outcome.INSTALLED
    assert not list((device.folder / "metadata").glob("*evil*"))


def test_another_models_bundle_is_refused(world: World, device: TestDevice) -> None:
    world.repository.add_model("other")
    world.repository.add_release(tiny.release(3, model="other", golden_count=1))
    world.repository.publish()
    refused(device, export(world, 3, model="other"), Outcome.VERIFICATION_FAILED, "holds other, this device runs tiny")


def test_a_bundle_of_another_root_is_refused(world: World, device: TestDevice, tmp_path: Path) -> None:
    honest = world.repository
    world.repository = TufRepository(tmp_path / "elsewhere", NOW)
    for number in (2, 3):
        world.repository.add_release(RELEASES[number])
    world.repository.publish()
    bundle = export(world, 3)
    world.repository = honest
    refused(device, bundle, Outcome.METADATA_REJECTED)
    assert install(device, export(world, 3)).outcome is Outcome.INSTALLED, "and the true one still is not"


def test_a_root_that_rotated_is_followed(world: World, device: TestDevice) -> None:
    for _ in range(2):
        world.repository.root.version += 1
        world.repository.publish_root()
    world.repository.publish()
    assert install(device, export(world, 3)).outcome is Outcome.INSTALLED
    assert trusted(device)["root.json"] == 3
    device.commit()
    gap = export(world, 4, changes={"tuf/2.root.json": None})
    assert install(device, gap).outcome is Outcome.INSTALLED, "the device has that root"


def test_a_second_instance_on_the_same_folder_is_kept_out(device: TestDevice) -> None:
    with pytest.raises(StoreLocked):
        Store(device.folder)


def test_a_file_that_is_no_bundle_is_refused_by_name(device: TestDevice, tmp_path: Path) -> None:
    refused(device, tmp_path / "none.bundle", Outcome.VERIFICATION_FAILED, "none.bundle")
