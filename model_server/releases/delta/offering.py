"""Which deltas a release is staged with: from the last releases, for each artifact, where one is worth its download."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from edge_runtime.bundle import Artifact, Delta, Manifest, delta_file
from model_server.errors import RepositoryDamaged
from model_server.releases.blobs import Blobs
from model_server.releases.delta.process import Make, MakerDied, PatchFailed, PatchMaker
from model_server.releases.watch import UNWATCHED, Watch

__all__ = ["DeltaLimits", "Older", "offer_deltas"]

log = logging.getLogger(__name__)

WORTH = 0.7  # of the compressed file; a larger delta saves too little for what can go wrong
LEAST_BYTES = 4096  # of a file; below, a request costs more than its bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaLimits:
    """``releases`` back from the new one; files of at most ``max_bytes``; each made within ``seconds``."""

    releases: int = 3
    max_bytes: int = 128 << 20
    seconds: float = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Older:
    """A published release that devices may come from."""

    release: int
    manifest: Manifest


def offer_deltas(
    manifest: Manifest,
    older: Sequence[Older],
    blobs: Blobs,
    limits: DeltaLimits,
    watch: Watch = UNWATCHED,
    make: Make | None = None,
) -> tuple[Delta, ...]:
    """Make the deltas to ``manifest`` from ``older``, newest first, and keep them in ``blobs``, where the files are.

    One that could not be made, or does not make its file here, is left out and logged: devices download the whole file
    then, as they would from any older release. ``make`` is `PatchMaker`'s.
    """
    pairs = [
        (artifact, release, before)
        for release in sorted(older, key=lambda each: -each.release)[: limits.releases]
        for artifact in manifest.artifacts
        if (before := _same(artifact, release.manifest)) is not None
        and before.sha256 != artifact.sha256
        and artifact.bytes >= LEAST_BYTES
        and max(before.bytes, artifact.bytes) <= limits.max_bytes
    ]
    if not pairs:
        return ()
    found, full = list[Delta](), dict[str, int]()
    with PatchMaker(make) as maker:
        for number, (artifact, release, before) in enumerate(pairs, 1):
            watch.at("delta", number, len(pairs))
            try:
                with blobs.local(before.sha256) as old, blobs.local(artifact.sha256) as new:
                    patch = maker.patch(old, new, full.get(artifact.file), limit_s=limits.seconds, check=watch.check)
            except MakerDied as error:
                # The machine has no room for this; the release is as good without.
                log.warning("no deltas to %s %d: %s", manifest.model, manifest.release, error)
                break
            except (PatchFailed, RepositoryDamaged) as error:
                log.warning("no delta of %s from release %d: %s", artifact.file, release.release, error)
                continue
            full[artifact.file] = patch.whole
            if len(patch.data) < WORTH * patch.whole:
                found.append(_kept(patch.data, artifact, release.release, blobs))
    return tuple(found)


def _same(artifact: Artifact, manifest: Manifest) -> Artifact | None:
    """The older release's artifact for the same engine and precision."""
    return next(
        (each for each in manifest.artifacts if (each.target, each.precision) == (artifact.target, artifact.precision)),
        None,
    )


def _kept(patch: bytes, artifact: Artifact, release: int, blobs: Blobs) -> Delta:
    blobs.put(patch)
    return Delta(
        artifact=artifact.file,
        from_release=release,
        file=delta_file(artifact.file, release),
        bytes=len(patch),
        sha256=hashlib.sha256(patch).hexdigest(),
    )
