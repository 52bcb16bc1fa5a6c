"""A release out of a bundle that somebody brought: verified from the pinned root, without a network.

    open the bundle ──► TUF's workflow over its tuf/ ──► every file is a signed one ──► floor and revocations
                                                                                              │
                        activate as trying ◄── canary ◄── stage ◄── the artifact that fits ◄──┘

No plan and no ceiling say who may take it: whoever can put a file on the device is asked for nothing more. The next
online check follows the plan again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from edge_runtime import slots
from edge_runtime.bundle import (
    MANIFEST_FILE,
    RELEASE_FILE,
    Bundle,
    BundleError,
    FileRef,
    UnsupportedFormat,
    open_bundle,
    policy_path,
    target_path,
)
from edge_runtime.clock import Clock
from edge_runtime.device import Device, choose_artifact
from edge_runtime.errors import Outcome, SlotDamaged, StoreError, StoreFull, UpdateError
from edge_runtime.store import Slot, Store
from edge_runtime.update import conditional
from edge_runtime.update.timekeeping import SignedTime
from edge_runtime.update.trying import at_hand, put_on_trial

if TYPE_CHECKING:
    from tuf.api.metadata import TargetFile

__all__ = ["Sideload", "Sideloaded"]

Released = Callable[[str], "TargetFile | None"]  # the signed target of a path

ATTEMPT, ROLLOUT = 0, ""  # no plan brought it


@dataclass(frozen=True, slots=True, kw_only=True)
class Sideloaded:
    """How it ended. ``release`` is the one that the outcome is about, None for a bundle that did not verify: what it
    says of itself must not be held against a release. ``active`` is the one to run now, None for none."""

    outcome: Outcome
    release: int | None
    detail: str
    active: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sideload:
    """What a bundle is installed into, and by what it is trusted: ``root`` is the pinned root metadata. ``engines`` are
    the artifact targets that this device can load, best first; ``try_out`` is the canary."""

    store: Store
    device: Device
    model: str
    root: bytes
    engines: Sequence[str]
    clock: Clock
    try_out: Callable[[Slot], None]

    def install(self, path: str | PathLike[str]) -> Sideloaded:
        """Install the release of a bundle. Failures are outcomes, and never touch what runs; only a revocation or a
        floor that the bundle's own signed policy brings does."""
        release: int | None = None
        before = self.store.slots.active
        try:
            bundle = open_bundle(Path(path))
            self._check_kind(bundle)
            expires = self._verify(bundle)
            release = bundle.manifest.release
            outcome, detail = self._install(bundle, release, expires)
        except UpdateError as error:
            outcome, detail = error.outcome, error.detail
        except UnsupportedFormat as error:
            outcome, detail = Outcome.INCOMPATIBLE, str(error)
        except BundleError as error:  # it may also change while it is read
            outcome, detail = Outcome.VERIFICATION_FAILED, str(error)
        except StoreFull as error:
            outcome, detail = Outcome.DOWNLOAD_NO_SPACE, str(error)
        except StoreError as error:
            outcome, detail = Outcome.STORE_FAILED, str(error)
        state = self.store.slots
        if before is not None and before.release != release and not _allowed(state, before.release):
            detail += f"; release {before.release}, which ran here, is revoked or below the floor"
        active = None if state.active is None or state.disabled else state.active.release
        return Sideloaded(outcome=outcome, release=release, detail=detail, active=active)

    def _check_kind(self, bundle: Bundle) -> None:
        if not bundle.tuf:
            raise UpdateError(
                Outcome.METADATA_REJECTED,
                "the bundle is not signed: export it from the server, or pin its sha256 and give it as the factory "
                "bundle",
            )
        if bundle.manifest.model != self.model:
            raise UpdateError(
                Outcome.VERIFICATION_FAILED, f"the bundle holds {bundle.manifest.model}, this device runs {self.model}"
            )

    def _verify(self, bundle: Bundle) -> datetime:
        """Down to every file. When the first of the roles that must be unexpired expires."""
        from edge_runtime.update.bundle_metadata import BundleClient

        disk = self.store.disk
        folder = self.store.root / "metadata"
        disk.mkdir(folder)
        # The record of the last online check is about an older state once this metadata is trusted.
        conditional.doubt_record(disk, self.store.root / conditional.RECORD_FILE)
        client = BundleClient(
            folder=folder,
            root=self.root,
            model=self.model,
            files=bundle.tuf,
            disk=disk,
            now=max(self.clock.wall(), self._signed_time().newest),
        )
        client.refresh_bundle()
        self._check_signed(bundle, client.released)
        return client.expires

    def _install(self, bundle: Bundle, release: int, expires: datetime) -> tuple[Outcome, str]:
        if bundle.policy is not None:
            tighter = partial(slots.tighten, min_release=bundle.policy.min_release, revoked=bundle.policy.revoked)
            self.store.apply(tighter)
        state = self.store.slots
        if not _allowed(state, release):
            return Outcome.REVOKED, f"release {release} is revoked or below the floor"
        if state.active is not None and state.active.release == release:
            return Outcome.UNCHANGED, f"release {release} runs here already"
        if any(denied.release == release for denied in state.denied):
            return Outcome.DENIED_AFTER_ROLLBACK, f"release {release} failed here before"
        slot = at_hand(self.store, release, bundle.files[MANIFEST_FILE].sha256) or self._stage(bundle)
        self._signed_time().learn(bundle.manifest.created, expires)
        put_on_trial(
            self.store,
            slot,
            self.try_out,
            attempt=ATTEMPT,
            rollout=ROLLOUT,
            keep=True,
            disabled=state.disabled,
        )
        off = "; the plan switches local inference off" if state.disabled else ""
        return Outcome.INSTALLED, f"release {release} is here and on trial{off}"

    def _signed_time(self) -> SignedTime:
        return SignedTime(self.store.disk, self.store.root / "clock.json")

    def _check_signed(self, bundle: Bundle, released: Released) -> None:
        """Every file of the bundle is the one that is signed under its path, and none that matters is left out."""
        manifest = bundle.manifest
        if RELEASE_FILE not in bundle.files:
            raise _unverified(f"it holds no {RELEASE_FILE}")
        for file, ref in bundle.files.items():
            _check_file(target_path(manifest.model, manifest.release, file), ref, released)
        path = policy_path(manifest.model)
        if bundle.policy_file is not None:
            _check_file(path, bundle.policy_file, released)
        elif released(path) is not None:
            raise _unverified(f"it leaves out {path}, which is signed: what it revokes would not be known here")

    def _stage(self, bundle: Bundle) -> Slot:
        artifact = choose_artifact(bundle.manifest, self.device, self.engines)
        names = (artifact.file, artifact.golden.file, RELEASE_FILE)
        try:
            return self.store.install(bundle.read(MANIFEST_FILE), artifact, {name: bundle.read(name) for name in names})
        except SlotDamaged as error:
            raise _unverified(str(error)) from error


def _allowed(state: slots.Slots, release: int) -> bool:
    return release >= state.min_release and release not in state.revoked


def _check_file(path: str, ref: FileRef, released: Released) -> None:
    target = released(path)
    if target is None:
        raise _unverified(f"nobody signed {path}")
    if (target.length, target.hashes.get("sha256")) != (ref.bytes, ref.sha256):
        raise _unverified(f"{path} is not the file that was signed")


def _unverified(text: str) -> UpdateError:
    return UpdateError(Outcome.VERIFICATION_FAILED, f"the bundle was not used: {text}")
