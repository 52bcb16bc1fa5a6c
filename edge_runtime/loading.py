"""From the state folder to a session: install the factory model, load the active release, go back when it is broken."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edge_runtime import slots
from edge_runtime.bundle import MANIFEST_FILE, RELEASE_FILE, BundleError, DigestMismatch, open_bundle
from edge_runtime.device import Device, choose_artifact
from edge_runtime.errors import ConfigurationError, EngineError, Outcome, SlotDamaged
from edge_runtime.session import Session

if TYPE_CHECKING:
    from edge_runtime.bundle import Manifest
    from edge_runtime.factory import Factory
    from edge_runtime.store import Slot, Store

__all__ = ["Note", "install_factory", "load_active"]

Note = Callable[[Outcome, int | None, str], None]  # outcome, the release that it is about, words for people


def install_factory(factory: Factory, store: Store, device: Device, model: str, engines: Sequence[str]) -> bool:
    """Install the factory bundle's fitting artifact as the active release.

    False where its release is below the floor or revoked. Raises `BundleError` (`DigestMismatch` where it is not the
    pinned file), `UpdateError` where no artifact fits, `ConfigurationError` where it holds another model, `StoreError`.
    """
    bundle = open_bundle(factory.path)
    if bundle.sha256 != factory.sha256:
        raise DigestMismatch(
            f"{factory.path} has sha256 {bundle.sha256}, the app pins {factory.sha256}: ship the bundle that was pinned"
        )
    manifest = bundle.manifest
    _check_model(manifest, model)
    if manifest.release < store.slots.min_release or manifest.release in store.slots.revoked:
        return False
    artifact = choose_artifact(manifest, device, engines)
    files = [artifact.file, artifact.golden.file, *([RELEASE_FILE] if RELEASE_FILE in bundle.files else [])]
    store.install(bundle.read(MANIFEST_FILE), artifact, {name: bundle.read(name) for name in files})
    store.apply(slots.adopt)
    return True


def load_active(
    store: Store, model: str, note: Note, *, threads: int, interpreters: int
) -> tuple[Slot, Session | None] | None:
    """The active release in its engine, or without a session where the plan switched local inference off.

    Marks a trial as started before its first use. A release that crash-looped, is damaged or does not load gives way
    to the last good one, and ``note`` hears of it. None where nothing is left. Raises `StoreError`, and
    `ConfigurationError` where the folder belongs to another model.
    """
    before = store.slots.active
    if before is not None and store.slots.trial is not None:
        with contextlib.suppress(SlotDamaged):  # the loop below sees to it
            # Before the start is counted: the wrong name in a command is no crash of the release.
            _check_model(store.slot(before.release).manifest, model)
    after = store.start().active
    if before is not None and after != before:
        note(Outcome.ROLLED_BACK, before.release, "every start ended uncleanly before a first good prediction")
    while (active := store.slots.active) is not None:
        try:
            slot = store.slot(active.release)
            _check_model(slot.manifest, model)
            if store.slots.disabled:
                return slot, None
            data = slot.read_artifact()
            return slot, Session.load(slot.manifest, slot.artifact, data, threads=threads, interpreters=interpreters)
        except SlotDamaged as error:
            note(Outcome.ROLLED_BACK, active.release, str(error))
            store.forget(active.release)
        except (EngineError, BundleError) as error:
            note(Outcome.ROLLED_BACK, active.release, str(error))
            store.roll_back()
    return None


def _check_model(manifest: Manifest, model: str) -> None:
    if manifest.model != model:
        raise ConfigurationError(f"release {manifest.release} is of model {manifest.model}, not of {model}")
