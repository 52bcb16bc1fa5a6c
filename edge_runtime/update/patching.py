"""An artifact by its delta: a small download and the release that is here, instead of the whole file.

Whatever is wrong with a delta, the whole file is downloaded: a delta saves bytes, and decides nothing.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tuf.api.exceptions import LengthOrHashMismatchError

from edge_runtime.disk import Disk
from edge_runtime.errors import StoreFull
from edge_runtime.update.download import RESERVE_BYTES, discard

if TYPE_CHECKING:
    from tuf.api.metadata import TargetFile

    from edge_runtime.bundle import Artifact, Delta
    from edge_runtime.store import Slot

__all__ = ["PatchFailed", "choose", "patch"]


class PatchFailed(Exception):
    """The delta did not make the file that is signed; the text says why."""


def choose(deltas: Sequence[Delta], artifact: Artifact, here: Sequence[Slot]) -> tuple[Delta, Slot] | None:
    """The smallest delta that makes ``artifact`` out of a slot that is here; None where there is none, or zstandard is
    not installed."""
    if importlib.util.find_spec("zstandard") is None:
        return None
    slots = {slot.release: slot for slot in here if slot.artifact.target == artifact.target}
    usable = [delta for delta in deltas if delta.artifact == artifact.file and delta.from_release in slots]
    if not usable:
        return None
    delta = min(usable, key=lambda each: each.bytes)
    return delta, slots[delta.from_release]


def patch(slot: Slot, delta: Path, target: TargetFile, part: Path, disk: Disk) -> None:
    """Make the file ``part`` the bytes of ``target`` out of the artifact in ``slot``, verified as a download is.

    Raises `PatchFailed`, with nothing left behind; `StoreFull` before anything is written if there is no room, and
    `StoreError`.
    """
    from edge_runtime.update.delta import DeltaDamaged, apply

    free = disk.free_bytes(part.parent)
    if free < target.length + RESERVE_BYTES:
        raise StoreFull(f"{part.parent} has {free} bytes free; {target.path} needs {target.length}")
    discard(part, disk)
    artifact = slot.artifact
    try:
        with disk.open(slot.path / artifact.file) as old, disk.open(delta) as patch_file:
            apply(
                old,
                patch_file,
                old_sha256=artifact.sha256,
                old_length=artifact.bytes,
                new_length=target.length,
                write=lambda data: disk.append(part, data),
            )
        with disk.open(part) as made:
            target.verify_length_and_hashes(made)
    except (DeltaDamaged, LengthOrHashMismatchError, FileNotFoundError, MemoryError) as error:
        discard(part, disk)
        raise PatchFailed(str(error)) from error
    except BaseException:
        with contextlib.suppress(Exception):
            discard(part, disk)
        raise
