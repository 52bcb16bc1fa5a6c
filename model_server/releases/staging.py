"""Staging: a bundle from a stranger becomes checked files in the blob store and a proposal to sign."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edge_runtime.bundle import (
    RELEASE_FILE,
    ArchiveError,
    Bundle,
    BundleError,
    FileRef,
    Manifest,
    ReleaseDocument,
    open_bundle,
    write_release,
)
from model_server.releases.blobs import Blobs
from model_server.releases.delta.offering import DeltaLimits, Older, offer_deltas
from model_server.releases.watch import UNWATCHED, Watch

__all__ = ["StagedFiles", "open_upload", "stage_files"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedFiles:
    """A bundle's files, in the blob store, with what staging adds: ``release.json`` and deltas."""

    manifest: Manifest
    bundle_sha256: str
    files: Mapping[str, FileRef]


def open_upload(path: Path) -> Bundle:
    """Check a bundle whole. Raises an error of `edge_runtime.bundle` for one that must not be used."""
    bundle = _open(path)
    if bundle.release_document is not None or bundle.tuf:
        raise ArchiveError(
            "this bundle was exported by a server: stage the one that came from edgeship-convert, whose "
            f"{RELEASE_FILE} is made here"
        )
    if bundle.policy is not None:
        raise ArchiveError("this bundle holds a policy.json, which is signed by itself and never with a release")
    return bundle


def stage_files(
    bundle: Bundle,
    blobs: Blobs,
    ceiling: tuple[tuple[int, int], ...],
    audit_head: str | None,
    older: Sequence[Older],
    deltas: DeltaLimits,
    watch: Watch = UNWATCHED,
) -> StagedFiles:
    """Keep the files of a bundle, and add ``release.json`` and deltas from ``older`` releases of its model.

    Raises DigestMismatch if the bundle changed since it was checked.
    """
    manifest = bundle.manifest
    files = dict(bundle.files)
    for name, ref in files.items():
        watch.check()
        blobs.add(ref.sha256, partial(bundle.copy, name))
    before = [each for each in older if each.release < manifest.release]
    offered = offer_deltas(manifest, before, blobs, deltas, watch)
    files |= {delta.file: FileRef(file=delta.file, bytes=delta.bytes, sha256=delta.sha256) for delta in offered}
    document = write_release(
        ReleaseDocument(
            model=manifest.model, release=manifest.release, ceiling=ceiling, deltas=offered, audit_head=audit_head
        )
    )
    files[RELEASE_FILE] = FileRef(file=RELEASE_FILE, bytes=len(document), sha256=hashlib.sha256(document).hexdigest())
    blobs.put(document)
    return StagedFiles(manifest=manifest, bundle_sha256=bundle.sha256, files=files)


def _open(path: Path) -> Bundle:
    """Where the server keeps an upload means nothing to who sent it."""
    try:
        return open_bundle(path)
    except BundleError as error:
        error.args = (str(error).replace(str(path), "the bundle"),)
        raise
