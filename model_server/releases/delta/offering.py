"""Which deltas a release is staged with: from the last releases, for each artifact, where one is worth its download.

Patches are made in a process of their own: one takes a processor for seconds and ten times its files in memory, neither
of which a server that answers devices has to spare.
"""

from __future__ import annotations

import hashlib
import io
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import zstandard

from edge_runtime.bundle import Artifact, Delta, Manifest, delta_file
from model_server.releases.blobs import Blobs

__all__ = ["DeltaLimits", "Older", "offer_deltas"]

Make = Callable[[bytes, bytes], bytes]  # (old, new) → patch

log = logging.getLogger(__name__)

WORTH = 0.7  # of the compressed file; a larger delta saves too little for what can go wrong
LEAST_BYTES = 4096  # of a file; below, a request costs more than its bytes
FULL_LEVEL = 9  # of zstd, for the compressed file: higher ones gain a percent for ten times the time


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaLimits:
    """``releases`` back from the new one; files of at most ``max_bytes``; none begun after ``seconds``."""

    releases: int = 3
    max_bytes: int = 128 << 20
    seconds: float = 240.0


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
    clock: Callable[[], float] = time.monotonic,
    make: Make | None = None,
) -> tuple[Delta, ...]:
    """Make the deltas to ``manifest`` from ``older``, newest first, and keep them in ``blobs``, where the files are.

    One that could not be made, or does not make its file here, is left out and logged: devices download the whole file
    then, as they would from any older release. ``make`` is called in the other process (default: `make_delta`).
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
    began, found, full = clock(), list[Delta](), dict[str, int]()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        for artifact, release, before in pairs:
            if clock() - began >= limits.seconds:
                break
            try:
                with blobs.local(before.sha256) as old, blobs.local(artifact.sha256) as new:
                    patch, whole = process.submit(_make, old, new, full.get(artifact.file), make).result()
            except (BrokenProcessPool, MemoryError) as error:
                # The machine has no room for this; the release is as good without.
                log.warning("no deltas to %s %d: %r", manifest.model, manifest.release, error)
                break
            except Exception:
                # Whatever the codecs raise over these two files, the release does not depend on it.
                log.exception("no delta of %s from release %d", artifact.file, release.release)
                continue
            full[artifact.file] = whole
            if len(patch) < WORTH * whole:
                found.append(_kept(patch, artifact, release.release, blobs))
    return tuple(found)


def _same(artifact: Artifact, manifest: Manifest) -> Artifact | None:
    """The older release's artifact for the same engine and precision."""
    return next(
        (each for each in manifest.artifacts if (each.target, each.precision) == (artifact.target, artifact.precision)),
        None,
    )


def _make(old: Path, new: Path, known: int | None, make: Make | None) -> tuple[bytes, int]:
    """In the other process: the patch, and the bytes of the compressed new file."""
    from model_server.releases.delta.making import make_delta

    before, after = old.read_bytes(), new.read_bytes()
    whole = known or len(zstandard.ZstdCompressor(level=FULL_LEVEL).compress(after))
    patch = (make or make_delta)(before, after)
    _try(before, after, patch)
    return patch, whole


def _try(before: bytes, after: bytes, patch: bytes) -> None:
    """Apply it as a device would. Raises where it does not make the file: a fleet must not be who finds out."""
    from edge_runtime.update.delta import DeltaDamaged, apply

    made = hashlib.sha256()
    apply(
        io.BytesIO(before),
        io.BytesIO(patch),
        old_sha256=hashlib.sha256(before).hexdigest(),
        old_length=len(before),
        new_length=len(after),
        write=made.update,
    )
    if made.digest() != hashlib.sha256(after).digest():
        raise DeltaDamaged("it makes other bytes than the file")


def _kept(patch: bytes, artifact: Artifact, release: int, blobs: Blobs) -> Delta:
    blobs.put(patch)
    return Delta(
        artifact=artifact.file,
        from_release=release,
        file=delta_file(artifact.file, release),
        bytes=len(patch),
        sha256=hashlib.sha256(patch).hexdigest(),
    )
