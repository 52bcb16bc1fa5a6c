"""From a verified slot to the release that runs on trial, however its files came here."""

from __future__ import annotations

from collections.abc import Callable

from edge_runtime import slots
from edge_runtime.errors import Outcome, SlotDamaged, UpdateError
from edge_runtime.store import Slot, Store

__all__ = ["at_hand", "put_on_trial"]


def at_hand(store: Store, release: int, manifest_sha256: str | None) -> Slot | None:
    """The slot of a release that is on disk already, staged, whole and the one that is signed now; else None. Raises
    `StoreError`."""
    state = store.slots
    found = next((s for s in (state.staged, state.previous) if s is not None and s.release == release), None)
    if found is None:
        return None
    try:
        if found.manifest_sha256 != manifest_sha256:
            raise SlotDamaged(f"release {release} on disk is not the one that is signed")
        slot = store.slot(release)
        slot.read_artifact()
        slot.read_golden()
    except SlotDamaged:
        store.forget(release)  # and get it again
        return None
    store.apply(lambda state: slots.stage(state, found))
    return slot


def put_on_trial(
    store: Store, slot: Slot, try_out: Callable[[Slot], None], *, attempt: int, rollout: str, keep: bool, disabled: bool
) -> None:
    """Let the canary try a staged slot, then make it active, on trial. One that fails is denied for this attempt.

    ``keep`` and the rest as in `slots.activate`; ``disabled`` as in `slots.disable`. Raises `UpdateError` and
    `StoreError`.
    """
    try:
        try_out(slot)
    except UpdateError as error:
        if error.outcome is Outcome.CANARY_FAILED:
            store.apply(lambda state: slots.deny(slots.without(state, {slot.release}), slot.release, attempt, rollout))
        raise
    store.apply(
        lambda state: slots.disable(slots.activate(state, attempt=attempt, rollout=rollout, keep=keep), disabled)
    )
